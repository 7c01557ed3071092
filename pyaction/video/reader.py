"""What every video reader offers, whichever library decodes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor


class VideoError(ValueError):
    """A file that is no readable video, or breaks off; the one-sentence text names it and how to mend it."""


def scaled_size(height: int, width: int, size: tuple[int, int] | None, short_side: int | None) -> tuple[int, int]:
    """Height and width that frames are scaled to by what `video.open` takes as `size` and `short_side`."""
    if size is not None:
        return size
    if short_side is None:
        return height, width
    shorter = min(height, width)
    return height * short_side // shorter, width * short_side // shorter


class Reader(ABC):
    """The frames of one video file; made by `pyaction.video.open`.

    A reader is a context manager. It is used by one thread, in the process that opened it: in a data set for
    a `DataLoader`, open it in `__getitem__`.
    """

    path: Path

    @property
    @abstractmethod
    def fps(self) -> float:
        """Average frame rate, in frames per second."""

    @property
    @abstractmethod
    def size(self) -> tuple[int, int]:
        """Height and width of the frames that this reader returns, in pixels."""

    @property
    @abstractmethod
    def timestamps(self) -> Tensor:
        """When each frame is shown, on the file's own clock: float64 (T,), in seconds, never decreasing.

        Correct for a variable frame rate. Where the file stores no usable presentation times (AVI with
        B-frames), frame i is at `i / fps`: such containers have a constant rate.
        """

    @property
    @abstractmethod
    def expected_length(self) -> int | None:
        """About how many frames there are by the file's header, for progress bars; None where it does not say.

        `len` is exact, but has to decode the file.
        """

    @abstractmethod
    def __len__(self) -> int:
        """Number of frames that really decode, whatever the header promises.

        The first call decodes the file once, without converting colours, unless it was read to its end
        before, or an index of it is kept (`index_folder` of `pyaction.video.open`).
        """

    @abstractmethod
    def __iter__(self) -> Iterator[Tensor]:
        """Yield every frame, (C, H, W) uint8, in the order of presentation; each call starts afresh."""

    @abstractmethod
    def frames(self, indices: Sequence[int] | Tensor | None = None) -> Tensor:
        """Return chosen frames, the same pixels that iterating gives.

        Where nothing is known of the file yet, it is decoded as far as the last of them.

        Args:
            indices: frame numbers in any order, repeats allowed (a frame is decoded and converted once); a
                negative one counts from the end, as in Python. None means every frame.

        Returns:
            (T, C, H, W) uint8, in the order of `indices`.

        Raises:
            TypeError: if indices are not a flat list of whole numbers.
            IndexError: if an index lies outside the video.
            VideoError: if the file was opened with `on_error="raise"` and damage was come by.
        """

    def clips(self, indices: Sequence[Sequence[int]] | Tensor) -> Tensor:
        """Return several clips at once; a frame that occurs in more than one is decoded and converted once.

        Args:
            indices: (S, L) frame numbers as in `frames`, a clip per row; `pyaction.data.sampling` makes such.

        Returns:
            (S, L, C, H, W) uint8.

        Raises:
            TypeError: if indices are not a table of whole numbers.
            IndexError, VideoError: as in `frames`.
        """
        wanted = whole_numbers("clips", indices, dimensions=2)
        return self.frames(wanted.flatten()).unflatten(0, wanted.shape)

    @abstractmethod
    def close(self) -> None:
        """Close the file; reading from it afterwards is a ValueError. Closing twice is allowed."""

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def whole_numbers(caller: str, indices: object, *, dimensions: int) -> Tensor:
    """Return frame numbers as an int64 tensor of 1 or 2 dimensions; a TypeError says what they are instead."""
    kind = "a flat list" if dimensions == 1 else "a table (S, L)"
    try:
        numbers = torch.as_tensor(indices)
    except (TypeError, ValueError, RuntimeError) as error:  # rows of unequal length, strings
        raise TypeError(f"{caller}: indices must be {kind} of whole numbers; got {indices!r:.80}") from error
    is_whole = not (numbers.is_floating_point() or numbers.is_complex() or numbers.dtype == torch.bool)
    if numbers.ndim != dimensions or not (is_whole or numbers.numel() == 0):
        raise TypeError(
            f"{caller}: indices must be {kind} of whole numbers; got {numbers.dtype} of shape {list(numbers.shape)}"
        )
    return numbers.to(torch.int64)
