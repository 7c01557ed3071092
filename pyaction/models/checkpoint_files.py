"""What a checkpoint file holds, read without running anything in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch


def read_checkpoint(path: Path) -> dict[str, object]:
    """Reads a file of weights: `.npz`, `.safetensors` (with that package), or else what `torch.save` wrote.

    Args:
        path: The file.

    Returns:
        By name, on the CPU: tensors, and what else lies beside them. Of `{"state_dict": ...}` the inner one.

    Raises:
        FileNotFoundError: There is no such file.
        ImportError: safetensors is needed and not installed.
        ValueError: The file is no checkpoint, or would run code.
    """
    if not path.is_file():
        raise FileNotFoundError(f"load_weights: path must be a checkpoint; there is no file {path}")
    try:
        content = _read(path)
    except (ImportError, OSError):
        raise
    except Exception as error:  # bytes that are no checkpoint make the readers fail in any way
        foreign = re.search(r"GLOBAL (\S+\.\S+)", str(error))
        if foreign is not None or "Object arrays" in str(error):
            what = foreign.group(1) if foreign is not None else "a pickled array"
            message = f"{path} holds {what}, which only running its code could load; save its tensors alone"
        else:
            message = f"{path} is no checkpoint, or a broken one ({type(error).__name__})"
        raise ValueError(f"load_weights: {message}") from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not any(isinstance(value, torch.Tensor) for value in content.values()):
        raise ValueError(f"load_weights: {path} is no checkpoint: it must hold tensors by name")
    return {str(name): value for name, value in content.items()}


def _read(path: Path) -> object:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    if path.suffix == ".safetensors":
        try:
            from safetensors.torch import load_file
        except ImportError as error:
            raise ImportError(f"load_weights: {path} needs `pip install safetensors`") from error
        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)
