"""The annotation files that data sets come with: which video belongs to which class.

Every reader returns an `AnnotationList` and opens the annotation files alone, never a video. What it cannot read
without a doubt it refuses, with a ValueError that names the file and the line (in json: the entry).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from pyaction.data.annotation_text import (
    BLANKS,
    csv_row,
    numbered_lines,
    parsed_json,
    split_fields,
    whole_number,
    without_quotes,
)

_SECONDS = re.compile(r"([0-9]{1,15})(\.[0-9]*)?")
_YOUTUBE_ID = re.compile(r"[A-Za-z0-9_-]+")
_HMDB51_FILE = re.compile(r"(?!\.)(.+_test_split([123]))\.txt", re.DOTALL)
_HMDB51_IDS = {"train": "1", "test": "2", "unused": "0"}
_KINETICS_COLUMNS = (
    ("youtube_id", "time_start", "time_end", "label"),
    ("video-id", "start-time", "end-time", "label-name"),  # the first release of Kinetics-400
)

Subset = Literal["train", "test"]
ListFields = Literal["path label", "path num_frames label", "path offset num_frames label"]


@dataclass(frozen=True, slots=True)
class Annotation:
    """One labelled clip."""

    path: str
    """The video, or the folder of its frames, relative to the data set's root; lists may give absolute paths."""
    label: int | None
    """Class, from 0; None in test sets whose labels are not published."""
    num_frames: int | None = None
    """How many frames the list says there are; None where it does not say."""
    offset: int = 0
    """The clip's first frame, counted as the list counts."""


@dataclass(frozen=True)
class AnnotationList:
    """What an annotation file says."""

    items: tuple[Annotation, ...]
    """At least one, in the file's order, no clip twice."""
    class_names: tuple[str, ...]
    """Names in the order of the labels; empty where neither the file nor the caller names classes."""
    mirrors: bool = True
    """Whether a clip's mirror image is of the same class. Not in Something-Something, of which some classes tell left
    from right; for a plain list of its clips, `dataclasses.replace(annotations, mirrors=False)`."""


def read_ucf101(folder: str | os.PathLike[str], split: int, subset: Subset) -> AnnotationList:
    """Read a split of UCF101: `classInd.txt` and `trainlist0N.txt` or `testlist0N.txt`.

    Source: the archive "UCF101TrainTestSplits-RecognitionTask" of Soomro et al., *UCF101*, 2012. `classInd.txt` has
    lines "1 ApplyEyeMakeup", training lists "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1", test lists the path
    alone; lines end in CRLF.

    Args:
        folder: Where the lists are.
        split: 1, 2 or 3.
        subset: "train" or "test".

    Returns:
        9537 / 3783, 9586 / 3734 and 9624 / 3696 videos in splits 1, 2 and 3; labels are the file's minus 1.

    Raises:
        ValueError: A file is missing or not what it should be.
    """
    _check_split(split, subset)
    class_file = Path(folder) / "classInd.txt"
    names: dict[int, str] = {}
    for place, line in numbered_lines(class_file):
        number, name = split_fields(place, line, ("id", "class"))
        label = whole_number(place, "id", number) - 1
        if label in names or name in names.values():
            raise ValueError(f"{place}: class {number} {name!r} was there before")
        names[label] = name
    class_names = _in_order(class_file, names, first=1)

    labels = {name: label for label, name in enumerate(class_names)}
    file = Path(folder) / f"{subset}list{split:02d}.txt"
    expected = ("class/video", "id") if subset == "train" else ("class/video",)
    entries = []
    for place, line in numbered_lines(file):
        path, *id_field = split_fields(place, line, expected)
        class_name, slash, video = path.partition("/")
        if not slash or not video or "/" in video:
            raise ValueError(f"{place}: expected class/video; got {path!r}")
        label = _label_of(place, class_name, labels)
        if id_field and whole_number(place, "id", id_field[0]) != label + 1:
            raise ValueError(f"{place}: class {class_name!r} is {label + 1} in {class_file.name}; got {id_field[0]}")
        entries.append((place, Annotation(path, label)))
    return _finish(file, entries, class_names)


def read_hmdb51(
    folder: str | os.PathLike[str], split: int, subset: Subset, *, include_unused: bool = False
) -> AnnotationList:
    """Read a split of HMDB51: one file `<class>_test_split<N>.txt` per class.

    Source: the archive "test_train_splits" of Kuehne et al., *HMDB*, 2011. Lines are "<file>.avi <id> ", with id 1 for
    training, 2 for test and 0 for neither. Labels follow the sorted class names (not the file names, whose order is
    another: climb_stairs_test_split1.txt, climb_test_split1.txt).

    Args:
        folder: Where the 51 files of each split are.
        split: 1, 2 or 3.
        subset: "train" or "test".
        include_unused: Whether videos of id 0 are added. The splits keep clips of one film out of either training or
            test; an unused clip may be of a film that the other subset uses.

    Returns:
        3570 videos for training and 1530 for test, and 1666 unused ones; paths are `<class>/<file>.avi`.

    Raises:
        ValueError: A class has no file for this split, or a file is not what it should be.
    """
    _check_split(split, subset)
    try:
        found = [match for name in os.listdir(folder) if (match := _HMDB51_FILE.fullmatch(name))]
    except OSError as error:
        raise ValueError(f"{folder} cannot be listed: {error.strerror}") from None
    class_names = sorted({match[1].rsplit("_", 2)[0] for match in found})
    if not class_names:
        raise ValueError(f"{folder} holds no file <class>_test_split{split}.txt")

    wanted = {_HMDB51_IDS[subset], *(_HMDB51_IDS["unused"] if include_unused else "")}
    entries: list[tuple[str, Annotation, str]] = []
    for label, class_name in enumerate(class_names):
        for place, line in numbered_lines(Path(folder) / f"{class_name}_test_split{split}.txt"):
            file, number = split_fields(place, line, ("file", "id"))
            if number not in _HMDB51_IDS.values() or "/" in file:
                raise ValueError(f"{place}: expected a file name and 0, 1 or 2; got {line!r}")
            # Those of the other subset too, so that a file that is in both is found.
            entries.append((place, Annotation(f"{class_name}/{file}", label), number))
    _check_no_duplicate((place, item) for place, item, _ in entries)
    chosen = [(place, item) for place, item, number in entries if number in wanted]
    return _finish(Path(folder), chosen, class_names)


def read_kinetics(path: str | os.PathLike[str], *, class_names: Sequence[str] | None = None) -> AnnotationList:
    """Read a csv file of Kinetics-400, -600 or -700.

    Source: the files that Kay et al., *The Kinetics Human Action Video Dataset*, 2017, and its successors publish: a
    header "label,youtube_id,time_start,time_end,split[,is_cc]", or "video-id,start-time,end-time,label-name"; test
    files have no label, or an empty one. Clips are named as the common download script cuts them:
    `<class>/<youtube_id>_<start>_<end>.mp4`, times in seconds as six digits, blanks in the class as underscores; a
    clip without a label is in no folder.

    Args:
        path: The csv file.
        class_names: Classes in the order of their labels; None: the file's own, sorted. Give those of the training
            file where another one might lack a class.

    Raises:
        ValueError: The file is missing or not what it should be, or has a class that `class_names` has not.
    """
    rows = [(place, csv_row(place, line)) for place, line in numbered_lines(path)]
    place, header = rows[0]
    # A column that is not known might be the label under another name.
    columns = next(
        (names for names in _KINETICS_COLUMNS if set(names[:3]) <= set(header) <= {*names, "split", "is_cc"}), None
    )
    if columns is None or len(set(header)) != len(header):
        known = " or ".join(",".join(columns) for columns in _KINETICS_COLUMNS)
        raise ValueError(f"{place}: expected a header with {known}; got {','.join(header)!r}")
    found = []
    for place, row in rows[1:]:
        if len(row) != len(header):
            raise ValueError(f"{place}: expected {len(header)} fields, {','.join(header)}; got {len(row)}")
        values = dict(zip(header, row, strict=True))
        found.append((place, values.get(columns[3], ""), _kinetics_clip(place, *(values[key] for key in columns[:3]))))

    if class_names is None:
        class_names = sorted({class_name for _, class_name, _ in found} - {""})
    folders = {class_name.replace(" ", "_") for class_name in class_names}
    if len(folders) != len(class_names):
        raise ValueError(f"{path}: some of the {len(class_names)} classes are one and the same but for blanks")
    labels = {class_name: label for label, class_name in enumerate(class_names)}
    entries = []
    for place, class_name, clip in found:
        if class_name == "":
            entries.append((place, Annotation(clip, None)))
            continue
        label = _label_of(place, class_name, labels)
        if "/" in class_name:
            raise ValueError(f"{place}: a class that is to name a folder cannot hold '/'; got {class_name!r}")
        entries.append((place, Annotation(f"{class_name.replace(' ', '_')}/{clip}", label)))
    return _finish(path, entries, class_names)


def read_something_v2(path: str | os.PathLike[str], labels_path: str | os.PathLike[str]) -> AnnotationList:
    """Read a json file of Something-Something V2.

    Source: Goyal et al., *The "something something" video database*, 2017, as released by 20BN: a list of objects with
    "id" and, but for the test set, "template", whose class is its text without the brackets; and
    `something-something-v2-labels.json`, which maps that text to a number written as a string.

    Args:
        path: `something-something-v2-train.json`, `-validation.json` or `-test.json`.
        labels_path: `something-something-v2-labels.json`, with 174 classes.

    Returns:
        Paths are `<id>.webm`.

    Raises:
        ValueError: A file is missing or not what it should be.
    """
    mapping = parsed_json(labels_path)
    if not isinstance(mapping, dict):
        raise ValueError(f"{labels_path}: expected an object of classes and numbers; got a {type(mapping).__name__}")
    names: dict[int, str] = {}
    for name, number in mapping.items():
        index = whole_number(str(labels_path), f"label of {name!r}", number)
        if index in names:
            raise ValueError(f"{labels_path}: {name!r} and {names[index]!r} have the same label {index}")
        names[index] = name
    class_names = _in_order(labels_path, names, first=0)

    labels = {name: label for label, name in enumerate(class_names)}
    listed = parsed_json(path)
    if not isinstance(listed, list):
        raise ValueError(f"{path}: expected a list of objects; got a {type(listed).__name__}")
    entries = []
    for number, entry in enumerate(listed, 1):
        place = f"{path}: entry {number}"
        if not isinstance(entry, dict) or not isinstance(entry.get("template", ""), str):
            raise ValueError(f"{place}: expected an object whose template, if any, is a string")
        video = entry.get("id")
        whole_number(place, "id", video)
        template = entry.get("template")
        class_name = None if template is None else template.replace("[", "").replace("]", "")
        label = None if class_name is None else _label_of(place, class_name, labels)
        entries.append((place, Annotation(f"{video}.webm", label)))
    return _finish(path, entries, class_names, mirrors=False)


def read_something_v1(
    path: str | os.PathLike[str],
    labels_path: str | os.PathLike[str],
    *,
    class_order: Literal["file", "sorted"] = "file",
) -> AnnotationList:
    """Read a csv file of Something-Something V1.

    Source: Goyal et al., *The "something something" video database*, 2017, as released by 20BN: lines "id;class", the
    id alone in the test set; and `something-something-v1-labels.csv`, one class per line.

    Args:
        path: `something-something-v1-train.csv`, `-validation.csv` or `-test.csv`.
        labels_path: `something-something-v1-labels.csv`.
        class_order: Labels follow the lines of the labels file, as in mmaction2, or the sorted names, as in TRN and
            TSM: weights trained by them have their outputs in that order.

    Returns:
        Paths are `<id>`: V1 is released as folders of frames.

    Raises:
        ValueError: A file is missing or not what it should be.
    """
    if class_order not in ("file", "sorted"):
        raise ValueError(f"class_order must be 'file' or 'sorted'; got {class_order!r}")
    class_names: list[str] = []
    for place, name in numbered_lines(labels_path):
        if name in class_names:
            raise ValueError(f"{place}: class {name!r} was there before")
        class_names.append(name)
    if class_order == "sorted":
        class_names.sort()

    labels = {name: label for label, name in enumerate(class_names)}
    entries = []
    for place, line in numbered_lines(path):
        video, semicolon, name = line.partition(";")
        whole_number(place, "id", video)
        entries.append((place, Annotation(video, _label_of(place, name, labels) if semicolon else None)))
    return _finish(path, entries, class_names, mirrors=False)


def read_list(
    path: str | os.PathLike[str],
    fields: ListFields = "path label",
    *,
    class_names: Sequence[str] | None = None,
) -> AnnotationList:
    """Read a plain list: one clip per line, fields separated by blanks or tabs, no header.

    Source: "path label" is SlowFast's and PyTorchVideo's `train.csv`; "path num_frames label" are the lists of TSN,
    TSM, mmaction and Hidden Two-Stream; "path offset num_frames label" mmaction2's with an offset. The fields after the
    path are taken from the line's end: a path may hold blanks, and quotes around it are removed.

    Args:
        path: The list.
        fields: What each line holds.
        class_names: Names in the order of the labels, if known; then no label may be greater than they allow.

    Returns:
        Labels as in the file, -1 as None.

    Raises:
        ValueError: The file is missing or not what it should be.
    """
    if fields not in get_args(ListFields):
        raise ValueError(f"fields must be one of {', '.join(map(repr, get_args(ListFields)))}; got {fields!r}")
    names = fields.split()
    entries = []
    for place, line in numbered_lines(path):
        separators = list(BLANKS.finditer(line))[-len(names) + 1 :]
        if len(separators) < len(names) - 1:
            raise ValueError(f"{place}: expected {fields!r}, separated by blanks; got {line!r}")
        clip = without_quotes(line[: separators[0].start()])
        *numbers, last = BLANKS.split(line[separators[0].end() :])
        counts = {name: whole_number(place, name, number) for name, number in zip(names[1:-1], numbers, strict=True)}
        if counts.get("num_frames") == 0:
            raise ValueError(f"{place}: num_frames must be at least 1; got 0")
        label = None if last == "-1" else whole_number(place, "label", last)
        if class_names is not None and label is not None and label >= len(class_names):
            raise ValueError(f"{place}: label must be less than {len(class_names)}, the number of classes; got {label}")
        entries.append((place, Annotation(clip, label, **counts)))
    return _finish(path, entries, class_names or ())


# --- what the readers share ---------------------------------------------------------------------------------------


def _check_split(split: int, subset: str) -> None:
    if split not in (1, 2, 3):
        raise ValueError(f"split must be 1, 2 or 3; got {split!r}")
    if subset not in get_args(Subset):
        raise ValueError(f"subset must be 'train' or 'test'; got {subset!r}")


def _label_of(place: str, class_name: str, labels: dict[str, int]) -> int:
    if class_name not in labels:
        raise ValueError(f"{place}: {class_name!r} is none of the {len(labels)} classes")
    return labels[class_name]


def _in_order(path: str | os.PathLike[str], names: dict[int, str], *, first: int) -> tuple[str, ...]:
    """Class names by label; no label may lack one."""
    for label in range(len(names)):
        if label not in names:
            raise ValueError(f"{path}: expected {len(names)} classes numbered from {first}; {label + first} is missing")
    if not names:
        raise ValueError(f"{path} holds no class")
    return tuple(names[label] for label in range(len(names)))


def _kinetics_clip(place: str, youtube_id: str, start: str, end: str) -> str:
    times = [_SECONDS.fullmatch(text) for text in (start, end)]
    # A table program that opened the file may have made numbers or formulas of ids.
    if not _YOUTUBE_ID.fullmatch(youtube_id) or not all(times):
        raise ValueError(f"{place}: expected a YouTube id and two times; got {youtube_id!r}, {start!r}, {end!r}")
    seconds = [int(time[1]) for time in times if time]
    if seconds[0] > seconds[1]:
        raise ValueError(f"{place}: the clip must end after its start; got {start} to {end}")
    return f"{youtube_id}_{seconds[0]:06d}_{seconds[1]:06d}.mp4"


def _check_no_duplicate(entries: Iterable[tuple[str, Annotation]]) -> None:
    first: dict[tuple[str, int], str] = {}
    for place, item in entries:
        before = first.setdefault((item.path, item.offset), place)
        if before is not place:
            raise ValueError(f"{place}: {item.path!r} was there before, at {before}")


def _finish(
    path: str | os.PathLike[str],
    entries: list[tuple[str, Annotation]],
    class_names: Iterable[str],
    mirrors: bool = True,
) -> AnnotationList:
    """The list, if it is not empty, holds no clip twice, and labels all of them or none."""
    if not entries:
        raise ValueError(f"{path} lists no clip")
    _check_no_duplicate(entries)
    labelled = entries[0][1].label is not None
    for place, item in entries:
        if (item.label is not None) != labelled:
            raise ValueError(
                f"{place}: expected labels for all clips or for none; {item.path!r} differs from the first"
            )
    return AnnotationList(tuple(item for _, item in entries), tuple(class_names), mirrors)
