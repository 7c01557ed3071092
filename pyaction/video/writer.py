"""Frames to video files: a streaming `Writer`, and `write` for frames already at hand."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor

from pyaction.video.reader import VideoError

if TYPE_CHECKING:
    from av import VideoFrame, VideoStream
    from av.container import OutputContainer


@dataclass(frozen=True)
class _Encoding:
    """How frames are compressed in one kind of file."""

    codec: str
    pixel_format: str
    options: dict[str, str]
    """Of the encoder; the quality is one at which compression is hardly seen."""
    even_sizes: bool = False
    """Whether height and width must be even."""


_H264 = _Encoding("libx264", "yuv420p", {"crf": "18"}, even_sizes=True)
_ENCODINGS = {
    ".mp4": _H264,
    ".mov": _H264,
    ".mkv": _H264,
    ".webm": _Encoding("libvpx-vp9", "yuv420p", {"crf": "20", "b": "0", "cpu-used": "5", "row-mt": "1"}),
    # 1 is the finest quantiser step, 31 the coarsest.
    ".avi": _Encoding("mjpeg", "yuvj420p", {"qmin": "2", "qmax": "2"}),
}


class Writer:
    """Writes frames into a video file, a few at a time.

    The suffix chooses the encoding: `.mp4`, `.mov` and `.mkv` are H.264, `.webm` is VP9, `.avi` is Motion
    JPEG (every frame a keyframe); all with 4:2:0 chroma, which every player shows. H.264 needs an even height and
    width: an odd one gets its last row or column twice, so the file is one pixel larger. Compression changes
    pixels a little.

    The file appears at once and whole, when the `with` block ends without an error: until then
    `.<name>.partial.<suffix>` beside it is written, and removed if anything fails. An older file of that name
    stays until then.

    Args:
        path: where to write; the folder must exist.
        fps: frames per second, > 0.

    Raises:
        ValueError: if the suffix is none of those above, or fps is not a positive number.
        FileNotFoundError: if the folder does not exist.

    Example:
        >>> import tempfile, torch
        >>> from pyaction import video
        >>> with video.Writer(tempfile.mkdtemp() + "/black.mp4", fps=30) as writer:
        ...     for _ in range(3):
        ...         writer.write(torch.zeros(3, 48, 64, dtype=torch.uint8))
    """

    def __init__(self, path: str | os.PathLike[str], fps: float) -> None:
        self.path = Path(path)
        suffix = self.path.suffix.lower()
        if suffix not in _ENCODINGS:
            raise ValueError(f"Writer: the name must end in one of {', '.join(_ENCODINGS)}; got {self.path.name!r}")
        if not (math.isfinite(fps) and fps > 0):
            raise ValueError(f"Writer: fps must be a positive number; got {fps}")
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"there is no folder {self.path.parent}; create it to write {self.path.name}")
        self._encoding = _ENCODINGS[suffix]
        # 1001 keeps the rates of television exact: 29.97 becomes 30000/1001.
        self._rate = Fraction(fps).limit_denominator(1001 if fps >= 1 else 1_000_000)
        if self._rate == 0:
            raise ValueError(f"Writer: fps must be at least one frame in a million seconds; got {fps}")
        # FFmpeg chooses the container by the suffix.
        self._partial = self.path.with_name(f".{self.path.stem}.partial{self.path.suffix}")
        self._shape: tuple[int, ...] | None = None
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None
        self._count = 0
        self._closed = False

    def write(self, frames: Tensor) -> None:
        """Append one frame or several.

        Args:
            frames: (C, H, W) or (T, C, H, W) uint8 on any device, with C = 3 (RGB) or 1 (grey); the first
                call settles C, H and W.

        Raises:
            TypeError: if frames are no tensor of uint8.
            ValueError: if the shape is another one.
            OSError: if the file cannot be written (a full disk, say).
        """
        if self._closed:
            raise ValueError(f"Writer: {self.path} is finished; make a new Writer to write it again")
        if not isinstance(frames, Tensor):
            raise TypeError(f"Writer: frames must be a torch.Tensor; got {type(frames).__name__}")
        if frames.dtype != torch.uint8:
            raise TypeError(
                "Writer: frames must be uint8, 0..255; "
                f"got {frames.dtype} (from 0..1: (frames * 255).round().to(torch.uint8))"
            )
        if frames.ndim not in (3, 4) or frames.shape[-3] not in (1, 3) or 0 in frames.shape[-2:]:
            raise ValueError(
                f"Writer: frames must be [C, H, W] or [T, C, H, W] with 1 or 3 channels; got {list(frames.shape)}"
            )
        shape = tuple(frames.shape[-3:])
        if self._shape is not None and shape != self._shape:
            raise ValueError(f"Writer: every frame must be {list(self._shape)} like the first; got {list(shape)}")
        self._shape = shape
        with self._removing_on_failure():
            for frame in frames.cpu().reshape(-1, *shape):
                self._encode(frame)

    def close(self) -> None:
        """Finish the file and put it in its place; closing twice is allowed.

        Raises:
            ValueError: if no frame was written: there is no such video.
            OSError: if the rest cannot be written.
        """
        if self._closed:
            return
        if self._container is None:
            self._closed = True
            raise ValueError(f"Writer: no frame was written to {self.path}; write one before closing")
        with self._removing_on_failure():
            self._mux(None)
            self._container.close()
            os.replace(self._partial, self.path)
            self._closed = True

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self.close()
        else:
            self._discard()

    def _encode(self, frame: Tensor) -> None:
        from av import VideoFrame
        from av.video.reformatter import ColorRange, Colorspace

        pixels = frame.permute(1, 2, 0).contiguous().numpy()  # [H, W, C]
        height, width = pixels.shape[:2]
        if self._encoding.even_sizes and (height % 2 or width % 2):
            pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._container is None:
            self._open(*pixels.shape[:2])
        if pixels.shape[2] == 1:
            picture = VideoFrame.from_ndarray(pixels[:, :, 0], format="gray")
        else:
            picture = VideoFrame.from_ndarray(pixels, format="rgb24")
        full_range = self._encoding.pixel_format.startswith("yuvj")
        picture = picture.reformat(
            format=self._encoding.pixel_format,
            dst_colorspace=Colorspace.ITU601,
            dst_color_range=ColorRange.JPEG if full_range else ColorRange.MPEG,
        )
        picture.pts = self._count
        picture.time_base = 1 / self._rate
        self._mux(picture)
        self._count += 1

    def _open(self, height: int, width: int) -> None:
        import av
        from av.video.reformatter import Colorspace

        encoding = self._encoding
        # The header goes in front, so that a browser shows the film while it loads.
        options = {"movflags": "faststart"} if self.path.suffix.lower() in (".mp4", ".mov") else {}
        self._container = av.open(str(self._partial), "w", container_options=options)
        try:
            stream = self._container.add_stream(encoding.codec, rate=self._rate, options=encoding.options)
        except av.codec.codec.UnknownCodecError as error:
            raise VideoError(
                f"{self.path} cannot be written, because this PyAV has no encoder {encoding.codec}; "
                "install PyAV from PyPI, or choose another suffix"
            ) from error
        self._stream = cast("VideoStream", stream)
        self._stream.height, self._stream.width = height, width
        self._stream.pix_fmt = encoding.pixel_format
        # Said in the file, or players take frames of 720 rows and more for BT.709.
        self._stream.codec_context.colorspace = Colorspace.ITU601

    def _mux(self, picture: VideoFrame | None) -> None:
        """Encode a picture, or what the encoder still holds, and write the result."""
        assert self._container is not None and self._stream is not None
        self._container.mux(self._stream.encode(picture))

    @contextmanager
    def _removing_on_failure(self) -> Iterator[None]:
        """Leave nothing behind where FFmpeg, the disk or the user breaks off."""
        try:
            yield
        except BaseException as error:
            self._discard()
            if isinstance(error, OSError):  # FFmpeg does not say which file
                raise OSError(error.errno, error.strerror, str(self.path)) from error
            raise

    def _discard(self) -> None:
        self._closed = True
        if self._container is not None:
            # Closing writes the trailer, which fails again on a full disk.
            with suppress(OSError, ValueError):
                self._container.close()
        self._partial.unlink(missing_ok=True)


def write(path: str | os.PathLike[str], frames: Tensor | Iterable[Tensor], fps: float) -> None:
    """Write frames into a video file; see `Writer` for the encodings.

    Args:
        path: where to write; the suffix chooses the encoding.
        frames: (T, C, H, W) uint8, or frames (C, H, W) one after another; C = 3 (RGB) or 1 (grey).
        fps: frames per second, > 0.

    Raises:
        TypeError, ValueError, OSError: as in `Writer`.
    """
    with Writer(path, fps) as writer:
        for frame in frames:
            writer.write(frame)
