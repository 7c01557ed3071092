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
_FRAME_DTYPES = (torch.uint8, torch.float32, torch.float64)


@dataclass(frozen=True)
class TVL1Params:
    """What TV-L1 minimises and how hard it tries. The defaults are OpenCV's: the preset ``"opencv"``."""

    tau: float = 0.25
    """Step of the dual variables, in (0, 0.25]."""
    attachment: float = 0.15
    """Weight of the data term (lambda in the papers) for grey levels 0..255. Smaller is smoother."""
    theta: float = 0.3
    """Tightness: how far the smooth flow and the one that fits the data may differ."""
    scales: int = 5
    """Levels of the pyramid. Levels with a side shorter than 16 pixels are left out."""
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
    opencv_rounding: bool = True
    """Round every operation as OpenCV 5 does on a CPU with FMA: the result is then equal to the last bit (at a
    scale_step of 0.6, say, OpenCV's resampling positions differ by 1e-14). False computes the same at about half the
    cost."""

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
        if type(self.opencv_rounding) is not bool:
            raise ValueError(f"TVL1Params: opencv_rounding must be True or False; got {self.opencv_rounding!r}")


PRESETS = {
    # cv2.optflow.DualTVL1OpticalFlow of OpenCV 5, with its defaults.
    "opencv": TVL1Params(),
    # Iterations are not quality, a deep pyramid is.
    "fast": TVL1Params(scales=16, warps=2, outer_iterations=1, inner_iterations=10, epsilon=0.0, opencv_rounding=False),
}


def tvl1_flow(
    frame0: Tensor,
    frame1: Tensor,
    *,
    initial_flow: Tensor | None = None,
    params: TVL1Params | Literal["fast", "opencv"] = "fast",
) -> Tensor:
    r"""Optical flow between pairs of frames by TV-L1 (Zach, Pock and Bischof 2007).

    .. math:: \min_u \int |\nabla u_1| + |\nabla u_2| + \lambda\, |I_1(x + u(x)) - I_0(x)|\; dx

    coarse to fine, with a median filter between the iterations. On the CPU the pairs of a batch are shared among
    torch's threads; on CUDA a batch is one sequence of launches on the current stream, without synchronisation.
    Not differentiable.

    Args:
        frame0: ``(N, C, H, W)``, C = 1 (grey) or 3 (RGB, turned grey by ITU-R BT.601), uint8 in 0..255, or
            float32 or float64 in [0, 1].
        frame1: The frames that follow: shape, dtype and device of `frame0`.
        initial_flow: ``(N, 2, H, W)``, float32, pixels: where the coarsest level starts. Default: zero.
        params: A :class:`TVL1Params`, or the name of a preset: ``"fast"`` (the default: deep pyramid, few
            iterations) or ``"opencv"`` (what OpenCV 5 computes with its defaults).

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
    check_tensor("tvl1_flow", "frame0", frame0, "[N, C, H, W]", _FRAME_DTYPES)
    check_tensor("tvl1_flow", "frame1", frame1, "[N, C, H, W]", _FRAME_DTYPES)
    n, channels, h, w = frame0.shape
    if channels not in (1, 3):
        hint = "; frames [N, H, W, C] need .permute(0, 3, 1, 2)" if w in (1, 3) else ""
        raise ValueError(f"tvl1_flow: frame0 must have 1 or 3 channels; got shape {list(frame0.shape)}{hint}")
    check_shape("tvl1_flow", "frame1", frame1, frame0.shape, "the shape of frame0")
    check_alike("tvl1_flow", "frame1", frame1, "frame0", frame0)
    for name, frame in (("frame0", frame0), ("frame1", frame1)):
        _check_values(name, frame, _LARGEST_FLOATING)
    if initial_flow is not None:
        check_tensor("tvl1_flow", "initial_flow", initial_flow, "[N, 2, H, W]", (torch.float32,))
        check_shape("tvl1_flow", "initial_flow", initial_flow, (n, 2, h, w), "[N, 2, H, W] of the frames")
        if initial_flow.device != frame0.device:
            raise ValueError(
                "tvl1_flow: initial_flow and frame0 must be on one device; "
                f"got {initial_flow.device} and {frame0.device}"
            )
        _check_values("initial_flow", initial_flow, math.inf)
    if isinstance(params, str):
        check_choice("tvl1_flow", "params", params, tuple(PRESETS))
        params = PRESETS[params]
    elif not isinstance(params, TVL1Params):
        raise TypeError(f"tvl1_flow: params must be a TVL1Params or a preset's name; got {type(params).__name__}")
    return torch.ops.pyaction.tvl1_flow(frame0, frame1, initial_flow, *_ordered(params))


def _ordered(params: TVL1Params) -> tuple[float | int | bool, ...]:
    # The schema lists the fields in the order of the class.
    return tuple(getattr(params, field.name) for field in dataclasses.fields(params))


def _check_values(name: str, tensor: Tensor, largest: float) -> None:
    # A compiled graph cannot branch on values.
    looks = tensor.is_floating_point() and tensor.device.type == "cpu" and not torch.compiler.is_compiling()
    if not looks or tensor.numel() == 0:
        return
    low, high = (float(value) for value in tensor.detach().aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"tvl1_flow: {name} holds NaN or infinity")
    if max(-low, high) > largest:
        raise ValueError(
            f"tvl1_flow: {name} must be in [0, 1] where it is floating point; got values from {low:g} to {high:g} "
            "(grey levels 0..255: divide by 255, or pass uint8)"
        )


@register_fake("tvl1_flow")
def _(frame0: Tensor, frame1: Tensor, initial_flow: Tensor | None, *params: float) -> Tensor:
    n, _, h, w = frame0.shape
    return frame0.new_empty((n, 2, h, w), dtype=torch.float32)


register_blocker("tvl1_flow", "is not differentiable: detach the frames, or train a flow network")
