"""Which videos are meant, and what their results are called."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from pyaction.data.annotations import AnnotationList, read_list
from pyaction.data.layouts import VIDEO_SUFFIXES
from pyaction.engine.jobs import Job

_LIST_SUFFIXES = frozenset((".txt", ".csv", ".list"))

AnyPath = str | os.PathLike[str]


def find_videos(paths: Sequence[AnyPath], exclude: Collection[Path] = ()) -> dict[Path, Path]:
    """Lists the videos behind some paths, and where the results of each belong.

    Args:
        paths: Video files, and folders that are searched through for files with a video's suffix. Hidden files and
            folders are passed by.
        exclude: Resolved paths to pass by in the folders: results of earlier runs, which may be videos too.

    Returns:
        source -> target: the file's name without suffix; for a file found in a folder, with the folders between.

    Raises:
        FileNotFoundError: A path does not exist.
        ValueError: A folder holds no video.
    """
    targets: dict[Path, Path] = {}
    for path in map(Path, paths):
        if path.is_dir():
            files = (file for file in path.rglob("*") if file.suffix.lower() in VIDEO_SUFFIXES)
            found = [
                file
                for file in sorted(files)
                if not (_is_hidden(file.relative_to(path)) or file.is_dir() or file.resolve() in exclude)
            ]
            if not found:
                raise ValueError(f"{path} holds no video file ({' '.join(sorted(VIDEO_SUFFIXES))})")
            targets.update((file, file.relative_to(path).with_suffix("")) for file in found)
        elif path.exists():
            targets[path] = Path(path.stem)
        else:
            raise FileNotFoundError(f"there is no file or folder {path}; check the path")
    return targets


def list_videos(annotations: AnnotationList, root: Path) -> dict[Path, Path]:
    """Lists the videos of a data set, and where the results of each belong, as `find_videos` does.

    Args:
        annotations: Which videos; whether they exist is not looked at.
        root: Folder that their paths are relative to.

    Returns:
        source -> target: the path without suffix, or of one that does not lead into `root` its last part.
    """
    targets = {}
    for item in annotations.items:
        source = Path(os.path.normpath(root / item.path))
        inside = source.is_relative_to(os.path.normpath(root))
        target = source.relative_to(os.path.normpath(root)) if inside else Path(source.name)
        targets[source] = target.with_suffix("") if target.suffix.lower() in VIDEO_SUFFIXES else target
    return targets


def find_data_set(
    data_set: AnyPath | Sequence[AnyPath] | AnnotationList, root: AnyPath | None, exclude: Collection[Path] = ()
) -> dict[Path, Path]:
    """Lists the videos of what a user calls a data set.

    Args:
        data_set: Video files and folders of them, as for `find_videos`; or annotations; or the path of a list that
            `read_list` reads ("path label" in each line; .txt, .csv or .list).
        root: Folder that the paths in annotations and lists are relative to; None: the one that the list lies in.
        exclude: As for `find_videos`.

    Returns:
        As `find_videos`.

    Raises:
        FileNotFoundError: A path does not exist.
        ValueError: There is no video, or the list is not what it should be.
    """
    if isinstance(data_set, AnnotationList):
        if root is None:
            raise ValueError("root must be the folder that the annotations' paths are relative to; got None")
        return list_videos(data_set, Path(root))
    paths = [data_set] if isinstance(data_set, str | os.PathLike) else list(data_set)
    lists = [path for path in map(Path, paths) if path.suffix.lower() in _LIST_SUFFIXES and not path.is_dir()]
    if not lists:
        if root is not None:
            raise ValueError("root is of the paths in a list (.txt, .csv, .list); got videos and folders")
        return find_videos(paths, exclude)
    if len(paths) > 1:
        raise ValueError(f"a list must be the only one; got {len(paths)} paths, among them {lists[0]}")
    return list_videos(read_list(lists[0]), Path(lists[0].parent if root is None else root))


def refuse_clashes(videos: dict[Path, Path], job: Job) -> None:
    """Raises a ValueError where the results of one video would be those of another, or lie among them."""
    owners: dict[Path, Path] = {}
    for source, name in videos.items():
        for target in job.targets(name):
            other = owners.setdefault(target, source)
            if other != source:
                raise ValueError(
                    f"{other} and {source} would both be written to {target}; run them with two -o folders"
                )
    for target, source in owners.items():
        for parent in target.parents:
            if parent in owners:
                raise ValueError(
                    f"the results of {source} would lie in {target}, among those of {owners[parent]}; "
                    "run them with two -o folders"
                )


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
