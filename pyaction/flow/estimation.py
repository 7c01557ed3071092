"""`flow.estimate`: from a clip to its optical flow, by one of several methods."""

from __future__ import annotations

import dataclasses
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pyaction import ops
from pyaction.flow.convention import check_clip

Method = Literal["tvl1", "raft", "hardware"]


class Estimator(ABC):
    """A method of `flow.estimate` with its parameters, to be called with a clip.

    Subclasses are frozen dataclasses: their `repr` names the method and every parameter. They can be pickled; what
    they have loaded is then loaded again.
    """

    def __call__(self, clip: Tensor) -> Tensor:
        """The flow of a clip, see `flow.estimate`."""
        name = f"flow.{type(self).__name__}"
        check_clip(name, clip)
        if torch.is_grad_enabled() and clip.requires_grad:
            raise RuntimeError(f"{name} is not differentiable: detach the clip, or train a flow network")
        if _pairs(clip) == 0:
            return _no_flow(clip)
        with torch.no_grad():
            return self.compute(clip)

    @abstractmethod
    def compute(self, clip: Tensor) -> Tensor:
        """The flow of a checked clip with N ≥ 1 and T ≥ 2."""

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        fields = dataclasses.fields(self)  # type: ignore[arg-type]  # of a subclass
        return type(self), tuple(getattr(self, field.name) for field in fields if field.init)


@dataclass(frozen=True)
class TVL1(Estimator):
    """TV-L1 by `ops.tvl1_flow_clip`, on the clip's device: each pair is helped by the one before.

    Args:
        params: An `ops.TVL1Params`, or the name of a preset, see `ops.tvl1_flow`.

    Raises:
        ValueError: params is neither.

    Source: Zach, Pock and Bischof, "A Duality Based Approach for Realtime TV-L1 Optical Flow", DAGM 2007.

    Example:
        >>> TVL1("fast")(torch.rand(2, 5, 3, 48, 64)).shape
        torch.Size([2, 4, 2, 48, 64])
    """

    params: ops.TVL1Params | str = "video"

    def __post_init__(self) -> None:
        """Puts the parameters in the place of a preset's name: `repr` then says what was computed."""
        if isinstance(self.params, str) and self.params in ops.TVL1_PRESETS:
            object.__setattr__(self, "params", ops.TVL1_PRESETS[self.params])
        if not isinstance(self.params, ops.TVL1Params):
            presets = ", ".join(map(repr, ops.TVL1_PRESETS))
            raise ValueError(f"flow.TVL1: params must be a TVL1Params or one of {presets}; got {self.params!r}")

    def compute(self, clip: Tensor) -> Tensor:
        """See `Estimator.compute`."""
        if clip.dtype in (torch.float16, torch.bfloat16):
            clip = clip.float()
        return ops.tvl1_flow_clip(clip, params=self.params)  # type: ignore[arg-type]  # no name after __post_init__


def estimate(clip: Tensor, method: Method | Callable[[Tensor], Tensor] = "tvl1") -> Tensor:
    """Optical flow between all neighbouring frames of clips.

    Args:
        clip: `(N, T, C, H, W)`, T at least 1, C = 1 (grey) or 3 (RGB); uint8 in 0..255, or floating point in
            [0, 1].
        method: `"tvl1"`, `"raft"` or `"hardware"`: `flow.TVL1()`, `flow.RAFT()` or `flow.Hardware()`, made once per
            process. Those classes have parameters, and their objects are methods too. Or anything else that takes
            such a clip and returns its flow, `models.MotionNet().flow` say: gradients flow through it.

    Returns:
        `(N, T - 1, 2, H, W)`, float32 (of another method: its own floating dtype), in pixels, on the clip's device:
        channel 0 = x (right), channel 1 = y (down), from frame t to frame t + 1.

    Raises:
        TypeError: clip is not a tensor, method is neither a string nor callable, or its result is not a tensor.
        ValueError: wrong dtype, shape or values of clip; unknown method; a result of wrong shape, dtype or device.
        RuntimeError: the clip wants a gradient, which the methods named above do not have.

    Example:
        >>> from pyaction import flow
        >>> frame = torch.nn.functional.interpolate(torch.rand(1, 1, 16, 16), size=64, mode="bilinear")
        >>> clip = torch.stack([frame.roll(2 * t, dims=3) for t in range(4)], dim=1)  # 2 pixels to the right
        >>> motion = flow.estimate(clip)
        >>> motion.shape, motion[0, 2, :, 30, 30].round().abs().tolist()
        (torch.Size([1, 3, 2, 64, 64]), [2.0, 0.0])
    """
    compute = estimator(method)
    if isinstance(compute, Estimator):
        return compute(clip)
    check_clip("flow.estimate", clip)
    if _pairs(clip) == 0:
        return _no_flow(clip)
    flow = compute(clip)
    if not isinstance(flow, Tensor):
        raise TypeError(f"flow.estimate: method must return a torch.Tensor; got {type(flow).__name__}")
    expected = [clip.shape[0], clip.shape[1] - 1, 2, *clip.shape[3:]]
    if list(flow.shape) != expected:
        raise ValueError(
            f"flow.estimate: method must return [N, T - 1, 2, H, W] = {expected}, in pixels; got {list(flow.shape)}"
        )
    if not flow.is_floating_point() or flow.device != clip.device:
        raise ValueError(
            f"flow.estimate: method must return floating point on {clip.device}; got {flow.dtype} on {flow.device}"
        )
    return flow


def estimator(method: Method | Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """What `flow.estimate` calls for a method: for a name an `Estimator`, the same one every time.

    Args:
        method: as for `flow.estimate`.

    Raises:
        TypeError: neither a string nor callable.
        ValueError: no method has that name.
    """
    if isinstance(method, str):
        return _named(method)
    if not callable(method):
        raise TypeError(f"flow.estimate: method must be a name or callable; got {type(method).__name__}")
    return method


@functools.cache
def _named(name: str) -> Estimator:
    from pyaction.flow.hardware import Hardware
    from pyaction.flow.raft import RAFT

    methods: dict[str, type[Estimator]] = {"tvl1": TVL1, "raft": RAFT, "hardware": Hardware}
    if name not in methods:
        names = ", ".join(map(repr, methods))
        raise ValueError(f"flow.estimate: method must be one of {names}, or callable; got {name!r}")
    return methods[name]()


def _pairs(clip: Tensor) -> int:
    return clip.shape[0] * (clip.shape[1] - 1)


def _no_flow(clip: Tensor) -> Tensor:
    n, t, _, height, width = clip.shape
    return clip.new_zeros((n, t - 1, 2, height, width), dtype=torch.float32)
