"""I3D from weights of images: torchvision's GoogLeNet, inflated."""

from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from pyaction import models


def googlenet(*, classes: int = 6, aux_logits: bool = False, transform_input: bool = False) -> nn.Module:
    """With weights that keep the size of values, and statistics and scales unlike those of a new network."""
    torch.manual_seed(31)
    network = torchvision.models.GoogLeNet(
        num_classes=classes, aux_logits=aux_logits, transform_input=transform_input, init_weights=False
    ).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm2d):
                for value in (module.running_var, module.weight):
                    nn.init.uniform_(value, 0.6, 1.4)
                for value in (module.running_mean, module.bias):
                    nn.init.uniform_(value, -0.3, 0.3)
    return network


def assert_inflated(network: models.I3D, peer: dict[str, Tensor]) -> None:
    """Of two channels, from three."""
    first = peer["conv1.conv.weight"].mean(1) / 7
    for channel, step in ((0, 6), (1, 2)):
        torch.testing.assert_close(network.Conv3d_1a_7x7.conv3d.weight[:, channel, step].detach(), first)
    inner = network.Mixed_5b.b2b
    for step in range(3):
        expected = peer["inception5a.branch3.1.conv.weight"] / 3
        torch.testing.assert_close(inner.conv3d.weight[:, :, step].detach(), expected)
    for entry in ("weight", "bias", "running_mean", "running_var"):
        assert torch.equal(getattr(inner.bn, entry), peer[f"inception5a.branch3.1.bn.{entry}"]), entry


def test_download(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = googlenet(classes=1000, aux_logits=True).state_dict()
    asked = []

    def download(url: str, *_: Any, **__: Any) -> dict[str, Tensor]:
        asked.append(url)
        return peer

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    network = models.I3D(classes=1000, in_channels=2, weights="DEFAULT")
    assert len(asked) == 1 and "googlenet" in asked[0]
    assert_inflated(network, peer)
    assert not torch.equal(network.logits.conv3d.weight.flatten(1), peer["fc.weight"])
    assert not network.Mixed_5b.b2b.bn.weight.requires_grad
    rgb = models.I3D(classes=5, weights="IMAGENET1K_V1")
    torch.testing.assert_close(rgb.Conv3d_1a_7x7.conv3d.weight.sum(2).detach(), peer["conv1.conv.weight"])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, "models.inflate: names must be the same in weights and network; bias is not in weights"),
        ({"weight": torch.rand(8, 3, 3, 3), "bias": torch.rand(8), "old": torch.rand(1)},
         "models.inflate: names must be the same in weights and network; old is not in network"),
        ({"weight": torch.rand(8, 3, 2, 3), "bias": torch.rand(8)},
         "models.inflate: weight must fit [8, 3, 5, 3, 3], with or without time; got [8, 3, 2, 3]"),
    ],
)  # fmt: skip
def test_inflate_rejects(weights: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        models.inflate(weights, nn.Conv3d(3, 8, (5, 3, 3)))
    assert str(caught.value) == message
