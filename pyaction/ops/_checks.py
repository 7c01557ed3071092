"""Argument checks that the ops share: a ValueError or TypeError that says what was expected and what came."""

from collections.abc import Sequence

import torch
from torch import Tensor

FLOATING = (torch.float32, torch.float64)
_HALF = (torch.float16, torch.bfloat16)


def floating_of(value: object) -> tuple[torch.dtype, ...]:
    """The dtypes of ops that on CUDA also take half precision, for the device of a tensor."""
    return (*FLOATING, *_HALF) if isinstance(value, Tensor) and value.is_cuda else FLOATING


def cast_for_autocast(*values: Tensor) -> tuple[Tensor, ...]:
    """Under autocast, half precision becomes float32, as it does for torch's own losses; else nothing changes."""
    return tuple(
        value.float()
        if isinstance(value, Tensor) and value.dtype in _HALF and torch.is_autocast_enabled(value.device.type)
        else value
        for value in values
    )


def check_tensor(op: str, name: str, value: object, layout: str, dtypes: Sequence[torch.dtype]) -> None:
    """Refuses anything but a tensor with the dimensions of `layout`, such as "[N, C, H, W]", and one of `dtypes`."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: {name} must be a torch.Tensor {layout}; got {type(value).__name__}")
    ndim = layout.count(",") + 1
    if value.ndim != ndim:
        dimensions = "dimension" if ndim == 1 else "dimensions"
        raise ValueError(f"{op}: {name} must have {ndim} {dimensions}, {layout}; got shape {list(value.shape)}")
    if value.dtype not in dtypes:
        expected = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        hint = "; call .float() first" if value.dtype in _HALF else ""
        raise ValueError(f"{op}: {name} must be {expected}; got {str(value.dtype).removeprefix('torch.')}{hint}")


def check_alike(op: str, name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    """Refuses a tensor whose dtype or device differs from that of `other`."""
    if value.device != other.device:
        raise ValueError(f"{op}: {name} and {other_name} must be on one device; got {value.device} and {other.device}")
    if value.dtype != other.dtype:
        raise ValueError(
            f"{op}: {name} and {other_name} must have one dtype; got {str(value.dtype).removeprefix('torch.')} "
            f"and {str(other.dtype).removeprefix('torch.')}"
        )


def check_shape(op: str, name: str, value: Tensor, expected: Sequence[int], meaning: str) -> None:
    """Refuses any other shape than `expected`; `meaning` spells it for the message, as '[N, 2, H, W]'."""
    if list(value.shape) != list(expected):
        raise ValueError(f"{op}: {name} must be {meaning} = {list(expected)}; got {list(value.shape)}")


def check_choice(op: str, name: str, value: str, choices: Sequence[str]) -> None:
    """Refuses a string that is not one of `choices`."""
    if value not in choices:
        expected = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{op}: {name} must be one of {expected}; got {value!r}")
