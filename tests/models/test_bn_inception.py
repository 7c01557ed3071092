"""BN-Inception against plain functions, written from the published table of its layers."""

import math

import torch
import torch.nn.functional as F
from models.bn_inception_table import TABLE, convolutions, trunk_parameters
from torch import Tensor

from pyaction import models


def reference(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, 1024, H / 32, W / 32)."""

    def layer(name: str, x: Tensor, stride: int = 1) -> Tensor:
        kernel, norm = weights[f"{name}.weight"], f"{name}_bn"
        x = F.conv2d(x, kernel, weights[f"{name}.bias"], stride=stride, padding=kernel.shape[-1] // 2)
        mean, variance = weights[f"{norm}.running_mean"], weights[f"{norm}.running_var"]
        x = (x - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
        return (x * weights[f"{norm}.weight"][:, None, None] + weights[f"{norm}.bias"][:, None, None]).clamp(min=0)

    def halved(x: Tensor) -> Tensor:
        """Windows of three that begin at every second pixel; what lies beyond the edge does not count."""
        x = F.pad(x, (0, 1, 0, 1), value=-torch.inf)
        return x.unfold(2, 3, 2).unfold(3, 3, 2).amax((4, 5))

    def pooled(x: Tensor, block: str) -> Tensor:
        if block == "5b":
            return F.pad(x, (1, 1, 1, 1), value=-torch.inf).unfold(2, 3, 1).unfold(3, 3, 1).amax((4, 5))
        return F.pad(x, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1).sum((4, 5)) / 9

    x = halved(layer("conv1_7x7_s2", x, 2))
    x = halved(layer("conv2_3x3", layer("conv2_3x3_reduce", x)))
    for block, (single, *_, after) in TABLE.items():
        name, stride = f"inception_{block}_", 2 if single is None else 1
        branches = [] if single is None else [layer(f"{name}1x1", x)]
        branches.append(layer(f"{name}3x3", layer(f"{name}3x3_reduce", x), stride))
        double = layer(f"{name}double_3x3_1", layer(f"{name}double_3x3_reduce", x))
        branches.append(layer(f"{name}double_3x3_2", double, stride))
        branches.append(halved(x) if single is None else layer(f"{name}pool_proj", pooled(x, block)))
        x = torch.cat(branches, dim=1)
        assert x.shape[1] == after
    return x


@torch.no_grad()
def test_matches_reference() -> None:
    network = models.BNInception(classes=5, in_channels=4).eval()
    for name, value in network.state_dict().items():
        if name.endswith("running_var") or name.endswith("bn.weight"):
            value.copy_(torch.rand_like(value) + 0.5)
        elif name.endswith(("running_mean", "bias")):
            value.copy_(torch.randn_like(value) / 4)
        elif "conv" in name or "inception" in name and value.ndim == 4:
            value.mul_(2)  # so that the deepest layers still see differences
    images = torch.randn(2, 4, 32, 96)
    expected = reference(network.state_dict(), images)
    assert expected.std() > 0.1
    torch.testing.assert_close(network.feature_map(images), expected, rtol=1e-4, atol=1e-4)
    vector = expected.mean((2, 3))
    torch.testing.assert_close(network.feature_vector(images), vector, rtol=1e-4, atol=1e-4)
    scores = vector @ network.fc.weight.T + network.fc.bias
    torch.testing.assert_close(network(images), scores, rtol=1e-4, atol=1e-4)


def test_names_and_counts() -> None:
    """Those of the weights in circulation; each convolution has a bias, and normalisation with two weights."""
    with torch.device("meta"):
        network = models.BNInception(classes=101, in_channels=10)
    shapes = {}
    for name, (before, filters, size) in convolutions(10).items():
        shapes |= {f"{name}.weight": (filters, before, size, size), f"{name}.bias": (filters,)}
        shapes |= {f"{name}_bn.{kind}": (filters,) for kind in ("weight", "bias")}
    shapes |= {"fc.weight": (101, 1024), "fc.bias": (101,)}
    assert {name: tuple(value.shape) for name, value in network.named_parameters()} == shapes
    assert trunk_parameters(10) + 1025 * 101 == sum(map(math.prod, shapes.values()))
    statistics = {name for name, _ in network.named_buffers()}
    kinds = ("running_mean", "running_var", "num_batches_tracked")
    assert statistics == {f"{name}_bn.{kind}" for name in convolutions(10) for kind in kinds}


def test_maps_are_seven_by_seven() -> None:
    with torch.device("meta"):
        network = models.BNInception(classes=None)
        images = torch.zeros(2, 3, 224, 224)
    assert network.feature_map(images).shape == (2, 1024, 7, 7)
    assert network(images).shape == (2, 1024)
