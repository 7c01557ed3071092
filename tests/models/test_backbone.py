from collections.abc import Callable

import pytest
import torch

from pyaction import models


@pytest.mark.parametrize(
    "make",
    [models.BNInception, models.CNNM2048, models.VGG16, lambda classes: models.ResNet(classes=classes, depth=18)],
)
def test_no_classifier(make: Callable[..., models.Backbone]) -> None:
    with torch.device("meta"):
        network = make(classes=None)
    message = (
        rf"^models\.{type(network).__name__}: there is no classifier; make the network with classes, not classes=None$"
    )
    with pytest.raises(ValueError, match=message):
        network.classify(torch.zeros(2, network.vector_size, device="meta"))
