"""What flow to store, and where it goes: one class per file format, a context manager that is written to in batches."""

from __future__ import annotations

import io
import zipfile
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from pyaction import flow as flow_tools
from pyaction import ops, video
from pyaction.ops.tvl1 import Preset

_JPEG_QUALITY = 95  # what OpenCV's imwrite, and so every published data set of flow pictures, uses


@dataclass(frozen=True)
class FlowJob:
    """Which flow to compute and how to store it; the same for every video of a folder."""

    format: Literal["flo", "npz", "jpg", "video"] = "flo"
    """One .flo per pair; one .npz per video; two .jpg per pair, as two-stream networks read them; or one colour
    video."""
    preset: Preset = "video"
    """Preset of `ops.TVL1Stream`."""
    short_side: int | None = None
    """Frames are first scaled so that their shorter side has this many pixels; None: not at all."""
    bound: float = 20.0
    """jpg: the displacement in pixels that saturates."""
    radius: float | None = None
    """video: the displacement in pixels that is drawn fully saturated; None: the 99th percentile of the first
    pairs."""

    def __post_init__(self) -> None:
        """Refuses what no later step could use."""
        if self.format not in SINKS:
            raise ValueError(f"format must be one of {', '.join(SINKS)}; got {self.format!r}")
        if self.preset not in ops.TVL1_PRESETS:
            raise ValueError(f"preset must be one of {', '.join(ops.TVL1_PRESETS)}; got {self.preset!r}")
        for name in ("short_side", "bound", "radius"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name} must be a number of pixels greater than 0; got {value}")


class FlowSink(ABC):
    """Stores the flow of one video. `path` is a file or folder that is being made."""

    suffix: ClassVar[str]
    """What the finished file's or folder's name ends in."""

    def __init__(self, path: Path, job: FlowJob, reader: video.Reader) -> None:
        self.path = path
        self.job = job
        self.reader = reader
        self.count = 0

    @abstractmethod
    def __enter__(self) -> FlowSink:
        """Begins the file or folder."""

    @abstractmethod
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Completes it. What an exception leaves behind is the caller's to remove."""

    def write(self, flow: Tensor) -> None:
        """Takes the next pairs, [n, 2, H, W] in pixels."""
        self.store(flow)
        self.count += len(flow)

    @abstractmethod
    def store(self, flow: Tensor) -> None:
        """Writes pairs number `count` (from 0) and following."""


class _Folder(FlowSink):
    """One or more files per pair."""

    suffix = ""

    def __enter__(self) -> FlowSink:
        """See `FlowSink.__enter__`."""
        self.path.mkdir()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """See `FlowSink.__exit__`."""


class FloFolder(_Folder):
    """flow_00001.flo, ...: from the first frame to the second, and so on."""

    def store(self, flow: Tensor) -> None:
        """See `FlowSink.store`."""
        for number, pair in enumerate(flow, self.count + 1):
            flow_tools.write(self.path / f"flow_{number:05d}.flo", pair)


class JpgFolder(_Folder):
    """flow_x_00001.jpg and flow_y_00001.jpg, ...: grey pictures, 128 = no motion, 0 and 255 = `bound`."""

    def store(self, flow: Tensor) -> None:
        """See `FlowSink.store`."""
        from PIL import Image

        for number, pair in enumerate(flow_tools.encode(flow, self.job.bound), self.count + 1):
            for axis, picture in zip("xy", pair, strict=True):
                # By way of memory: Pillow does not notice when a file system has no room for the end of a file.
                data = io.BytesIO()
                Image.fromarray(picture.numpy()).save(data, "jpeg", quality=_JPEG_QUALITY)
                (self.path / f"flow_{axis}_{number:05d}.jpg").write_bytes(data.getvalue())


class NpzFile(FlowSink):
    """One file for numpy.load: flow (T-1, 2, H, W) float32, timestamps (T,) float64 in seconds, fps."""

    suffix = ".npz"

    def __enter__(self) -> NpzFile:
        """See `FlowSink.__enter__`."""
        self._archive = zipfile.ZipFile(self.path, "w")
        for name, array in (("timestamps", self.reader.timestamps.numpy()), ("fps", np.array(self.reader.fps))):
            with self._archive.open(f"{name}.npy", "w") as entry:
                np.lib.format.write_array(entry, array)
        # A header and then the pairs as they come: the flow of a long video does not fit into memory.
        self._entry = self._archive.open("flow.npy", "w", force_zip64=True)
        shape = (len(self.reader) - 1, 2, *self.reader.size)
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._entry, header)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """See `FlowSink.__exit__`."""
        self._entry.close()
        self._archive.close()
        if kind is None and self.count != len(self.reader) - 1:  # the header says it
            raise video.VideoError(f"{self.reader.path} changed while it was read; run the command again")

    def store(self, flow: Tensor) -> None:
        """See `FlowSink.store`."""
        self._entry.write(flow.numpy().astype("<f4", copy=False).tobytes())


class ColorVideo(FlowSink):
    """An .mp4 that shows direction as colour and speed as saturation."""

    suffix = ".mp4"

    def __enter__(self) -> ColorVideo:
        """See `FlowSink.__enter__`."""
        self._writer = video.Writer(self.path, self.reader.fps)
        self._writer.__enter__()
        self._radius = self.job.radius
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """See `FlowSink.__exit__`."""
        self._writer.__exit__(kind, error, trace)

    def store(self, flow: Tensor) -> None:
        """See `FlowSink.store`."""
        if self._radius is None:
            # One radius for the whole video, which would flicker otherwise; at least a pixel, so that the noise of
            # a still scene stays pale.
            lengths = flow.norm(dim=1).flatten()
            rank = max(1, round(0.99 * len(lengths)))
            self._radius = max(1.0, float(torch.kthvalue(lengths, rank).values))
        self._writer.write(flow_tools.to_image(flow, self._radius))


SINKS: dict[str, type[FlowSink]] = {"flo": FloFolder, "npz": NpzFile, "jpg": JpgFolder, "video": ColorVideo}
