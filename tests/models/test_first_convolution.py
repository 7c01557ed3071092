import pytest
import torch
from torch import nn

from pyaction import models
from pyaction.models.first_convolution import first_convolution


@pytest.mark.parametrize("extent", [(2, 3), (2, 3, 4)])
def test_average_over_channels(extent: tuple[int, ...]) -> None:
    weight = torch.randn(5, 3, *extent)
    averaged = models.average_over_channels(weight, 4)
    assert averaged.shape == (5, 4, *extent)
    for channel in range(4):
        torch.testing.assert_close(averaged[:, channel], (weight[:, 0] + weight[:, 1] + weight[:, 2]) / 3)
    averaged[:, 0] = 0
    assert averaged[:, 1].abs().max() > 0  # each channel has memory of its own


@torch.no_grad()
def test_adapt() -> None:
    """The same scores for the sum of the channels, however they share it; bias and all other weights stay."""
    network = models.BNInception(classes=5).eval()
    network.conv1_7x7_s2.bias.normal_()
    grey = torch.randn(2, 1, 64, 64)
    before = network(grey.expand(-1, 3, -1, -1))
    bias, other = network.conv1_7x7_s2.bias.clone(), network.conv2_3x3.weight
    models.adapt_first_convolution(network, 6)
    assert network.in_channels == network.conv1_7x7_s2.in_channels == 6
    assert torch.equal(network.conv1_7x7_s2.bias, bias) and network.conv2_3x3.weight is other
    assert network.conv1_7x7_s2.weight.requires_grad
    shares = torch.randn(6)
    shares *= 3 / shares.sum()
    torch.testing.assert_close(network(grey * shares.view(1, 6, 1, 1)), before, rtol=1e-3, atol=1e-5)


@torch.no_grad()
def test_adapt_untrained() -> None:
    network = models.BNInception(classes=None)
    models.adapt_first_convolution(network, 10, pretrained=False)
    weight = network.conv1_7x7_s2.weight
    assert weight.shape == (64, 10, 7, 7)
    assert weight.std().item() == pytest.approx((2 / (64 * 49)) ** 0.5, rel=0.05)
    assert (weight[:, 0] - weight[:, 1]).std() > 0.01


@pytest.mark.parametrize("make", [models.TSN, models.TRN])
def test_adapt_segment_networks(make: type[models.TSN] | type[models.TRN]) -> None:
    with torch.device("meta"):
        network = make(models.ResNet(classes=None, depth=18), classes=5, segments=3).eval()
        models.adapt_first_convolution(network, 10)
        assert network(torch.zeros(2, 3, 10, 32, 32)).shape == (2, 5)
    assert network.in_channels == network.backbone.in_channels == network.backbone.conv1.in_channels == 10


@torch.no_grad()
def test_adapt_i3d() -> None:
    network = models.I3D(classes=5).eval()
    grey = torch.randn(1, 8, 1, 32, 32)
    before = network(grey.expand(-1, -1, 3, -1, -1))
    models.adapt_first_convolution(network, 2)
    assert network.in_channels == 2
    shares = torch.tensor([1.25, 1.75]).view(2, 1, 1)
    torch.testing.assert_close(network(grey * shares), before, rtol=1e-3, atol=1e-5)


def test_first_convolution() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.Conv3d(2, 3, 1), nn.Conv2d(3, 4, 1)))
    assert first_convolution(network) is network[1][0]


def test_rejects() -> None:
    with pytest.raises(ValueError, match=r"^models.average_over_channels: in_channels must be at least 1; got 0$"):
        models.average_over_channels(torch.rand(2, 3, 1, 1), 0)
    with pytest.raises(ValueError, match=r"^models.first_convolution: Linear has no 2-D or 3-D convolution$"):
        first_convolution(nn.Linear(2, 3))
    network = nn.Sequential(nn.Conv2d(3, 4, 1))
    kernel = network[0].weight
    message = r"^models.adapt_first_convolution: network must be a Backbone, TSN, TRN or I3D; got Sequential$"
    with pytest.raises(TypeError, match=message):
        models.adapt_first_convolution(network, 2)  # type: ignore[arg-type]
    assert network[0].weight is kernel
