"""Folders of extracted frames and flow: how their files are named, and which file is which frame.

The layouts of the tools in use, found from the folders themselves, or taken by name from `LAYOUTS`. `{video}` is a
video's folder, `{name}` its last part, `{id:06d}` that as a number; `%05d` stands for a number of any width, .jpg for
.jpeg and .png too:

| name | tool | frames | flow |
|---|---|---|---|
| dense_flow | dense_flow, TSN, denseflow, pyaction flow | {video}/img_%05d.jpg | {video}/flow_x_%05d.jpg, y |
| | denseflow with a step of n or -n | {video}/img_%05d.jpg | {video}/flow_x_p{n}_%05d.jpg or flow_x_m{n}_%05d.jpg, y |
| mmaction2 | mmaction2 | {video}/img_%05d.jpg | {video}/x_%05d.jpg, y |
| hidden_two_stream | Hidden Two-Stream | {video}/image_%04d.jpg | {video}/flow_x_%04d.jpg, y |
| resnets_3d | 3D-ResNets-PyTorch | {video}/image_%05d.jpg | |
| twostreamfusion | twostreamfusion | jpegs_256/{video}/frame%06d.jpg | tvl1_flow/u/{video}/frame%06d.jpg, v |
| mars | MARS | {video}/%05d.jpg | {video}/TVL1jpg_x_%05d.jpg, y |
| i3d | pytorch-i3d | {video}/{name}-%06d.jpg | {video}/{name}-%06dx.jpg, y |
| tsm_v2 | TRN and TSM, Something-Something V2 | {video}/%06d.jpg | {video}/%06d.jpg in another root, x and y in one |
| tsm_v1 | TSM, Something-Something V1 | {video}/%05d.jpg | {id:06d}/{id:06d}-x_%05d.jpg, y |
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

_INDEX = re.compile(r"\{index:0([1-9])d\}")
VIDEO_SUFFIXES = frozenset(
    ".3gp .avi .flv .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv".split(),
)


@dataclass(frozen=True)
class Pictures:
    """How the pictures of one kind are named."""

    root: Path
    """Folder that the template is relative to."""
    template: str
    """Path of one picture: `{video}` or `{id:06d}`, then a name with `{index:05d}`, and `{axis}` where two pictures
    make one flow; `{name}` is the last part of `{video}`."""
    start: int
    """Number in the first picture's name."""
    axes: tuple[str, ...] = ()
    """What `{axis}` stands for, right before down; empty for frames, and for flow in one picture (red = right, green =
    down)."""

    def __post_init__(self) -> None:
        """Refuses what names no pictures."""
        folder, _, file = self.template.rpartition("/")
        if len(_INDEX.findall(file)) != 1 or "{index" in folder or not ("{video}" in folder or "{id" in folder):
            raise ValueError(f"template must be like '{{video}}/img_{{index:05d}}.jpg'; got {self.template!r}")
        if ("{axis}" in self.template) != (len(self.axes) == 2):
            raise ValueError(f"template {self.template!r} must hold {{axis}} where there are two; got axes {self.axes}")
        try:
            filled(self.template, "1", "x")
        except (LookupError, ValueError, AttributeError) as error:
            raise ValueError(f"template {self.template!r} holds what cannot be filled in: {error}") from None
        if self.start < 0:
            raise ValueError(f"start must not be less than 0; got {self.start}")

    def path(self, video: str, number: int, axis: str = "") -> Path:
        """Path of the picture of that number, as the file names count."""
        return self.root / filled(self.template, video, axis, number)

    def count(self, video: str) -> int:
        """How many there are of a video, from a look into its folder.

        Raises:
            ValueError: There is no such folder, numbers are missing, or the axes differ.
        """
        counts = {axis: self._count(video, axis) for axis in self.axes or ("",)}
        if len(set(counts.values())) > 1:
            axis = min(counts, key=lambda axis: counts[axis])
            missing = self.path(video, self.start + counts[axis], axis)
            raise ValueError(f"{missing} is missing: there are {max(counts.values())} pictures of the other axis")
        return counts.popitem()[1]

    def _count(self, video: str, axis: str) -> int:
        folder = self.path(video, 0, axis).parent
        names = picture_names(folder)
        template = self.template.rpartition("/")[2]
        before, width, after = _INDEX.split(template)
        head, tail = filled(before, video, axis), filled(after, video, axis)
        numbers = set()
        for name in names:
            digits = name[len(head) : len(name) - len(tail)]
            if name.startswith(head) and name.endswith(tail) and digits.isascii() and digits.isdigit():
                number = int(digits)
                if digits != f"{number:0{width}d}" or number < self.start:
                    raise ValueError(f"{folder / name} is numbered unlike {shown(self.template)} from {self.start}")
                numbers.add(number)
        missing = next(number for number in range(self.start, self.start + len(numbers) + 1) if number not in numbers)
        if missing < self.start + len(numbers):
            raise ValueError(f"{self.path(video, missing, axis)} is missing, the numbers go up to {max(numbers)}")
        if not numbers:
            found = listing(names)
            raise ValueError(f"{folder} must hold pictures named {shown(self.template)}; found {found}")
        return len(numbers)


@dataclass(frozen=True)
class FrameFolder:
    """The pictures of one video. Frames and flow count from 0, whatever their files count from."""

    layout: FrameLayout
    """How they are named."""
    video: str
    """Folder, as the templates take it."""
    num_frames: int
    """0 where the layout has no frames."""
    num_flows: int
    """0 where the layout has no flow. Of a video of n frames the tools write n - 1 flows, with a step of s n - s; some
    write a last one more, and dense_flow leaves out the first frame (so that flow i leads *to* its frame i)."""

    def frame_path(self, index: int) -> Path:
        """File of a frame.

        Raises:
            IndexError: There is no such frame.
        """
        if self.layout.frames is None or not 0 <= index < self.num_frames:
            raise IndexError(f"{self.video} has {self.num_frames} frames, counted from 0; got {index}")
        return self.layout.frames.path(self.video, self.layout.frames.start + index)

    def flow_paths(self, index: int) -> tuple[Path, ...]:
        """Files of a flow: two, right and down, or one that holds both.

        Raises:
            IndexError: There is no such flow.
        """
        flow = self.layout.flow
        if flow is None or not 0 <= index < self.num_flows:
            raise IndexError(f"{self.video} has {self.num_flows} flows, counted from 0; got {index}")
        return tuple(flow.path(self.video, flow.start + index, axis) for axis in flow.axes or ("",))


@dataclass(frozen=True)
class FrameLayout:
    """How a data set's frames and flow lie on disk. `detect` finds it; one that it does not know can be written out."""

    frames: Pictures | None
    """None: flow alone."""
    flow: Pictures | None
    """None: frames alone."""
    class_folders: bool = False
    """Whether a video's folder lies in that of its class."""
    flow_step: int = 1
    """Flow i leads from frame i to frame i + flow_step or, below 0, from frame i - flow_step to frame i. Other than 1
    where denseflow has written `p` or `m` into the names."""

    @staticmethod
    def detect(root: str | os.PathLike[str], *, flow_root: str | os.PathLike[str] | None = None) -> FrameLayout:
        """Find the layout from the first video's folder in each root.

        Args:
            root: Folder of the folders of videos, or of classes, or of `jpegs_256` and `tvl1_flow`; or one that holds
                no folders but `frames` and `flow`, or one of them: these are then the roots.
            flow_root: Where flow is, if elsewhere; pictures named by numbers alone are then flow with x and y in one.

        Raises:
            ValueError: No known layout fits, or several do; the text lists what was found.
        """
        from pyaction.data.layout_detection import find_layout, kinds_apart

        if flow_root is None:
            apart = kinds_apart(Path(root))
            if len(apart) < 2:
                return find_layout(Path(root, *apart), packed=apart == ["flow"])
            root, flow_root = Path(root, "frames"), Path(root, "flow")
        layout = find_layout(Path(root), packed=False)
        other = find_layout(Path(flow_root), packed=Path(flow_root).resolve() != Path(root).resolve())
        if other.flow is None:
            raise ValueError(f"{flow_root} must hold flow; found frames alone")
        if layout.frames is None:
            raise ValueError(f"{root} must hold frames if {flow_root} holds the flow; found flow")
        if layout.class_folders != other.class_folders and "{id" not in other.flow.template:  # TSM's has no classes
            raise ValueError(f"{root} and {flow_root} must both have folders of classes, or neither")
        return replace(other, frames=layout.frames, class_folders=layout.class_folders)

    @staticmethod
    def named(name: str, root: str | os.PathLike[str]) -> FrameLayout:
        """Return the layout of a tool, one of `LAYOUTS`, for a folder that is to be filled.

        Where frames and flow need two roots, as in `tsm_v2`, these are ``root/frames`` and ``root/flow``. `detect`
        finds each layout below ``root``.

        Raises:
            ValueError: There is no layout of that name.
        """
        if name not in LAYOUTS:
            raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}; got {name!r}")
        layout = LAYOUTS[name]
        frames, flow = (
            pictures and replace(pictures, root=Path(root) / pictures.root) for pictures in (layout.frames, layout.flow)
        )
        return FrameLayout(frames, flow)

    def folders(self, video: str) -> tuple[Path, ...]:
        """All folders that the pictures of one video lie in; `video` as the templates take it."""
        found = [self.frames.path(video, 0).parent] if self.frames else []
        if self.flow:
            found += [self.flow.path(video, 0, axis).parent for axis in self.flow.axes or ("",)]
        return tuple(dict.fromkeys(found))

    def open(self, path: str) -> FrameFolder:
        """Look into the folder of one video.

        Args:
            path: As in an `Annotation`, of which the last part is used, or with class folders the last two; a video's
                suffix is left out.

        Raises:
            ValueError: A picture is missing, which is named, or frames and flow are not of one video.
        """
        stem, suffix = os.path.splitext(path)
        parts = (stem if suffix.lower() in VIDEO_SUFFIXES else path.rstrip("/")).split("/")
        video = "/".join(parts[-2:] if self.class_folders else parts[-1:])
        num_frames = self.frames.count(video) if self.frames else 0
        num_flows = self.flow.count(video) if self.flow else 0
        if self.frames and self.flow and not 0 <= num_frames - num_flows <= abs(self.flow_step):
            raise ValueError(
                f"{self.flow.path(video, self.flow.start, (*self.flow.axes, '')[0]).parent} must hold as many flows as "
                f"frames, or {abs(self.flow_step)} fewer; got {num_frames} frames and {num_flows} flows"
            )
        return FrameFolder(self, video, num_frames, num_flows)


def picture_names(folder: Path) -> list[str]:
    """What lies in a folder; a ValueError where it cannot be listed."""
    try:
        return os.listdir(folder)
    except OSError as error:
        raise ValueError(f"{folder} cannot be listed: {error.strerror}") from None


def filled(template: str, video: str, axis: str, index: int = 0) -> str:
    """A template, or part of one, for one picture."""
    name = video.rpartition("/")[2]
    if "{id" not in template:
        return template.format(video=video, name=name, axis=axis, index=index)
    if not re.fullmatch("[0-9]{1,15}", name):
        raise ValueError(f"video must be a number for {shown(template)}; got {video!r}")
    return template.format(video=video, name=name, id=int(name), axis=axis, index=index)


def shown(template: str) -> str:
    """A template as a user would write it."""
    return _INDEX.sub(r"%0\1d", template)


def listing(names: list[str]) -> str:
    """A few names, for an error."""
    some = ", ".join(map(repr, sorted(names)[:4]))
    return f"{some} and {len(names) - 4} more" if len(names) > 4 else some or "nothing"


def _tool(
    frames: str, flow: str | None, axes: tuple[str, ...] = ("x", "y"), roots: tuple[str, str] = ("", "")
) -> FrameLayout:
    """A layout below a folder that is not known yet; all tools count from 1."""
    return FrameLayout(
        Pictures(Path(roots[0]), frames, start=1), flow and Pictures(Path(roots[1]), flow, start=1, axes=axes) or None
    )


LAYOUTS = {
    "dense_flow": _tool("{video}/img_{index:05d}.jpg", "{video}/flow_{axis}_{index:05d}.jpg"),
    "mmaction2": _tool("{video}/img_{index:05d}.jpg", "{video}/{axis}_{index:05d}.jpg"),
    "hidden_two_stream": _tool("{video}/image_{index:04d}.jpg", "{video}/flow_{axis}_{index:04d}.jpg"),
    "resnets_3d": _tool("{video}/image_{index:05d}.jpg", None),
    "twostreamfusion": _tool(
        "jpegs_256/{video}/frame{index:06d}.jpg", "tvl1_flow/{axis}/{video}/frame{index:06d}.jpg", ("u", "v")
    ),
    "mars": _tool("{video}/{index:05d}.jpg", "{video}/TVL1jpg_{axis}_{index:05d}.jpg"),
    "i3d": _tool("{video}/{name}-{index:06d}.jpg", "{video}/{name}-{index:06d}{axis}.jpg"),
    "tsm_v2": _tool("{video}/{index:06d}.jpg", "{video}/{index:06d}.jpg", (), ("frames", "flow")),
    "tsm_v1": _tool("{video}/{index:05d}.jpg", "{id:06d}/{id:06d}-{axis}_{index:05d}.jpg", roots=("frames", "flow")),
}
