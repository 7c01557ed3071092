"""Finds out how a folder's frames and flow are named, from the names themselves."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from pyaction.data.layouts import LAYOUTS, FrameLayout, Pictures, filled, listing, picture_names, shown

_NUMBERED = re.compile(r"(?P<head>.*?)(?P<number>[0-9]+)(?P<tail>[xy]?\.(?:jpg|jpeg|png))", re.DOTALL | re.IGNORECASE)
_STEP = re.compile(r"flow_\{axis\}_([pm])([1-9][0-9]{0,3})_")
_HEAD = re.compile(r"/([^/]*)\{index")
_SAMPLES = 100  # folders that are looked into before detection gives up


@dataclass(frozen=True)
class _Found:
    """What the first folder of pictures under a root says."""

    pictures: Pictures
    is_flow: bool
    class_folders: bool


def find_layout(root: Path, *, packed: bool) -> FrameLayout:
    """The layout under one root; `packed`: pictures without a name are flow, and others than flow are left out."""
    folders = _folders(root)
    seen: list[str] = []
    found = []
    if "jpegs_256" in folders:
        found += [one for one in _search(root, "jpegs_256/", seen) if not one.is_flow]
    if "tvl1_flow" in folders:
        found += _search(root, "tvl1_flow/{axis}/", seen)
    if [folder for folder in folders if folder != "jpegs_256"] == ["u", "v"]:
        found += _search(root, "{axis}/", seen)
    if not found:
        found = _search(root, "", seen, packed=packed)

    frames, flow = ([one for one in found if one.is_flow == is_flow] for is_flow in (False, True))
    if len(frames) > 1 or len(flow) > 1:
        templates = ", ".join(sorted(shown(one.pictures.template) for one in found))
        raise ValueError(f"{root} must hold one kind of frames and one of flow; found {templates}")
    if not found:
        seen = seen or [f"{root}: {listing(picture_names(root))}"]
        raise ValueError(
            f"{root} must hold folders of numbered pictures in a known layout, such as "
            f"video/img_00001.jpg and video/flow_x_00001.jpg; found {'; '.join(seen[:3])}"
        )
    if len({one.class_folders for one in found}) > 1:
        raise ValueError(f"{root} must have folders of classes for both frames and flow, or for neither")
    return FrameLayout(
        frames[0].pictures if frames else None,
        flow[0].pictures if flow else None,
        found[0].class_folders,
        _step(flow[0].pictures.template) if flow else 1,
    )


def kinds_apart(root: Path) -> list[str]:
    """Of "flow" and "frames", the folders that are a root each; empty where another folder lies beside them."""
    folders = _folders(root)
    are_roots = {"flow", "frames"}.issuperset(folders) and all(_folders(root / folder) for folder in folders)
    return folders if are_roots else []


def _search(root: Path, prefix: str, seen: list[str], *, packed: bool = False) -> list[_Found]:
    """What the first video's folder below `prefix` holds; what else was looked at is added to `seen`."""
    base = root / prefix.format(axis="u")
    for video, class_folders in islice(_candidates(base), _SAMPLES):
        names = picture_names(base / video)
        if prefix.endswith("{axis}/"):
            heads = [("frame", True)] if (root / prefix.format(axis="v") / video).is_dir() else []
        else:
            heads = [*((head, False) for head in _FRAME_HEADS), *((head, True) for head in _FLOW_HEADS)]
            heads += [(head, True) for head in _step_heads(names)]
        found = []
        for head, is_flow in heads:
            for template, start in _templates(names, video, head, is_flow and "{axis}" in head):
                whole = prefix + template
                axes = ("u", "v") if "{axis}/" in prefix else ("x", "y") if "{axis}" in whole else ()
                found.append(_Found(Pictures(root, whole, start, axes), is_flow or bool(axes), class_folders))
        if packed:
            split = [one for one in found if one.is_flow]
            found = split or [replace(one, is_flow=True) for one in found if "/{index" in one.pictures.template]
        if found:
            return found
        seen.append(f"{base / video}: {listing(names)}")
    return []


def _templates(names: list[str], video: str, head: str, has_axis: bool) -> list[tuple[str, int]]:
    """Templates, and first numbers, of the pictures whose names begin with `head`; more than one if they differ."""
    folder = "{video}/"
    if "{id" in head:
        if not re.fullmatch("[0-9]{6,15}", video) or video != f"{int(video):06d}":
            return []
        folder = "{id:06d}/"
    # 0 or 1, but where flow leads to an earlier frame denseflow numbers it by the later one.
    first = -min(_step(head), 0)
    widths: dict[str, int] = {}
    starts: dict[str, int] = {}
    heads = {filled(head, video, axis): axis for axis in ("xy" if has_axis else "x")}
    for name in names:
        match = _NUMBERED.fullmatch(name)
        if match is None or match["head"] not in heads or len(match["number"]) > 9:
            continue
        tail = match["tail"]
        if not tail.startswith("."):  # pytorch-i3d's flow
            if head != "{name}-":
                continue
            tail = "{axis}" + tail[1:]
        widths[tail] = min(widths.get(tail, 9), len(match["number"]))
        starts[tail] = min(starts.get(tail, first + 1), max(int(match["number"]), first))
    return [(f"{folder}{head}{{index:0{widths[tail]}d}}{tail}", starts[tail]) for tail in sorted(widths)]


def _step_heads(names: list[str]) -> list[str]:
    """What denseflow's flow with a step is called."""
    matches = (re.match(r"flow_[xy]_([pm][1-9][0-9]{0,3})_", name) for name in names)
    return sorted({f"flow_{{axis}}_{match[1]}_" for match in matches if match})


def _step(template: str) -> int:
    match = _STEP.search(template)
    return 1 if match is None else int(match[2]) * (1 if match[1] == "p" else -1)


def _candidates(base: Path) -> Iterator[tuple[str, bool]]:
    """Folders that may be a video's, and whether they are in a class's folder."""
    for first in _folders(base):
        yield first, False
        for second in _folders(base / first):
            yield f"{first}/{second}", True


def _folders(folder: Path) -> list[str]:
    """Sorted; not the hidden ones, in which tools keep what they have done."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise ValueError(f"{folder} cannot be listed: {error.strerror}") from None


def _heads(pictures: Iterable[Pictures | None]) -> list[str]:
    """What the names of pictures begin with in the known layouts."""
    templates = [one.template for one in pictures if one]
    return sorted({head[1] for template in templates if (head := _HEAD.search(template))})


_FRAME_HEADS = _heads(layout.frames for layout in LAYOUTS.values())
_FLOW_HEADS = [head for head in _heads(layout.flow for layout in LAYOUTS.values()) if "{axis}" in head]
