"""Clips as folders of pictures that some tool has extracted."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from pyaction.data.annotations import AnnotationList
from pyaction.data.data_sets import ClipDataSet, ClipSpec
from pyaction.data.layouts import FrameFolder, FrameLayout
from pyaction.data.transforms.items import Item
from pyaction.video.reader import VideoError, scaled_size

Stored = Literal["frames", "flow", "both"]


class FrameFolders(ClipDataSet):
    """Clips in folders of pictures, frames or flow, in any layout that `FrameLayout` knows.

    Flow comes as `"encoded_flow"`, `(S, T, 2, H, W)`: the sampler chooses among the flow fields then, and with "both"
    item frame i goes with the flow that leaves it (in dense_flow's folders, that leads to it).

    Args:
        annotations: The clips; read by `pyaction.data.annotations`.
        root: Folder of the folders of videos, whose layout is found from them; or a layout that detection does not
            know.
        spec: What to make of each clip. Pictures are scaled bicubically, smoothed where they shrink; flow keeps its
            bytes' meaning in pixels of the stored size. "stop" is as "skip".
        read: "frames", "flow" or "both".
        flow_root: Folder of the flow, if elsewhere.
        recorded_fps: Rate at which the frames were extracted; `spec.fps` needs it.

    Raises:
        ValueError: No layout is known that fits, or it lacks what is to be read; `spec.fps` without recorded_fps.

    Example:
        >>> import functools
        >>> from pyaction import data
        >>> annotations = data.read_list("train.txt", "path num_frames label")  # doctest: +SKIP
        >>> spec = data.ClipSpec(functools.partial(data.sampling.segment_indices, segments=3, length=5))
        >>> stacks = data.FrameFolders(annotations, "ucf101_frames", spec, read="flow")  # doctest: +SKIP
    """

    def __init__(
        self,
        annotations: AnnotationList,
        root: str | os.PathLike[str] | FrameLayout,
        spec: ClipSpec,
        *,
        read: Stored = "frames",
        flow_root: str | os.PathLike[str] | None = None,
        recorded_fps: float | None = None,
    ) -> None:
        super().__init__(annotations, spec)
        if read not in get_args(Stored):
            raise ValueError(f"FrameFolders: read must be 'frames', 'flow' or 'both'; got {read!r}")
        if spec.fps is not None and recorded_fps is None:
            raise ValueError(f"FrameFolders: spec.fps {spec.fps} needs recorded_fps, which pictures do not tell")
        self.layout = root if isinstance(root, FrameLayout) else FrameLayout.detect(root, flow_root=flow_root)
        for kind, pictures in (("frames", self.layout.frames), ("flow", self.layout.flow)):
            if read in (kind, "both") and pictures is None:
                raise ValueError(
                    f"FrameFolders: {root} holds no {kind} in a known layout; name flow_root, or a FrameLayout as root"
                )
        self.stored, self.recorded_fps = read, recorded_fps

    def read(self, index: int, generator: torch.Generator) -> Item:
        """See `ClipDataSet.read`."""
        try:
            folder = self.layout.open(self.annotations[index].path)
        except ValueError as error:
            raise VideoError(str(error)) from error
        count = folder.num_frames if self.stored == "frames" else folder.num_flows
        if self.stored == "both":
            count = min(folder.num_frames, count)
        indices = self.choose_frames(index, count, lambda: self._times(count), generator)
        item: Item = {"frame_indices": indices}
        if self.stored != "flow":
            paths = [[folder.frame_path(number)] for number in indices.flatten().tolist()]
            item["frames"] = self._pictures(paths, "RGB").unflatten(0, indices.shape)
        if self.stored != "frames":
            item["encoded_flow"] = self._flow(folder, indices.flatten()).unflatten(0, indices.shape)
        return item

    def is_there(self) -> bool:
        """See `ClipDataSet.is_there`."""
        return all(pictures.root.is_dir() for pictures in (self.layout.frames, self.layout.flow) if pictures)

    def _times(self, count: int) -> Tensor:
        assert self.recorded_fps is not None  # with spec.fps it is given
        return torch.arange(count, dtype=torch.float64) / self.recorded_fps

    def _flow(self, folder: FrameFolder, numbers: Tensor) -> Tensor:
        paths = [folder.flow_paths(number) for number in numbers.tolist()]
        # Both in one picture: x is its red channel, y its green one.
        return self._pictures(paths, "L" if len(paths[0]) == 2 else "RGB")[:, :2]

    def _pictures(self, paths: Iterable[Iterable[Path]], mode: Literal["RGB", "L"]) -> Tensor:
        """Pictures of one size, a row of one or two for each result: (rows, channels, H, W) uint8."""
        from PIL import Image

        rows, size = [], None
        for row in paths:
            channels = []
            for path in row:
                try:
                    with Image.open(path) as picture:
                        size = size or self._scaled(picture.size)
                        pixels = picture.convert(mode)
                except (OSError, SyntaxError, ValueError) as error:  # Pillow's ways to say that it is damaged
                    raise VideoError(f"{path} cannot be read as a picture ({error}); extract the video anew") from error
                if pixels.size != size:
                    pixels = pixels.resize(size, Image.Resampling.BICUBIC)
                channels.append(np.atleast_3d(np.asarray(pixels)))
            rows.append(np.concatenate(channels, axis=2))
        return torch.from_numpy(np.ascontiguousarray(np.stack(rows).transpose(0, 3, 1, 2)))

    def _scaled(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height to return for pictures of that width and height."""
        height, width = scaled_size(size[1], size[0], self.spec.size, self.spec.short_side)
        return width, height
