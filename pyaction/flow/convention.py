"""What this package calls a flow field: its layout, and which of its pixels are known."""

import torch
from torch import Tensor

# Middlebury's convention for .flo files: a component beyond this many pixels says "not known here".
LARGEST_KNOWN = 1e9


def check_flow(caller: str, name: str, flow: Tensor) -> None:
    """Refuse what is not a floating-point tensor `(..., 2, H, W)` with H, W ≥ 1.

    Args:
        caller: the public function, for the message.
        name: the argument's name, for the message.
        flow: what the user passed.

    Raises:
        TypeError: not a tensor.
        ValueError: wrong dtype or shape.
    """
    if not isinstance(flow, Tensor):
        raise TypeError(f"{caller}: {name} must be a torch.Tensor; got {type(flow).__name__}")
    if not flow.is_floating_point():
        raise ValueError(f"{caller}: {name} must be floating point, in pixels; got {flow.dtype}")
    shape = list(flow.shape)
    if len(shape) < 3 or shape[-3] != 2 or 0 in shape[-2:]:
        raise ValueError(f"{caller}: {name} must be [..., 2, H, W] with H, W >= 1; got {shape}")


def check_valid(caller: str, valid: Tensor | None, flow: Tensor) -> None:
    """Refuse a mask that is not None and not a bool tensor `(..., H, W)` fitting `flow` `(..., 2, H, W)`.

    Args:
        caller: the public function, for the message.
        valid: what the user passed.
        flow: a checked flow.

    Raises:
        TypeError: not a tensor.
        ValueError: wrong dtype or shape.
    """
    if valid is None:
        return
    if not isinstance(valid, Tensor):
        raise TypeError(f"{caller}: valid must be a torch.Tensor or None; got {type(valid).__name__}")
    if valid.dtype != torch.bool:
        raise ValueError(f"{caller}: valid must be torch.bool, True = use this pixel; got {valid.dtype}")
    expected = [*flow.shape[:-3], *flow.shape[-2:]]
    if list(valid.shape) != expected:
        raise ValueError(f"{caller}: valid must be {expected}, flow's shape without 2; got {list(valid.shape)}")


def known_pixels(flow: Tensor) -> Tensor:
    """Where both components are numbers of at most 1e9 pixels.

    Args:
        flow: `(..., 2, H, W)`, pixels; NaN, ±inf and larger values mean "unknown".

    Returns:
        bool `(..., H, W)`.
    """
    # isfinite, because float16 takes 1e9 for inf, and inf <= inf.
    return (flow.isfinite() & (flow.abs() <= LARGEST_KNOWN)).all(dim=-3)
