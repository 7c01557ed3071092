"""Where results go: one class per file format, a context manager that is written to in batches."""

from __future__ import annotations

import io
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyaction import flow as flow_tools
from pyaction import video
from pyaction.data.layouts import Pictures
from pyaction.engine.jobs import Job

_JPEG_QUALITY = 95  # what OpenCV's imwrite, and so every published data set of flow pictures, uses
_NO_MOTION = 128


def open_sink(root: Path, job: Job, name: Path, reader: video.Reader) -> Sink:
    """Makes the sink of a job's format, see `Sink`."""
    return _SINKS.get(job.format, PictureFolders)(root, job, name, reader)


class Sink(ABC):
    """Stores the results of one video.

    Args:
        root: An empty folder, in which the job's targets are made.
        job: What is stored.
        name: Of the video.
        reader: The video.
    """

    def __init__(self, root: Path, job: Job, name: Path, reader: video.Reader) -> None:
        self.root = root
        self.job = job
        self.name = name
        self.reader = reader
        self.targets = [root / target for target in job.targets(name)]
        self.num_frames = 0
        self.num_flows = 0

    def __enter__(self) -> Sink:
        """Begins the files or folders."""
        for target in self.targets:
            target.parent.mkdir(parents=True, exist_ok=True)
        self.begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Completes them, if there is anything to do. What an exception leaves behind is the caller's to remove."""
        return None

    def write(self, frames: Sequence[Tensor], flow: Sequence[Tensor]) -> None:
        """Takes the next frames, each [3, H, W] uint8, and pairs, each [2, H, W] in pixels, on any device."""
        if frames:
            self.store_frames(frames)
            self.num_frames += len(frames)
        if flow:
            self.store_flow([pair.cpu() for pair in flow])
            self.num_flows += len(flow)

    @abstractmethod
    def begin(self) -> None:
        """Makes the files or folders, in folders that are there."""

    @abstractmethod
    def store_flow(self, flow: Sequence[Tensor]) -> None:
        """Writes pairs number `num_flows` (from 0) and following."""

    def store_frames(self, frames: Sequence[Tensor]) -> None:
        """Writes frames number `num_frames` (from 0) and following. `Job` refuses formats without frames."""
        raise NotImplementedError


class FloFolder(Sink):
    """flow_00001.flo, ...: from the first frame to the second, and so on."""

    def begin(self) -> None:
        """See `Sink.begin`."""
        self.targets[0].mkdir()

    def store_flow(self, flow: Sequence[Tensor]) -> None:
        """See `Sink.store_flow`."""
        for number, pair in enumerate(flow, self.num_flows + 1):
            flow_tools.write(self.targets[0] / f"flow_{number:05d}.flo", pair)


class PictureFolders(Sink):
    """.jpg in a layout. Flow is grey pictures, or red and green of one: 128 = no motion, 0 and 255 = `bound`."""

    def begin(self) -> None:
        """See `Sink.begin`."""
        layout = self.job.layout(self.root)
        assert layout is not None
        self._frames, self._flow = layout.frames, layout.flow
        for target in self.targets:
            target.mkdir()

    def store_frames(self, frames: Sequence[Tensor]) -> None:
        """See `Sink.store_frames`."""
        assert self._frames is not None
        for number, frame in enumerate(frames, self.num_frames):
            self._write_jpeg(self._frames, number, frame.permute(1, 2, 0).numpy(), subsampling="4:2:0")

    def store_flow(self, flow: Sequence[Tensor]) -> None:
        """See `Sink.store_flow`."""
        assert self._flow is not None
        for number, pair in enumerate(flow, self.num_flows):
            # One by one: the float64 of several pairs does not fit into the cache, which takes three times as long.
            encoded = flow_tools.encode(pair, self.job.bound)  # [2, H, W]
            if self._flow.axes:
                for axis, picture in zip(self._flow.axes, encoded.numpy(), strict=True):
                    self._write_jpeg(self._flow, number, picture, axis=axis)
            else:
                picture = np.stack([*encoded.numpy(), np.full(encoded.shape[1:], _NO_MOTION, np.uint8)], axis=-1)
                # Every pixel has its own colour: right and down would be mixed where colours are stored coarser.
                self._write_jpeg(self._flow, number, picture, subsampling="4:4:4")

    def _write_jpeg(
        self, pictures: Pictures, number: int, pixels: np.ndarray, *, axis: str = "", subsampling: str | None = None
    ) -> None:
        """Writes [H, W] or [H, W, 3]."""
        from PIL import Image

        # By way of memory: Pillow does not notice when a file system has no room for the end of a file.
        data = io.BytesIO()
        options = {"subsampling": subsampling} if subsampling else {}
        try:
            Image.fromarray(np.ascontiguousarray(pixels)).save(data, "jpeg", quality=_JPEG_QUALITY, **options)
        except OSError as error:
            height, width = pixels.shape[:2]
            text = f"{self.reader.path} cannot be stored as .jpg of {width} x {height} pixels ({error})"
            raise video.VideoError(text) from error
        pictures.path(self.name.as_posix(), pictures.start + number, axis).write_bytes(data.getvalue())


class NpzFile(Sink):
    """One file for numpy.load: flow (T-1, 2, H, W) float32, timestamps (T,) float64 in seconds, fps."""

    def begin(self) -> None:
        """See `Sink.begin`."""
        self._archive = zipfile.ZipFile(self.targets[0], "w")
        for name, array in (("timestamps", self.reader.timestamps.numpy()), ("fps", np.array(self.reader.fps))):
            with self._archive.open(f"{name}.npy", "w") as entry:
                np.lib.format.write_array(entry, array)
        # A header and then the pairs as they come: the flow of a long video does not fit into memory.
        self._entry = self._archive.open("flow.npy", "w", force_zip64=True)
        shape = (len(self.reader) - 1, 2, *self.reader.size)
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._entry, header)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """See `Sink.__exit__`."""
        self._entry.close()
        self._archive.close()
        if kind is None and self.num_flows != len(self.reader) - 1:  # the header says it
            raise video.VideoError(f"{self.reader.path} changed while it was read; run the command again")

    def store_flow(self, flow: Sequence[Tensor]) -> None:
        """See `Sink.store_flow`."""
        for pair in flow:
            self._entry.write(pair.numpy().astype("<f4", copy=False).tobytes())


class ColorVideo(Sink):
    """An .mp4 that shows direction as colour and speed as saturation."""

    def begin(self) -> None:
        """See `Sink.begin`."""
        self._writer = video.Writer(self.targets[0], self.reader.fps)
        self._writer.__enter__()
        self._radius = self.job.radius

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """See `Sink.__exit__`."""
        self._writer.__exit__(kind, error, trace)

    def store_flow(self, flow: Sequence[Tensor]) -> None:
        """See `Sink.store_flow`."""
        pairs = torch.stack(list(flow))
        if self._radius is None:
            # One radius for the whole video, which would flicker otherwise; at least a pixel, so that the noise of
            # a still scene stays pale.
            lengths = pairs.norm(dim=1).flatten()
            rank = max(1, round(0.99 * len(lengths)))
            self._radius = max(1.0, float(torch.kthvalue(lengths, rank).values))
        self._writer.write(flow_tools.to_image(pairs, self._radius))


_SINKS: dict[str, type[Sink]] = {"flo": FloFolder, "npz": NpzFile, "video": ColorVideo}
