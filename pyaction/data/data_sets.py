"""What all data sets of labelled clips do: choose frames, read them, transform them, and survive broken files."""

from __future__ import annotations

import errno
import logging
import math
import os
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from pyaction import video
from pyaction.data.annotations import AnnotationList
from pyaction.data.batches import place_of_process
from pyaction.data.sampling import resample_indices
from pyaction.data.transforms.draws import generator_of
from pyaction.data.transforms.items import Item, ItemTransform, without_mirroring
from pyaction.data.video_files import find_annotated

_logger = logging.getLogger(__name__)

# Of this process, and no reason to take a file for broken.
_OWN_TROUBLE = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}


class Sampler(Protocol):
    """Chooses frames: a function of `pyaction.data.sampling`, with `functools.partial` for its other arguments."""

    def __call__(self, frames: int, /, *, generator: torch.Generator) -> Tensor:
        """From a number of frames, at least 1, to frame indices `(S, T)`, int64."""


@dataclass(frozen=True)
class ClipSpec:
    """What a data set makes of each video; the same one may serve several data sets."""

    sampler: Sampler
    """From a number of frames T >= 1 and `generator=` to frame indices `(S, T)`, int64:
    `functools.partial(sampling.segment_indices, segments=3, length=6)`, say. (A lambda does not reach workers that are
    spawned, as they are from Python 3.14 on.)"""
    transforms: Sequence[ItemTransform] = ()
    """What is done to each item, in this order: see `pyaction.data.transforms.items`."""
    on_device: Sequence[ItemTransform] = ()
    """What is done to each batch after its transfer to the device, by `ClipDataSet.finish`."""
    size: tuple[int, int] | None = None
    """(height, width) that frames are scaled to as they are read; 256 x 340 for two-stream networks."""
    short_side: int | None = None
    """Length that the shorter side is scaled to, instead of `size`."""
    fps: float | None = None
    """Rate that a video is taken at, by its frames' times; None: its own."""
    on_error: Literal["raise", "skip", "stop"] = "raise"
    """A video that cannot be read ends the run, or with "skip" is reported once, counted, and replaced. With "stop" the
    frames before the damage are the video; only where there is none is it skipped."""
    index_folder: str | os.PathLike[str] | None = None
    """Where to keep what the first visit to a video finds out about it (made if need be; some kB each): later ones
    decode only the frames that they need. See `video.open`."""
    seed: int = 0
    """Of everything that is random: item i of epoch e is the same for any number of workers."""

    def __post_init__(self) -> None:
        if self.on_error not in ("raise", "skip", "stop"):
            raise ValueError(f"ClipSpec: on_error must be 'raise', 'skip' or 'stop'; got {self.on_error!r}")
        if self.size is not None and self.short_side is not None:
            raise ValueError(f"ClipSpec: give size or short_side, not both; got {self.size} and {self.short_side}")
        for name in ("short_side", "fps"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"ClipSpec: {name} must be greater than 0; got {value}")
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1):
            raise ValueError(f"ClipSpec: size must be (height, width), both at least 1; got {self.size}")


class ClipDataSet(Dataset[Item], ABC):
    """Labelled clips, for a `DataLoader`; `set_epoch` before each epoch, or every epoch draws the same.

    Item i is a dict, whose tensors a `DataLoader` stacks into batches:

    * `"frames"`: `(S, T, 3, H, W)` uint8, RGB: S samples of T frames, as the sampler chose them; or what the
      transforms made of them.
    * `"encoded_flow"`: `(S, T, 2, H, W)` uint8, in data sets that store flow.
    * `"frame_indices"`: `(S, T)` int64, the frames' numbers in the video.
    * `"label"`: class, from 0; -1 where the data set does not say.
    * `"index"`: i; of the video that stands in for a broken one, its own.
    * `"path"`: as in the annotation.

    A broken video (`ClipSpec.on_error`) is replaced by the next one of its class that can be read, so that batches stay
    whole; its own label and index go with it. An evaluation tells by `"index"` which items it has had already. In a
    distributed run each process reports and counts what it has come by.

    Where a clip's mirror image is of another class (`AnnotationList.mirrors`), no transform mirrors it.

    Args:
        annotations: The clips.
        spec: What to make of each.

    Attributes:
        annotations: `tuple[Annotation]`, in the order of the items.
        class_names: Names in the order of the labels.
        labels: `list[int]`, what `BalancedBatchSampler` wants.
    """

    def __init__(self, annotations: AnnotationList, spec: ClipSpec) -> None:
        self.annotations = annotations.items
        self.class_names = annotations.class_names
        self.labels = [-1 if item.label is None else item.label for item in self.annotations]
        self.spec = spec
        self.mirrors = annotations.mirrors
        self.transforms = self._allowed(spec.transforms)
        self._on_device = self._allowed(spec.on_device)
        self._finished_batches = 0
        self._members: dict[int, list[int]] = {}
        for index, label in enumerate(self.labels):
            self._members.setdefault(label, []).append(index)
        self._epoch = torch.zeros((), dtype=torch.int64)
        self._is_unreadable = torch.zeros(len(self.annotations), dtype=torch.bool)
        self._share()

    def _share(self) -> None:
        """What the main process says reaches the workers, and what they find reaches it."""
        self._epoch.share_memory_()
        self._is_unreadable.share_memory_()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._share()  # a copy is shared with workers of its own

    @abstractmethod
    def read(self, index: int, generator: torch.Generator) -> Item:
        """Read the chosen frames of one clip.

        Args:
            index: Of the item.
            generator: For the choice.

        Returns:
            The tensors of the item, untransformed, and `"frame_indices"`.

        Raises:
            video.VideoError, OSError: It cannot be read.
        """

    @abstractmethod
    def is_there(self) -> bool:
        """Tell whether the data set's folder can be seen at all: a disk that is away is no broken video."""

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, index: int) -> Item:
        if not -len(self) <= index < len(self):
            raise IndexError(f"the data set has {len(self)} items; got index {index}")
        for candidate in self._candidates(index % len(self)):
            if self._is_unreadable[candidate]:
                continue
            generator = self.generator(candidate)
            try:
                item = self.read(candidate, generator)
            except (video.VideoError, OSError) as error:
                of_this_process = isinstance(error, OSError) and error.errno in _OWN_TROUBLE
                if self.spec.on_error == "raise" or of_this_process or not self.is_there():
                    raise
                self.note_unreadable(candidate, str(error))
                continue
            item |= {"label": self.labels[candidate], "index": candidate, "path": self.annotations[candidate].path}
            try:
                for transform in self.transforms:
                    item = transform(item, generator)
            except (TypeError, ValueError) as error:
                raise type(error)(f"{self.annotations[candidate].path}: {error}") from error
            return item
        raise video.VideoError(f"none of the {len(self)} videos can be read, {self.annotations[index].path} among them")

    @property
    def epoch(self) -> int:
        """Which epoch is drawn."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Draw other frames, crops and flips from now on: those of that epoch, 0 or more. Reaches running workers."""
        self._epoch.fill_(epoch)
        self._finished_batches = 0

    def finish(self, batch: Item) -> Item:
        """Do to a batch, on the device that it is on now, what the spec's `on_device` says.

        `ClipDataModule` calls it; in a loop of your own: `batch = data_set.finish(to_device(batch))`. What is random is
        drawn once for the batch, in the order of the calls since `set_epoch`.
        """
        rank, _ = place_of_process()
        generator = generator_of(self.spec.seed, self.epoch, len(self) + self._finished_batches, rank)
        self._finished_batches += 1
        for transform in self._on_device:
            batch = transform(batch, generator)
        return batch

    def generator(self, index: int) -> torch.Generator:
        """All that is random about an item in this epoch."""
        return generator_of(self.spec.seed, self.epoch, index)

    @property
    def unreadable(self) -> list[str]:
        """Paths of the videos that could not be read so far, by any worker."""
        return [self.annotations[index].path for index in self._is_unreadable.nonzero().flatten().tolist()]

    def note_unreadable(self, index: int, reason: str) -> None:
        """Report a video that cannot be read, the first time; it is not opened again."""
        if not self._is_unreadable[index]:
            self._is_unreadable[index] = True
            _logger.warning("left out: %s", reason)

    def choose_frames(
        self, index: int, count: int, timestamps: Callable[[], Tensor], generator: torch.Generator
    ) -> Tensor:
        """Have the sampler choose among the frames that a clip really has.

        Args:
            index: Of the item.
            count: Number of frames in its file or folder.
            timestamps: Gives their times in seconds, `(count,)`, if asked, which takes time.
            generator: For the choice.

        Returns:
            `(S, T)` int64, numbers of frames in the file or folder.

        Raises:
            video.VideoError: There is no frame to choose.
        """
        annotation = self.annotations[index]
        last = count if annotation.num_frames is None else min(count, annotation.offset + annotation.num_frames)
        numbers = torch.arange(annotation.offset, last)
        if count == 0:
            raise video.VideoError(f"{annotation.path} has no frame that can be read")
        if len(numbers) == 0:
            raise video.VideoError(
                f"{annotation.path} has {count} frames; its clip was to begin at frame {annotation.offset}"
            )
        if self.spec.fps is not None:
            numbers = numbers[resample_indices(timestamps()[numbers], self.spec.fps)]
        chosen = self.spec.sampler(len(numbers), generator=generator)
        if not (isinstance(chosen, Tensor) and chosen.dtype == torch.int64 and chosen.ndim == 2):
            what = f"{chosen.dtype} {list(chosen.shape)}" if isinstance(chosen, Tensor) else type(chosen).__name__
            raise TypeError(f"ClipSpec: sampler must return frame indices (S, T), int64; got {what}")
        return numbers[chosen]

    def _allowed(self, transforms: Sequence[ItemTransform]) -> tuple[ItemTransform, ...]:
        return tuple(transforms) if self.mirrors else without_mirroring(transforms)

    def _candidates(self, index: int) -> Iterator[int]:
        """The item itself, then what may stand in for it: the next of its class, then the next of any."""
        yield index
        if self.spec.on_error != "raise":
            members = self._members[self.labels[index]]
            place = bisect_left(members, index)
            yield from (members[(place + step) % len(members)] for step in range(1, len(members)))
            following = ((index + step) % len(self) for step in range(1, len(self)))
            yield from (one for one in following if self.labels[one] != self.labels[index])


class VideoDataSet(ClipDataSet):
    """Clips in video files.

    Args:
        annotations: The clips, with paths relative to root: read by `pyaction.data.annotations`.
        root: Folder of the videos. Their suffixes may be others than in the annotations, and folders of classes may
            be missing.
        spec: What to make of each clip.

    Raises:
        ValueError: root cannot be listed; videos are missing, and `spec.on_error` is "raise". Else they are reported
            and left out.

    Example:
        >>> import functools, tempfile
        >>> from pyaction import data
        >>> root = tempfile.mkdtemp()
        >>> data.write_actions(root, groups=3, clips=1, size=(48, 64), frames=12)
        >>> annotations = data.read_ucf101(root + "/annotations", split=1, subset="test")
        >>> sampler = functools.partial(data.sampling.segment_indices, segments=3, length=6, mode="test")
        >>> spec = data.ClipSpec(sampler)
        >>> data.VideoDataSet(annotations, root + "/videos", spec)[4]["frames"].shape
        torch.Size([3, 6, 3, 48, 64])
    """

    def __init__(self, annotations: AnnotationList, root: str | os.PathLike[str], spec: ClipSpec) -> None:
        super().__init__(annotations, spec)
        self.root = Path(root)
        if spec.index_folder is not None:
            Path(spec.index_folder).mkdir(parents=True, exist_ok=True)
        found = find_annotated(root, [item.path for item in self.annotations])
        missing = [index for index, file in enumerate(found) if file is None]
        if missing and spec.on_error == "raise":
            raise ValueError(
                f"{root} lacks {len(missing)} of the {len(found)} videos, {self.annotations[missing[0]].path} first; "
                "name the folder that holds them, or pass on_error='skip' to do without"
            )
        if missing:
            self._is_unreadable[missing] = True
            first = self.annotations[missing[0]].path
            _logger.warning(
                "left out: %d of %d videos, %s first, which %s lacks", len(missing), len(found), first, root
            )
        self.files: list[Path] = [
            file or Path(root, item.path) for file, item in zip(found, self.annotations, strict=True)
        ]

    def is_there(self) -> bool:
        """See `ClipDataSet.is_there`."""
        return self.root.is_dir()

    def open(self, index: int) -> video.Reader:
        """Open the video of an item, scaled as the data set's spec says."""
        return video.open(
            self.files[index],
            size=self.spec.size,
            short_side=self.spec.short_side,
            on_error="stop" if self.spec.on_error == "stop" else "raise",
            index_folder=self.spec.index_folder,
        )

    def read(self, index: int, generator: torch.Generator) -> Item:
        """See `ClipDataSet.read`."""
        with self.open(index) as reader:
            indices = self.choose_frames(index, len(reader), lambda: reader.timestamps, generator)
            frames = reader.clips(indices)
        return {"frames": frames, "frame_indices": indices}
