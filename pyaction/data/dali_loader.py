"""Batches whose frames NVIDIA DALI decodes, scales, crops, mirrors and normalises, on a GPU or on the CPU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, default_collate

from pyaction import video
from pyaction.data.dali_plans import ClipPlan, PlanDataSet, split_transforms
from pyaction.data.data_sets import VideoDataSet
from pyaction.data.transforms.items import Item, Normalize, TrainingCrop
from pyaction.data.transforms.normalization import Normalization

if TYPE_CHECKING:
    from nvidia.dali import Pipeline


class DALILoader:
    """The batches of a `DataLoader` over videos, with the pixels made by NVIDIA DALI, on a GPU or on the CPU.

    The same seed and epoch give the same videos, frame numbers, windows and mirror images as the data set itself: the
    draws are the same ones. Pixels differ as the decoders (see `video.open`) and the resizers do: measured on the CPU,
    0.8 to 2.3 grey levels on average, and tens at the edges between colours.

    DALI does what the data set's transforms begin with of `TrainingCrop` or `TestCrop(crops=1)`, once, `RandomFlip` and
    `Normalize(frames=...)`. From the first other one on, they are done by torch, on the device, item by item, so that
    they draw the same numbers. What the spec wants done `on_device` is left to `data_set.finish`, as with every loader.

    PyAV counts the frames of each video, for which it decodes it once, on the CPU; with `ClipSpec.index_folder`, in the
    first epoch only. One batch is decoded while the one before is used. A file that DALI cannot read (`video.open`) is
    an error even where the data set leaves broken videos out: it is not broken, and a `DataLoader` would give it.

    An iterator has DALI's threads and memory while it lives, and works in its own process only: in one that is forked
    off later, it would wait for ever. The workers of this loader never touch DALI, nor a GPU.

    Args:
        data_set: The clips, in video files; call its `set_epoch` before each epoch.
        batch_size: Clips per batch.
        device: "cpu", "cuda" or "cuda:N": where DALI works and all tensors of a batch are.
        shuffle: As in `DataLoader`; so are sampler, batch_sampler and drop_last.
        sampler: The order.
        batch_sampler: Order and batches, without batch_size.
        drop_last: Whether a last, smaller batch is left out.
        workers: Processes that choose frames and read files; 0 does it in the main process.

    Raises:
        ImportError: DALI is not installed.
        TypeError: The data set does not read video files.
        ValueError: There is no such device, or the order is not one that `DataLoader` takes.

    Example:
        >>> from pyaction import data
        >>> clips = data.Kinetics("k400/train", "k400/train.csv", spec)  # doctest: +SKIP
        >>> for batch in data.DALILoader(clips, 32, device="cuda", shuffle=True, workers=8):  # doctest: +SKIP
        ...     scores = model(clips.finish(batch)["frames"])
    """

    def __init__(
        self,
        data_set: VideoDataSet,
        batch_size: int = 1,
        *,
        device: str | torch.device,
        shuffle: bool = False,
        sampler: Sampler[int] | None = None,
        batch_sampler: Sampler[list[int]] | None = None,
        drop_last: bool = False,
        workers: int = 0,
    ) -> None:
        from pyaction.video.dali_reader import dali_device, require_dali

        require_dali("DALILoader")
        if not isinstance(data_set, VideoDataSet) or type(data_set).read is not VideoDataSet.read:
            raise TypeError(f"DALILoader: data_set must read video files; got {type(data_set).__name__}")
        self.dataset = data_set
        self.device = dali_device("DALILoader", device)
        steps, self._rest = split_transforms(data_set.transforms)
        self._normalization = next((step.frames for step in steps if isinstance(step, Normalize)), None)
        crops = [step for step in steps if isinstance(step, TrainingCrop) and step.scales is not None]
        self._side = crops[0].size if crops else None
        self._plans = PlanDataSet(data_set, self.device, steps)
        self._loader: DataLoader[Item] = DataLoader(
            self._plans,
            batch_size=batch_size,
            shuffle=shuffle,
            sampler=sampler,
            batch_sampler=batch_sampler,
            drop_last=drop_last,
            num_workers=workers,
            persistent_workers=workers > 0,
            collate_fn=list,
        )
        # Where Lightning and others look for something with a `set_epoch`.
        self.sampler: Iterable[Any] = self._loader.sampler
        self.batch_sampler: Iterable[Any] | None = self._loader.batch_sampler

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Item]:
        pipelines: dict[bool, ClipPipeline] = {}
        running: tuple[ClipPipeline, list[Item]] | None = None
        for items in self._loader:
            done = None if running is None else self._outcome(*running)
            # Colours are put right only in batches that need it.
            colored = self._is_colored(items)
            pipeline = pipelines.get(colored)
            if pipeline is None or pipeline.has_failed or pipeline.capacity < len(items):
                pipeline = pipelines[colored] = self._pipeline(len(items), colored)
            pipeline.start([item["frames"] for item in items])
            running = pipeline, items
            if done is not None:
                yield self._batch(*done)
        if running is not None:
            yield self._batch(*self._outcome(*running))

    def _is_colored(self, items: list[Item]) -> bool:
        return any(item["frames"].matrix is not None for item in items)

    def _pipeline(self, capacity: int, colored: bool) -> ClipPipeline:
        return ClipPipeline(
            self.device,
            capacity,
            scaled=self.dataset.spec.size is not None or self.dataset.spec.short_side is not None,
            side=self._side,
            colored=colored,
            normalization=self._normalization,
        )

    def _outcome(self, pipeline: ClipPipeline, items: list[Item]) -> tuple[list[Item], Tensor | list[Tensor]]:
        """The items of a batch and their frames; where DALI fails, item by item, to find the one that it fails on."""
        try:
            return items, pipeline.outcome()
        except RuntimeError:
            singles = [self._decoded_alone(item) for item in items]
            return [item for item, _ in singles], [frames for _, frames in singles]

    def _decoded_alone(self, item: Item) -> tuple[Item, Tensor]:
        from pyaction.video.dali_reader import reason

        while True:
            pipeline = self._pipeline(1, self._is_colored([item]))
            pipeline.start([item["frames"]])
            try:
                return item, pipeline.outcome()[0]
            except RuntimeError as error:
                text = f"{self.dataset.files[item['index']]} does not decode in DALI ({reason(error)})"
                if self.dataset.spec.on_error == "raise":
                    raise video.VideoError(f"{text}; read it with a DataLoader, or leave it out") from error
                self.dataset.note_unreadable(item["index"], text)
                item = self._plans[item["index"]]  # what stands in for it

    def _batch(self, items: list[Item], decoded: Tensor | list[Tensor]) -> Item:
        if isinstance(decoded, Tensor) and not self._rest and all(item["frames"].is_final for item in items):
            facts = default_collate([{key: item[key] for key in item if key != "frames"} for item in items])
            # DALI's memory as it is.
            batch = {"frames": decoded.unflatten(1, items[0]["frame_indices"].shape), **facts}
        else:
            batch = default_collate([self._finished(*one) for one in zip(items, decoded, strict=True)])
        return {key: value.to(self.device) if isinstance(value, Tensor) else value for key, value in batch.items()}

    def _finished(self, item: Item, decoded: Tensor) -> Item:
        plan: ClipPlan = item["frames"]
        generator = torch.Generator()
        generator.set_state(plan.generator_state)
        item = {**item, "frames": plan.arranged(decoded).unflatten(0, item["frame_indices"].shape)}
        for transform in self._rest:
            item = transform(item, generator)
        return item


class ClipPipeline:
    """A DALI pipeline from plans to frames. It works ahead: `start`, something else, `outcome`.

    Args:
        device: Where.
        capacity: The largest number of plans at a time.
        scaled: Whether whole frames are scaled before the window is cut out.
        side: What windows are resized to; None leaves them.
        colored: Whether plans have a matrix of colours.
        normalization: For the result; without one it is uint8.
    """

    def __init__(
        self,
        device: torch.device,
        capacity: int,
        *,
        scaled: bool,
        side: int | None,
        colored: bool,
        normalization: Normalization | None,
    ) -> None:
        self.capacity = capacity
        self.has_failed = False
        self._device = device
        self._reversed = normalization is not None and normalization.bgr
        self._inputs = {"encoded", "numbers", "start", "shape", "mirrored"}
        self._inputs |= {"scaled_size"} if scaled else set()
        self._inputs |= {"matrix"} if colored or self._reversed else set()
        self._pipeline = self._built(side, normalization)

    def start(self, plans: Sequence[ClipPlan]) -> None:
        """Begin a batch; the one before must have been fetched."""
        for name in self._inputs:
            self._pipeline.feed_input(name, [self._fed(name, plan) for plan in plans])
        self._pipeline.schedule_run()

    def outcome(self) -> Tensor | list[Tensor]:
        """Wait for the batch: (N, R, C, H, W) on the device, or N tensors (R, C, H, W) of different shapes.

        Raises:
            RuntimeError: a file does not decode; this pipeline cannot be used again.
        """
        from pyaction.video.dali_reader import stream_of

        try:
            (clips,) = self._pipeline.outputs(stream_of(self._device))
        except RuntimeError:
            self.has_failed = True
            raise
        if clips.is_dense_tensor():
            return torch.from_dlpack(clips.as_tensor())
        return [torch.from_dlpack(clips[row]) for row in range(len(clips))]

    def _fed(self, name: str, plan: ClipPlan) -> np.ndarray:
        if name == "matrix":
            matrix = np.eye(3, dtype=np.float32) if plan.matrix is None else plan.matrix
            return np.ascontiguousarray(matrix[::-1]) if self._reversed else matrix
        if name == "mirrored":  # a turned frame is mirrored when it is upright
            return np.array(plan.mirrored and plan.quarter_turns == 0, np.int32)
        value = getattr(plan, name)
        if isinstance(value, Tensor):
            return value.numpy()
        return np.array(value, np.float32 if name == "scaled_size" else np.int32)

    def _built(self, side: int | None, normalization: Normalization | None) -> Pipeline:
        from nvidia.dali import Pipeline, fn, types

        from pyaction.video.dali_reader import decoded

        kinds = {
            "encoded": (types.UINT8, 1),
            "matrix": (types.FLOAT, 2),
            "mirrored": (types.INT32, 0),
            "scaled_size": (types.FLOAT, 1),
        }
        pipeline = Pipeline(
            batch_size=self.capacity,
            num_threads=torch.get_num_threads(),
            device_id=self._device.index if self._device.type == "cuda" else None,
            prefetch_queue_depth=1,
        )
        with pipeline:
            fed = {}
            for name in self._inputs:
                dtype, dimensions = kinds.get(name, (types.INT32, 1))
                fed[name] = fn.external_source(name=name, dtype=dtype, ndim=dimensions)
            frames = decoded(fed["encoded"], fed["numbers"], self._device)
            if "scaled_size" in fed:
                frames = fn.resize(frames, size=fed["scaled_size"], interp_type=types.INTERP_CUBIC, antialias=True)
            frames = fn.slice(frames, start=fed["start"], shape=fed["shape"], axes=[1, 2])
            if side is not None:
                frames = fn.resize(frames, size=[side, side], interp_type=types.INTERP_LINEAR, antialias=True)
            if "matrix" in fed:
                frames = fn.coord_transform(frames, M=fed["matrix"], dtype=types.UINT8)
            # (x · scale / 255 - mean) / std, in DALI's terms.
            factor = 255 / normalization.scale if normalization is not None else 1.0
            frames = fn.crop_mirror_normalize(
                frames,
                mirror=fed["mirrored"],
                mean=[factor * value for value in normalization.mean] if normalization is not None else [0.0],
                std=[factor * value for value in normalization.std] if normalization is not None else [1.0],
                dtype=types.UINT8 if normalization is None else types.FLOAT,
                output_layout="FCHW",
            )
            pipeline.set_outputs(frames)
        pipeline.build()
        return pipeline
