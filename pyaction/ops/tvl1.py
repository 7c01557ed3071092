"""TV-L1 optical flow."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pyaction import _native  # noqa: F401  (registers torch.ops.pyaction)
from pyaction.ops._autograd import register_blocker, register_fake
from pyaction.ops._checks import check_alike, check_choice, check_shape, check_tensor

# Floating frames are in [0, 1], give or take what filters add. Beyond this they are grey levels 0..255, whose flow
# would be garbage.
_LARGEST_FLOATING = 4.0
_NO_GRADIENT = "is not differentiable: detach the frames, or train a flow network"
_FRAME_DTYPES = (torch.uint8, torch.float32, torch.float64)


@dataclass(frozen=True)
class TVL1Params:
    """What TV-L1 minimises and how hard it tries. The defaults are OpenCV's: the preset ``"opencv"``.

    Example:
        >>> TVL1Params(scales=8).warps
        5
        >>> dataclasses.replace(PRESETS["fast"], attachment=0.3).attachment
        0.3
    """

    tau: float = 0.25
    """Step of the dual variables, in (0, 0.25]."""
    attachment: float = 0.15
    """Weight of the data term (lambda in the papers) for grey levels 0..255. Smaller is smoother."""
    theta: float = 0.3
    """Tightness: how far the smooth flow and the one that fits the data may differ."""
    scales: int = 5
    """Levels of the pyramid, of which 64 at most are made. Levels with a side shorter than 16 pixels are left out."""
    scale_step: float = 0.8
    """Size of a level relative to the next finer one, in [0.05, 0.95]."""
    warps: int = 5
    """How often, per level, frame 1 is sampled anew where the flow points."""
    outer_iterations: int = 10
    """Rounds per warp; each begins with the median filter."""
    inner_iterations: int = 30
    """Iterations per round."""
    epsilon: float = 0.01
    """A warp ends when the root mean square update, in pixels, is not above this. 0: all iterations are run."""
    median_size: int = 5
    """Side of the median filter on the flow: 3, 5, or 1 for none."""
    as_opencv: bool = True
    """Compute what OpenCV 5 computes, to the last bit on a CPU with FMA (at a scale_step of 0.6, say, OpenCV's
    resampling positions differ by 1e-14). False is pyaction's own TV-L1, which is nearer to the truth at less work:
    one norm for both components of the flow (vectorial total variation), exact derivatives of the sampled surface
    mixed with those of frame 0, no data term for pixels that leave the image, and dual variables that are carried
    from level to level. csrc/tvl1/tvl1.h has the list."""

    def __post_init__(self) -> None:
        """Refuses values outside the ranges above."""
        for name in ("scales", "warps", "outer_iterations", "inner_iterations"):
            value = getattr(self, name)
            if not (type(value) is int and 1 <= value <= 100_000):
                raise ValueError(f"TVL1Params: {name} must be an integer from 1 to 100000; got {value!r}")
        for name, smallest, largest in (
            ("tau", 1e-6, 0.25),
            ("attachment", 1e-6, 1e6),
            ("theta", 1e-6, 1e6),
            ("scale_step", 0.05, 0.95),
            ("epsilon", 0.0, 1e6),
        ):
            value = getattr(self, name)
            if type(value) not in (int, float) or not smallest <= value <= largest:
                raise ValueError(f"TVL1Params: {name} must be from {smallest:g} to {largest:g}; got {value!r}")
        if type(self.median_size) is not int or self.median_size not in (1, 3, 5):
            raise ValueError(f"TVL1Params: median_size must be 1 (none), 3 or 5; got {self.median_size!r}")
        if type(self.as_opencv) is not bool:
            raise ValueError(f"TVL1Params: as_opencv must be True or False; got {self.as_opencv!r}")


PRESETS = {
    # cv2.optflow.DualTVL1OpticalFlow of OpenCV 5, with its defaults.
    "opencv": TVL1Params(),
    # Iterations are not quality, a deep pyramid is.
    "fast": TVL1Params(
        attachment=0.2,
        scales=16,
        warps=2,
        outer_iterations=1,
        inner_iterations=10,
        epsilon=0.0,
        median_size=3,
        as_opencv=False,
    ),
    "accurate": TVL1Params(
        attachment=0.2,
        theta=0.2,
        scales=24,
        scale_step=0.85,
        warps=5,
        outer_iterations=2,
        inner_iterations=10,
        epsilon=0.0,
        as_opencv=False,
    ),
    # In a sequence the previous flow makes up for the second warp.
    "video": TVL1Params(
        attachment=0.2,
        scales=16,
        warps=1,
        outer_iterations=1,
        inner_iterations=10,
        epsilon=0.0,
        median_size=3,
        as_opencv=False,
    ),
}

Preset = Literal["fast", "accurate", "video", "opencv"]


def tvl1_flow(
    frame0: Tensor,
    frame1: Tensor,
    *,
    initial_flow: Tensor | None = None,
    params: TVL1Params | Preset = "fast",
) -> Tensor:
    r"""Optical flow between pairs of frames by TV-L1 (Zach, Pock and Bischof 2007).

    .. math:: \min_u \int |\nabla u| + \lambda\, |I_1(x + u(x)) - I_0(x)|\; dx

    coarse to fine, with a median filter between the iterations. On the CPU the pairs of a batch are shared among
    torch's threads, which work together on one pair where there are more threads than pairs; on CUDA a batch is one
    sequence of launches on the current stream, without synchronisation. On the CPU the memory of a call, up to a
    gigabyte, is kept for the next one. Not differentiable.

    The hundreds of launches of a small batch take the CPU longer than the GPU. ``torch.cuda.graph`` can record a call,
    of `tvl1_flow_clip` too (after one call without it, which loads the kernels), to be replayed on whatever frames are
    then in the same memory. ``TVL1Stream.push``, which counts frames in Python, cannot be recorded.

    Args:
        frame0: ``(N, C, H, W)``, C = 1 (grey) or 3 (RGB, turned grey by ITU-R BT.601), uint8 in 0..255, or
            float32 or float64 in [0, 1].
        frame1: The frames that follow: shape, dtype and device of `frame0`.
        initial_flow: ``(N, 2, H, W)``, float32, pixels: where the coarsest level starts. Default: zero.
        params: A :class:`TVL1Params`, or the name of a preset: ``"fast"`` (the default: deep pyramid, few
            iterations), ``"accurate"``, ``"video"`` (for `tvl1_flow_clip`) or ``"opencv"`` (what OpenCV 5 computes
            with its defaults). README.md, Speed, has the measured error and speed of each.

    Returns:
        ``(N, 2, H, W)``, float32, pixels; channel 0 = x (right), channel 1 = y (down), from frame 0 to frame 1:
        ``frame0(x, y) ~ frame1(x + u, y + v)``.

    Raises:
        ValueError: An argument has the wrong rank, shape, dtype or device, the preset is unknown, or frames on the
            CPU hold NaN, infinity or values far outside [0, 1]. (On CUDA, looking would stall the stream: NaN in a
            frame gives NaN flow.)

    Example:
        >>> frame0 = torch.nn.functional.interpolate(torch.rand(1, 1, 16, 16), size=64, mode="bilinear")
        >>> frame1 = frame0.roll((1, 2), dims=(2, 3))  # one pixel down, two to the right
        >>> flow = tvl1_flow(frame0, frame1)
        >>> flow.shape, flow[0, :, 30, 30].round().tolist()
        (torch.Size([1, 2, 64, 64]), [2.0, 1.0])
    """
    _check_frames("tvl1_flow", "frame0", frame0, "[N, C, H, W]")
    check_tensor("tvl1_flow", "frame1", frame1, "[N, C, H, W]", _FRAME_DTYPES)
    n, _, h, w = frame0.shape
    check_shape("tvl1_flow", "frame1", frame1, frame0.shape, "the shape of frame0")
    check_alike("tvl1_flow", "frame1", frame1, "frame0", frame0)
    _check_values("tvl1_flow", "frame1", frame1, _LARGEST_FLOATING)
    if initial_flow is not None:
        check_tensor("tvl1_flow", "initial_flow", initial_flow, "[N, 2, H, W]", (torch.float32,))
        check_shape("tvl1_flow", "initial_flow", initial_flow, (n, 2, h, w), "[N, 2, H, W] of the frames")
        if initial_flow.device != frame0.device:
            raise ValueError(
                "tvl1_flow: initial_flow and frame0 must be on one device; "
                f"got {initial_flow.device} and {frame0.device}"
            )
        _check_values("tvl1_flow", "initial_flow", initial_flow, math.inf)
    return torch.ops.pyaction.tvl1_flow(frame0, frame1, initial_flow, _values("tvl1_flow", params))


def tvl1_flow_clip(clip: Tensor, *, params: TVL1Params | Preset = "video") -> Tensor:
    """TV-L1 flow between all neighbouring frames of clips; each pair is helped by the one before.

    The pyramid of a frame is made once for both of its pairs. At every level, around every pixel where the flow of
    the pair before explains this pair better than what the coarser level found, that flow is where the level starts:
    small things that move fast are not lost again at every frame. At a cut, where it explains next to nothing, next
    to nothing is taken over. With ``as_opencv`` only the pyramids are shared: the flow is that of `tvl1_flow`, pair by
    pair.

    Args:
        clip: ``(N, T, C, H, W)``, frames as for `tvl1_flow`; T at least 1.
        params: A :class:`TVL1Params`, or the name of a preset, see `tvl1_flow`.

    Returns:
        ``(N, T - 1, 2, H, W)``, float32, pixels, from frame t to frame t + 1.

    Raises:
        ValueError: As `tvl1_flow`; or the clip has no frame.

    Example:
        >>> frame = torch.nn.functional.interpolate(torch.rand(1, 1, 16, 16), size=64, mode="bilinear")
        >>> clip = torch.stack([frame.roll(2 * t, dims=3) for t in range(5)], dim=1)
        >>> flow = tvl1_flow_clip(clip)
        >>> flow.shape, flow[0, 3, :, 30, 30].round().abs().tolist()
        (torch.Size([1, 4, 2, 64, 64]), [2.0, 0.0])
    """
    _check_frames("tvl1_flow_clip", "clip", clip, "[N, T, C, H, W]")
    if clip.shape[1] == 0:
        raise ValueError(f"tvl1_flow_clip: clip must have a frame; got shape {list(clip.shape)}")
    return torch.ops.pyaction.tvl1_flow_clip(clip, _values("tvl1_flow_clip", params))


class TVL1Stream:
    """`tvl1_flow_clip` for frames that come one by one; the flow is the same.

    A stream is used by one thread (on CUDA: by one CUDA stream) at a time.

    Args:
        params: A :class:`TVL1Params`, or the name of a preset, see `tvl1_flow`.

    Example:
        >>> stream = TVL1Stream()
        >>> stream.push(torch.rand(1, 3, 48, 64)) is None  # the first frame has no flow
        True
        >>> stream.push(torch.rand(1, 3, 48, 64)).shape
        torch.Size([1, 2, 48, 64])
    """

    def __init__(self, params: TVL1Params | Preset = "video") -> None:
        self._params = _values("TVL1Stream", params)
        self.reset()

    def reset(self) -> None:
        """Forgets the frames so far: the next one begins another sequence, of any size."""
        self._state: Tensor | None = None
        self._shape = torch.Size()
        self._index = 0

    def push(self, frame: Tensor) -> Tensor | None:
        """Takes the next frame of each of N sequences.

        Args:
            frame: ``(N, C, H, W)``, as for `tvl1_flow`; after the first with its shape, dtype and device.

        Returns:
            ``(N, 2, H, W)``, float32, pixels, from the frame before to this one; None for the first frame.

        Raises:
            ValueError: As `tvl1_flow`. The frame then counts as not pushed, and the sequence can go on.
        """
        _check_frames("TVL1Stream.push", "frame", frame, "[N, C, H, W]")
        if torch.is_grad_enabled() and frame.requires_grad:
            raise RuntimeError(f"pyaction.TVL1Stream {_NO_GRADIENT}")
        if self._state is None:
            self._state = torch.ops.pyaction.tvl1_begin(frame, self._params)
            self._shape, self._dtype, self._index = frame.shape, frame.dtype, 1
            return None
        came, expected = (frame.shape, frame.dtype, frame.device), (self._shape, self._dtype, self._state.device)
        if came != expected:
            raise ValueError(
                f"TVL1Stream.push: the frames of a sequence must be alike; got {_described(*came)} after "
                f"{_described(*expected)} (reset() begins another sequence)"
            )
        flow = torch.ops.pyaction.tvl1_next(self._state, frame, self._index, self._params)
        self._index += 1
        return flow


def _described(shape: torch.Size, dtype: torch.dtype, device: torch.device) -> str:
    return f"{list(shape)} {str(dtype).removeprefix('torch.')} on {device}"


def _values(op: str, params: TVL1Params | str) -> list[float]:
    """The fields in the order of the class, as the kernels take them."""
    if isinstance(params, str):
        check_choice(op, "params", params, tuple(PRESETS))
        params = PRESETS[params]
    elif not isinstance(params, TVL1Params):
        raise TypeError(f"{op}: params must be a TVL1Params or a preset's name; got {type(params).__name__}")
    return [float(getattr(params, field.name)) for field in dataclasses.fields(params)]


def _check_frames(op: str, name: str, frames: Tensor, layout: str) -> None:
    check_tensor(op, name, frames, layout, _FRAME_DTYPES)
    channels, width = frames.shape[-3], frames.shape[-1]
    if channels not in (1, 3):
        channels_last = "; frames [..., H, W, C] need .movedim(-1, -3)" if width in (1, 3) else ""
        raise ValueError(f"{op}: {name} must have 1 or 3 channels; got shape {list(frames.shape)}{channels_last}")
    _check_values(op, name, frames, _LARGEST_FLOATING)


def _check_values(op: str, name: str, tensor: Tensor, largest: float) -> None:
    # A compiled graph cannot branch on values.
    looks = tensor.is_floating_point() and tensor.device.type == "cpu" and not torch.compiler.is_compiling()
    if not looks or tensor.numel() == 0:
        return
    low, high = (float(value) for value in tensor.detach().aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"{op}: {name} holds NaN or infinity")
    if max(-low, high) > largest:
        raise ValueError(
            f"{op}: {name} must be in [0, 1] where it is floating point; got values from {low:g} to {high:g} "
            "(grey levels 0..255: divide by 255, or pass uint8)"
        )


@register_fake("tvl1_flow")
def _(frame0: Tensor, frame1: Tensor, initial_flow: Tensor | None, params: list[float]) -> Tensor:
    n, _, h, w = frame0.shape
    return frame0.new_empty((n, 2, h, w), dtype=torch.float32)


@register_fake("tvl1_flow_clip")
def _(clip: Tensor, params: list[float]) -> Tensor:
    n, t, _, h, w = clip.shape
    return clip.new_empty((n, t - 1, 2, h, w), dtype=torch.float32)


@register_fake("tvl1_begin")
def _(frame: Tensor, params: list[float]) -> Tensor:
    return frame.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.float32)


@register_fake("tvl1_next")
def _(state: Tensor, frame: Tensor, index: int, params: list[float]) -> Tensor:
    n, _, h, w = frame.shape
    return frame.new_empty((n, 2, h, w), dtype=torch.float32)


for _op in ("tvl1_flow", "tvl1_flow_clip"):
    register_blocker(_op, _NO_GRADIENT)
