"""What `DALILoader` tells DALI of each item: the file's bytes, frame numbers, window, mirroring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyaction.data.data_sets import VideoDataSet
from pyaction.data.transforms.crops import Crop
from pyaction.data.transforms.flips import random_flip
from pyaction.data.transforms.items import Item, ItemTransform, Normalize, RandomFlip, TestCrop, TrainingCrop


@dataclass(frozen=True)
class ClipPlan:
    """All that makes an item of a file but for the decoding; in place of its frames."""

    encoded: Tensor
    """The file, uint8. A tensor, because workers hand those over without copying."""
    numbers: Tensor
    """The frames to decode, int32, each once, increasing: DALI begins at the keyframe again for a repeated one."""
    rows: Tensor
    """Where in `numbers` each frame of the clip is, int64."""
    scaled_size: tuple[int, int]
    """Height and width of the whole frames, lying as stored, as are start and shape."""
    start: tuple[int, int]
    """First row and column of the window."""
    shape: tuple[int, int]
    """Height and width of the window."""
    mirrored: bool
    """Whether the upright frames are mirrored."""
    quarter_turns: int
    """What makes them upright, anticlockwise."""
    matrix: np.ndarray | None
    """What makes DALI's colours those of the file, see `color_matrix`."""
    generator_state: Tensor
    """Of the item's random numbers, for the transforms that follow."""

    @property
    def is_final(self) -> bool:
        """Whether what DALI returns needs no further change."""
        return self.quarter_turns == 0 and len(self.rows) == len(self.numbers) and bool((self.rows.diff() == 1).all())

    def arranged(self, frames: Tensor) -> Tensor:
        """The frames that DALI returned, (R, C, H, W), turned and repeated: (S * T, C, H, W)."""
        if self.is_final:
            return frames
        if self.quarter_turns:
            frames = torch.rot90(frames, self.quarter_turns, (2, 3))
            frames = frames.flip(3) if self.mirrored else frames
        return frames[self.rows.to(frames.device)]


class PlanDataSet(VideoDataSet):
    """A data set whose items have a `ClipPlan` for frames; it shares epoch and broken videos with the one given.

    Args:
        data_set: The clips.
        device: Where DALI is to decode.
        steps: The transforms that DALI is to do.
    """

    def __init__(self, data_set: VideoDataSet, device: torch.device, steps: Sequence[ItemTransform]) -> None:
        vars(self).update(vars(data_set))
        self._device = device
        self._steps = steps
        self.transforms = ()

    def read(self, index: int, generator: torch.Generator) -> Item:
        """See `ClipDataSet.read`."""
        from pyaction.video.dali_reader import CodecError, DALIReader, color_matrix

        path, spec = self.files[index], self.spec
        try:
            reader = DALIReader(
                path,
                device=self._device,
                color="rgb",
                size=spec.size,
                short_side=spec.short_side,
                on_error="stop" if spec.on_error == "stop" else "raise",
                index_folder=None if spec.index_folder is None else Path(spec.index_folder),
            )
            with reader:
                indices = self.choose_frames(index, len(reader), lambda: reader.timestamps, generator)
                stored = reader.stored
                frame_size = reader.size
        except CodecError as error:
            raise ValueError(str(error)) from None  # not broken, so no other video stands in for it
        top, left, height, width, mirrored = drawn_window(self._steps, frame_size, generator)
        start, shape = as_stored((top, left), (height, width), frame_size, stored.quarter_turns)
        numbers, rows = indices.flatten().unique(return_inverse=True)
        plan = ClipPlan(
            encoded=torch.from_numpy(np.fromfile(path, np.uint8)),
            numbers=numbers.int(),
            rows=rows,
            scaled_size=stored.size,
            start=start,
            shape=shape,
            mirrored=mirrored,
            quarter_turns=stored.quarter_turns,
            matrix=color_matrix(stored.color_tag, gray=False),
            generator_state=generator.get_state(),
        )
        return {"frames": plan, "frame_indices": indices}


def split_transforms(
    transforms: Sequence[ItemTransform],
) -> tuple[tuple[ItemTransform, ...], tuple[ItemTransform, ...]]:
    """Part the transforms that DALI can do, from the first on, from the rest."""
    cropped = False
    for position, transform in enumerate(transforms):
        if isinstance(transform, Normalize) and transform.flow is None:
            return tuple(transforms[: position + 1]), tuple(transforms[position + 1 :])
        is_crop = isinstance(transform, TrainingCrop) or (isinstance(transform, TestCrop) and transform.crops == 1)
        if not isinstance(transform, RandomFlip) and (cropped or not is_crop):
            return tuple(transforms[:position]), tuple(transforms[position:])
        cropped |= is_crop
    return tuple(transforms), ()


def drawn_window(
    steps: Sequence[ItemTransform], frame_size: tuple[int, int], generator: torch.Generator
) -> tuple[int, int, int, int, bool]:
    """Draw what the transforms would draw: top, left, height and width in the frame, and whether it is mirrored."""
    top, left, (height, width), mirrored = 0, 0, frame_size, False
    for step in steps:
        if isinstance(step, RandomFlip):
            mirrored ^= random_flip(generator, probability=step.probability).flipped
        elif isinstance(step, (TrainingCrop, TestCrop)):
            crop = step.draw(frame_size, generator) if isinstance(step, TrainingCrop) else _middle(step, frame_size)
            top, height, width = crop.top, crop.height, crop.width
            left = frame_size[1] - crop.left - crop.width if mirrored else crop.left
    return top, left, height, width, mirrored


def _middle(step: TestCrop, frame_size: tuple[int, int]) -> Crop:
    """The window of `center_crop`."""
    top, left = (frame_size[0] - step.size) // 2, (frame_size[1] - step.size) // 2
    return Crop(frame_size, top, left, step.size, step.size, step.size)


def as_stored(
    start: tuple[int, int], shape: tuple[int, int], frame_size: tuple[int, int], quarter_turns: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Start and shape of a window of the upright frame, in the frame as it was before the turns (anticlockwise)."""
    (top, left), (height, width), (frame_height, frame_width) = start, shape, frame_size
    for _ in range(quarter_turns):
        # Before the last turn, rows were columns, and what is the top now was at the right.
        top, left, height, width = left, frame_height - top - height, width, height
        frame_height, frame_width = frame_width, frame_height
    return (top, left), (height, width)
