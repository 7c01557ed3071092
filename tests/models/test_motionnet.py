"""pyaction.models.MotionNet and TinyMotionNet, against the table of the authors' deploy.prototxt."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyaction import flow as optical_flow
from pyaction.models import MotionNet, TinyMotionNet, motionnet

# Channels in, channels out, side of the kernel, bias; 11 frames.
MOTIONNET = [
    (33, 64, 3, True), (64, 64, 3, True), (64, 128, 3, True), (128, 128, 3, True), (128, 256, 3, True),
    (256, 256, 3, True), (256, 512, 3, True), (512, 512, 3, True), (512, 512, 3, True), (512, 512, 3, True),
    (512, 1024, 3, True), (1024, 1024, 3, True), (1024, 20, 3, True),
    (1024, 512, 4, False), (20, 20, 4, False), (1044, 512, 3, True), (512, 20, 3, True),
    (512, 256, 4, False), (20, 20, 4, False), (788, 256, 3, True), (256, 20, 3, True),
    (256, 128, 4, False), (20, 20, 4, False), (404, 128, 3, True), (128, 20, 3, True),
    (128, 64, 4, False), (20, 20, 4, False), (212, 64, 3, True), (64, 20, 3, True),
]  # fmt: skip
TINY = [
    (33, 64, 7, True), (64, 128, 5, True), (128, 256, 3, True), (256, 128, 3, True), (128, 20, 3, True),
    (128, 128, 4, False), (20, 20, 4, False), (404, 128, 3, True), (128, 20, 3, True),
    (128, 64, 4, False), (20, 20, 4, False), (212, 64, 3, True), (64, 20, 3, True),
]  # fmt: skip
SIZES = {MotionNet: (32, 64), TinyMotionNet: (24, 40)}


@pytest.fixture(scope="module", params=[MotionNet, TinyMotionNet])
def network(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(20)
    network = request.param(frames=3).eval()
    for parameter in network.parameters():  # biases too: a test must see them
        if parameter.dim() == 1:
            nn.init.normal_(parameter, std=0.1)
    return network


@pytest.fixture
def clip(network: nn.Module) -> Tensor:
    return torch.rand(2, 3, 3, *SIZES[type(network)])


def plain(state: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """The table once more, from the layers' names alone; x: normalised frames, one after the other."""

    def conv(name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        return F.conv2d(x, weight, state[f"{name}.bias"], stride=stride, padding=weight.shape[-1] // 2)

    def deconv(name: str, x: Tensor) -> Tensor:
        return F.conv_transpose2d(x, state[f"{name}.weight"], stride=2, padding=1)

    last = max(int(name[4]) for name in state if name.startswith("conv"))
    skips = {}
    for level in range(1, last + 1):
        x = F.leaky_relu(conv(f"conv{level}", x, stride=1 if level == 1 else 2), 0.1)
        if f"conv{level}_1.weight" in state:
            x = F.leaky_relu(conv(f"conv{level}_1", x), 0.1)
        skips[level] = x
    flows = {last: conv(f"flow{last}", x)}
    for level in range(last - 1, 1, -1):
        up = F.leaky_relu(deconv(f"expand{level}.deconv", x), 0.1)
        x = conv(
            f"expand{level}.xconv", torch.cat([skips[level], up, deconv(f"expand{level}.upflow", flows[level + 1])], 1)
        )
        flows[level] = conv(f"expand{level}.flow", x)
    # flow2 .. flow6 in pixels of their levels.
    scales = {2: 10.0, 3: 5.0, 4: 2.5, 5: 1.25, 6: 0.625}
    return [flows[level].reshape(x.shape[0], -1, 2, *flows[level].shape[2:]) * scales[level] for level in sorted(flows)]


def normalized(clip: Tensor) -> Tensor:
    """RGB in [0, 1] -> blue, green, red minus 104, 117, 123, over 255; frames side by side in the channels."""
    levels = 255 * clip[:, :, [2, 1, 0]] - torch.tensor([104.0, 117.0, 123.0]).view(3, 1, 1)
    return (levels / 255).reshape(clip.shape[0], -1, *clip.shape[3:])


@pytest.mark.parametrize(
    ("architecture", "table", "expected"), [(MotionNet, MOTIONNET, 42_318_820), (TinyMotionNet, TINY, 1_950_076)]
)
def test_parameter_count(architecture: type[nn.Module], table: list, expected: int) -> None:
    with torch.device("meta"):
        parameters = list(architecture().parameters())
    in_table = sum(source * out * side**2 + out * bias for source, out, side, bias in table)
    assert sum(parameter.numel() for parameter in parameters) == in_table == expected
    assert len(parameters) == sum(1 + bias for *_, bias in table)


def test_shapes_at_224() -> None:
    with torch.device("meta"):
        flows = MotionNet()(torch.empty(2, 11, 3, 224, 224))
    assert [list(flow.shape) for flow in flows] == [[2, 10, 2, side, side] for side in (112, 56, 28, 14, 7)]


def test_matches_table(network: nn.Module, clip: Tensor) -> None:
    with torch.no_grad():
        flows, expected = network(clip), plain(network.state_dict(), normalized(clip))
    assert len(flows) == len(expected)
    for flow, theirs in zip(flows, expected, strict=True):
        assert flow.shape == theirs.shape
        torch.testing.assert_close(flow, theirs, rtol=1e-4, atol=1e-4 * theirs.abs().max().item())


def test_weights_start_as_msra() -> None:
    network = TinyMotionNet()
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            fan_in = module.weight[0].numel()
            deviation = module.weight.std().item() * (fan_in / 2) ** 0.5
            assert deviation == pytest.approx(1, abs=4 / (2 * module.weight.numel()) ** 0.5)
            assert module.bias is None or not module.bias.any()


def test_bytes_are_fractions_of_255(network: nn.Module, clip: Tensor) -> None:
    frames = (clip * 255).to(torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(network(frames)[0], network(frames / 255)[0])
    grey = torch.full((1, 3, 3, 1, 1), 117, dtype=torch.uint8)
    torch.testing.assert_close(
        network.normalize(grey)[0, 2, :, 0, 0] * 255, torch.tensor([13.0, 0.0, -6.0]), rtol=0, atol=1e-4
    )


def test_flow_is_20_times_the_finest(network: nn.Module, clip: Tensor) -> None:
    with torch.no_grad():
        finest, flow = network(clip)[0], network.flow(clip)
    assert flow.shape == (2, 2, 2, *clip.shape[3:])
    assert flow.dtype == torch.float32
    enlarged = F.interpolate(2 * finest.flatten(0, 1), size=clip.shape[3:], mode="bilinear")
    torch.testing.assert_close(flow.flatten(0, 1), enlarged)


def test_flow_of_long_clips(network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pairs per window: 5 pairs are three windows, whose last repeats the last frame."""
    height, width = SIZES[type(network)]
    clip = torch.rand(2, 6, 3, height, width)
    with torch.no_grad():
        windows = [network.flow(clip[:, frames]) for frames in ([0, 1, 2], [2, 3, 4], [4, 5, 5])]
        flow = network.flow(clip)
        monkeypatch.setattr(motionnet, "_CHUNK_BYTES", 1)
        one_by_one = network.flow(clip)
    torch.testing.assert_close(flow, torch.cat(windows, dim=1)[:, :5], rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(one_by_one, flow, rtol=1e-4, atol=1e-3)


def test_flow_of_any_size(network: nn.Module) -> None:
    """Padded by the border's pixels, on both sides alike, and cut to size again."""
    clip = torch.rand(1, 3, 3, 29, 60)
    left, right, top, bottom = 2, 2, 1, 2  # to 32 x 64
    padded = F.pad(clip, (left, right, top, bottom, 0, 0), mode="replicate")
    with torch.no_grad():
        expected = network.flow(padded)[..., top : top + 29, left : left + 60]
        torch.testing.assert_close(network.flow(clip), expected)


def test_is_a_method_of_estimate(network: nn.Module) -> None:
    clip = torch.randint(256, (1, 4, 1, 20, 30), dtype=torch.uint8)
    with torch.no_grad():
        flow = optical_flow.estimate(clip, method=network.flow)
        torch.testing.assert_close(flow, network.flow(clip.expand(-1, -1, 3, -1, -1)))
    assert flow.shape == (1, 3, 2, 20, 30)
    assert network.flow(clip[:, :1]).shape == (1, 0, 2, 20, 30)
    assert network.flow(clip[:0]).shape == (0, 3, 2, 20, 30)


def test_batch(network: nn.Module, clip: Tensor) -> None:
    """A clip's flow does not depend on the others; twice the same is bit for bit the same; none give none."""
    with torch.no_grad():
        together = network(clip)
        again = network(clip)
        alone = network(clip[1:])
        none = network(clip[:0])
    for level in range(len(together)):
        assert torch.equal(together[level], again[level])
        scale = together[level].abs().max().item()
        torch.testing.assert_close(together[level][1:], alone[level], rtol=1e-4, atol=1e-4 * scale)
        assert none[level].shape == (0, *together[level].shape[1:])


def test_state_dict(network: nn.Module, clip: Tensor) -> None:
    other = type(network)(frames=3).eval()
    other.load_state_dict(network.state_dict())
    assert all(name.endswith(("weight", "bias")) for name in network.state_dict())
    with torch.no_grad():
        assert torch.equal(other(clip)[0], network(clip)[0])


def test_autocast(network: nn.Module, clip: Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        flows = network(clip)
        loss = sum((flow.float() ** 2).mean() for flow in flows)
    first, *_ = torch.autograd.grad(loss, [network.conv1.weight])
    with torch.no_grad():
        exact = network(clip)
    assert flows[0].dtype == torch.bfloat16
    assert first.dtype == torch.float32
    assert first.isfinite().all()
    assert first.any()
    for flow, expected in zip(flows, exact, strict=True):
        assert (flow - expected).abs().mean() < 0.03 * expected.abs().mean()


def test_compile(network: nn.Module, clip: Tensor) -> None:
    """With backend eager: one graph, without the minutes that code generation takes."""
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    grads = []
    for function in (network, compiled):
        flows = function(clip)
        grads.append(torch.autograd.grad(sum(flow.abs().mean() for flow in flows), network.conv1.weight)[0])
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-3, atol=1e-3 * grads[0].abs().max().item())


def test_export(network: nn.Module, clip: Tensor) -> None:
    exported = torch.export.export(network, (clip,), dynamic_shapes={"clip": {0: torch.export.Dim("batch")}}).module()
    three = torch.rand(3, *clip.shape[1:])
    with torch.no_grad():
        for flow, expected in zip(exported(three), network(three), strict=True):
            torch.testing.assert_close(flow, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize(
    ("clip", "error", "message"),
    [
        ([1], TypeError, "clip must be a torch.Tensor [N, T, C, H, W]; got list"),
        (torch.rand(2, 3, 3, 32), ValueError, "clip must be [N, T, 3, H, W] with T, H, W >= 1; got [2, 3, 3, 32]"),
        (torch.rand(1, 3, 1, 32, 32), ValueError, "got [1, 3, 1, 32, 32]"),
        (torch.zeros(1, 3, 3, 32, 32, dtype=torch.int64), ValueError, "clip must be uint8, or floating"),
        (torch.rand(1, 4, 3, 32, 32), ValueError, "clip must have T = 3 frames, see `frames`; got 4"),
        (torch.rand(1, 3, 3, 36, 32), ValueError, "got 36 x 32 (resize or crop, or call flow, which pads)"),
    ],
)  # fmt: skip
def test_rejects(network: nn.Module, clip: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        network(clip)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"models.{type(network).__name__}: ")


def test_rejects_one_frame() -> None:
    with pytest.raises(ValueError, match="^models.MotionNet: frames must be an integer >= 2; got 1$"):
        MotionNet(frames=1)
