"""Flow as 8-bit pictures: how two-stream networks store and see motion."""

import math
from typing import Literal

import torch
from torch import Tensor


def encode(flow: Tensor, bound: float = 20.0, rounding: Literal["half_even", "floor"] = "half_even") -> Tensor:
    """Quantise flow linearly: [-bound, bound] pixels become 0..255.

    `q = round(255 · (clip(v, ±bound) + bound) / (2 · bound))`, computed in float64, so that every device
    gives the bytes that OpenCV-based extractors (`dense_flow`, `denseflow`) write before JPEG. One step
    is `2 · bound / 255` pixels: 0.157 at bound 20. ±inf is clipped.

    On a GPU the search for NaN waits for the device once.

    Args:
        flow: floating point, any shape, in pixels.
        bound: the displacement in pixels that saturates; finite, > 0. Published models use 20.
        rounding: `"half_even"`: to the nearest level, a tie to the even one, hence zero motion -> 128.
            `"floor"`: to the level below, as a plain cast does; zero motion -> 127.

    Returns:
        uint8, flow's shape.

    Raises:
        TypeError: flow is not a tensor.
        ValueError: flow is not floating point or holds NaN; bound or rounding is none of the above.

    Example:
        >>> from pyaction import flow
        >>> flow.encode(torch.tensor([-30.0, 0.0, 10.0, 20.0])).tolist()
        [0, 128, 191, 255]
    """
    if not isinstance(flow, Tensor):
        raise TypeError(f"flow.encode: flow must be a torch.Tensor; got {type(flow).__name__}")
    if not flow.is_floating_point():
        raise ValueError(f"flow.encode: flow must be floating point, in pixels; got {flow.dtype}")
    _check_bound("flow.encode", bound)
    if rounding not in ("half_even", "floor"):
        raise ValueError(f"flow.encode: rounding must be 'half_even' or 'floor'; got {rounding!r}")
    if flow.isnan().any():
        count = int(flow.isnan().sum())
        raise ValueError(f"flow.encode: flow must be free of NaN, which no byte can say; got {count} NaN values")
    # A tensor on flow's device, because CUDA multiplies by the reciprocal of a plain number: ties would break.
    span = torch.full((), 2 * bound, dtype=torch.float64, device=flow.device)
    # Divided before it is multiplied: 255 · b / 2b can fall short of 127.5 and 255 · 2b / 2b of 255.
    levels = flow.to(torch.float64, copy=True).clamp_(-bound, bound).add_(bound).div_(span).mul_(255)
    return (levels.round_() if rounding == "half_even" else levels.floor_()).to(torch.uint8)


def decode(encoded: Tensor, bound: float = 20.0) -> Tensor:
    """Turn bytes written by `encode` back into pixels: `v = q · 2 · bound / 255 - bound`.

    No byte decodes to zero motion: 128 gives +bound/255 (0.078 pixels at bound 20), 127 gives -bound/255.
    Encoding again to the nearest level gives the same bytes; with `rounding="floor"` about a fifth drop by one.

    Args:
        encoded: uint8, any shape.
        bound: the bound it was encoded with, in pixels; finite, > 0.

    Returns:
        float32, encoded's shape, in pixels.

    Raises:
        TypeError: encoded is not a tensor.
        ValueError: encoded is not uint8, or bound is not positive and finite.

    Example:
        >>> from pyaction import flow
        >>> flow.decode(torch.tensor([0, 204, 255], dtype=torch.uint8)).tolist()
        [-20.0, 12.0, 20.0]
    """
    if not isinstance(encoded, Tensor):
        raise TypeError(f"flow.decode: encoded must be a torch.Tensor; got {type(encoded).__name__}")
    if encoded.dtype != torch.uint8:
        raise ValueError(f"flow.decode: encoded must be torch.uint8; got {encoded.dtype}")
    _check_bound("flow.decode", bound)
    return encoded.to(torch.float64).mul_(2 * bound).div_(255).sub_(bound).to(torch.float32)


def _check_bound(caller: str, bound: float) -> None:
    if not (math.isfinite(bound) and bound > 0):
        raise ValueError(f"{caller}: bound must be a finite number of pixels > 0; got {bound}")
