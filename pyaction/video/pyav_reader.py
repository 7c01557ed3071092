"""Decoding by FFmpeg through PyAV, on the CPU.

Only `pyaction.video.open` imports this module, so that `import pyaction` loads no decoder.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence, Set
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import av
import numpy as np
import torch
from av.error import FFmpegError
from torch import Tensor

from pyaction.video.decoding_pass import DamageError, DecodingPass
from pyaction.video.frame_index import FrameIndex, fingerprint
from pyaction.video.frame_pixels import Layout, PixelConverter
from pyaction.video.index_file import IndexFile
from pyaction.video.reader import Reader, VideoError, scaled_size, whole_numbers
from pyaction.video.truncation import announced_size

_MEND = "copy or download it again, or pass on_error='stop' to use the frames before the damage"

# Stands in the index files: another version may come to other pixels.
DECODER = "libavcodec {}.{}.{}".format(*av.library_versions["libavcodec"])

# Of decoded frames (320 x 240: 500, 340 x 256: 400) that a reader holds after `len`. For the 154 frames of a clip of
# UCF101 that costs 2.3 ms (fresh memory), and decoding 16 of them again 6.6 ms.
HELD_BYTES = 64 * 2**20


class PyAVReader(Reader):
    """The reader behind `pyaction.video.open`, which documents and checks the arguments."""

    def __init__(
        self,
        path: Path,
        *,
        color: str,
        size: tuple[int, int] | None,
        short_side: int | None,
        on_error: str,
        index_folder: Path | None,
    ) -> None:
        self.path = path
        self._channels = 3 if color == "rgb" else 1
        self._requested_size = size
        self._short_side = short_side
        self._on_error = on_error
        self._closed = False
        self._passes: weakref.WeakSet[DecodingPass] = weakref.WeakSet()
        self._layout: Layout | None = None
        self._complete_index: FrameIndex | None = None
        self._held: dict[int, av.VideoFrame] = {}
        self._converter = PixelConverter()
        _require_file(path)
        if on_error == "raise":
            announced, actual = announced_size(path), path.stat().st_size
            if announced > actual:
                raise VideoError(
                    f"{path} is cut short: it has {actual} of the {announced} bytes that it announces; {_MEND}"
                )
        self._index_file = None if index_folder is None else IndexFile(index_folder, path, DECODER)
        self._index_is_from_file = False
        # Opened here so that a file that is no video fails now; whoever reads first takes it.
        self._unused_pass: DecodingPass | None = DecodingPass(path)
        self._passes.add(self._unused_pass)
        # Where random access stands: a pass over the file, and the number of the frame that it gives next.
        self._cursor: DecodingPass | None = None
        self._next_number = 0
        self._seeking_is_exact = True
        self._wanted: set[int] = set()  # times of the frames that are asked for at once
        stream = self._unused_pass.stream
        self._time_base = stream.time_base or Fraction(1)
        self._rate = stream.average_rate or stream.guessed_rate
        self._header_size = stream.height, stream.width
        self._expected_length = self._unused_pass.expected_length()

    # ------------------------------------------------------------------ properties

    @property
    def fps(self) -> float:
        """See `Reader.fps`."""
        if self._rate is None:
            raise VideoError(f"{self.path} states no frame rate; re-encode it: ffmpeg -i INPUT -r 25 OUTPUT.mp4")
        return float(self._rate)

    @property
    def size(self) -> tuple[int, int]:
        """See `Reader.size`."""
        if self._layout is None:
            # The first frame decides, not the header: it alone carries the rotation.
            if (index := self._known_index()) is not None and len(index) > 0:
                self._layout = self._layout_of(index)
            else:
                next(self._decode(), None)
        if self._layout is None:  # a file without a frame, opened with on_error="stop"
            return self._scaled(*self._header_size)
        return self._layout.height, self._layout.width

    @cached_property
    def timestamps(self) -> Tensor:
        """See `Reader.timestamps`."""
        return self._index().timestamps(self._time_base, self.fps)

    @property
    def expected_length(self) -> int | None:
        """See `Reader.expected_length`."""
        return self._expected_length

    def __len__(self) -> int:
        return len(self._index())

    def close(self) -> None:
        """See `Reader.close`."""
        self._closed = True
        self._held.clear()
        for open_pass in list(self._passes):
            open_pass.close()

    # ------------------------------------------------------------------ reading in order

    def __iter__(self) -> Iterator[Tensor]:
        self._release_held()  # whoever reads in order needs them no more
        for frame in self._decode():
            yield torch.from_numpy(self._convert(frame))

    def _decode(
        self, held: dict[int, av.VideoFrame] | None = None, numbers: Set[int] | None = None
    ) -> Iterator[av.VideoFrame]:
        """Yield every frame of the file as decoded; a complete pass leaves the index behind.

        Those of certain numbers, or all, are put into `held` so far as there is room for them.
        """
        index = FrameIndex()
        room = HELD_BYTES
        current = self._open_pass()
        try:
            for frame in current:
                if held is not None and (numbers is None or len(index) in numbers):
                    room -= sum(plane.buffer_size for plane in frame.planes)
                    if room >= 0:
                        held[len(index)] = frame
                index.append(frame, is_held=self._index_file is None and held is not None and len(index) in held)
                if self._layout is None:
                    self._layout = self._layout_of(index)
                yield frame
                self._require_open()
        except (FFmpegError, DamageError) as error:
            if self._on_error == "raise":
                reason = getattr(error, "strerror", None) or error
                raise VideoError(f"{self.path} is damaged after {len(index)} frames ({reason}); {_MEND}") from error
        else:
            # Of a damaged file nothing is kept: an index says that the file is whole, however it is opened next.
            if self._index_file is not None and len(index) > 0 and index != self._complete_index:
                self._index_file.save(index)
        finally:
            current.close()
        if len(index) == 0 and self._on_error == "raise":
            raise VideoError(f"{self.path} has no frame that decodes; copy or download it again")
        self._complete_index, self._index_is_from_file = index, False

    def _known_index(self) -> FrameIndex | None:
        """Return what a complete pass has learned, now or on an earlier visit."""
        if self._complete_index is None and self._index_file is not None:
            self._complete_index = self._index_file.load()
            self._index_is_from_file = self._complete_index is not None
        return self._complete_index

    def _index(self) -> FrameIndex:
        if self._known_index() is None:
            self._make_index()
        assert self._complete_index is not None  # a pass that ends without an error sets it
        return self._complete_index

    def _make_index(self) -> None:
        """Decode the whole file."""
        self._decode_holding(None)

    def _decode_holding(self, numbers: Set[int] | None) -> None:
        """Decode the whole file and hold the frames of certain numbers, or all."""
        held: dict[int, av.VideoFrame] = {}
        for _ in self._decode(held, numbers):
            pass
        self._held = held

    def _release_held(self) -> None:
        index = self._complete_index
        for number, frame in self._held.items():
            if index is not None and index.fingerprints[number] is None:
                index.fingerprints[number] = fingerprint(frame)
        self._held.clear()

    def _open_pass(self) -> DecodingPass:
        self._require_open()
        opened, self._unused_pass = self._unused_pass, None
        if opened is None:
            opened = DecodingPass(self.path)
            self._passes.add(opened)
        return opened

    def _require_open(self) -> None:
        if self._closed:
            raise ValueError(f"{self.path} was closed; open it again with pyaction.video.open")

    # ------------------------------------------------------------------ reading in any order

    def frames(self, indices: Sequence[int] | Tensor | None = None) -> Tensor:
        """See `Reader.frames`."""
        if indices is None and self._known_index() is None:
            every = [self._convert(frame) for frame in self._decode()]
            return torch.from_numpy(np.stack(every) if every else self._empty(0))
        if indices is not None and self._known_index() is None:
            wanted = whole_numbers("frames", indices, dimensions=1)
            if len(wanted) > 0 and int(wanted.min()) >= 0:
                if self._index_file is None and (frames := self._frames_in_order(wanted.tolist())) is not None:
                    return frames
                self._decode_holding(set(wanted.tolist()))
        try:
            return self._frames_by_index(indices)
        except _StaleIndexError:
            # The decoder works otherwise than the one that the index was made with: on another CPU, perhaps.
            self._make_index()
            self._seeking_is_exact = True
            return self._frames_by_index(indices)

    def _frames_in_order(self, numbers: list[int]) -> Tensor | None:
        """Decode on from where the cursor stands as far as the last frame wanted, which is exact without an index.

        None where that frame does not come, or means going back: a complete pass then says what there is.
        """
        rows = _rows_of(numbers)
        if min(rows) < self._next_number:
            return None
        result, last = None, max(rows)
        try:
            for frame in self._cursor or self._reopen_cursor():
                number, self._next_number = self._next_number, self._next_number + 1
                if self._layout is None:
                    first_frame = FrameIndex()
                    first_frame.append(frame, is_held=True)
                    self._layout = self._layout_of(first_frame)
                if number in rows:
                    result = self._empty(len(numbers)) if result is None else result
                    self._convert_to_rows(frame, result, rows[number])
                if number == last:
                    return torch.from_numpy(result)
        except (FFmpegError, DamageError):
            pass
        return None

    def _frames_by_index(self, indices: Sequence[int] | Tensor | None) -> Tensor:
        numbers = range(len(self)) if indices is None else self._checked_numbers(indices)
        rows = _rows_of(numbers)
        result = self._empty(len(numbers))
        self._wanted = {time for number in rows if (time := self._index().pts[number]) is not None}
        for number in sorted(rows):
            self._convert_to_rows(self._frame_at(number), result, rows[number])
        return torch.from_numpy(result)

    def _checked_numbers(self, indices: Sequence[int] | Tensor) -> list[int]:
        wanted = whole_numbers("frames", indices, dimensions=1)
        if len(wanted) == 0:
            return []
        count = len(self)
        outside = wanted[(wanted < -count) | (wanted >= count)]
        if len(outside):
            raise IndexError(f"frames: {self.path} has {count} frames; got index {int(outside[0])}")
        return [number % count for number in wanted.tolist()]

    def _empty(self, count: int) -> np.ndarray:
        return np.empty((count, self._channels, *self.size), dtype=np.uint8)

    def _frame_at(self, number: int) -> av.VideoFrame:
        """Decode one frame, from the nearest keyframe where that gives the same pixels.

        Seeking lands beside the mark in some containers, and after it some streams show frames whose
        references are missing. So what comes is compared with what the complete pass saw, and after one
        disappointment the file is only decoded from its start, which is exact by definition.
        """
        self._require_open()
        index = self._index()
        if number in self._held:
            return self._held[number]
        frame = self._advance(number, index)
        if frame is None:
            self._seeking_is_exact = False
            self._reopen_cursor()
            frame = self._advance(number, index)
        if frame is None:
            if self._index_is_from_file:
                raise _StaleIndexError
            raise VideoError(f"{self.path} changed while it was read; open it again")
        return frame

    def _advance(self, number: int, index: FrameIndex) -> av.VideoFrame | None:
        """Move the cursor to a frame and past it; None where another one comes in its place, or none."""
        number_at = index.number_at if self._seeking_is_exact else None
        start = index.keyframe_before(number) if number_at else 0
        try:
            cursor = self._cursor or self._reopen_cursor()
            if not start <= self._next_number <= number:
                if start > 0:
                    cursor.seek(index.pts[start])
                else:
                    cursor = self._reopen_cursor()
            if number_at:
                cursor.want(self._wanted)
            for frame in cursor:
                found = number_at.get(frame.pts, len(index)) if number_at else self._next_number
                self._next_number = found + 1
                if found >= number:
                    return frame if found == number and index.matches(number, frame) else None
        except (FFmpegError, DamageError):
            pass  # the complete pass came by this frame, so decoding from the start will do
        return None

    def _reopen_cursor(self) -> DecodingPass:
        if self._cursor is not None:
            self._cursor.close()
        self._cursor = self._open_pass()
        self._next_number = 0
        return self._cursor

    # ------------------------------------------------------------------ pixels

    def _layout_of(self, index: FrameIndex) -> Layout:
        return Layout(*self._scaled(*index.upright_size), index.quarter_turns)

    def _scaled(self, height: int, width: int) -> tuple[int, int]:
        """Size to return for frames of that upright size."""
        return scaled_size(height, width, self._requested_size, self._short_side)

    def _convert(self, frame: av.VideoFrame, result: np.ndarray | None = None) -> np.ndarray:
        """Write a decoded frame into a new array or an existing one, [C, H, W] uint8."""
        layout = self._layout
        assert layout is not None  # known from the first frame of the first pass
        try:
            if result is None:
                result = np.empty((self._channels, layout.height, layout.width), dtype=np.uint8)
            self._converter.convert(frame, layout, result)
        except (FFmpegError, MemoryError) as error:
            raise VideoError(
                f"{self.path} cannot be scaled from {frame.width} x {frame.height} to {layout.width} x "
                f"{layout.height} pixels ({getattr(error, 'strerror', None) or error})"
            ) from error
        return result

    def _convert_to_rows(self, frame: av.VideoFrame, result: np.ndarray, rows: list[int]) -> None:
        first, *others = rows
        self._convert(frame, result[first])
        if others:
            result[others] = result[first]


def _rows_of(numbers: Sequence[int]) -> dict[int, list[int]]:
    """Where in a list each number stands."""
    rows: dict[int, list[int]] = {}
    for row, number in enumerate(numbers):
        rows.setdefault(number, []).append(row)
    return rows


class _StaleIndexError(Exception):
    """A frame is not what an index from an earlier visit says."""


def _require_file(path: Path) -> None:
    if path.is_dir():
        raise VideoError(f"{path} is a folder; name a video file in it")
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}; check the path")
    if path.stat().st_size == 0:
        raise VideoError(f"{path} is empty (0 bytes); copy or download it again")
