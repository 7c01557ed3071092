"""pyaction.models: the layer between flow and classifier, and the temporal streams of paper 002."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyaction import flow as optical_flow
from pyaction.models import BranchedTemporalStream, StackedTemporalStream, TinyMotionNet, normalize_flow

CLASSES = 5


def classifier(channels: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES)
    )


@pytest.fixture(scope="module", params=["stacked", "branched"])
def stream(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(20)
    motionnet = TinyMotionNet(frames=3)
    if request.param == "stacked":
        return StackedTemporalStream(motionnet=motionnet, temporal=classifier(4), bound=15.0).eval()
    return BranchedTemporalStream(motionnet=motionnet, classifier=classifier(128)).eval()


@pytest.fixture
def clip() -> Tensor:
    return torch.rand(2, 3, 3, 24, 32)


def test_known_value() -> None:
    """0 -> 127.5, 10 -> 191.25, -20 and less -> 0, 20 and more -> 255; then minus 128."""
    flow = torch.tensor([0.0, 10.0, -20.0, -31.0, 20.0, 45.0]).view(1, 3, 2, 1, 1).expand(2, 3, 2, 4, 5)
    images = normalize_flow(flow)
    assert images.shape == (2, 6, 8, 10)
    expected = torch.tensor([-0.5, 63.25, -128.0, -128.0, 127.0, 127.0]).view(1, 6, 1, 1).expand_as(images)
    torch.testing.assert_close(images, expected)


@pytest.mark.parametrize("bound", [20.0, 7.5])
def test_is_encode_without_rounding(bound: float) -> None:
    flow = torch.empty(1, 500, 2, 1, 1).uniform_(-25, 25)  # one value per image: enlarging changes nothing
    levels = normalize_flow(flow, bound=bound)[0, :, 1, 1] + 128
    torch.testing.assert_close(levels.round().to(torch.uint8), optical_flow.encode(flow, bound).flatten())
    steps = 2 * bound / 255
    torch.testing.assert_close(levels * steps - bound, flow.flatten().clamp(-bound, bound), rtol=0, atol=2e-5)


def test_enlarges_as_the_fixed_deconvolution() -> None:
    """Away from the border, where the release mixes in zeros."""
    flow = torch.empty(2, 3, 2, 5, 7).uniform_(-25, 25)
    levels = (flow.clamp(-20, 20) + 20) * 6.375
    row = torch.tensor([0.25, 0.75, 0.75, 0.25])
    kernel = torch.outer(row, row).expand(6, 1, 4, 4)
    enlarged = F.conv_transpose2d(levels.flatten(1, 2), kernel, stride=2, padding=1, groups=6)
    inside = (..., slice(1, -1), slice(1, -1))
    torch.testing.assert_close(normalize_flow(flow)[inside], (enlarged - 128)[inside], rtol=0, atol=1e-4)


def test_gradient_is_zero_beyond_the_bound() -> None:
    flow = torch.tensor([-20.5, -19.5, 3.0, 19.5, 20.5, 300.0]).view(1, 3, 2, 1, 1).requires_grad_()
    normalize_flow(flow).sum().backward()
    assert flow.grad is not None
    # Four pixels from one, at 255 / 40 per pixel of motion.
    torch.testing.assert_close(flow.grad.flatten(), torch.tensor([0.0, 25.5, 25.5, 25.5, 0.0, 0.0]))


def test_bfloat16_keeps_small_motion() -> None:
    """A sum of 20 and 0.03 pixels would not."""
    flow = torch.tensor([0.03, -0.06, 0.4, -11.0]).view(1, 2, 2, 1, 1).bfloat16()
    exact = normalize_flow(flow.double())
    torch.testing.assert_close(normalize_flow(flow).double(), exact, rtol=0.01, atol=0)


def test_stacked_is_flow_then_classifier(clip: Tensor) -> None:
    motionnet, temporal = TinyMotionNet(frames=3).eval(), classifier(4).eval()
    with torch.no_grad():
        logits, flows = StackedTemporalStream(motionnet=motionnet, temporal=temporal)(clip)
        torch.testing.assert_close(flows, motionnet(clip))
        # The finest flow is in pixels of half the resolution; the layer wants those of the frames.
        torch.testing.assert_close(logits, temporal(normalize_flow(flows[0] * 2)))


def test_branched_shares_the_contracting_part(clip: Tensor) -> None:
    motionnet = TinyMotionNet(frames=3)
    stream = BranchedTemporalStream(motionnet=motionnet, classifier=classifier(motionnet.feature_channels))
    logits, flows = stream(clip)
    torch.testing.assert_close(flows, motionnet(clip))
    of_expanding, of_contracting = torch.autograd.grad(
        logits.sum(), [motionnet.flow4.weight, motionnet.conv4.weight], allow_unused=True
    )
    assert of_expanding is None
    assert of_contracting.any()


def test_action_loss_reaches_the_first_layer(stream: nn.Module, clip: Tensor) -> None:
    for module in stream.modules():  # small motion, which the bound does not cut
        if isinstance(module, nn.Conv2d) and module.out_channels == 4:
            module.weight.data *= 0.1
    loss = F.cross_entropy(stream(clip).logits, torch.tensor([1, 3]))
    first, *_ = torch.autograd.grad(loss, [stream.motionnet.conv1.weight])
    assert first.isfinite().all()
    assert (first.flatten(1).abs().sum(1) > 0).float().mean() > 0.9  # of the filters


def test_frozen_flow(clip: Tensor) -> None:
    """Setting (a) of section 3.2."""
    stream = StackedTemporalStream(motionnet=TinyMotionNet(frames=3).requires_grad_(False), temporal=classifier(4))
    stream(clip).logits.sum().backward()
    assert all(parameter.grad is None for parameter in stream.motionnet.parameters())
    assert all(parameter.grad is not None for parameter in stream.temporal.parameters())


def test_autocast(stream: nn.Module, clip: Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        logits, _ = stream(clip)
    assert logits.dtype == torch.bfloat16
    first, *_ = torch.autograd.grad(logits.float().sum(), [stream.motionnet.conv1.weight])
    assert first.isfinite().all()
    with torch.no_grad():
        exact = stream(clip).logits
    torch.testing.assert_close(logits.float(), exact, rtol=0.05, atol=0.05 * exact.abs().max().item())


def test_batch_of_one_and_again(stream: nn.Module, clip: Tensor) -> None:
    with torch.no_grad():
        logits = stream(clip).logits
        assert torch.equal(stream(clip).logits, logits)
        torch.testing.assert_close(stream(clip[:1]).logits, logits[:1], rtol=1e-3, atol=1e-3)


def test_state_dict(stream: nn.Module) -> None:
    names = stream.state_dict().keys()
    assert "motionnet.expand2.xconv.weight" in names
    stream.load_state_dict(stream.state_dict(), strict=True)


def test_compile(stream: nn.Module, clip: Tensor) -> None:
    """With backend eager: one graph, without the minutes that code generation takes."""
    compiled = torch.compile(stream, fullgraph=True, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(clip).logits, stream(clip).logits, rtol=1e-3, atol=1e-3)


def test_export(stream: nn.Module, clip: Tensor) -> None:
    exported = torch.export.export(stream, (clip,), dynamic_shapes={"clip": {0: torch.export.Dim("batch")}}).module()
    three = torch.rand(3, *clip.shape[1:])
    with torch.no_grad():
        torch.testing.assert_close(exported(three)[0], stream(three).logits, rtol=1e-3, atol=1e-3)


def test_rejects() -> None:
    with pytest.raises(ValueError, match=r"^models.normalize_flow: .* be \[N, T, 2, h, w\]; got \[1, 20, 8, 8\]$"):
        normalize_flow(torch.zeros(1, 20, 8, 8))
    with pytest.raises(ValueError, match="^models.normalize_flow: bound must be a number of pixels > 0; got -3$"):
        normalize_flow(torch.zeros(1, 1, 2, 8, 8), bound=-3)
    with pytest.raises(TypeError, match="^models.normalize_flow: flow must be a torch.Tensor; got list$"):
        normalize_flow([0.5])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="^models.StackedTemporalStream: bound must be a number .* > 0; got inf$"):
        StackedTemporalStream(motionnet=TinyMotionNet(), temporal=classifier(20), bound=float("inf"))
