"""VGG-16 and ResNet are those of torchvision, with its names, and its weights where one asks for them."""

import urllib.error
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor

from pyaction import models


def parameter_count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("channels", "classes"), [(3, 101), (20, 51)])
def test_vgg_parameter_count(channels: int, classes: int) -> None:
    widths = [channels, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    convolutions = sum((9 * before + 1) * after for before, after in zip(widths, widths[1:], strict=False))
    connected = (512 * 7 * 7 + 1) * 4096 + (4096 + 1) * 4096 + (4096 + 1) * classes
    with torch.device("meta"):
        network = models.VGG16(classes=classes, in_channels=channels)
    assert parameter_count(network) == convolutions + connected


@pytest.mark.parametrize(("channels", "classes", "hidden"), [(3, 51, 512), (10, 101, 300)])
def test_resnet_parameter_count(channels: int, classes: int, hidden: int) -> None:
    """ResNet-50: blocks of 1x1, 3x3, 1x1; each convolution without bias, but two weights per filter to normalise."""
    convolutions, before = [(channels, 64, 7)], 64  # channels, filters, size
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        convolutions.append((before, 4 * width, 1))  # the shortcut
        for _ in range(blocks):
            convolutions += [(before, width, 1), (width, width, 3), (width, 4 * width, 1)]
            before = 4 * width
    count = sum((before * size**2 + 2) * filters for before, filters, size in convolutions)
    count += (2048 + 1) * hidden + (hidden + 1) * classes
    with torch.device("meta"):
        network = models.ResNet(classes=classes, hidden=hidden, in_channels=channels)
    assert parameter_count(network) == count


def pretend_download(monkeypatch: pytest.MonkeyPatch, answer: dict[str, Tensor] | Exception) -> list[str]:
    asked = []

    def download(url: str, *_: Any, **__: Any) -> dict[str, Tensor]:
        asked.append(url)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    return asked


@torch.no_grad()
def test_vgg_is_torchvision_s() -> None:
    network = models.VGG16(classes=5).eval()
    with torch.device("meta"):
        peer = torchvision.models.vgg16(num_classes=5).eval()
    peer.load_state_dict(network.state_dict(), assign=True)
    images = torch.randn(2, 3, 64, 32)
    torch.testing.assert_close(network(images), peer(images), rtol=1e-5, atol=1e-6)
    assert [network.classifier[place].p for place in (2, 5)] == [0.9, 0.8]
    assert network.classifier[6].weight.std().item() == pytest.approx(0.001, rel=0.1)
    with torch.device("meta"):
        trunk = models.VGG16(classes=None, dropout=(0.3, 0.6))
    assert len(trunk.classifier) == 5 and trunk.classifier[2].p == 0.3


@torch.no_grad()
@pytest.mark.parametrize("depth", [18, 50])
def test_resnet_is_torchvision_s(monkeypatch: pytest.MonkeyPatch, depth: int) -> None:
    peer = torchvision.models.get_model(f"resnet{depth}").eval()
    for name, value in peer.state_dict().items():
        if "running" in name:
            value.copy_(torch.rand_like(value) + 0.5)
    asked = pretend_download(monkeypatch, peer.state_dict())
    network = models.ResNet(classes=5, hidden=7, depth=depth, weights="IMAGENET1K_V1").eval()
    assert len(asked) == 1 and f"resnet{depth}" in asked[0]
    images = torch.randn(2, 3, 64, 96)
    peer.fc = torch.nn.Identity()
    vector = peer(images)
    torch.testing.assert_close(network.feature_vector(images), vector, rtol=1e-4, atol=1e-5)
    scores = network.fc2(network.fc1(vector).clamp(min=0))
    torch.testing.assert_close(network(images), scores, rtol=1e-4, atol=1e-5)
    assert network.dropout.p == 0.5


@torch.no_grad()
def test_weights_for_other_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = torchvision.models.resnet18()
    pretend_download(monkeypatch, peer.state_dict())
    network = models.ResNet(classes=None, depth=18, in_channels=4, weights="DEFAULT")
    expected = peer.conv1.weight.mean(1)
    for channel in range(4):
        torch.testing.assert_close(network.conv1.weight[:, channel], expected)
    torch.testing.assert_close(network.layer4[1].conv2.weight, peer.layer4[1].conv2.weight)
    fresh = models.ResNet(classes=None, depth=18, in_channels=4)
    assert (fresh.conv1.weight[:, 0] - fresh.conv1.weight[:, 1]).abs().max() > 0.01
    assert fresh.conv1.weight.std() == pytest.approx((2 / (64 * 49)) ** 0.5, rel=0.1)


def test_weights_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_download(monkeypatch, urllib.error.URLError("no network"))
    message = (
        r"^models\.ResNet: https://.*resnet18.*\.pth could not be downloaded \(<urlopen error no network>\); fetch"
    )
    with pytest.raises(OSError, match=message):
        models.ResNet(depth=18, weights="DEFAULT")
