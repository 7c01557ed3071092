"""Optical flow on the fly: no flow files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pyaction import flow
from pyaction.data.flow_cache import FlowCache
from pyaction.data.transforms.items import Item
from pyaction.flow.estimation import Method


@dataclass(frozen=True)
class AddFlow:
    """Adds the optical flow between the frames of each sample: `"flow"`, `(S, T - 1, 2, H, W)`, float32, in pixels.

    In `ClipSpec.transforms` the loader's workers compute it, one thread each; in `ClipSpec.on_device` it is computed
    where the batch is, on a GPU say. A temporal stream of L fields needs a sampler that chooses L + 1 frames.

    Example:
        >>> item = {"frames": torch.rand(2, 6, 3, 48, 64), "frame_indices": torch.arange(12).view(2, 6)}
        >>> with_flow = AddFlow(keep_frames=1)(item, torch.Generator())
        >>> with_flow["flow"].shape, with_flow["frames"].shape
        (torch.Size([2, 5, 2, 48, 64]), torch.Size([2, 1, 3, 48, 64]))
    """

    method: Method | Callable[[Tensor], Tensor] = "tvl1"
    """See `flow.estimate`."""
    bidirectional: bool = False
    """True: the flow away from the middle frame, to both ends. Of T = L + 1 frames, L even, the first L/2 fields lead
    forwards from frame L/2, the others backwards from it: what `stack_bidirectional` takes (paper 004, section 6)."""
    keep_frames: int | None = None
    """How many frames of each sample stay, for the spatial stream: 1 is the first, or with `bidirectional` the middle
    one. None: all. 0: `"frames"` is left out."""
    cache: FlowCache | None = None
    """Where flow is kept on disk, rounded to bytes; only for videos, one by one: not `on_device`, not after crops."""

    def __post_init__(self) -> None:
        if self.keep_frames is not None and self.keep_frames < 0:
            raise ValueError(f"transforms.AddFlow: keep_frames must be None or at least 0; got {self.keep_frames}")

    def __call__(self, item: Item, generator: torch.Generator) -> Item:
        """The item with its flow.

        Raises:
            ValueError: The frames are too few, or not a number that has a middle one; see `flow.estimate` too.
        """
        frames, indices = item["frames"], item["frame_indices"]
        length = frames.shape[-4]
        first = 0
        if self.bidirectional:
            if length < 3 or length % 2 == 0:
                raise ValueError(f"transforms.AddFlow: bidirectional needs L + 1 frames, L even; got {length}")
            first = length // 2
        elif length < 2:
            raise ValueError(f"transforms.AddFlow: flow needs two frames or more in each sample; got {length}")
        result = {**item, "flow": self._both_ways(item, first) if self.bidirectional else self._flow(item)}
        if self.keep_frames == 0:
            del result["frames"]
        elif self.keep_frames is not None:
            chosen = slice(first, first + self.keep_frames)
            result["frames"], result["frame_indices"] = frames[..., chosen, :, :, :], indices[..., chosen]
        return result

    def _both_ways(self, item: Item, middle: int) -> Tensor:
        """Both halves as samples of one clip, so that they are computed together."""
        frames, indices = item["frames"], item["frame_indices"]
        halves = torch.cat([frames[..., middle:, :, :, :], frames[..., : middle + 1, :, :, :].flip(-4)], dim=-5)
        numbers = torch.cat([indices[..., middle:], indices[..., : middle + 1].flip(-1)], dim=-2)
        fields = self._flow({**item, "frames": halves, "frame_indices": numbers})
        return torch.cat(fields.chunk(2, dim=-5), dim=-4)

    def _flow(self, item: Item) -> Tensor:
        frames = item["frames"]
        if self.cache is None:
            return flow.estimate(frames.flatten(0, -5), self.method).unflatten(0, frames.shape[:-4])
        if not isinstance(item["path"], str):
            raise ValueError("transforms.AddFlow: a cache is for items, in ClipSpec.transforms; got a batch")
        encoded = self.cache.flow(item["path"], item["frame_indices"], frames, self.method)
        return flow.decode(encoded, self.cache.bound)
