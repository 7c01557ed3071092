"""`video.open`: from a path to a reader."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pyaction.video.reader import Reader

if TYPE_CHECKING:
    import torch


def open(  # noqa: A001 - read as `video.open`, like `gzip.open`
    path: str | os.PathLike[str],
    *,
    backend: Literal["pyav", "dali"] = "pyav",
    device: str | torch.device = "cpu",
    color: Literal["rgb", "gray"] = "rgb",
    size: tuple[int, int] | None = None,
    short_side: int | None = None,
    on_error: Literal["raise", "stop"] = "raise",
    index_folder: str | os.PathLike[str] | None = None,
) -> Reader:
    """Open a video file for reading.

    Frames come upright: the rotation that phones write beside the pixels is applied. They have the pixels
    as stored: non-square pixels are not stretched. Where the picture size changes within the file, frames
    are scaled to the size of the first one. Decoding uses one thread, so a damaged file gives the same frames
    every time; to go faster, read several files at once. What `len` has decoded is kept for `frames` and `clips`, up
    to 64 MiB, until the reader is closed or iterated.

    With `backend="dali"` PyAV still counts and times the frames, and NVIDIA DALI decodes those that are asked for: the
    same frames, and the same pixels within the tolerance of the decoders. On the CPU, measured on real films, they
    are 0.7 to 1.5 grey levels apart on average, and tens at the edges between colours, where DALI repeats chroma and
    PyAV interpolates it; scaled, 0.2 to 2.1 and up to 46; at full chroma resolution they are the same. DALI takes all
    video for BT.601; other colours are put right afterwards, but for what it has clipped. On a GPU it interpolates
    chroma too. What its FFmpeg says of damaged files goes to standard error. Every thread that reads keeps DALI's
    threads and some MB for the rest of the process; a forked child gets its own, which is safe on the CPU only.

    Args:
        path: the file; every container and codec that FFmpeg decodes.
        backend: `"pyav"` decodes on the CPU, `"dali"` with NVIDIA DALI: VP8, VP9 and Motion JPEG anywhere; H.264,
            H.265, MPEG-4 and AV1 need a GPU. `pip install 'pyaction[cuda13]'` (or `[cuda12]`) brings it.
        device: where frames are decoded and returned: `"cpu"`, or with DALI `"cuda"` or `"cuda:1"`.
        color: `"rgb"` for 3 channels, or `"gray"` for 1: the ITU-R BT.601 luma of the RGB frame,
            0.299 R + 0.587 G + 0.114 B, rounded to nearest.
        size: (height, width) in pixels to scale the frames to, by FFmpeg's bicubic filter, which is
            widened when it shrinks a frame, so that nothing aliases.
        short_side: length in pixels to scale the shorter side to; the longer one keeps the proportion,
            rounded down. Not together with `size`.
        on_error: `"raise"` makes a truncated file a VideoError, and damage that decoding comes by. With
            `"stop"` the video is what decodes before the damage, possibly no frame at all; next to a cut,
            B-frames may be missing between frames that are there (`timestamps` shows it).
        index_folder: an existing folder in which to keep, in one small file per video, what the first complete
            reading learns about its frames. From the second visit on `len` and `timestamps` decode nothing, and
            `frames` and `clips` decode from the nearest keyframe; that the frames are the right ones is checked
            all the same. Videos of equal names and any number of processes may share the folder. A file that
            is damaged, or was made for another state of the video, is made anew.

    Returns:
        An open `Reader`.

    Raises:
        FileNotFoundError: if there is no such file, or no such index_folder.
        VideoError: if it cannot be opened as a video at all, in either mode, or is cut short and
            `on_error="raise"`; with DALI, if it does not decode the codec there, or would number the frames
            otherwise: as of AVI files with B-frames (HMDB51), which do not say when frames are shown.
        ImportError: if `backend="dali"` and DALI is not installed.
        ValueError: if an argument is not one of those above.

    Example:
        >>> import tempfile, torch
        >>> from pyaction import video
        >>> path = tempfile.mkdtemp() + "/noise.mp4"
        >>> video.write(path, torch.randint(0, 256, (8, 3, 48, 64), dtype=torch.uint8), fps=25)
        >>> with video.open(path, short_side=24) as reader:
        ...     len(reader), reader.fps, reader.size, reader.frames([7, 0, -1]).shape
        (8, 25.0, (24, 32), torch.Size([3, 3, 24, 32]))
    """
    from pyaction.video.pyav_reader import PyAVReader

    if backend not in ("pyav", "dali"):
        raise ValueError(f"video.open: backend must be 'pyav' or 'dali'; got {backend!r}")
    if color not in ("rgb", "gray"):
        raise ValueError(f"video.open: color must be 'rgb' or 'gray'; got {color!r}")
    if on_error not in ("raise", "stop"):
        raise ValueError(f"video.open: on_error must be 'raise' or 'stop'; got {on_error!r}")
    if size is not None and short_side is not None:
        raise ValueError(f"video.open: give size or short_side, not both; got {size} and {short_side}")
    if size is not None and not (len(size) == 2 and all(_is_length(side) for side in size)):
        raise ValueError(f"video.open: size must be (height, width), two whole numbers from 1; got {size}")
    if short_side is not None and not _is_length(short_side):
        raise ValueError(f"video.open: short_side must be a whole number from 1; got {short_side!r}")
    folder = None if index_folder is None else Path(index_folder)
    if folder is not None and not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder} for indexes; create it, or leave index_folder out")
    if backend == "pyav" and str(device) != "cpu":
        raise ValueError(f"video.open: PyAV decodes on device 'cpu'; got {str(device)!r}, which needs backend='dali'")
    if backend == "pyav":
        return PyAVReader(
            Path(path), color=color, size=size, short_side=short_side, on_error=on_error, index_folder=folder
        )
    from pyaction.video.dali_reader import DALIReader, dali_device, require_dali

    require_dali("video.open(backend='dali')")
    return DALIReader(
        Path(path),
        device=dali_device("video.open", device),
        color=color,
        size=size,
        short_side=short_side,
        on_error=on_error,
        index_folder=folder,
    )


def _is_length(value: object) -> bool:
    return isinstance(value, int) and value >= 1
