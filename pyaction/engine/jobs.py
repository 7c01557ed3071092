"""What to make of every video of a folder."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from pyaction import flow, ops
from pyaction.data.layouts import LAYOUTS, FrameLayout
from pyaction.flow.estimation import Method
from pyaction.ops.tvl1 import Preset

Content = Literal["flow", "frames", "both"]
OnError = Literal["raise", "stop"]

# What the name of a video's file, or folder, ends in where its results are no pictures.
_SUFFIXES = {"flo": "", "npz": ".npz", "video": ".mp4"}


class FlowStream(Protocol):
    """Computes the flow of one video, frame by frame."""

    def push(self, frame: Tensor) -> Tensor | None:
        """Takes the next frame, (1, 3, H, W) uint8; gives its flow (1, 2, H, W) from the one before, if there is."""


class PairStream:
    """Flow of each pair by itself, by a method of `flow.estimate`."""

    def __init__(self, method: Method) -> None:
        self._method = method
        self._last: Tensor | None = None

    def push(self, frame: Tensor) -> Tensor | None:
        """See `FlowStream.push`."""
        last, self._last = self._last, frame
        return None if last is None else flow.estimate(torch.stack([last, frame], dim=1), self._method)[:, 0]


@dataclass(frozen=True)
class Job:
    """What to make of every video of a folder, and how to store it."""

    content: Content = "flow"
    """What is stored."""
    format: str = "flo"
    """Flow alone: `flo`, one file per pair of frames; `npz`, one file per video; or `video`, its colours. All contents:
    the name of a layout of pictures, one of `pyaction.data.layouts.LAYOUTS`."""
    size: tuple[int, int] | None = None
    """(height, width) in pixels that frames are first scaled to; None: `short_side` says."""
    short_side: int | None = None
    """Frames are first scaled so that their shorter side has this many pixels; None: not at all."""
    fps: float | None = None
    """Frames per second, chosen by their times before flow is computed; None: every frame of the file."""
    method: Method = "tvl1"
    """What computes the flow: `tvl1`, each pair helped by the one before; or of each pair by itself `raft`, whose
    weights torchvision downloads, or `hardware`, see `flow.estimate`."""
    preset: Preset = "video"
    """tvl1: preset of `ops.TVL1Stream`."""
    bound: float = 20.0
    """Pictures of flow: the displacement in pixels that saturates."""
    radius: float | None = None
    """video: the displacement in pixels that is drawn fully saturated; None: the 99th percentile of the first
    pairs."""

    def __post_init__(self) -> None:
        """Refuses what no later step could use."""
        self._check_choice("content", get_args(Content))
        self._check_choice("format", (*_SUFFIXES, *LAYOUTS))
        self._check_choice("method", _METHODS)
        self._check_choice("preset", ops.TVL1_PRESETS)
        if self.content != "flow" and self.format in _SUFFIXES:
            raise ValueError(f"format {self.format!r} is of flow alone; frames need a layout: {', '.join(LAYOUTS)}")
        if self.content != "frames" and self.format in LAYOUTS and LAYOUTS[self.format].flow is None:
            raise ValueError(f"layout {self.format!r} has no flow; choose another, or extract frames alone")
        if self.size is not None and self.short_side is not None:
            raise ValueError(f"give size or short_side, not both; got {self.size} and {self.short_side}")
        height, width = self.size or (None, None)
        lengths = {"height": height, "width": width, "short_side": self.short_side}
        for name, value in {**lengths, "bound": self.bound, "radius": self.radius}.items():
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be a number of pixels greater than 0; got {value}")
        if self.fps is not None and self.format in _SUFFIXES:
            raise ValueError(f"format {self.format!r} has every frame; fps needs a layout: {', '.join(LAYOUTS)}")
        if self.fps is not None and not 0 < self.fps < math.inf:
            raise ValueError(f"fps must be a number of frames per second greater than 0; got {self.fps}")

    def _check_choice(self, name: str, choices: Collection[str]) -> None:
        value = getattr(self, name)
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}")

    def layout(self, root: Path) -> FrameLayout | None:
        """How the results below `root` are named where they are pictures."""
        if self.format in _SUFFIXES:
            return None
        named = FrameLayout.named(self.format, root)
        return FrameLayout(
            named.frames if self.content != "flow" else None, named.flow if self.content != "frames" else None
        )

    def targets(self, name: Path) -> tuple[Path, ...]:
        """The files and folders of one video, relative to the folder of all.

        Raises:
            ValueError: The layout has no place for a video of that name.
        """
        layout = self.layout(Path())
        if layout is not None:
            return layout.folders(name.as_posix())
        return (name.with_name(name.name + _SUFFIXES[self.format]),)

    def flow_stream(self) -> FlowStream:
        """What computes the flow of one video."""
        return _METHODS[self.method](self)


_METHODS: dict[str, Callable[[Job], FlowStream]] = {
    "tvl1": lambda job: ops.TVL1Stream(job.preset),
    "raft": lambda job: PairStream("raft"),
    "hardware": lambda job: PairStream("hardware"),
}
