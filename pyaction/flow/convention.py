"""What this package calls a flow field and a clip: their layouts, and which pixels of a flow are known."""

import torch
from torch import Tensor

# Middlebury's convention for .flo files: a component beyond this many pixels says "not known here".
LARGEST_KNOWN = 1e9
# Floating frames are in [0, 1], give or take what filters add. Beyond this they are grey levels 0..255.
LARGEST_FLOATING = 4.0


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


def check_clip(caller: str, clip: Tensor) -> None:
    """Refuse what is not a tensor of frames `(N, T, C, H, W)` with T, H, W ≥ 1 and C = 1 or 3.

    Args:
        caller: the public function, for the message.
        clip: what the user passed; uint8, or floating point in [0, 1]. (On CUDA values are not looked at: it
            would stall the stream.)

    Raises:
        TypeError: not a tensor.
        ValueError: wrong dtype, shape or, on the CPU, values.
    """
    if not isinstance(clip, Tensor):
        raise TypeError(f"{caller}: clip must be a torch.Tensor [N, T, C, H, W]; got {type(clip).__name__}")
    if clip.dtype != torch.uint8 and not clip.is_floating_point():
        raise ValueError(f"{caller}: clip must be uint8, or floating point in [0, 1]; got {clip.dtype}")
    shape = list(clip.shape)
    if clip.dim() != 5 or shape[2] not in (1, 3) or 0 in (shape[1], *shape[3:]):
        raise ValueError(f"{caller}: clip must be [N, T, C, H, W] with T, H, W >= 1 and C = 1 or 3; got {shape}")
    if clip.is_floating_point() and clip.device.type == "cpu" and clip.numel() > 0:
        low, high = (float(value) for value in clip.detach().aminmax())
        if not max(-low, high) <= LARGEST_FLOATING:  # NaN too
            raise ValueError(
                f"{caller}: clip must be in [0, 1] where it is floating point; got values from {low:g} to {high:g} "
                "(grey levels 0..255: divide by 255, or pass uint8)"
            )
