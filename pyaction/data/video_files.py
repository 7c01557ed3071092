"""Where the videos of an annotation file are on disk."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pyaction.data.layouts import VIDEO_SUFFIXES

# What tools write differently, or leave out, where a class's name becomes a folder's.
_UNSAID = dict.fromkeys(map(ord, " _()'\""))


def find_annotated(root: str | os.PathLike[str], paths: Sequence[str]) -> list[Path | None]:
    """Finds the videos that annotations name, by a look into each folder once.

    Users have them re-encoded, or without the folders of classes, or in folders whose names say the class a little
    differently. A video is where its path says; else it is the file of that path but for its suffix; else the same in
    the folder whose name differs in blanks, underscores, quotes and brackets alone (Kinetics, as several tools write
    it); else, if no other annotation has its name, the same in `root` itself.

    Args:
        root: The data set's folder.
        paths: As in `Annotation`.

    Returns:
        A file for each path, or None where there is none.

    Raises:
        ValueError: root cannot be listed.
    """
    root = Path(root)
    alike = {_plain(name): name for name in sorted(_names(root, required=True))}
    listings: dict[Path, tuple[set[str], dict[str, str]]] = {}

    def found_in(folder: Path, name: str) -> Path | None:
        if folder not in listings:
            names = _names(folder)
            videos = (other for other in sorted(names, reverse=True) if Path(other).suffix.lower() in VIDEO_SUFFIXES)
            listings[folder] = names, {Path(other).stem: other for other in videos}  # of several the first by name
        names, stems = listings[folder]
        if name in names:
            return folder / name
        other_name = stems.get(Path(name).stem)
        return folder / other_name if other_name else None

    stems = Counter(Path(path).stem for path in paths)
    files = []
    for path in paths:
        folder, name = os.path.split(path)
        found = found_in(root / folder, name)
        if found is None and _plain(folder) in alike:
            found = found_in(root / alike[_plain(folder)], name)
        if found is None and stems[Path(name).stem] == 1:
            found = found_in(root, name)
        files.append(found)
    return files


def _plain(folder: str) -> str:
    return folder.translate(_UNSAID)


def _names(folder: Path, *, required: bool = False) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError as error:
        if required or not isinstance(error, (FileNotFoundError, NotADirectoryError)):
            raise ValueError(f"{folder} cannot be listed: {error.strerror}") from None
        return set()
