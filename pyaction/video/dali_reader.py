"""Decoding by NVIDIA DALI: on a GPU by its video engine (NVDEC), or on the CPU.

Only `pyaction.video.open` imports this module, and only it imports DALI, an optional package.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pyaction.video.pyav_reader import PyAVReader
from pyaction.video.reader import VideoError

if TYPE_CHECKING:
    from nvidia.dali import Pipeline

CPU_CODECS = {"vp8": "VP8", "vp9": "VP9", "mjpeg": "Motion JPEG"}
"""What DALI's own FFmpeg decodes without a GPU; the names are FFmpeg's."""
GPU_CODECS = CPU_CODECS | {"h264": "H.264", "hevc": "H.265", "mpeg4": "MPEG-4", "av1": "AV1"}

# FFmpeg's number of a colour tag: weights of red and blue in the luma. Whatever is not here is BT.601.
_LUMA_WEIGHTS = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}
_BT601 = (0.299, 0.114)

# Frames that iterating decodes at once: each time, DALI indexes the file and decodes from the keyframe before.
_CHUNK = 64


class CodecError(VideoError):
    """A file that is sound, but not for DALI."""


@dataclass(frozen=True)
class StoredFrames:
    """What DALI has to be told about the frames of a file."""

    size: tuple[int, int]
    """Height and width that they are to be scaled to, lying as they are stored."""
    quarter_turns: int
    """How often they are to be turned after that, anticlockwise."""
    color_tag: int
    """FFmpeg's number of the colour matrix."""


class DALIReader(PyAVReader):
    """The reader behind `pyaction.video.open(backend="dali")`, which documents and checks the arguments.

    PyAV says how many frames there are, when each is shown, how they are turned and what their colour tags are, since
    DALI tells none of that exactly; DALI decodes, scales and converts. That both number the frames alike is checked.
    """

    def __init__(
        self,
        path: Path,
        *,
        device: torch.device,
        color: str,
        size: tuple[int, int] | None,
        short_side: int | None,
        on_error: str,
        index_folder: Path | None,
    ) -> None:
        super().__init__(
            path, color=color, size=size, short_side=short_side, on_error=on_error, index_folder=index_folder
        )
        self._device = device
        assert self._unused_pass is not None  # the file was opened a moment ago
        stream = self._unused_pass.stream
        self._color_tag = stream.codec_context.colorspace
        try:
            require_codec(path, stream.codec.canonical_name, device)
        except CodecError:
            self.close()
            raise

    def __iter__(self) -> Iterator[Tensor]:
        for start in range(0, len(self), _CHUNK):
            yield from self.frames(range(start, min(start + _CHUNK, len(self))))

    def frames(self, indices: Sequence[int] | Tensor | None = None) -> Tensor:
        """See `Reader.frames`."""
        self._require_open()
        numbers = self._checked_numbers(range(len(self)) if indices is None else indices)
        if not numbers:
            return torch.empty(0, self._channels, *self.size, dtype=torch.uint8, device=self._device)
        stored = self.stored
        # Each frame once and forward: DALI decodes from the keyframe again for a repeated frame.
        ordered, rows = np.unique(numbers, return_inverse=True)
        feeds = {"encoded": self._encoded, "numbers": ordered.astype(np.int32)}
        if stored.size != self._header_size:
            feeds["size"] = np.array(stored.size, np.float32)
        matrix = color_matrix(stored.color_tag, gray=self._channels == 1)
        if matrix is not None:
            feeds["matrix"] = matrix
        try:
            frames = _run(self._device, feeds)
        except RuntimeError as error:
            raise VideoError(f"{self.path} does not decode in DALI ({reason(error)}); use backend='pyav'") from error
        if stored.quarter_turns:
            frames = torch.rot90(frames, stored.quarter_turns, (2, 3)).contiguous()
        if len(ordered) == len(numbers) and (rows == np.arange(len(rows))).all():
            return frames
        return frames[torch.from_numpy(rows).to(self._device)]

    @cached_property
    def _encoded(self) -> np.ndarray:
        return np.fromfile(self.path, np.uint8)

    @cached_property
    def stored(self) -> StoredFrames:
        """What DALI must be told; of a file with a frame in it.

        Raises:
            CodecError: the picture size changes within the file, or DALI would number the frames otherwise.
        """
        index = self._index()
        if index.changes_size:  # DALI gives garbage from there on
            raise CodecError(f"{self.path} changes its picture size, which DALI cannot follow; use backend='pyav'")
        # DALI's frame k is the packet of the k-th lowest time that is not negative. In AVI files with B-frames (HMDB51)
        # those are not the frames in their order.
        demuxed = self._open_pass()
        times = sorted(time for time in demuxed.packet_times() if time >= 0)
        demuxed.close()
        if times[: len(index)] != index.pts:
            raise CodecError(
                f"{self.path} does not say when its frames are shown, which DALI finds them by; use backend='pyav', "
                "or re-encode it: ffmpeg -i INPUT OUTPUT.mp4"
            )
        height, width = self.size
        upright = index.quarter_turns % 2 == 0
        return StoredFrames((height, width) if upright else (width, height), index.quarter_turns, self._color_tag)

    def _make_index(self) -> None:
        for _ in self._decode():  # and hold no frames, which DALI decodes itself
            pass


def require_dali(caller: str) -> None:
    """Raise an ImportError that says what to install, where DALI is missing."""
    try:
        import nvidia.dali  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"{caller} needs NVIDIA DALI: pip install 'pyaction[cuda13]', or 'pyaction[cuda12]' for a CUDA 12 driver"
        ) from error


def dali_device(caller: str, device: str | torch.device) -> torch.device:
    """Return "cpu", or a CUDA device with its number.

    Raises:
        ValueError: if it is another device, or one that is not there.
    """
    try:
        chosen = torch.device(device)
    except RuntimeError:
        chosen = torch.device("meta")
    if chosen.type not in ("cpu", "cuda"):
        raise ValueError(f"{caller}: device must be 'cpu', 'cuda' or 'cuda:N'; got {str(device)!r}")
    if chosen.type == "cpu":
        return chosen
    count = torch.cuda.device_count()
    index = torch.cuda.current_device() if chosen.index is None and count else chosen.index or 0
    if index >= count:
        seen = f"torch sees {count}" if count else "torch sees none"
        raise ValueError(f"{caller}: device {str(device)!r} needs an NVIDIA GPU, and {seen}; use device='cpu'")
    return torch.device("cuda", index)


def require_codec(path: Path, codec: str, device: torch.device) -> None:
    """Raise a CodecError where DALI cannot decode a codec, given by FFmpeg's name, on that device."""
    if codec not in GPU_CODECS:
        raise CodecError(f"{path} is compressed as {codec}, which DALI does not decode; use backend='pyav'")
    if device.type == "cpu" and codec not in CPU_CODECS:
        raise CodecError(
            f"{path} is {GPU_CODECS[codec]}, which needs a GPU in DALI (without one it decodes "
            f"{', '.join(CPU_CODECS.values())}); use backend='pyav' or device='cuda'"
        )


def color_matrix(color_tag: int, *, gray: bool) -> np.ndarray | None:
    """Return what turns DALI's pixels into those that are meant, (1 or 3, 3) float32; None if they are already.

    DALI takes all video for BT.601. RGB' = D(w)⁻¹ · D(w₆₀₁) · RGB, where D(w) turns RGB into luma and two colour
    differences with the luma weights w; the range of values cancels out.

    Args:
        color_tag: FFmpeg's number for the file's colour matrix.
        gray: whether one channel is wanted, the BT.601 luma of RGB.
    """
    matrix = np.eye(3)
    if color_tag in _LUMA_WEIGHTS:
        matrix = np.linalg.solve(_differences(*_LUMA_WEIGHTS[color_tag]), _differences(*_BT601))
    elif not gray:
        return None
    if gray:
        matrix = _differences(*_BT601)[:1] @ matrix
    return matrix.astype(np.float32)


def _differences(red: float, blue: float) -> np.ndarray:
    """Rows: luma, (blue - luma) and (red - luma), the latter two scaled to ±1/2."""
    luma = np.array([red, 1 - red - blue, blue])
    return np.stack([luma, (np.eye(3)[2] - luma) / (2 * (1 - blue)), (np.eye(3)[0] - luma) / (2 * (1 - red))])


def reason(error: RuntimeError) -> str:
    """Return the one line of DALI's report that says what went wrong."""
    _, _, told = str(error).rpartition("encountered:")
    line = next((line for line in told.splitlines() if line.strip()), "no reason given")
    return re.sub(r'^Assert on ".*" failed: ', "", line.strip()).rstrip(".")


# ---------------------------------------------------------------------- pipelines


class _Pipelines(threading.local):
    """Pipelines of one thread: feeding and running one are two steps, which other threads must not come between."""

    def __init__(self) -> None:
        self.built: dict[tuple[object, ...], Pipeline] = {}


_pipelines = _Pipelines()


def _run(device: torch.device, feeds: dict[str, np.ndarray]) -> Tensor:
    """Decode the chosen frames of one file: (T, C, H, W) uint8 on the device, in memory that DALI hands over."""
    # By process: the threads of a pipeline do not live on in a forked child, which would wait for them for ever.
    key = (os.getpid(), device, *feeds)
    if key not in _pipelines.built:
        _pipelines.built[key] = _build(device, set(feeds))
    pipeline = _pipelines.built[key]
    for name, value in feeds.items():
        pipeline.feed_input(name, [value])
    try:
        (frames,) = pipeline.run(stream_of(device))
    except RuntimeError:
        del _pipelines.built[key]  # after an error it runs no more; building takes 10 ms
        raise
    return torch.from_dlpack(frames[0])


def stream_of(device: torch.device) -> torch.cuda.Stream | None:
    """Return the stream on which torch will use what a pipeline puts out; None on the CPU."""
    return None if device.type == "cpu" else torch.cuda.current_stream(device)


def _build(device: torch.device, inputs: set[str]) -> Pipeline:
    """One pipeline for all files: bytes, frame numbers and sizes are fed."""
    from nvidia.dali import Pipeline, fn, types

    on_gpu = device.type == "cuda"
    pipeline = Pipeline(batch_size=1, num_threads=1, device_id=device.index if on_gpu else None, prefetch_queue_depth=1)
    with pipeline:
        encoded = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1)
        numbers = fn.external_source(name="numbers", dtype=types.INT32, ndim=1)
        frames = decoded(encoded, numbers, device)
        if "size" in inputs:
            size = fn.external_source(name="size", dtype=types.FLOAT, ndim=1)
            frames = fn.resize(frames, size=size, interp_type=types.INTERP_CUBIC, antialias=True)
        if "matrix" in inputs:
            matrix = fn.external_source(name="matrix", dtype=types.FLOAT, ndim=2)
            frames = fn.coord_transform(frames, M=matrix, dtype=types.UINT8)
        pipeline.set_outputs(fn.transpose(frames, perm=[0, 3, 1, 2]))
    pipeline.build()
    return pipeline


def decoded(encoded: Any, numbers: Any, device: torch.device) -> Any:
    """Add decoding to a pipeline: bytes of a file and frame numbers to (T, H, W, 3), BT.601 RGB."""
    from nvidia.dali import fn

    # "none": a number that DALI does not know is an error; by default it would be a black frame. Not affine: DALI
    # would tie its threads to the first cores, in every process to the same ones.
    return fn.decoders.video(
        encoded, frames=numbers, pad_mode="none", affine=False, device="mixed" if device.type == "cuda" else "cpu"
    )
