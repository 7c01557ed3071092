"""The temporal streams of paper 002 with the networks that its table 4 names, in full size; images are small."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from models.gradients import assert_all_have_gradients
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from pyaction.losses import unsupervised_flow_loss
from pyaction.models import (
    I3D,
    TSN,
    VGG16,
    BNInception,
    BranchedTemporalStream,
    FlowNetwork,
    MotionNet,
    StackedTemporalStream,
    TinyMotionNet,
    normalize_flow,
)

CLASSES = 5


def head() -> nn.Module:
    """For the branch: that of VGG-16, over pooled features."""
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1024, 4096), nn.ReLU(), nn.Dropout(0.9),
        nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(0.8), nn.Linear(4096, CLASSES),
    )  # fmt: skip


def tsn(channels: int) -> TSN:
    return TSN(BNInception(classes=None, in_channels=channels), classes=CLASSES, dropout=0.7)


def i3d() -> I3D:
    return I3D(classes=CLASSES, in_channels=2)


# With the shape of one clip. Three snippets; two windows of two pairs.
STREAMS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "vgg": (
        lambda: StackedTemporalStream(motionnet=MotionNet(), temporal=VGG16(classes=CLASSES, in_channels=20)),
        (11, 3, 64, 64),
    ),
    "tsn": (lambda: StackedTemporalStream(motionnet=MotionNet(), temporal=tsn(20)), (3, 11, 3, 64, 64)),
    "i3d": (lambda: StackedTemporalStream(motionnet=MotionNet(frames=3), temporal=i3d()), (5, 3, 64, 64)),
    "branched": (lambda: BranchedTemporalStream(motionnet=MotionNet(), classifier=head()), (11, 3, 64, 64)),
}
WINDOWS = {"vgg": 1, "tsn": 3, "i3d": 2, "branched": 1}  # of one clip


def tame(motionnet: FlowNetwork) -> None:
    """Makes the motion so small that the bound cuts little of it."""
    for name, module in motionnet.named_modules():
        if name.startswith("flow") or name.endswith(".flow"):
            module.weight.data *= 0.2


@pytest.fixture(scope="module", params=STREAMS)
def case(request: pytest.FixtureRequest) -> tuple[str, Any]:
    torch.manual_seed(20)
    stream = STREAMS[request.param][0]().eval()
    tame(stream.motionnet)
    return request.param, stream


def clips(name: str, batch: int) -> Tensor:
    return torch.rand(batch, *STREAMS[name][1])


def seen_by(temporal: nn.Module, stream: nn.Module, clip: Tensor) -> Tensor:
    """What the stream gives its temporal network."""
    seen = []
    hook = temporal.register_forward_pre_hook(lambda module, inputs: seen.extend(inputs))
    stream(clip)
    hook.remove()
    (only,) = seen
    return only


def assert_close(actual: object, expected: object) -> None:
    for part, other in zip(tree_leaves(actual), tree_leaves(expected), strict=True):
        torch.testing.assert_close(part, other, rtol=1e-3, atol=1e-4 * other.abs().max().item() + 1e-6)


@torch.no_grad()
def test_shapes_and_single_clips(case: tuple[str, Any]) -> None:
    """The scores of a clip do not depend on what it is batched with."""
    name, stream = case
    batch = clips(name, 2)
    logits, flows = stream(batch)
    windows, pairs = WINDOWS[name], stream.motionnet.frames - 1
    assert logits.shape == (2, CLASSES)
    assert [tuple(flow.shape) for flow in flows] == [(2 * windows, pairs, 2, side, side) for side in (32, 16, 8, 4, 2)]
    assert 0.2 < flows[0].abs().mean() < 5
    assert (logits[0] - logits[1]).abs().max() > 0
    single = stream(batch[1:])
    assert_close(single, (logits[1:], [flow[windows:] for flow in flows]))
    assert torch.equal(stream(batch[1:]).logits, single.logits)


@torch.no_grad()
def test_windows_are_what_flows_are_of(case: tuple[str, Any]) -> None:
    """Loss by loss: that of the batch is the mean of those of the windows, cut by hand."""
    name, stream = case
    batch = (clips(name, 2) * 255).byte()
    t, count = stream.motionnet.frames, WINDOWS[name]
    if name == "i3d":
        by_hand = [clip[start : start + t] for clip in batch for start in (0, 2)]
    else:
        by_hand = list(batch.reshape(2 * count, t, 3, 64, 64))
    windows = stream.windows(batch)
    assert torch.equal(windows, torch.cat([stream.motionnet.normalize(window[None]) for window in by_hand]))
    loss = unsupervised_flow_loss(stream(batch).flows, windows, weights="mean").total
    losses = [
        unsupervised_flow_loss(stream.motionnet(window[None]), windows[i : i + 1], weights="mean").total
        for i, window in enumerate(by_hand)
    ]
    torch.testing.assert_close(loss, torch.stack(losses).mean(), rtol=1e-3, atol=1e-4)


def test_action_loss_reaches_the_first_layer(case: tuple[str, Any]) -> None:
    name, stream = case
    loss = F.cross_entropy(stream(clips(name, 2)).logits, torch.tensor([1, 3]))
    (first,) = torch.autograd.grad(loss, [stream.motionnet.conv1.weight])
    assert first.isfinite().all()
    assert (first.flatten(1).abs().sum(1) > 0).float().mean() > 0.9  # of the filters


# Of "branched" the actions do not depend on its flow.
@pytest.mark.parametrize("case", [name for name in STREAMS if name != "branched"], indirect=True)
def test_gradient_is_zero_beyond_the_bound(case: tuple[str, Any]) -> None:
    """Flow of 20.02 and of 19.98 pixels everywhere, by turns in x and y, and both ways."""
    name, stream = case
    layer = stream.motionnet.expand2.flow
    motion = torch.tensor([1.001, 0.999, -0.999, -1.001]).repeat(layer.out_channels // 4)
    weights = {
        "motionnet.expand2.flow.weight": torch.zeros_like(layer.weight).requires_grad_(),
        "motionnet.expand2.flow.bias": motion.requires_grad_(),
    }
    logits, _ = torch.func.functional_call(stream, weights, (clips(name, 1),))
    of_weight, of_bias = torch.autograd.grad(F.cross_entropy(logits, torch.tensor([2])), list(weights.values()))
    beyond = motion.abs() > 1
    assert not of_weight[beyond].any() and not of_bias[beyond].any()
    assert of_weight[~beyond].flatten(1).any(1).all() and of_bias[~beyond].all()


@torch.no_grad()
def test_state_dict_round_trip(case: tuple[str, Any]) -> None:
    """Into a network that had no memory."""
    name, stream = case
    with torch.device("meta"):
        other = STREAMS[name][0]().eval()
    other.load_state_dict(stream.state_dict(), assign=True)
    other.motionnet.mean = stream.motionnet.mean  # a constant, which is not in the state dict
    batch = clips(name, 1)
    assert torch.equal(other(batch).logits, stream(batch).logits)


def test_autocast(case: tuple[str, Any]) -> None:
    """Scores near those of float32, and a gradient of both losses for every weight that is not frozen."""
    name, stream = case
    batch = clips(name, 2)
    # oneDNN's bfloat16 gradient of a 3-D convolution's weights now and then is NaN on grids as small as these; without
    # it a full MotionNet is slow.
    if name == "i3d":
        stream = StackedTemporalStream(motionnet=TinyMotionNet(frames=3), temporal=stream.temporal).eval()
        tame(stream.motionnet)
        batch = batch[..., :32, :32]
    with torch.backends.mkldnn.flags(enabled=name != "i3d"):
        with torch.autocast("cpu", torch.bfloat16):
            logits, flows = stream(batch)
            flow_loss = unsupervised_flow_loss(flows, stream.windows(batch)).total
        (F.cross_entropy(logits.float(), torch.tensor([1, 3])) + flow_loss).backward()
    with torch.no_grad():
        exact = stream(batch).logits
    # 8 bits of mantissa, through many layers.
    assert (logits.float() - exact).abs().max() < 0.1 * exact.abs().max() + 1e-4
    assert_all_have_gradients(stream)
    stream.zero_grad()


@torch.no_grad()
def test_compile(case: tuple[str, Any]) -> None:
    """In one graph; run by eager kernels, for it is the graph that is tested."""
    name, stream = case
    batch = clips(name, 2)
    torch._dynamo.reset()
    assert_close(torch.compile(stream, fullgraph=True, backend="eager")(batch), stream(batch))


@torch.no_grad()
def test_export(case: tuple[str, Any]) -> None:
    name, stream = case
    dynamic_shapes = {"clip": {0: torch.export.Dim("batch", min=1)}}
    program = torch.export.export(stream, (clips(name, 2),), dynamic_shapes=dynamic_shapes).module()
    for batch in (1, 3):
        other = clips(name, batch)
        assert_close(program(other), stream(other))


@torch.no_grad()
def test_tsn_sees_each_snippet() -> None:
    torch.manual_seed(20)
    motionnet = TinyMotionNet(frames=3)
    stream = StackedTemporalStream(motionnet=motionnet, temporal=tsn(4), bound=7.5).eval()
    clip = torch.rand(2, 3, 3, 3, 32, 64)
    snippets = [normalize_flow(2 * motionnet(clip[:, s])[0], bound=7.5) for s in range(3)]
    seen = seen_by(stream.temporal, stream, clip)
    assert seen.shape == (2, 3, 4, 32, 64)
    torch.testing.assert_close(seen, torch.stack(snippets, dim=1), rtol=1e-4, atol=1e-2)
    one_by_one = torch.stack([stream(clip[:, [s]]).logits for s in range(3)])
    assert_close(stream(clip).logits, one_by_one.mean(0))


@torch.no_grad()
def test_i3d_sees_the_flow_of_the_whole_clip() -> None:
    torch.manual_seed(20)
    motionnet = TinyMotionNet(frames=3)
    stream = StackedTemporalStream(motionnet=motionnet, temporal=i3d(), bound=1000.0).eval()
    clip = torch.rand(2, 7, 3, 32, 64)
    seen, flow = seen_by(stream.temporal, stream, clip), motionnet.flow(clip)
    assert seen.shape == (2, 6, 2, 32, 64)
    torch.testing.assert_close(1000 * seen, flow, rtol=1e-4, atol=1e-3)
    stream.bound = 0.5 * flow.abs().max().item()
    finest = torch.cat([2 * motionnet(clip[:, first : first + 3])[0] for first in (0, 2, 4)], dim=1)
    clipped = finest.clamp(-stream.bound, stream.bound) / stream.bound
    enlarged = F.interpolate(clipped.flatten(0, 1), scale_factor=2, mode="bilinear").view_as(flow)
    assert clipped.abs().max() == 1
    torch.testing.assert_close(seen_by(stream.temporal, stream, clip), enlarged, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("temporal", "expected", "name", "channels"),
    [
        (lambda: VGG16(in_channels=10), 20, "VGG16", 10),
        (lambda: tsn(10), 20, "TSN", 10),
        (I3D, 2, "I3D", 3),
    ],
)
def test_rejects_channels(temporal: Callable[[], nn.Module], expected: int, name: str, channels: int) -> None:
    with torch.device("meta"), pytest.raises(ValueError) as caught:
        StackedTemporalStream(motionnet=TinyMotionNet(), temporal=temporal())
    assert str(caught.value) == (
        f"models.StackedTemporalStream: temporal, {name}, must have in_channels = {expected} over a flow network of "
        f"11 frames; got {channels}"
    )


@pytest.mark.parametrize(
    ("temporal", "shape", "expected"),
    [
        (lambda: tsn(8), (2, 5, 3, 32, 32), "[N, S, 5, 3, H, W] for a TSN"),
        (i3d, (2, 1, 3, 32, 32), "[N, 4 M + 1, 3, H, W] with M >= 1 for an I3D"),
        (i3d, (2, 8, 3, 32, 32), "[N, 4 M + 1, 3, H, W] with M >= 1 for an I3D"),
        (i3d, (5, 3, 32, 32), "[N, 4 M + 1, 3, H, W] with M >= 1 for an I3D"),
    ],
)
def test_rejects_clips(temporal: Callable[[], nn.Module], shape: tuple[int, ...], expected: str) -> None:
    with torch.device("meta"):
        stream = StackedTemporalStream(motionnet=TinyMotionNet(frames=5), temporal=temporal())
    for call in (stream, stream.windows):
        with pytest.raises(ValueError) as caught:
            call(torch.empty(shape, device="meta"))
        assert str(caught.value) == f"models.StackedTemporalStream: clip must be {expected}; got {list(shape)}"
        with pytest.raises(TypeError, match=r"^models.StackedTemporalStream: clip must be a torch.Tensor; got list$"):
            call([1.0])
