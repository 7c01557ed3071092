"""pyaction.models.for_inference, compiled in earnest."""

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from pyaction import models


@pytest.fixture(scope="module")
def network() -> models.TSN:
    """With statistics and scales that are not those of the start."""
    torch.manual_seed(3)
    network = models.TSN(models.ResNet(classes=None, depth=18), classes=5)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return network


def test_same_scores_faster(network: models.TSN) -> None:
    """In training mode the network is left as it is. What is changed in it later does not matter."""
    clips = torch.randn(2, 3, 3, 64, 64)
    network.train()
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    counters.clear()
    fast = models.for_inference(network)
    scores = fast(clips)
    # All 20 convolutions have their weights packed: constants, with batch normalisation folded in.
    assert counters["inductor"]["mkldnn_conv_weight_pack_matcher_count"] == 20
    assert not scores.requires_grad
    assert network.training and network.dropout.training
    assert trained == {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    with torch.no_grad():
        expected = network.eval()(clips)
        torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-6)
        network.fc.weight.zero_()
    assert torch.equal(fast(clips), scores)


def test_half_precision() -> None:
    """Under autocast, and without it again."""
    network = models.TinyMotionNet(frames=3).eval()
    fast = models.for_inference(network)
    clip = torch.rand(1, 3, 3, 32, 48)
    with torch.no_grad():
        expected = network(clip)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = fast(clip)
    for value, exact, other in zip(rounded, expected, fast(clip), strict=True):
        torch.testing.assert_close(other, exact, rtol=1e-4, atol=1e-5)
        difference = (value - exact).abs().max() / exact.abs().max()
        assert 1e-4 < difference < 0.05


def test_wrong_inputs_cost_nothing() -> None:
    """The network's own sentence; what is compiled stays, and new shapes are compiled as before."""
    fuse = models.for_inference(models.FuseNet(classes=6))
    counters.clear()
    for batch in (3, 3, 4):
        fuse(spatial=torch.rand(batch, 6), temporal=torch.rand(batch, 6))
        with pytest.raises(ValueError, match=r"^models\.FuseNet: spatial must be \[N, 6\]; got shape \[2, 7\]$"):
            fuse(torch.rand(2, 7), torch.rand(2, 7))
    assert counters["stats"]["unique_graphs"] == 2


def test_many_networks_of_a_class() -> None:
    """More than torch.compile would compile by itself; and none for sizes that vary."""
    counters.clear()
    for count in range(2, 12):
        network = nn.Linear(count, 3)
        vectors = torch.rand(4, count)
        torch.testing.assert_close(models.for_inference(network)(vectors), network(vectors).detach())
    assert counters["stats"]["unique_graphs"] == 10
