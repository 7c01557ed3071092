"""pyaction.ops.tvl1_flow_clip and TVL1Stream; pairs: test_tvl1.py, refusals: test_tvl1_rejects.py."""

import math
from collections.abc import Callable
from dataclasses import astuple, replace

import pytest
import torch
from reference.tvl1 import PARAMS, moving_clip, texture, wavy_clip
from reference.tvl1 import tvl1_flow_clip as reference_tvl1_flow_clip
from torch import Tensor

from pyaction._native import simd_level
from pyaction.flow import endpoint_error
from pyaction.ops import TVL1_PRESETS, TVL1Params, TVL1Stream, tvl1_flow, tvl1_flow_clip

SETTINGS = {"different": PARAMS, "exact": replace(PARAMS, as_opencv=True), **TVL1_PRESETS}
# One pixel, one row, one column, smaller than the window of comparison, no second level, odd, many vectors wide.
SHAPES = [(1, 1), (1, 9), (7, 1), (2, 3), (15, 15), (33, 17), (37, 130)]
# As in test_tvl1.py.
SHORT_RUN, LONG_RUN, SAME_ROUNDING = 3e-4, 0.03, 1e-5


def pair_by_pair(clip: Tensor, params: TVL1Params) -> Tensor:
    return torch.stack([tvl1_flow(clip[:, t], clip[:, t + 1], params=params) for t in range(clip.shape[1] - 1)], dim=1)


def stream_through(clip: Tensor, params: TVL1Params) -> Tensor:
    stream = TVL1Stream(params)
    assert stream.push(clip[:, 0]) is None
    flows = [stream.push(frame) for frame in clip[:, 1:].unbind(1)]
    return torch.stack([flow for flow in flows if flow is not None], dim=1)


def test_known_value(device: str) -> None:
    """One step per pair on a ramp of 10 grey levels per pixel that gets 13 darker from frame to frame: 1.3 pixels.

    Where nothing ends the slope counts as 13 (test_tvl1.py says why) and the first step is one pixel. It leaves a
    residual of 3 instead of 13, so the second pair begins there, and goes on by 3 / 13; in the last column but one,
    which then sees the edge, by 3 / (0.6 * 7.5 + 0.4 * 10). The last column begins by 0.08 times its slope of 6.5;
    from there on it has left the image. (Column 0 is between pixels.)
    """
    params = TVL1Params(
        scales=1,
        warps=1,
        outer_iterations=1,
        inner_iterations=1,
        epsilon=0.0,
        median_size=1,
        attachment=0.2,
        theta=0.4,
        as_opencv=False,
    )
    ramp = torch.arange(100, 180, 10, dtype=torch.uint8, device=device).expand(1, 1, 9, 8)
    flow = tvl1_flow_clip(torch.stack([ramp, ramp - 13, ramp - 26], dim=1), params=params).cpu()
    assert flow.shape == (1, 2, 2, 9, 8) and flow[0, :, 1].abs().max() < 1e-5
    first = torch.tensor([0.52, 1, 1, 1, 1, 1, 1, 0.52]).expand(9, 8)
    second = torch.tensor([*[1 + 3 / 13] * 5, 1 + 3 / 8.5, 0.52]).expand(9, 7)
    torch.testing.assert_close(flow[0, 0, 0], first, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(flow[0, 1, 0, :, 1:], second, rtol=1e-5, atol=1e-5)
    # Where the second pair stands still, what is kept explains it worse.
    still = tvl1_flow_clip(torch.stack([ramp, ramp - 13, ramp - 13], dim=1), params=params)
    assert still[0, 1].eq(0).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("setting", SETTINGS)
def test_matches_reference(setting: str, shape: tuple[int, int], device: str) -> None:
    params = SETTINGS[setting]
    clip = wavy_clip(1 if setting == "opencv" else 2, 4, *shape, device)
    flow, expected = tvl1_flow_clip(clip, params=params), reference_tvl1_flow_clip(clip, params)
    if device == "cpu" and simd_level() != "baseline":
        assert torch.equal(flow, expected) or not params.as_opencv
        assert endpoint_error(flow, expected) < SAME_ROUNDING
    assert endpoint_error(flow, expected) < (LONG_RUN if setting == "opencv" else SHORT_RUN)
    moves = max(shape) > 1 and not params.as_opencv
    assert (endpoint_error(flow, pair_by_pair(clip, params)) > 2e-4) == moves


@pytest.mark.parametrize("setting", ["exact", "opencv"])
def test_as_opencv_is_pair_by_pair(setting: str, device: str) -> None:
    """OpenCV knows no sequences."""
    clip = wavy_clip(2, 4, 33, 41, device)
    flow = tvl1_flow_clip(clip, params=SETTINGS[setting])
    assert torch.equal(flow, pair_by_pair(clip, SETTINGS[setting]))
    assert endpoint_error(flow[:, 0], flow[:, 1]) > 0.01


@pytest.mark.parametrize("setting", ["different", "exact", "video", "accurate"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_stream_equals_clip(dtype: torch.dtype, setting: str, device: str) -> None:
    clip = torch.cat([wavy_clip(2, 5, 37, 53, device), torch.rand(2, 5, 2, 37, 53, device=device)], dim=2)
    clip = (255 * clip).byte() if dtype == torch.uint8 else clip.to(dtype)
    flow = stream_through(clip, SETTINGS[setting])
    assert flow.dtype == torch.float32
    assert torch.equal(flow, tvl1_flow_clip(clip, params=SETTINGS[setting]))


def test_stream_keeps_nothing_of_the_frames_tensors(device: str) -> None:
    """A decoder may write each frame into the same memory; flows stay what they were."""
    clip, buffer, stream = wavy_clip(1, 5, 24, 33, device), torch.empty(1, 1, 24, 33, device=device), TVL1Stream(PARAMS)
    flows = [stream.push(buffer.copy_(frame)) for frame in clip.unbind(1)]
    assert torch.equal(torch.stack(flows[1:], dim=1), tvl1_flow_clip(clip, params=PARAMS))  # type: ignore[arg-type]


def test_reset_begins_another_sequence_of_another_size(device: str) -> None:
    before, after = wavy_clip(2, 3, 33, 41, device), wavy_clip(1, 4, 20, 27, device).double()
    stream = TVL1Stream("fast")
    for frame in before.unbind(1):
        stream.push(frame)
    stream.reset()
    flows = [stream.push(frame) for frame in after.unbind(1)]
    assert flows[0] is None
    expected = tvl1_flow_clip(after, params="fast")
    assert torch.equal(torch.stack(flows[1:], dim=1), expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("preset", [None, "video"])
def test_default_is_the_video_preset(preset: str | None, device: str) -> None:
    clip = wavy_clip(1, 4, 33, 41, device)
    expected = tvl1_flow_clip(clip, params=TVL1_PRESETS["video"])
    options = {"params": preset} if preset else {}
    assert torch.equal(tvl1_flow_clip(clip, **options), expected)
    stream = TVL1Stream(**options)
    assert torch.equal([stream.push(frame) for frame in clip.unbind(1)][-1], expected[:, -1])
    assert not torch.equal(tvl1_flow_clip(clip, params="fast"), expected)


def test_clips_do_not_touch_each_other(device: str) -> None:
    clip = wavy_clip(3, 4, 33, 70, device)
    flow = tvl1_flow_clip(clip, params=PARAMS)
    one_by_one = [tvl1_flow_clip(clip[i : i + 1], params=PARAMS) for i in range(3)]
    assert torch.equal(flow, torch.cat(one_by_one))
    assert endpoint_error(flow[0], flow[1]) > 0.1


def test_first_pair_and_what_comes_later_do_not_matter(device: str) -> None:
    """A clip begins with a pair as tvl1_flow sees it, and the flow of a pair does not know the frames behind it."""
    clip = wavy_clip(2, 5, 33, 41, device)
    flow = tvl1_flow_clip(clip, params=PARAMS)
    assert torch.equal(flow[:, 0], tvl1_flow(clip[:, 0], clip[:, 1], params=PARAMS))
    assert torch.equal(flow[:, :2], tvl1_flow_clip(clip[:, :3], params=PARAMS))
    assert not torch.equal(flow[:, 2], tvl1_flow_clip(clip[:, 1:], params=PARAMS)[:, 1])


def small_fast_thing(frames: int, step: int) -> tuple[Tensor, Tensor]:
    """A clip (1, T, 1, 64, 160) of a square of 20 pixels that crosses a still background, and where it is, (T, ...)."""
    y, x = torch.meshgrid(torch.arange(64).double(), torch.arange(160).double(), indexing="ij")
    square = torch.stack(
        [(y - 32).abs().lt(10) & (x - 10 - step * t).ge(0) & (x - 30 - step * t).lt(0) for t in range(frames)]
    )
    things = torch.stack([texture(y.numpy(), (x - step * t).numpy(), seed=5) for t in range(frames)])
    return torch.where(square, things, texture(y.numpy(), x.numpy(), seed=3))[None, :, None], square


@pytest.mark.parametrize("preset", ["video", "fast"])
def test_small_fast_thing_is_not_lost_again(preset: str, device: str) -> None:
    """Five pixels per frame are too many for a square that coarse levels do not see; the kept flow adds them up."""
    clip, square = small_fast_thing(8, step=5)
    truth = torch.zeros(7, 2, 64, 160)
    truth[:, 0][square[:-1]] = 5
    kept = tvl1_flow_clip(clip.to(device), params=preset)[0].cpu()
    lost = pair_by_pair(clip.to(device), TVL1_PRESETS[preset])[0].cpu()

    def errors(where: Tensor) -> tuple[float, float]:
        return tuple(float(endpoint_error(flow[1:], truth[1:], where[1:-1])) for flow in (kept, lost))

    of_kept, of_lost = errors(square)
    assert of_kept < 0.6 * of_lost
    of_kept, of_lost = errors(~square)
    assert of_kept < of_lost + 0.01


@pytest.mark.parametrize("preset", ["video", "fast", "accurate"])
def test_scene_cut_leaves_no_trace(preset: str, device: str) -> None:
    """Whatever is found between two scenes, the pair behind the cut is no worse than a pair on its own."""
    motions = torch.tensor([[2.6, -1.2], [-1.9, 1.4]]).view(2, 1, 2, 1, 1).expand(2, 1, 2, 60, 90)
    before, after = (moving_clip(motion, 3, seed) for seed, motion in enumerate(motions))
    clip = torch.cat([before, after], dim=1).to(device)
    flow, alone = tvl1_flow_clip(clip, params=preset).cpu(), pair_by_pair(clip, TVL1_PRESETS[preset]).cpu()
    for pair in (3, 4):
        error = endpoint_error(flow[:, pair], motions[1])
        assert error < endpoint_error(alone[:, pair], motions[1]) + 0.04
        assert error < 0.1
    assert endpoint_error(flow[:, 2], motions[0]) > 2


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_view_input(dtype: torch.dtype, device: str) -> None:
    """Any strides and storage offset; nothing outside the view is read, and nothing is written to it."""
    clip = wavy_clip(2, 4, 20, 27, device)
    clip = torch.cat([clip, 1 - clip, clip / 2], dim=2)
    clip = (255 * clip).byte() if dtype == torch.uint8 else clip.to(dtype)
    sentinel = math.nan if clip.is_floating_point() else 255
    buffer = clip.new_full((2, 9, 24, 31, 3), sentinel)  # channels last, every other frame
    buffer[:, 1:9:2, 2:22, 3:30] = clip.movedim(2, -1)
    view = buffer[:, 1:9:2, 2:22, 3:30].movedim(-1, 2)
    flow = tvl1_flow_clip(view, params=PARAMS)
    assert flow.is_contiguous()
    assert torch.equal(flow, tvl1_flow_clip(clip, params=PARAMS))
    assert torch.equal(stream_through(view, PARAMS), flow)
    assert torch.equal(view, clip)


@pytest.mark.parametrize("shape", [(0, 4, 3, 5, 7), (2, 4, 1, 0, 7), (2, 4, 3, 5, 0), (3, 1, 3, 20, 33)])
def test_empty_batch(shape: tuple[int, ...], device: str) -> None:
    """No clip, no pixel, no pair."""
    n, t, _, h, w = shape
    clip = torch.rand(shape, device=device)
    flow = tvl1_flow_clip(clip)
    assert flow.shape == (n, t - 1, 2, h, w)
    assert flow.dtype == torch.float32 and flow.device.type == device
    stream = TVL1Stream()
    flows = [stream.push(frame) for frame in clip.unbind(1)]
    assert flows[0] is None and all(flow is not None and flow.shape == (n, 2, h, w) for flow in flows[1:])


def test_gradient_is_refused(device: str) -> None:
    clip = wavy_clip(1, 3, 5, 7, device).requires_grad_()
    flow = tvl1_flow_clip(clip)
    with pytest.raises(RuntimeError, match=r"tvl1_flow_clip is not differentiable: detach the frames"):
        flow.sum().backward()


OPS: dict[str, Callable[[Tensor, list[float]], tuple]] = {
    "tvl1_flow_clip": lambda clip, values: (clip, values),
    "tvl1_begin": lambda clip, values: (clip[:, 0], values),
    "tvl1_next": lambda clip, values: (torch.ops.pyaction.tvl1_begin(clip[:, 0], values), clip[:, 1], 1, values),
}


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("setting", ["different", "exact"])
def test_opcheck(setting: str, op: str, device: str) -> None:
    values = [float(value) for value in astuple(SETTINGS[setting])]
    arguments = OPS[op](wavy_clip(2, 3, 17, 23, device), values)
    # A new state is not initialised where nothing is known yet, so that two of them differ.
    traced = ("test_aot_dispatch_dynamic",) if op != "tvl1_begin" else ()
    checks = ("test_schema", "test_autograd_registration", "test_faketensor", *traced)
    torch.library.opcheck(getattr(torch.ops.pyaction, op), arguments, test_utils=checks)


def test_compile(device: str) -> None:
    def step(clip: Tensor) -> Tensor:
        return tvl1_flow_clip(clip / 2, params="fast") + tvl1_flow_clip(clip, params=PARAMS) * 2

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    for shape in [(2, 3, 17, 23), (1, 4, 20, 33)]:
        clip = wavy_clip(*shape, device)
        assert torch.equal(compiled(clip), step(clip))
