"""pyaction.ops.tvl1_flow against tests/reference/tvl1.py. Sequences, threads, OpenCV, real frames: test_tvl1_*.py."""

import math
from dataclasses import FrozenInstanceError, astuple, replace
from typing import Any

import pytest
import torch
from reference.tvl1 import PARAMS, moving_texture
from reference.tvl1 import tvl1_flow as reference_tvl1_flow
from torch import Tensor

from pyaction._native import simd_level
from pyaction.flow import endpoint_error
from pyaction.ops import TVL1_PRESETS, TVL1Params, tvl1_flow

EXACT = replace(PARAMS, as_opencv=True)
SETTINGS = {"different": PARAMS, "no stop": replace(PARAMS, epsilon=0.0), "exact": EXACT, **TVL1_PRESETS}
# One pixel, one row, one column, no second level, one vector wide, odd, more than two chunks of samples wide.
SHAPES = [(1, 1), (1, 9), (7, 1), (2, 2), (15, 15), (16, 64), (33, 17), (37, 130)]
# Mean end-point error in pixels between two roundings of one algorithm. TV-L1 is chaotic where pixels have no
# partner: hundreds of iterations turn one bit into another flow there, tens do not.
SHORT_RUN, LONG_RUN = 3e-4, 0.03
# The same where both round alike, for want of equal bits, which only OpenCV's variant promises.
SAME_ROUNDING = 1e-5


def wavy_flow(n: int, height: int, width: int) -> Tensor:
    """Below two pixels, another one for each of the batch, and nowhere the same along x and y."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pair = torch.arange(n).view(n, 1, 1)
    u = 0.8 + 1.1 * torch.sin(y / 25 + pair)
    v = 0.9 * torch.cos(x / 20 + 2 * pair)
    return torch.stack(torch.broadcast_tensors(u, v), dim=1)


def sample(n: int, height: int, width: int, device: str) -> tuple[Tensor, Tensor]:
    frame0, frame1 = moving_texture(wavy_flow(n, height, width))
    return frame0.to(device), frame1.to(device)


def constant_flow(u: float, v: float, height: int, width: int) -> Tensor:
    return torch.tensor([u, v]).view(1, 2, 1, 1).repeat(1, 1, height, width)


def inside(flow: Tensor, margin: int) -> Tensor:
    """Without the edges, where pixels leave the image."""
    return flow[..., margin:-margin, margin:-margin]


ONE_STEP = TVL1Params(
    scales=1,
    warps=1,
    outer_iterations=1,
    inner_iterations=1,
    epsilon=0.0,
    median_size=1,
    tau=0.2,
    attachment=0.2,
    theta=0.4,
)
# The slope of a ramp of 10 grey levels per pixel, which ends at the edges: the central difference; and 0.6 of the
# slope of the surface that is sampled, 1.5 central differences at a pixel's centre, plus 0.4 of the central one.
SLOPES = {True: [5, 10, 10, 10, 10, 5], False: [6.5, 13, 13, 13, 13, 6.5]}


def assert_flow_along_x(flow: Tensor, expected: list[float] | Tensor, along_y: float = 0.0) -> None:
    """Every row of flow (1, 2, H, W), whose y component is the same everywhere."""
    rows = torch.as_tensor(expected, dtype=torch.float32).expand(flow.shape[-2:])
    torch.testing.assert_close(flow[0].cpu(), torch.stack([rows, torch.full_like(rows, along_y)]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("as_opencv", [False, True])
def test_known_value(as_opencv: bool, device: str) -> None:
    """One step on a ramp: residual / slope pixels, at most attachment * theta * slope."""
    ramp = torch.arange(40, 100, 10, dtype=torch.uint8, device=device).expand(1, 1, 5, 6)
    slope, params = torch.tensor(SLOPES[as_opencv]), replace(ONE_STEP, as_opencv=as_opencv)
    small, large = torch.minimum(3 / slope, 0.08 * slope), torch.minimum(20 / slope, 0.08 * slope)
    assert_flow_along_x(tvl1_flow(ramp + 3, ramp, params=params), small)
    assert_flow_along_x(tvl1_flow(ramp + 20, ramp, params=params), large)
    down = tvl1_flow((ramp - 3).mT, ramp.mT, params=params)
    assert_flow_along_x(down.mT.flip(1), -small)


def test_known_value_where_pixels_leave(device: str) -> None:
    """The last two of six columns point beyond the edge and keep their flow. The others, 20 grey levels from theirs,
    go back by 0.08 slopes: frame 0's at the pixel, and frame 1's where it points to, 15 or, at the edge, 7.5."""
    ramp = torch.arange(40, 100, 10, dtype=torch.uint8, device=device).expand(1, 1, 5, 6)
    start = constant_flow(2.0, 0.0, 5, 6).to(device)
    flow = tvl1_flow(ramp, ramp, initial_flow=start, params=replace(ONE_STEP, as_opencv=False))
    slope = [0.6 * 15 + 0.4 * 5, 13, 13, 0.6 * 7.5 + 0.4 * 10]
    assert_flow_along_x(flow, [*(2 - 0.08 * s for s in slope), 2, 2])


@pytest.mark.parametrize("as_opencv", [False, True])
def test_known_value_of_smoothing(as_opencv: bool, device: str) -> None:
    """Two steps on grey frames, where only smoothness counts, from a flow that jumps by (3, 4) = 5 pixels.

    The first leaves p = 0.5 g / (1 + 0.5 |g|) across the jump, with tau / theta = 0.5; the second moves both sides
    by theta p. g is the jump of the vector, or, for OpenCV, of the component.
    """
    frame = torch.full((1, 3, 4, 6), 0.6, device=device)
    start = torch.zeros(1, 2, 4, 6, device=device)
    start[:, 0, :, 3:], start[:, 1, :, 3:] = 3, 4
    params = replace(ONE_STEP, inner_iterations=2, as_opencv=as_opencv)
    flow = tvl1_flow(frame, frame, initial_flow=start, params=params).cpu() - start.cpu()
    moved = [0.4 * 0.5 * g / (1 + 0.5 * (g if as_opencv else 5)) for g in (3, 4)]
    for component, by in enumerate(moved):
        assert_flow_along_x(flow[:, [component, component]] * torch.tensor([1, 0]).view(2, 1, 1), [0, 0, by, -by, 0, 0])


@pytest.mark.parametrize("preset", TVL1_PRESETS)
@pytest.mark.parametrize("motion", [(1.3, -0.6), (-0.4, 2.7)])
def test_known_motion(motion: tuple[float, float], preset: str, device: str) -> None:
    """frame0(x, y) ~ frame1(x + u, y + v), channel 0 is x, fractions of a pixel count."""
    truth = constant_flow(*motion, 60, 90)
    frame0, frame1 = (frame.to(device) for frame in moving_texture(truth))
    flow = tvl1_flow(frame0, frame1, params=preset)
    assert flow.dtype == torch.float32
    assert endpoint_error(inside(flow.cpu(), 6), inside(truth, 6)) < 0.07


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("setting", SETTINGS)
def test_matches_reference(setting: str, shape: tuple[int, int], device: str) -> None:
    params = SETTINGS[setting]
    frame0, frame1 = sample(2, *shape, device)
    flow, expected = tvl1_flow(frame0, frame1, params=params), reference_tvl1_flow(frame0, frame1, params)
    # Without fused multiply-add a processor cannot round as the reference; on CUDA the stopping rule sums in tiles.
    if device == "cpu" and simd_level() != "baseline":
        assert torch.equal(flow, expected) or not params.as_opencv
        assert endpoint_error(flow, expected) < SAME_ROUNDING
    assert endpoint_error(flow, expected) < (LONG_RUN if setting == "opencv" else SHORT_RUN)


OTHER_VALUES: dict[str, Any] = {
    "tau": 0.11,
    "attachment": 0.04,
    "theta": 0.2,
    "scales": 2,
    "scale_step": 0.6,
    "warps": 2,
    "outer_iterations": 2,
    "inner_iterations": 5,
    "epsilon": 0.09,
    "median_size": 5,
}


@pytest.mark.parametrize("as_opencv", [False, True])
@pytest.mark.parametrize("field", OTHER_VALUES)
def test_every_parameter_counts(field: str, as_opencv: bool, device: str) -> None:
    frame0, frame1 = sample(1, 45, 60, device)
    before = replace(PARAMS, as_opencv=as_opencv)
    after = replace(before, **{field: OTHER_VALUES[field]})
    flow = tvl1_flow(frame0, frame1, params=after)
    assert endpoint_error(flow, reference_tvl1_flow(frame0, frame1, after)) < SHORT_RUN
    assert endpoint_error(flow, tvl1_flow(frame0, frame1, params=before)) > 10 * SHORT_RUN


def test_default_is_the_fast_preset(device: str) -> None:
    frame0, frame1 = sample(1, 40, 50, device)
    flow = tvl1_flow(frame0, frame1)
    assert torch.equal(flow, tvl1_flow(frame0, frame1, params="fast"))
    assert torch.equal(flow, tvl1_flow(frame0, frame1, params=TVL1_PRESETS["fast"]))
    assert not torch.equal(flow, tvl1_flow(frame0, frame1, params="opencv"))


def test_frame_dtypes(device: str) -> None:
    frames = [(255 * frame).round() for frame in sample(1, 37, 53, device)]
    floats = [frame / 255 for frame in frames]
    flow = tvl1_flow(*floats, params=PARAMS)
    assert torch.equal(tvl1_flow(*(frame.double() for frame in floats), params=PARAMS), flow)
    assert endpoint_error(tvl1_flow(*(frame.byte() for frame in frames), params=PARAMS), flow) < SHORT_RUN


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_rgb_is_seen_as_luma(dtype: torch.dtype, device: str) -> None:
    # Red, green and blue move differently: the flow depends on their weights.
    channels = [moving_texture(constant_flow(u, 0.5, 37, 53), seed) for seed, u in enumerate((-1.2, 0.9, 0.3))]
    rgb = [torch.cat(frames, dim=1).to(device) for frames in zip(*channels, strict=True)]
    if dtype == torch.uint8:
        rgb = [(255 * frame).round() for frame in rgb]
    luma = torch.tensor([0.299, 0.587, 0.114], device=device).view(3, 1, 1)
    grey = [(luma * frame).sum(1, keepdim=True) / (255 if dtype == torch.uint8 else 1) for frame in rgb]
    flow = tvl1_flow(*(frame.to(dtype) for frame in rgb), params=PARAMS)
    assert endpoint_error(flow, tvl1_flow(*grey, params=PARAMS)) < SHORT_RUN
    swapped = tvl1_flow(*(frame.to(dtype).flip(1) for frame in rgb), params=PARAMS)
    assert endpoint_error(flow, swapped) > 0.05


@pytest.mark.parametrize("threads", [1, 2])
def test_pairs_do_not_touch_each_other(threads: int, device: str) -> None:
    frame0, frame1 = sample(5, 33, 70, device)
    initial_flow = wavy_flow(5, 33, 70).flip(0).to(device)
    before = torch.get_num_threads()
    one_by_one = [
        tvl1_flow(frame0[i : i + 1], frame1[i : i + 1], initial_flow=initial_flow[i : i + 1], params=PARAMS)
        for i in range(5)
    ]
    try:
        torch.set_num_threads(threads)
        batch = tvl1_flow(frame0, frame1, initial_flow=initial_flow, params=PARAMS)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(batch, torch.cat(one_by_one))
    assert endpoint_error(batch[0], batch[1]) > 0.1


@pytest.mark.gpu
@pytest.mark.parametrize("setting", SETTINGS)
def test_cpu_matches_cuda(setting: str) -> None:
    frame0, frame1 = sample(3, 61, 131, "cpu")
    cpu = tvl1_flow(frame0, frame1, params=SETTINGS[setting])
    cuda = tvl1_flow(frame0.cuda(), frame1.cuda(), params=SETTINGS[setting])
    assert endpoint_error(cpu, cuda.cpu()) < (LONG_RUN if setting == "opencv" else 10 * SHORT_RUN)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_view_input(dtype: torch.dtype, device: str) -> None:
    """Any strides and storage offset; nothing outside the view is read, and nothing is written to it."""
    frames = [torch.cat([frame, 1 - frame, frame / 2], dim=1) for frame in sample(2, 20, 27, device)]
    frames = [(255 * frame).byte() if dtype == torch.uint8 else frame.to(dtype) for frame in frames]
    initial_flow = wavy_flow(2, 20, 27).to(device)
    views = []
    for frame in [*frames, initial_flow]:
        sentinel = math.nan if frame.is_floating_point() else 255
        buffer = frame.new_full((2, 24, 31, frame.shape[1]), sentinel)  # channels last
        buffer[:, 2:22, 3:30] = frame.permute(0, 2, 3, 1)
        views.append(buffer[:, 2:22, 3:30].permute(0, 3, 1, 2))
    flow = tvl1_flow(views[0], views[1], initial_flow=views[2], params=PARAMS)
    assert flow.is_contiguous()
    assert torch.equal(flow, tvl1_flow(*frames, initial_flow=initial_flow, params=PARAMS))
    for view, frame in zip(views, [*frames, initial_flow], strict=True):
        assert torch.equal(view, frame)


@pytest.mark.parametrize("shape", [(0, 3, 5, 7), (2, 1, 0, 7), (2, 3, 5, 0)])
def test_empty_batch(shape: tuple[int, ...], device: str) -> None:
    frames = torch.rand(shape, device=device)
    flow = tvl1_flow(frames, frames, initial_flow=torch.rand(shape[0], 2, *shape[2:], device=device))
    assert flow.shape == (shape[0], 2, *shape[2:])
    assert flow.dtype == torch.float32 and flow.device.type == device


@pytest.mark.parametrize("as_opencv", [False, True])
@pytest.mark.parametrize("scales", [1, 3])
def test_initial_flow(scales: int, as_opencv: bool, device: str) -> None:
    """Nine pixels are too far for one or three levels, unless they begin near by."""
    truth = constant_flow(9.4, -4.7, 64, 96)
    frame0, frame1 = (frame.to(device) for frame in moving_texture(truth))
    params = replace(PARAMS, scales=scales, as_opencv=as_opencv)
    start = (truth + 0.4).to(device)
    flow = tvl1_flow(frame0, frame1, initial_flow=start, params=params)
    assert endpoint_error(inside(flow.cpu(), 16), inside(truth, 16)) < 0.1
    assert endpoint_error(flow, reference_tvl1_flow(frame0, frame1, params, start)) < SHORT_RUN
    from_zero = tvl1_flow(frame0, frame1, params=params)
    assert endpoint_error(inside(from_zero.cpu(), 16), inside(truth, 16)) > 3
    assert torch.equal(start.cpu(), truth + 0.4)


@pytest.mark.parametrize("preset", TVL1_PRESETS)
@pytest.mark.parametrize("value", [1e4, 1e30, -1e30, 1e38])
def test_extreme_initial_flow_stays_where_it_is(value: float, preset: str, device: str) -> None:
    """One pixel that points out of the world does not spoil the rest; a whole field of them finds no way back."""
    truth = constant_flow(0.3, 0.3, 40, 70)
    frame0, frame1 = (frame.to(device) for frame in moving_texture(truth))
    start = torch.zeros(1, 2, 40, 70, device=device)
    start[0, 0, 20, 33] = value
    flow = tvl1_flow(frame0, frame1, initial_flow=start, params=preset)
    # One round of a median of 3 x 3 does not get rid of it where it has become several pixels.
    assert preset == "video" or endpoint_error(flow.cpu(), truth) < 0.2
    lost = tvl1_flow(frame0, frame1, initial_flow=torch.full_like(start, value), params=preset)
    assert lost.isfinite().all() and (lost / value > 0.9).all()


def test_presets_and_params_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        PARAMS.tau = 0.1  # type: ignore[misc]
    assert TVL1_PRESETS["opencv"] == TVL1Params()


@pytest.mark.parametrize("argument", ["frame0", "frame1", "initial_flow"])
def test_gradient_is_refused(argument: str, device: str) -> None:
    frame0, frame1 = sample(1, 5, 7, device)
    arguments = {"frame0": frame0, "frame1": frame1, "initial_flow": torch.rand(1, 2, 5, 7, device=device)}
    arguments[argument].requires_grad_()
    flow = tvl1_flow(**arguments)
    with pytest.raises(RuntimeError, match=r"tvl1_flow is not differentiable: detach the frames"):
        flow.sum().backward()


@pytest.mark.parametrize("setting", ["different", "exact"])
def test_opcheck(setting: str, device: str) -> None:
    frame0, frame1 = sample(2, 17, 23, device)
    for initial_flow in (None, wavy_flow(2, 17, 23).to(device)):
        arguments = (frame0, frame1, initial_flow, [float(value) for value in astuple(SETTINGS[setting])])
        torch.library.opcheck(torch.ops.pyaction.tvl1_flow, arguments)


def test_compile(device: str) -> None:
    def step(frame0: Tensor, frame1: Tensor) -> Tensor:
        flow = tvl1_flow(frame0 / 2, frame1 / 2, params="fast")
        return tvl1_flow(frame0, frame1, initial_flow=flow, params=PARAMS) * 2

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    for shape in [(2, 17, 23), (3, 20, 33)]:
        frames = sample(*shape, device)
        assert torch.equal(compiled(*frames), step(*frames))
