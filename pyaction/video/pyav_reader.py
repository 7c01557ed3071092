"""Decoding by FFmpeg through PyAV, on the CPU.

Only `pyaction.video.open` imports this module, so that `import pyaction` loads no decoder. PyAV keeps FFmpeg's own
messages off the terminal by default; nothing here touches that process-wide setting.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import cast

import av
import numpy as np
import torch
from av.error import FFmpegError
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from torch import Tensor

from pyaction.video.frame_index import FrameIndex
from pyaction.video.reader import Reader, VideoError, whole_numbers
from pyaction.video.truncation import announced_size

_MEND = "copy or download it again, or pass on_error='stop' to use the frames before the damage"

# FFmpeg's numbers of the colour tags that swscale knows: RGB, BT.709, none, FCC, BT.601 (2), SMPTE 240M, BT.2020.
_COLORSPACES = (0, 1, 2, 4, 5, 6, 7, 9)


class PyAVReader(Reader):
    """The reader behind `pyaction.video.open`, which documents and checks the arguments."""

    def __init__(
        self, path: Path, *, color: str, size: tuple[int, int] | None, short_side: int | None, on_error: str
    ) -> None:
        self.path = path
        self._channels = 3 if color == "rgb" else 1
        self._requested_size = size
        self._short_side = short_side
        self._on_error = on_error
        self._closed = False
        self._passes: weakref.WeakSet[_Pass] = weakref.WeakSet()
        self._layout: _Layout | None = None
        self._complete_index: FrameIndex | None = None
        self._to_rgb = VideoReformatter()
        self._to_gray = VideoReformatter()
        _require_file(path)
        if on_error == "raise":
            announced, actual = announced_size(path), path.stat().st_size
            if announced > actual:
                raise VideoError(
                    f"{path} is cut short: it has {actual} of the {announced} bytes that it announces; {_MEND}"
                )
        # Where random access stands: a pass over the file, and the number of the frame that it gives next. Opened
        # here so that a file that is no video fails now.
        self._cursor = self._open_pass()
        self._next_number = 0
        self._seeking_is_exact = True
        stream = self._cursor.stream
        self._time_base = stream.time_base or Fraction(1)
        self._rate = stream.average_rate or stream.guessed_rate
        self._header_size = stream.height, stream.width
        self._expected_length = self._cursor.expected_length()

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
        for open_pass in list(self._passes):
            open_pass.close()

    # ------------------------------------------------------------------ reading in order

    def __iter__(self) -> Iterator[Tensor]:
        for frame in self._decode():
            yield torch.from_numpy(self._convert(frame))

    def _decode(self) -> Iterator[av.VideoFrame]:
        """Yield every frame of the file as decoded; a complete pass leaves the index behind."""
        index = FrameIndex()
        current = self._open_pass()
        try:
            for frame in current:
                index.append(frame)
                if self._layout is None:
                    self._layout = self._layout_of(frame)
                yield frame
                self._require_open()
        except (FFmpegError, _DamageError) as error:
            if self._on_error == "raise":
                reason = getattr(error, "strerror", None) or error
                raise VideoError(f"{self.path} is damaged after {len(index)} frames ({reason}); {_MEND}") from error
        finally:
            current.close()
        if len(index) == 0 and self._on_error == "raise":
            raise VideoError(f"{self.path} has no frame that decodes; copy or download it again")
        self._complete_index = index

    def _index(self) -> FrameIndex:
        if self._complete_index is None:
            for _ in self._decode():
                pass
        assert self._complete_index is not None  # a pass that ends without an error sets it
        return self._complete_index

    def _open_pass(self) -> _Pass:
        self._require_open()
        opened = _Pass(self.path)
        self._passes.add(opened)
        return opened

    def _require_open(self) -> None:
        if self._closed:
            raise ValueError(f"{self.path} was closed; open it again with pyaction.video.open")

    # ------------------------------------------------------------------ reading in any order

    def frames(self, indices: Sequence[int] | Tensor | None = None) -> Tensor:
        """See `Reader.frames`."""
        if indices is None:
            every = [self._convert(frame) for frame in self._decode()]
            return torch.from_numpy(np.stack(every) if every else self._empty(0))
        numbers = self._checked_numbers(indices)
        rows: dict[int, list[int]] = {}
        for row, number in enumerate(numbers):
            rows.setdefault(number, []).append(row)
        result = self._empty(len(numbers))
        for number in sorted(rows):
            result[rows[number]] = self._convert(self._frame_at(number))
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
        frame = self._advance(number, index)
        if frame is None or not index.matches(number, frame):
            self._seeking_is_exact = False
            self._reopen_cursor()
            frame = self._advance(number, index)
        if frame is None or not index.matches(number, frame):
            raise VideoError(f"{self.path} changed while it was read; open it again")
        return frame

    def _advance(self, number: int, index: FrameIndex) -> av.VideoFrame | None:
        """Move the cursor to a frame and past it; None where the decoder does not come by it."""
        number_at = index.number_at if self._seeking_is_exact else None
        start = index.keyframe_before(number) if number_at else 0
        try:
            if number < self._next_number or start > self._next_number:
                if number_at and start > 0:
                    self._cursor.seek(index.pts[start])
                else:
                    self._reopen_cursor()
            for frame in self._cursor:
                found = number_at.get(frame.pts, len(index)) if number_at else self._next_number
                self._next_number = found + 1
                if found >= number:
                    return frame if found == number else None
        except (FFmpegError, _DamageError):
            pass  # the complete pass came by this frame, so decoding from the start will do
        return None

    def _reopen_cursor(self) -> None:
        self._cursor.close()
        self._cursor = self._open_pass()
        self._next_number = 0

    # ------------------------------------------------------------------ pixels

    def _layout_of(self, frame: av.VideoFrame) -> _Layout:
        quarter_turns = round(frame.rotation / 90) % 4
        upright = (frame.height, frame.width) if quarter_turns % 2 == 0 else (frame.width, frame.height)
        return _Layout(*self._scaled(*upright), quarter_turns)

    def _scaled(self, height: int, width: int) -> tuple[int, int]:
        """Size to return for frames of that upright size."""
        if self._requested_size is not None:
            return self._requested_size
        if self._short_side is None:
            return height, width
        shorter = min(height, width)
        return height * self._short_side // shorter, width * self._short_side // shorter

    def _convert(self, frame: av.VideoFrame) -> np.ndarray:
        """Turn a decoded frame into [C, H, W] uint8."""
        try:
            return self._scale_and_color(frame)
        except (FFmpegError, MemoryError) as error:
            height, width = self.size
            raise VideoError(
                f"{self.path} cannot be scaled from {frame.width} x {frame.height} to {width} x {height} pixels "
                f"({getattr(error, 'strerror', None) or error})"
            ) from error

    def _scale_and_color(self, frame: av.VideoFrame) -> np.ndarray:
        layout = self._layout
        assert layout is not None  # known from the first frame of the first pass
        height, width = layout.height, layout.width
        if layout.quarter_turns % 2:
            height, width = width, height
        # To packed RGB and not to planar, which would spare a copy: for 4:2:0 video whose width is no multiple
        # of 16 (340, 1080), swscale 9.5 leaves the last columns of planar RGB unwritten. One thread: handing
        # slices of a small frame to others costs more than converting it.
        converted = self._to_rgb.reformat(
            frame,
            width,
            height,
            "rgb24",
            # swscale refuses the rarer colour tags ("reserved", say, of old encoders); most players take BT.601.
            src_colorspace=None if frame.colorspace in _COLORSPACES else Colorspace.ITU601,
            interpolation=Interpolation.BICUBIC,
            threads=1,
        )
        if self._channels == 1:
            # By way of RGB, because the luma of a file tagged BT.709 has other weights.
            converted = self._to_gray.reformat(
                converted,
                format="gray",
                dst_colorspace=Colorspace.ITU601,
                dst_color_range=ColorRange.JPEG,
                threads=1,
            )
        # NumPy moves the channels to the front on this thread. Torch shares even 100 kB between its threads, and
        # where all cores are busy (data loading!) waiting for them was seen to take 16 ms a frame instead of 0.2.
        pixels = converted.to_ndarray()  # [H, W, 3] or [H, W]
        pixels = pixels.transpose(2, 0, 1) if self._channels == 3 else pixels[None]
        if layout.quarter_turns:
            pixels = np.rot90(pixels, layout.quarter_turns, (1, 2))
        return np.ascontiguousarray(pixels)


@dataclass(frozen=True)
class _Layout:
    """How every frame is returned, decided by the first one."""

    height: int
    width: int
    quarter_turns: int
    """Anticlockwise, after scaling."""


class _DamageError(Exception):
    """Data that decodes only in part."""


class _Pass:
    """The frames of a file one after another, as decoded, and a place to seek in them.

    Ends with an FFmpegError or a `_DamageError` where the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._container = av.open(str(path))
        except (FFmpegError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise VideoError(
                f"{path} cannot be opened as a video ({reason}); "
                "play it to see whether it is one, and copy or download it again"
            ) from error
        stream = cast("av.VideoStream | None", self._container.streams.best("video"))
        if stream is None:
            kinds = {str(other.type) for other in self._container.streams}
            self._container.close()
            raise VideoError(f"{path} has no pictures, only {', '.join(kinds) or 'a header'}; name a video file")
        if stream.codec_context is None:
            self._container.close()
            raise VideoError(
                f"{path} is compressed by a codec that this FFmpeg cannot decode; "
                "re-encode it where it plays: ffmpeg -i INPUT OUTPUT.mp4"
            )
        # One thread. With more, FFmpeg conceals damage differently from run to run and does not always report it:
        # one file broke off after 20 frames in one run and 52 in the next. On 2 cores they gain 14 % for UCF101,
        # 17 % for VP9 at 1080x1920 (to RGB); whoever is in a hurry reads several files at once.
        stream.thread_type = "NONE"
        stream.thread_count = 1
        self.stream = stream
        self._frames = self._decode()

    def __iter__(self) -> Iterator[av.VideoFrame]:
        return self._frames

    def _decode(self) -> Iterator[av.VideoFrame]:
        for packet in self._container.demux(self.stream):
            # A packet with missing bytes is not decoded; what the decoder still holds comes before it.
            for frame in self.stream.decode(None if packet.is_corrupt else packet):
                if frame.is_corrupt:
                    raise _DamageError("part of a picture does not decode")
                yield frame
            if packet.is_corrupt:
                raise _DamageError("the end of a picture is missing")

    def expected_length(self) -> int | None:
        """Return the number of frames by the header; by the length in seconds where it states no number."""
        rate, duration = self.stream.average_rate, self._container.duration
        estimated = round(rate * duration / av.time_base) if rate and duration else 0
        return self.stream.frames or estimated or None

    def seek(self, pts: int | None) -> None:
        """Continue at the last keyframe at or before a time, in ticks of the stream, or near it."""
        assert pts is not None
        self._container.seek(pts, stream=self.stream)
        self._frames = self._decode()

    def close(self) -> None:
        self._container.close()


def _require_file(path: Path) -> None:
    if path.is_dir():
        raise VideoError(f"{path} is a folder; name a video file in it")
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}; check the path")
    if path.stat().st_size == 0:
        raise VideoError(f"{path} is empty (0 bytes); copy or download it again")
