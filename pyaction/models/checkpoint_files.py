"""What a checkpoint file holds, read without running anything in it."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

# Under which training scripts keep the weights, beside the epoch and the like.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
# `torch.serialization.safe_globals` holds for all threads.
_READING = threading.Lock()


class _Unread:
    """Takes the place of an object that is no weight, and does nothing with what the file says of it."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


# What training scripts keep beside the weights: best accuracies, and their arguments. None of these is called.
_STAND_INS: list[Callable[..., object] | tuple[Callable[..., object], str]] = [
    (_Unread, name)
    for name in (
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
        "numpy.dtype",
        "argparse.Namespace",
    )
]


def read_checkpoint(path: Path) -> dict[str, object]:
    """Reads a file of weights: `.npz`, `.safetensors` (with that package), or else what `torch.save` wrote.

    Args:
        path: The file.

    Returns:
        By name, on the CPU: tensors, and what else lies beside them. Of `{"state_dict": ...}`, `{"model": ...}` and
        `{"model_state_dict": ...}` the inner one.

    Raises:
        FileNotFoundError: There is no such file.
        ImportError: safetensors is needed and not installed.
        ValueError: The file is no checkpoint, or would run code.
    """
    if not path.is_file():
        raise FileNotFoundError(f"models.load_weights: path must be a checkpoint; there is no file {path}")
    try:
        content = _weights(_read(path))
    except (ImportError, OSError):
        raise
    except Exception as error:  # bytes that are no checkpoint make the readers fail in any way
        raise ValueError(f"models.load_weights: {_why_unread(path, error)}") from error
    if content is None:
        raise ValueError(f"models.load_weights: {path} is no checkpoint: it must hold tensors by name")
    return {str(name): value for name, value in content.items()}


def _weights(content: object) -> Mapping[object, object] | None:
    """The innermost mapping with tensors, by way of the wrappers."""
    if not isinstance(content, Mapping):
        return None
    for key in _WRAPPERS:
        if (inner := _weights(content.get(key))) is not None:
            return inner
    return content if any(isinstance(value, torch.Tensor) for value in content.values()) else None


def _read(path: Path) -> object:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    if path.suffix == ".safetensors":
        try:
            from safetensors.torch import load_file
        except ImportError as error:
            raise ImportError(f"models.load_weights: {path} needs `pip install safetensors`") from error
        return load_file(path)
    with _READING, torch.serialization.safe_globals(_STAND_INS):
        return torch.load(path, map_location="cpu", weights_only=True)


def _why_unread(path: Path, error: Exception) -> str:
    foreign = re.search(r"GLOBAL (\S+\.\S+)", str(error))
    if foreign is None and "Object arrays" not in str(error):
        return f"{path} is no checkpoint, or a broken one ({type(error).__name__})"
    what = foreign[1] if foreign is not None else "a pickled array"
    return (
        f"{path} holds {what}, which only running its code could load; where you trust it, load it by its own program "
        "and save its state dict alone, by torch.save(network.state_dict(), path)"
    )
