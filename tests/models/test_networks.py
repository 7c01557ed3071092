"""What holds for every network. All are full-size where their layers leave no choice; images and classes are few."""

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from pyaction import models

Shapes = tuple[tuple[int, ...], ...]  # of the inputs, without the batch
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Shapes]] = {
    "cnn_m": (lambda: models.CNNM2048(classes=(5, 3)), ((3, 224, 224),)),
    "vgg": (lambda: models.VGG16(classes=5, in_channels=20), ((20, 32, 32),)),
    "resnet": (lambda: models.ResNet(classes=5, depth=18, hidden=16), ((3, 32, 64),)),
    "fusenet": (lambda: models.FuseNet(classes=5, hidden=7), ((5,), (5,))),
    "bn_inception": (lambda: models.BNInception(classes=5, in_channels=10), ((10, 32, 64),)),
    "tsn": (lambda: models.TSN(models.ResNet(classes=None, depth=18), classes=5), ((3, 3, 32, 32),)),
    "trn": (lambda: models.TRN(models.ResNet(classes=None, depth=18), classes=5, segments=4), ((4, 3, 32, 32),)),
}


@pytest.fixture(scope="module", params=NETWORKS)
def case(request: pytest.FixtureRequest) -> Iterator[tuple[str, nn.Module]]:
    torch.manual_seed(20)
    network = NETWORKS[request.param][0]().eval()
    yield request.param, network


def inputs(name: str, batch: int) -> list[Tensor]:
    return [torch.randn(batch, *shape) for shape in NETWORKS[name][1]]


def parts(scores: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return scores if isinstance(scores, tuple) else (scores,)


def assert_close(actual: Tensor | tuple[Tensor, ...], expected: Tensor | tuple[Tensor, ...]) -> None:
    torch.testing.assert_close(parts(actual), parts(expected), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_shapes_and_single_clips(case: tuple[str, nn.Module]) -> None:
    """The scores of a clip do not depend on what it is batched with."""
    name, network = case
    batch = inputs(name, 2)
    scores = network(*batch)
    assert [tuple(part.shape) for part in parts(scores)] == ([(2, 5), (2, 3)] if name == "cnn_m" else [(2, 5)])
    single = network(*(value[1:] for value in batch))
    assert_close(single, tuple(part[1:] for part in parts(scores)))
    assert all((part[0] - part[1]).abs().max() > 0 for part in parts(scores))


@torch.no_grad()
def test_evaluation_is_deterministic(case: tuple[str, nn.Module]) -> None:
    name, network = case
    batch = inputs(name, 2)
    first = parts(network(*batch))
    torch.rand(3)
    assert all(torch.equal(a, b) for a, b in zip(first, parts(network(*batch)), strict=True))


@torch.no_grad()
def test_state_dict_round_trip(case: tuple[str, nn.Module]) -> None:
    """Into a network that had no memory."""
    name, network = case
    with torch.device("meta"):
        other = NETWORKS[name][0]().eval()
    other.load_state_dict(network.state_dict(), assign=True)
    batch = inputs(name, 1)
    assert all(torch.equal(a, b) for a, b in zip(parts(other(*batch)), parts(network(*batch)), strict=True))


def test_autocast(case: tuple[str, nn.Module]) -> None:
    """Scores near those of float32, and a gradient for every weight that is not frozen."""
    name, network = case
    batch = inputs(name, 2)
    with torch.autocast("cpu", torch.bfloat16):
        scores = parts(network(*batch))
    sum(part.float().square().sum() for part in scores).backward()
    with torch.no_grad():
        exact = parts(network(*batch))
    for part, expected in zip(scores, exact, strict=True):
        # 8 bits of mantissa, through many layers.
        assert (part.float() - expected).abs().max() < 0.1 * expected.abs().max() + 1e-4
    for label, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, label
            assert math.isfinite(float(parameter.grad.sum())), label
            assert parameter.grad.abs().max() > 0, label
        else:
            assert parameter.grad is None, label
    network.zero_grad()


@torch.no_grad()
def test_compile(case: tuple[str, nn.Module]) -> None:
    """In one graph; run by eager kernels, for it is the graph that is tested."""
    name, network = case
    batch = inputs(name, 2)
    torch._dynamo.reset()
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    assert_close(compiled(*batch), network(*batch))


@torch.no_grad()
def test_export(case: tuple[str, nn.Module]) -> None:
    name, network = case
    batch = torch.export.Dim("batch", min=1)
    example = tuple(inputs(name, 2))
    dynamic_shapes = tuple({0: batch} for _ in example)
    program = torch.export.export(network, example, dynamic_shapes=dynamic_shapes)
    other = inputs(name, 3)
    assert_close(program.module()(*other), network(*other))


BACKBONES = ("cnn_m", "vgg", "resnet", "bn_inception")


@torch.no_grad()
def test_features(case: tuple[str, nn.Module]) -> None:
    """Scores are made of the vector, which is made of the map; sizes are as announced."""
    name, network = case
    if name not in BACKBONES:
        pytest.skip("not a network over images")
    assert isinstance(network, models.Backbone)
    (images,) = inputs(name, 2)
    feature_map = network.feature_map(images)
    height, width = images.shape[2:]
    size = (6, 6) if name == "cnn_m" else (height // 32, width // 32)
    assert feature_map.shape == (2, network.map_channels, *size)
    vector = network.to_vector(feature_map)
    assert vector.shape == (2, network.vector_size)
    assert torch.equal(vector, network.feature_vector(images))
    assert_close(network.classify(vector), network(images))


def test_rejects(case: tuple[str, nn.Module]) -> None:
    """Wrong rank, channels, dtype and type."""
    name, network = case
    (first, *_), batch = NETWORKS[name][1], inputs(name, 2)
    label = {"fusenet": "spatial", "tsn": "clips", "trn": "clips"}.get(name, "images")
    axis = {"fusenet": 1, "tsn": 2, "trn": 2}.get(name, 1)
    layout = {
        "fusenet": r"\[N, 5\]", "tsn": r"\[N, S, 3, H, W\]", "trn": r"\[N, 4, 3, H, W\]"
    }.get(name, rf"\[N, {first[0]}, H, W\]")  # fmt: skip
    caller = rf"^models\.{type(network).__name__}: {label} must be "
    with pytest.raises(ValueError, match=caller + layout + "; got shape"):
        network(batch[0][0], *batch[1:])
    with pytest.raises(ValueError, match=caller + layout + "; got shape"):
        network(torch.cat([batch[0], batch[0]], dim=axis), *batch[1:])
    with pytest.raises(ValueError, match=caller + "floating point; got uint8$"):
        network(batch[0].byte(), *batch[1:])
    with pytest.raises(TypeError, match=rf"{caller}a torch.Tensor {layout}; got list"):
        network([1.0], *batch[1:])


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("vgg", (1, 20, 31, 64), "at least 32 x 32 pixels; got 31 x 64"),
        ("resnet", (1, 3, 64, 31), "at least 32 x 32 pixels; got 64 x 31"),
        ("bn_inception", (1, 10, 64, 48), "multiples of 32; got 64 x 48"),
        ("cnn_m", (1, 3, 224, 256), "must have 224 x 224 pixels; got 224 x 256"),
    ],
)
def test_rejects_sizes(name: str, shape: tuple[int, ...], message: str) -> None:
    with torch.device("meta"):
        network = NETWORKS[name][0]()
    with pytest.raises(ValueError, match=message):
        network(torch.zeros(shape, device="meta"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: models.CNNM2048(stream="motion"), "CNNM2048: stream must be 'spatial' or 'temporal'; got 'motion'"),
        (lambda: models.CNNM2048(classes=(5, 0)), r"CNNM2048: classes must be None or at least 1; got \(5, 0\)"),
        (lambda: models.CNNM2048(classes=()), r"CNNM2048: classes must be None or at least 1; got \(\)"),
        (lambda: models.VGG16(in_channels=0), "VGG16: in_channels must be at least 1; got 0"),
        (lambda: models.VGG16(weights="none"), "VGG16: weights must be None or one of 'IMAGENET1K_V1', .*; got 'none'"),
        (lambda: models.ResNet(depth=51), "ResNet: depth must be 18, 34, 50, 101 or 152; got 51"),
        (lambda: models.VGG16(weights="IMAGENET1K_FEATURES"), "VGG16: weights must be None or one of .*_FEATURES'"),
        (lambda: models.ResNet(hidden=0), "ResNet: hidden must be at least 1; got 0"),
        (lambda: models.FuseNet(hidden=0), "FuseNet: hidden must be at least 1; got 0"),
        (lambda: models.BNInception(classes=0), "BNInception: classes must be None or at least 1; got 0"),
    ],
)
def test_rejects_arguments(make: Callable[[], nn.Module], message: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=rf"^models\.{message}$"):
        make()
