"""Transforms of a data set's items: what belongs together, frames and flow, is changed together.

An item is a dict: `"frames"` `(S, T, 3, H, W)`, `"flow"` or `"encoded_flow"` `(S, F, 2, H, W)` of S samples; and facts
that no transform here touches, `"frame_indices"` `(S, T)`, `"label"`, `"index"`, `"path"`: see `data.ClipDataSet`. A
transform is called with an item and a torch.Generator and returns a new item; it is a frozen dataclass, so that it
prints as it was made. All of them take a batch as well, whose tensors begin with N: random ones then draw once for all
of it.

In the usual order: `AddFlow`, `TrainingCrop` or `TestCrop`, `RandomFlip`, `RandomColorJitter`, `StackFlow`,
`Normalize`. With `AddFlow` after the crop there are fewer pixels to compute, but the flow at the edges knows less.
In `ClipSpec(on_device=...)` it is computed where the batch is, on a GPU say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor

from pyaction.data.transforms.color import random_color_jitter
from pyaction.data.transforms.content import Content
from pyaction.data.transforms.crops import Crop, center_crop, five_crop, multi_scale_crop, random_crop, ten_crop
from pyaction.data.transforms.flips import random_flip
from pyaction.data.transforms.flow_stacks import stack_flow, stack_trajectories, subtract_mean_flow
from pyaction.data.transforms.normalization import Normalization

Item = dict[str, Any]
ItemTransform = Callable[[Item, torch.Generator], Item]

_CONTENTS: tuple[Content, ...] = ("frames", "flow", "encoded_flow")


@dataclass(frozen=True)
class TrainingCrop:
    """A random window of every frame and its flow, see `random_crop` and `multi_scale_crop`."""

    size: int = 224
    """Side of the result in pixels."""
    scales: tuple[float, ...] | None = None
    """None: a window of that size anywhere. Else a window whose sides are these shares of the short side, at a corner
    or another of 13 places, and resized: `RGB_SCALES` or `FLOW_SCALES`."""
    max_distort: int = 1
    """How far apart in `scales` height and width may be."""

    def __call__(self, item: Item, generator: torch.Generator) -> Item:
        """The item with all its clips cropped."""
        return _changed(item, self.draw(_frame_size("transforms.TrainingCrop", item), generator))

    def draw(self, frame_size: tuple[int, int], generator: torch.Generator) -> Crop:
        """Draws the window of an item whose frames have that (H, W)."""
        if self.scales is None:
            return random_crop(frame_size, generator, size=self.size)
        return multi_scale_crop(frame_size, generator, size=self.size, scales=self.scales, max_distort=self.max_distort)


@dataclass(frozen=True)
class TestCrop:
    """Fixed windows of every frame and its flow: one (`center_crop`), 5 (`five_crop`) or 10 (`ten_crop`).

    The crops of a sample become samples: S samples give S, 5 S or 10 S, all samples of the first crop first.
    """

    # pytest would take it for a test otherwise.
    __test__ = False

    size: int = 224
    """Side of the windows in pixels."""
    crops: Literal[1, 5, 10] = 1
    """How many."""

    def __post_init__(self) -> None:
        if self.crops not in (1, 5, 10):
            raise ValueError(f"transforms.TestCrop: crops must be 1, 5 or 10; got {self.crops}")

    def __call__(self, item: Item, generator: torch.Generator) -> Item:
        """The item with all its clips cropped."""
        if self.crops == 1:
            return _changed(item, lambda clip, content: center_crop(clip, self.size, content))
        several = five_crop if self.crops == 5 else ten_crop
        indices = item["frame_indices"]
        dimension = indices.ndim - 2  # of the samples: 0 in an item, 1 in a batch

        def crop(clip: Tensor, content: Content) -> Tensor:
            crops = several(clip, self.size, content)
            return crops.movedim(0, dimension).flatten(dimension, dimension + 1)

        return {**_changed(item, crop), "frame_indices": torch.cat([indices] * self.crops, dim=dimension)}


@dataclass(frozen=True)
class RandomFlip:
    """Mirrors the item, motion included, or does not; see `HorizontalFlip`.

    Does nothing in a data set whose classes tell left from right (`ClipDataSet.mirrors`).
    """

    probability: float = 0.5

    def __call__(self, item: Item, generator: torch.Generator) -> Item:
        """The item, or its mirror image."""
        return _changed(item, random_flip(generator, probability=self.probability))


@dataclass(frozen=True)
class RandomColorJitter:
    """Changes the colours of the frames, all alike; see `random_color_jitter`."""

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __call__(self, item: Item, generator: torch.Generator) -> Item:
        """The item with other colours."""
        jitter = random_color_jitter(
            generator,
            brightness=self.brightness,
            contrast=self.contrast,
            saturation=self.saturation,
            hue=self.hue,
        )
        return {**item, "frames": jitter(item["frames"])}


@dataclass(frozen=True)
class StackFlow:
    """The fields of each sample as channels: `(S, L, 2, H, W)` to `(S, 2L, H, W)`; see `stack_flow`."""

    trajectories: bool = False
    """Whether the motion is followed (`stack_trajectories`) and not read at a fixed place."""
    subtract_mean: bool = False
    """Whether each field's mean vector is taken off first (`subtract_mean_flow`)."""

    def __call__(self, item: Item, generator: torch.Generator) -> Item:
        """The item with its flow stacked."""
        key = _flow_key("transforms.StackFlow", item)
        if key == "encoded_flow" and (self.trajectories or self.subtract_mean):
            raise ValueError("transforms.StackFlow: encoded flow has no trajectories and no mean; flow.decode it first")
        flow = subtract_mean_flow(item[key]) if self.subtract_mean else item[key]
        return {**item, key: stack_trajectories(flow) if self.trajectories else stack_flow(flow)}


@dataclass(frozen=True)
class Normalize:
    """Turns frames and flow into what the networks expect; encoded flow becomes `"flow"`. The last transform."""

    frames: Normalization | None = None
    """For the frames; None leaves them as they are."""
    flow: Normalization | None = None
    """For flow or encoded flow."""

    def __call__(self, item: Item, generator: torch.Generator) -> Item:
        """The item with floating-point inputs."""
        result = dict(item)
        if self.frames is not None:
            result["frames"] = self.frames(item["frames"], "frames")
        if self.flow is not None:
            key = _flow_key("transforms.Normalize", item)
            result["flow"] = self.flow(result.pop(key), key)
        return result


def without_mirroring(transforms: Sequence[ItemTransform]) -> tuple[ItemTransform, ...]:
    """The transforms that are left where a mirror image shows something else: no flip, 5 crops for 10."""
    kept = (one for one in transforms if not isinstance(one, RandomFlip))
    return tuple(replace(one, crops=5) if isinstance(one, TestCrop) and one.crops == 10 else one for one in kept)


def _changed(item: Item, change: Callable[[Tensor, Content], Tensor]) -> Item:
    """The item with every clip in it changed."""
    return {**item, **{key: change(item[key], key) for key in _CONTENTS if key in item}}


def _frame_size(caller: str, item: Item) -> tuple[int, int]:
    for key in _CONTENTS:
        if key in item:
            height, width = item[key].shape[-2:]
            return height, width
    raise ValueError(f"{caller}: the item must hold frames or flow; got {', '.join(item)}")


def _flow_key(caller: str, item: Item) -> Literal["flow", "encoded_flow"]:
    for key in ("flow", "encoded_flow"):
        if key in item:
            return cast("Literal['flow', 'encoded_flow']", key)
    raise ValueError(f"{caller}: the item must hold flow, from transforms.AddFlow say; got {', '.join(item)}")
