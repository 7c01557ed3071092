"""Optical flow by torchvision's RAFT networks."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyaction.flow.estimation import Estimator

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum

# The networks work at an eighth of the resolution; and 16 such pixels are what four halvings of the correlation leave
# at least two of.
_MULTIPLE = 8
_LEAST_SIDE = 128
# Pairs that together take about this much memory are computed at once.
_CHUNK_BYTES = 2**30


@dataclass(frozen=True)
class RAFT(Estimator):
    """RAFT as torchvision has it, on the clip's device: nearer to the truth than TV-L1, and meant for a GPU.

    Computes in float32, also under autocast. Frames are padded by their border pixels to multiples of 8 and to at
    least 128 x 128. Memory beside the flow stays below about a gigabyte, or what a single pair needs (a pair of
    1920 x 1080: up to 8 GB). The network is loaded when the first clip comes, and is kept. One call runs at a time;
    threads wait for each other.

    Args:
        size: `"large"` (5.3 million weights), or `"small"` (1.0 million).
        weights: The name of weights of torchvision, which downloads them (`"DEFAULT"` is its best;
            `torchvision.models.optical_flow.Raft_Large_Weights` lists them), or the path of a state dict saved by
            `torch.save`. None: untrained, the same in every process, to try things out.
        updates: How often the flow is improved; 12 in training.

    Raises (the last three when the first clip comes):
        ValueError: An argument is none of the above, or the file's contents do not fit.
        FileNotFoundError: weights is neither a name nor a file.
        OSError: The weights cannot be downloaded.

    Source: Teed and Deng, "RAFT: Recurrent All-Pairs Field Transforms for Optical Flow", ECCV 2020.

    Example:
        >>> RAFT("small", weights=None, updates=2)(torch.rand(1, 3, 3, 90, 120)).shape
        torch.Size([1, 2, 2, 90, 120])
    """

    size: Literal["large", "small"] = "large"
    weights: str | os.PathLike[str] | None = "DEFAULT"
    updates: int = 12
    _networks: dict[torch.device, nn.Module] = field(default_factory=dict, init=False, repr=False, compare=False)
    # torchvision's network keeps the correlation of the clip at work in itself.
    _lock: Lock = field(default_factory=Lock, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuses values that torchvision would stumble over later."""
        if self.size not in ("large", "small"):
            raise ValueError(f"flow.RAFT: size must be 'large' or 'small'; got {self.size!r}")
        if type(self.updates) is not int or self.updates < 1:
            raise ValueError(f"flow.RAFT: updates must be an integer >= 1; got {self.updates!r}")
        if not (self.weights is None or isinstance(self.weights, (str, os.PathLike))):
            raise ValueError(f"flow.RAFT: weights must be a name, a path or None; got {type(self.weights).__name__}")

    def compute(self, clip: Tensor) -> Tensor:
        """See `Estimator.compute`."""
        n, t, _, height, width = clip.shape
        frames0, frames1 = clip[:, :-1].flatten(0, 1), clip[:, 1:].flatten(0, 1)  # [N(T-1), C, H, W]
        padding = _padding(height, width)
        left, right, top, bottom = padding
        at_once = _pairs_at_once(height + top + bottom, width + left + right)
        chunks = []
        with self._lock, torch.autocast(clip.device.type, enabled=False):
            if clip.device not in self._networks:
                self._networks[clip.device] = self._load().to(clip.device)
            network = self._networks[clip.device]
            for pair0, pair1 in zip(frames0.split(at_once), frames1.split(at_once), strict=True):
                predictions = network(
                    _prepared(pair0, padding), _prepared(pair1, padding), num_flow_updates=self.updates
                )
                chunks.append(predictions[-1][..., top : top + height, left : left + width])
        return torch.cat(chunks).unflatten(0, (n, t - 1))

    def _load(self) -> nn.Module:
        from torchvision.models import optical_flow

        make = optical_flow.raft_large if self.size == "large" else optical_flow.raft_small
        names = optical_flow.Raft_Large_Weights if self.size == "large" else optical_flow.Raft_Small_Weights
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # for weights=None; and the caller's random numbers stay as they are
            network = make(weights=None)
        if self.weights in names.__members__:
            network.load_state_dict(_download(names[str(self.weights)]))
        elif self.weights is not None:
            _load_file(network, Path(self.weights), f"raft_{self.size}", ", ".join(names.__members__))
        return network.eval().requires_grad_(False)


def _download(weights: WeightsEnum) -> dict[str, Tensor]:
    try:
        return weights.get_state_dict(progress=False, check_hash=True)
    except OSError as error:
        raise OSError(
            f"flow.RAFT: {weights.url} could not be downloaded ({error}); fetch it elsewhere and give weights=its path"
        ) from error


def _load_file(network: nn.Module, path: Path, model: str, names: str) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"flow.RAFT: weights must be a file, None or one of {names}; there is no file {path}")
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (RuntimeError, OSError, EOFError, TypeError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"flow.RAFT: {path} must hold a state dict of torchvision's {model}; {reason}") from error


def _padding(height: int, width: int) -> tuple[int, int, int, int]:
    """Left, right, top, bottom; on both sides, as RAFT's authors do."""
    more_x, more_y = (max(_LEAST_SIDE, -(-side // _MULTIPLE) * _MULTIPLE) - side for side in (width, height))
    return more_x // 2, more_x - more_x // 2, more_y // 2, more_y - more_y // 2


def _pairs_at_once(height: int, width: int) -> int:
    # A kilobyte per pixel for features and activations (0.8 measured, large), and in float32 the correlation of all
    # with all at an eighth of the resolution, with its pyramid.
    pixels = height * width
    return max(1, _CHUNK_BYTES // (1024 * pixels + 4 * (pixels // 64) ** 2 * 4 // 3))


def _prepared(frames: Tensor, padding: tuple[int, int, int, int]) -> Tensor:
    """`(n, C, H, W)` as `flow.estimate` takes them -> `(n, 3, H', W')`, float32 in [-1, 1]."""
    scale = 2 / 255 if frames.dtype == torch.uint8 else 2
    return F.pad(frames.float().mul(scale).sub(1).expand(-1, 3, -1, -1), padding, mode="replicate")
