"""What the TV-L1 ops and TVL1Params refuse, and the words they refuse it with."""

import math
from collections.abc import Callable
from dataclasses import astuple
from typing import Any

import pytest
import torch
from torch import Tensor

from pyaction.ops import TVL1Params, TVL1Stream, tvl1_flow, tvl1_flow_clip

FRAME, FLOW = torch.rand(2, 3, 5, 7), torch.rand(2, 2, 5, 7)


def with_value(tensor: Tensor, value: float) -> Tensor:
    tensor = tensor.clone()
    tensor[1, 0, 2, 3] = value
    return tensor


REJECTS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "not a tensor": ({"frame0": FRAME.numpy()}, TypeError, r"frame0 must be a torch.Tensor \[.*\]; got ndarray"),
    "rank": ({"frame0": FRAME[0]}, ValueError, r"frame0 must have 4 dimensions, \[N, ., H, W\]; got shape \[3, 5, 7\]"),
    "rank of frame1": (
        {"frame1": FRAME[0]},
        ValueError,
        r"frame1 must have 4 dimensions, \[N, ., H, W\]; got shape \[3, 5, 7\]",
    ),
    "dtype": ({"frame0": FRAME.int()}, ValueError, "frame0 must be uint8 or float32 or float64; got int32"),
    "dtype of frame1": ({"frame1": FRAME.half()}, ValueError, "frame1 must be .* float64; got float16"),
    "mixed": (
        {"frame1": FRAME.byte()},
        ValueError,
        "frame1 and frame0 must have one dtype; got uint8 and float32",
    ),
    "channels": (
        {"frame0": FLOW, "frame1": FLOW},
        ValueError,
        r"frame0 must have 1 or 3 channels; got shape \[2, 2, 5, 7\]",
    ),
    "size": (
        {"frame1": FRAME[..., :6]},
        ValueError,
        r"frame1 must be the shape of frame0 = \[2, 3, 5, 7\]; got \[2, 3, 5, 6\]",
    ),
    "batch": ({"frame1": FRAME[:1]}, ValueError, r"= \[2, 3, 5, 7\]; got \[1, 3, 5, 7\]"),
    "device": (
        {"frame1": FRAME.to("meta")},
        ValueError,
        "frame1 and frame0 must be on one device; got meta and cpu",
    ),
    "NaN": ({"frame0": with_value(FRAME, math.nan)}, ValueError, "tvl1_flow: frame0 holds NaN or infinity"),
    "infinity": (
        {"frame0": FRAME.double(), "frame1": with_value(FRAME.double(), -math.inf)},
        ValueError,
        "tvl1_flow: frame1 holds NaN or infinity",
    ),
    "initial_flow type": (
        {"initial_flow": [0.5, 0.5]},
        TypeError,
        r"initial_flow must be a torch.Tensor \[N, 2, H, W\]; got list",
    ),
    "initial_flow rank": (
        {"initial_flow": FLOW[0]},
        ValueError,
        r"initial_flow must have 4 dimensions, \[N, ., H, W\]; got shape",
    ),
    "initial_flow dtype": ({"initial_flow": FLOW.double()}, ValueError, "must be float32; got float64"),
    "initial_flow size": (
        {"initial_flow": FLOW[..., :6]},
        ValueError,
        r"initial_flow must be \[N, 2, H, W\] of the frames = \[2, 2, 5, 7\]; got \[2, 2, 5, 6\]",
    ),
    "initial_flow channels": ({"initial_flow": FRAME}, ValueError, r"= \[2, 2, 5, 7\]; got \[2, 3, 5, 7\]"),
    "initial_flow device": (
        {"initial_flow": FLOW.to("meta")},
        ValueError,
        "initial_flow and frame0 must be on one device; got meta and cpu",
    ),
    "initial_flow NaN": (
        {"initial_flow": with_value(FLOW, math.nan)},
        ValueError,
        "tvl1_flow: initial_flow holds NaN or infinity",
    ),
    "preset": ({"params": "quick"}, ValueError, "params must be one of 'opencv', 'fast'.*; got 'quick'"),
    "params": ({"params": {"tau": 0.2}}, TypeError, "must be a TVL1Params or a preset's name; got dict"),
}


@pytest.mark.parametrize("case", REJECTS)
def test_rejects(case: str) -> None:
    changes, error, message = REJECTS[case]
    arguments = {"frame0": FRAME, "frame1": FRAME, **changes}
    with pytest.raises(error, match=message) as caught:
        tvl1_flow(**arguments)
    assert str(caught.value).startswith("tvl1_flow: ")


CLIP = torch.rand(2, 4, 3, 5, 7)
CLIP_REJECTS: dict[str, tuple[Any, dict[str, Any], type[Exception], str]] = {
    "not a tensor": (CLIP.tolist(), {}, TypeError, r"clip must be a torch.Tensor \[N, T, C, H, W\]; got list"),
    "rank": (CLIP[0], {}, ValueError, r"clip must have 5 dimensions, \[N, ., ., H, W\]; got shape \[4, 3, 5, 7\]"),
    "dtype": (CLIP.half(), {}, ValueError, "clip must be uint8 or float32 or float64; got float16"),
    "channels": (CLIP[:, :, :2], {}, ValueError, r"clip must have 1 or 3 channels; got shape \[2, 4, 2, 5, 7\]$"),
    "channels last": (CLIP.movedim(2, 4), {}, ValueError, r".*; got shape \[2, 4, 5, 7, 3\]; .*movedim\(-1, -3\)$"),
    "no frame": (CLIP[:, :0], {}, ValueError, r"clip must have a frame; got shape \[2, 0, 3, 5, 7\]"),
    "grey levels": (CLIP * 255, {}, ValueError, r"clip must be in \[0, 1\] .*; got .*divide by 255, or pass uint8"),
    "NaN": (torch.where(CLIP == CLIP.max(), math.nan, CLIP), {}, ValueError, "clip holds NaN or infinity"),
    "infinity": (CLIP / 0.0, {}, ValueError, "clip holds NaN or infinity"),
    "preset": (CLIP, {"params": "Video"}, ValueError, "params must be one of .*'video'.*; got 'Video'"),
    "params": (CLIP, {"params": None}, TypeError, "params must be a TVL1Params or a preset's name; got NoneType"),
}


@pytest.mark.parametrize("case", CLIP_REJECTS)
def test_clip_rejects(case: str) -> None:
    clip, options, error, message = CLIP_REJECTS[case]
    with pytest.raises(error, match=f"^tvl1_flow_clip: {message}"):
        tvl1_flow_clip(clip, **options)


STREAM_REJECTS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "rank": (lambda frame: frame[0], r"frame must have 4 dimensions, .*; got shape \[3, 20, 33\]"),
    "channels": (lambda frame: frame[:, :2], r"frame must have 1 or 3 channels; got shape \[2, 2, 20, 33\]"),
    "NaN": (lambda frame: frame * math.nan, "frame holds NaN or infinity"),
    "size": (
        lambda frame: frame[..., :32],
        r"must be alike; got \[2, 3, 20, 32\] float32 on cpu after \[2, 3, 20, 33\] float32 on cpu \(reset\(\) ",
    ),
    "grey": (lambda frame: frame[:, :1], r"must be alike; got \[2, 1, 20, 33\] .* after \[2, 3, 20, 33\]"),
    "batch": (lambda frame: frame[:1], r"must be alike; got \[1, 3, 20, 33\] .* after \[2, 3, 20, 33\]"),
    "dtype": (lambda frame: frame.double(), "must be alike; got .* float64 on cpu after .* float32 on cpu"),
    "device": (lambda frame: frame.to("meta"), "must be alike; got .* float32 on meta after .* float32 on cpu"),
}


@pytest.mark.parametrize("case", STREAM_REJECTS)
def test_stream_rejects_and_goes_on(case: str) -> None:
    """A refused frame leaves no trace."""
    change, message = STREAM_REJECTS[case]
    frames, stream, undisturbed = torch.rand(4, 2, 3, 20, 33), TVL1Stream(), TVL1Stream()
    for frame in frames:
        expected = undisturbed.push(frame)
        flow = stream.push(frame)
        assert (flow is None and expected is None) or torch.equal(flow, expected)
        with pytest.raises(ValueError, match=f"^TVL1Stream.push: .*{message}"):
            stream.push(change(frame))


def test_stream_rejects_its_params_at_once() -> None:
    with pytest.raises(ValueError, match="^TVL1Stream: params must be one of .*'video'.*; got 'quick'"):
        TVL1Stream("quick")  # type: ignore[arg-type]


def test_stream_may_begin_with_a_refused_frame() -> None:
    stream = TVL1Stream()
    with pytest.raises(ValueError, match="1 or 3 channels"):
        stream.push(FLOW)
    assert stream.push(FRAME) is None


def test_stream_refuses_gradients() -> None:
    stream, frame = TVL1Stream(), torch.rand(2, 1, 20, 33)
    with pytest.raises(RuntimeError, match="TVL1Stream is not differentiable: detach the frames"):
        stream.push(frame.requires_grad_())
    assert stream.push(frame.detach()) is None
    with torch.no_grad():
        flow = stream.push(frame)
    assert flow is not None and not flow.requires_grad


def test_rejects_grey_levels_in_floating_frames() -> None:
    """Frames of other flow code are often float in 0..255: the data term would count 255 times too much."""
    levels = torch.rand(1, 1, 5, 7) * 200
    with pytest.raises(ValueError, match=r"frame1 must be in \[0, 1\] .*; got .*divide by 255, or pass uint8"):
        tvl1_flow(levels / 255, levels)
    assert tvl1_flow(levels / 255, levels / 255 + 0.5).isfinite().all()  # what filters add is let through


def test_rejects_frames_with_channels_last_with_a_hint() -> None:
    frame = torch.rand(1, 20, 30, 3)
    with pytest.raises(ValueError, match=r"1 or 3 channels; got shape \[1, 20, 30, 3\]; .*movedim\(-1, -3\)"):
        tvl1_flow(frame, frame)


@pytest.mark.parametrize("preset", ["Fast", "", "Opencv"])
def test_rejects_preset_by_its_exact_name(preset: str) -> None:
    with pytest.raises(ValueError, match="params must be one of"):
        tvl1_flow(FRAME, FRAME, params=preset)  # type: ignore[arg-type]


REJECTED_FIELDS = {
    "scales": (0, 2.5, "5", 100_001, True),
    "warps": (0, -3, 2.0),
    "outer_iterations": (0, None),
    "inner_iterations": (0, 10.5),
    "tau": (0.0, 0.2500001, -0.2, math.nan, "0.2"),
    "attachment": (0.0, -0.1, math.inf, math.nan),
    "theta": (0.0, -0.3, math.nan, None),
    "scale_step": (0.0, 1.0, 1.25, math.nan),
    "epsilon": (-0.01, math.inf, math.nan),
    "median_size": (0, 2, 7, "3", 3.0, True),
    "as_opencv": ("no", 0, None),
}
RANGES = {
    "tau": "from 1e-06 to 0.25",
    "attachment": r"from 1e-06 to 1e\+06",
    "theta": r"from 1e-06 to 1e\+06",
    "scale_step": "from 0.05 to 0.95",
    "epsilon": r"from 0 to 1e\+06",
    "median_size": r"1 \(none\), 3 or 5",
    "as_opencv": "True or False",
}


@pytest.mark.parametrize(("field", "value"), [(f, v) for f, values in REJECTED_FIELDS.items() for v in values])
def test_params_reject(field: str, value: Any) -> None:
    expected = RANGES.get(field, "an integer from 1 to 100000")
    with pytest.raises(ValueError, match=rf"^TVL1Params: {field} must be {expected}; got {value!r}$"):
        TVL1Params(**{field: value})


def test_params_accept_the_ends_of_their_ranges() -> None:
    least = TVL1Params(1e-6, 1e-6, 1e-6, 1, 0.05, 1, 1, 1, 0, 1, False)
    most = TVL1Params(0.25, 1e6, 1e6, 100_000, 0.95, 1, 1, 1, 1e6, 5, True)
    frames = FRAME.new_tensor(0.5).expand(1, 1, 20, 20), torch.rand(1, 1, 20, 20)
    for params in (least, most):
        assert tvl1_flow(*frames, params=params).isfinite().all()


FIELDS = dict(zip(TVL1Params.__dataclass_fields__, map(float, astuple(TVL1Params())), strict=True))
KERNEL_REFUSES: dict[str, tuple[dict[str, Any], str]] = {
    "size": ({"frame1": FRAME[..., :6]}, "frame1 must have size 7 in dimension 3; got 6"),
    "rank": ({"frame0": FRAME[0], "frame1": FRAME[0]}, "frame must have 4 dimensions; got 3"),
    "mixed": ({"frame1": FRAME.double()}, "frame1 must have the dtype and device of the first argument"),
    "channels": ({"frame0": FLOW, "frame1": FLOW}, "frames must have 1 or 3 channels; got 2"),
    "dtype": ({"frame0": FRAME.int(), "frame1": FRAME.int()}, "frames must be uint8, float32 or float64"),
    "initial_flow size": ({"initial_flow": FLOW[:, :, :4]}, "initial_flow must have size 5 in dimension 2; got 4"),
    "initial_flow dtype": ({"initial_flow": FLOW.double()}, "initial_flow must have the dtype and device"),
    "scales": ({"scales": 0}, "scales must be at least 1 and scale_step between 0 and 1; got 0 and 0.8"),
    "scale_step": ({"scale_step": 1.0}, "scale_step between 0 and 1; got 5 and 1"),
    "NaN scale_step": ({"scale_step": math.nan}, "scale_step between 0 and 1; got 5 and -?nan"),
    "warps": ({"warps": 0}, "warps and iterations must be at least 1"),
    "outer_iterations": ({"outer_iterations": -2}, "warps and iterations must be at least 1"),
    "inner_iterations": ({"inner_iterations": 0}, "warps and iterations must be at least 1"),
    "median_size": ({"median_size": 4}, "median_size must be 1, 3 or 5; got 4"),
}


@pytest.mark.parametrize("case", KERNEL_REFUSES)
def test_kernels_refuse_what_would_read_out_of_bounds(case: str, device: str) -> None:
    """A direct call of the op skips the Python checks, not the kernel's own."""
    changes, message = KERNEL_REFUSES[case]
    arguments = {"frame0": FRAME, "frame1": FRAME, "initial_flow": None, **FIELDS, **changes}
    values = [arguments.pop(field) for field in FIELDS]
    on_device = [value.to(device) if isinstance(value, Tensor) else value for value in arguments.values()]
    with pytest.raises(RuntimeError, match=f"tvl1_flow: .*{message}"):
        torch.ops.pyaction.tvl1_flow(*on_device, values)


@pytest.mark.parametrize("count", [0, 10, 12])
def test_kernels_refuse_another_number_of_params(count: int, device: str) -> None:
    values, frame = [*FIELDS.values(), 2.0][:count], FRAME.to(device)
    with pytest.raises(RuntimeError, match=f"params must have 11 values; got {count}"):
        torch.ops.pyaction.tvl1_flow(frame, frame, None, values)


SEQUENCE_REFUSES: dict[str, tuple[str, Callable[[Tensor, Tensor, list[float]], Any], str]] = {
    "rank": ("tvl1_flow_clip", lambda clip, state, values: (clip[0], values), "clip must have 5 dimensions; got 4"),
    "no frame": ("tvl1_flow_clip", lambda clip, state, values: (clip[:, :0], values), "clip must have a frame"),
    "rank of the first": ("tvl1_begin", lambda clip, state, values: (clip, values), "must have 4 dimensions; got 5"),
    "size": ("tvl1_next", lambda clip, state, values: (state, clip[:, 1, :, 1:], 1, values), "of the same size and"),
    "batch": ("tvl1_next", lambda clip, state, values: (state, clip[:1, 1], 1, values), "of the same size and params"),
    "levels": (
        "tvl1_next",
        lambda clip, state, values: (state, clip[:, 1], 1, [*values[:3], 1.0, *values[4:]]),
        "of the same size and params",
    ),
    "dtype of the state": (
        "tvl1_next",
        lambda clip, state, values: (state.double(), clip[:, 1], 1, values),
        "state must have the dtype and device",
    ),
    "strides of the state": (
        "tvl1_next",
        lambda clip, state, values: (state[:1].expand(len(state)), clip[:, 1], 1, values),
        "of the same size and params",
    ),
    "index": ("tvl1_next", lambda clip, state, values: (state, clip[:, 1], 0, values), "state must be that of a seq"),
}


@pytest.mark.parametrize("case", SEQUENCE_REFUSES)
def test_kernels_of_sequences_refuse_too(case: str, device: str) -> None:
    op, arguments, message = SEQUENCE_REFUSES[case]
    clip, values = torch.rand(2, 3, 1, 24, 27, device=device), list(FIELDS.values())
    state = torch.ops.pyaction.tvl1_begin(clip[:, 0], values)
    with pytest.raises(RuntimeError, match=message):
        getattr(torch.ops.pyaction, op)(*arguments(clip, state, values))
