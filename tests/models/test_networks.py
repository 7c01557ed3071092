"""What holds for every network. All are full-size where their layers leave no choice; images and classes are few.

Of I3D alone, flow networks and the temporal streams over these it is proven in their own tests.
"""

from collections.abc import Callable, Iterator

import pytest
import torch
from models.gradients import assert_all_have_gradients
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from pyaction import models

Shapes = tuple[tuple[int, ...], ...]  # of the inputs, without the batch


def streams_of_tsn() -> dict[str, models.TSN]:
    return {
        name: models.TSN(models.ResNet(classes=None, depth=18, in_channels=channels), classes=5)
        for name, channels in (("spatial", 3), ("temporal", 10))
    }


def streams_of_i3d(*names: str) -> dict[str, models.I3D]:
    """Of RGB, of flow."""
    return {name: models.I3D(classes=5, in_channels=channels) for name, channels in zip(names, (3, 2), strict=True)}


def connected(network: models.CooperativeCrossStream) -> nn.Module:
    """As if trained: some weights of the connection start at zero."""
    assert network.connection is not None
    for weight in network.connection.parameters():
        nn.init.normal_(weight, std=0.05)
    return network


CLIPS = ((8, 3, 64, 32), (8, 2, 64, 32))
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Shapes]] = {
    "cnn_m": (lambda: models.CNNM2048(classes=(5, 3)), ((3, 224, 224),)),
    "vgg": (lambda: models.VGG16(classes=5, in_channels=20), ((20, 32, 32),)),
    "resnet": (lambda: models.ResNet(classes=5, depth=18, hidden=16), ((3, 32, 64),)),
    "resnet50": (lambda: models.ResNet(classes=5, in_channels=4), ((4, 32, 64),)),
    "fusenet": (lambda: models.FuseNet(classes=5, hidden=7), ((5,), (5,))),
    "bn_inception": (lambda: models.BNInception(classes=5, in_channels=10), ((10, 32, 64),)),
    "tsn": (lambda: models.TSN(models.ResNet(classes=None, depth=18), classes=5), ((3, 3, 32, 32),)),
    "tsn_vgg": (lambda: models.TSN(models.VGG16(classes=None, in_channels=20), classes=5), ((3, 20, 32, 32),)),
    "tsn_bn_inception": (
        lambda: models.TSN(models.BNInception(classes=None, in_channels=10), classes=5, consensus="concatenation"),
        ((3, 10, 32, 64),),
    ),
    "trn": (lambda: models.TRN(models.ResNet(classes=None, depth=18), classes=5, segments=4), ((4, 3, 32, 32),)),
    "trn_single": (
        lambda: models.TRN(models.ResNet(classes=None, depth=18), classes=5, segments=4, scales="single"),
        ((4, 3, 32, 32),),
    ),
    "ccs": (lambda: connected(models.CooperativeCrossStream(**streams_of_tsn())), ((3, 3, 32, 64), (3, 10, 32, 64))),
    "ccs_i3d": (
        lambda: connected(models.CooperativeCrossStream(**streams_of_i3d("spatial", "temporal"), exchange="cross")),
        CLIPS,
    ),
    "cross_enhancement": (lambda: models.CrossEnhancement(**streams_of_i3d("student", "teacher"), bridge="f"), CLIPS),
    "cross_enhanced": (lambda: models.CrossEnhancedTwoStream(**streams_of_i3d("spatial", "temporal")), CLIPS),
}
# Of what networks give for two clips, where it is not five scores each.
OUTPUTS: dict[str, Shapes] = {
    "cnn_m": ((2, 5), (2, 3)),
    "ccs": ((2, 5), (2, 5), (2, 512), (2, 512)),
    "ccs_i3d": ((2, 5), (2, 5), (2, 1024), (2, 1024)),
    "cross_enhancement": ((2, 5), *[(2, 512, 2, 4, 2)] * 2, *[(2, 1024)] * 2),
}


@pytest.fixture(scope="module", params=NETWORKS)
def case(request: pytest.FixtureRequest) -> Iterator[tuple[str, nn.Module]]:
    torch.manual_seed(20)
    network = NETWORKS[request.param][0]().eval()
    yield request.param, network


def inputs(name: str, batch: int) -> list[Tensor]:
    return [torch.randn(batch, *shape) for shape in NETWORKS[name][1]]


def parts(scores: object) -> tuple[Tensor, ...]:
    """All tensors of it."""
    return tuple(tree_leaves(scores))


def assert_close(actual: object, expected: object) -> None:
    torch.testing.assert_close(parts(actual), parts(expected), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_shapes_and_single_clips(case: tuple[str, nn.Module]) -> None:
    """The scores of a clip do not depend on what it is batched with."""
    name, network = case
    batch = inputs(name, 2)
    scores = network(*batch)
    assert tuple(tuple(part.shape) for part in parts(scores)) == OUTPUTS.get(name, ((2, 5),))
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
    # oneDNN's bfloat16 gradient of a 3-D convolution's weights now and then is NaN on grids as small as these.
    in_space = any(isinstance(module, nn.Conv3d) for module in network.modules())
    with torch.backends.mkldnn.flags(enabled=not in_space):
        with torch.autocast("cpu", torch.bfloat16):
            scores = parts(network(*batch))
        sum(part.float().square().sum() for part in scores).backward()
    with torch.no_grad():
        exact = parts(network(*batch))
    for part, expected in zip(scores, exact, strict=True):
        # 8 bits of mantissa, through many layers.
        assert (part.float() - expected).abs().max() < 0.1 * expected.abs().max() + 1e-4
    assert_all_have_gradients(network)
    network.zero_grad()


@torch.no_grad()
def test_compile(case: tuple[str, nn.Module]) -> None:
    """In one graph; run by eager kernels, for it is the graph that is tested. test_inference.py runs generated code."""
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
@pytest.mark.parametrize("case", BACKBONES, indirect=True)
def test_features(case: tuple[str, nn.Module]) -> None:
    """Scores are made of the vector, which is made of the map; sizes are as announced."""
    name, network = case
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


# What I3D rejects is tested there.
@pytest.mark.parametrize("case", (*BACKBONES, "fusenet", "tsn", "trn", "ccs"), indirect=True)
def test_rejects(case: tuple[str, nn.Module]) -> None:
    """Wrong rank, channels, dtype and type."""
    name, network = case
    (first, *_), batch = NETWORKS[name][1], inputs(name, 2)
    label = {"fusenet": "spatial", "tsn": "clips", "trn": "clips", "ccs": "clips"}.get(name, "images")
    axis = {"fusenet": 1, "tsn": 2, "trn": 2, "ccs": 2}.get(name, 1)
    layout = {
        "fusenet": r"\[N, 5\]", "tsn": r"\[N, S, 3, H, W\]", "ccs": r"\[N, S, 3, H, W\]", "trn": r"\[N, 4, 3, H, W\]"
    }.get(name, rf"\[N, {first[0]}, H, W\]")  # fmt: skip
    caller = rf"^models\.{'TSN' if name == 'ccs' else type(network).__name__}: {label} must be "
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
