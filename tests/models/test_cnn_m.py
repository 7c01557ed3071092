"""CNN-M-2048 against plain functions, written from the published table of its layers."""

from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pyaction import models


def parameter_count(channels: int, classes: int) -> int:
    convolutions = [(channels, 96, 7), (96, 256, 5), (256, 512, 3), (512, 512, 3), (512, 512, 3)]
    connected = [(512 * 6 * 6, 4096), (4096, 2048), (2048, classes)]
    return sum((before * size**2 + 1) * after for before, after, size in convolutions) + sum(
        (before + 1) * after for before, after in connected
    )


@pytest.mark.parametrize(
    ("stream", "channels", "classes", "count"),
    [("spatial", 3, 101, 90_627_813), ("temporal", 20, 101, 90_707_781), ("temporal", 2, 51, None)],
)
def test_parameter_count(stream: Literal["spatial", "temporal"], channels: int, classes: int, count: int) -> None:
    with torch.device("meta"):
        network = models.CNNM2048(classes=classes, stream=stream, in_channels=None if count else channels)
    assert network.in_channels == channels
    actual = sum(parameter.numel() for parameter in network.parameters())
    assert actual == parameter_count(channels, classes)
    assert count is None or actual == count


def normalised(x: Tensor) -> Tensor:
    """Each pixel over what the two channels before, itself and the two after hold."""
    squares = F.pad(x**2, (0, 0, 0, 0, 2, 2))
    near = sum(squares[:, shift : shift + x.shape[1]] for shift in range(5))
    return x / (2 + 5e-4 / 5 * near) ** 0.75


def pooled(x: Tensor) -> Tensor:
    """3 x 3, stride 2; a last window may hang over the edge."""
    over = [1 - size % 2 for size in x.shape[2:]]
    x = F.pad(x, (0, over[1], 0, over[0]), value=-torch.inf)
    return x.unfold(2, 3, 2).unfold(3, 3, 2).amax((4, 5))


def reference(weights: dict[str, Tensor], x: Tensor, second_normalisation: bool) -> Tensor:
    def layer(number: int, x: Tensor, stride: int = 1, padding: int = 1) -> Tensor:
        return F.conv2d(x, weights[f"conv{number}.weight"], weights[f"conv{number}.bias"], stride, padding).clamp(min=0)

    x = pooled(normalised(layer(1, x, 2, 0)))
    assert x.shape[2:] == (54, 54)
    x = layer(2, x, 2)
    x = pooled(normalised(x) if second_normalisation else x)
    assert x.shape[2:] == (13, 13)
    return pooled(layer(5, layer(4, layer(3, x))))


@torch.no_grad()
@pytest.mark.parametrize("stream", ["spatial", "temporal"])
def test_matches_reference(stream: Literal["spatial", "temporal"]) -> None:
    network = models.CNNM2048(classes=(7, 5), stream=stream, in_channels=4).eval()
    weights = network.state_dict()
    for name, value in weights.items():
        if name.endswith("bias"):
            value.copy_(torch.randn_like(value) / 4)
    images = torch.randn(1, 4, 224, 224) * 20  # so large that the normalisation is felt
    feature_map = reference(weights, images, stream == "spatial")
    assert feature_map.shape == (1, 512, 6, 6)
    wrong = reference(weights, images, stream != "spatial")
    assert (feature_map - wrong).abs().max() > 0.1 * feature_map.abs().max()
    torch.testing.assert_close(network.feature_map(images), feature_map, rtol=1e-4, atol=1e-4)

    x = feature_map.flatten(1)
    for name in ("fc6", "fc7"):
        x = (x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]).clamp(min=0)
    scores = network(images)
    assert [tuple(part.shape) for part in scores] == [(1, 7), (1, 5)]
    for place, part in enumerate(scores):
        expected = x @ weights[f"fc8.{place}.weight"].T + weights[f"fc8.{place}.bias"]
        torch.testing.assert_close(part, expected, rtol=1e-3, atol=1e-3)


def test_dropout() -> None:
    with torch.device("meta"):
        network = models.CNNM2048(dropout=(0.3, 0.6))
        default = models.CNNM2048()
    assert (network.dropout6.p, network.dropout7.p) == (0.3, 0.6)
    assert (default.dropout6.p, default.dropout7.p) == (0.9, 0.9)
