"""Where the videos of an annotation file are on disk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

VIDEO_SUFFIXES = frozenset(
    ".3gp .avi .flv .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv".split(),
)


def find_annotated(root: str | os.PathLike[str], paths: Sequence[str]) -> list[Path | None]:
    """Finds the videos that annotations name, by a look into each folder once.

    Users have them re-encoded, or without the folders of classes: a video is where its path says; else it is the one
    file of that path but for its suffix; else the one file of that name, or of that name but for its suffix, in `root`
    itself.

    Args:
        root: The data set's folder.
        paths: As in `Annotation`.

    Returns:
        A file for each path, or None where there is none.

    Raises:
        ValueError: root cannot be listed.
    """
    root = Path(root)
    _names(root, required=True)
    listings: dict[Path, tuple[set[str], dict[str, str]]] = {}

    def found_in(folder: Path, name: str) -> Path | None:
        if folder not in listings:
            names = _names(folder)
            stems: dict[str, str] = {}
            for other in sorted(names, reverse=True):  # of several the first by name
                stem, suffix = os.path.splitext(other)
                if suffix.lower() in VIDEO_SUFFIXES:
                    stems[stem] = other
            listings[folder] = names, stems
        names, stems = listings[folder]
        if name in names:
            return folder / name
        other_name = stems.get(os.path.splitext(name)[0])
        return folder / other_name if other_name else None

    files = []
    for path in paths:
        full = root / path
        files.append(found_in(full.parent, full.name) or found_in(root, full.name))
    return files


def _names(folder: Path, *, required: bool = False) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError as error:
        if required or not isinstance(error, (FileNotFoundError, NotADirectoryError)):
            raise ValueError(f"{folder} cannot be listed: {error.strerror}") from None
        return set()
