"""Text files of annotations, read strictly: every line keeps its place for the error that may have to name it."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

BLANKS = re.compile(r"[ \t]+")
_WHOLE_NUMBER = re.compile(r"[0-9]{1,15}")  # int() would also take 1_000, other scripts' digits and any length
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")  # all but the tab


def _text(path: str | os.PathLike[str]) -> str:
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}:{line}: expected UTF-8 text; got the byte {error.object[error.start]:#04x}") from None


def numbered_lines(path: str | os.PathLike[str]) -> list[tuple[str, str]]:
    """The lines that are not blank, each with its place, "file:number". At least one."""
    lines = []
    # Not splitlines(): it takes characters for line ends that a file name may hold.
    for number, line in enumerate(_text(path).split("\n"), 1):
        place, stripped = f"{path}:{number}", line.rstrip(" \t\r").lstrip(" \t")
        if control := _CONTROL.search(stripped):
            raise ValueError(f"{place}: expected a line of text; got the control character {control[0]!r}")
        if stripped:
            lines.append((place, stripped))
    if not lines:
        raise ValueError(f"{path} is empty")
    return lines


def parsed_json(path: str | os.PathLike[str]) -> object:
    """The contents of a json file in which no object has a key twice."""

    def without_twins(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError(f"an object of {len(pairs)} keys has one of them twice, among {list(found)[:3]}")
        return found

    text = _text(path)
    try:
        return json.loads(text, object_pairs_hook=without_twins)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: expected json; got an error: {error.msg}") from None
    except ValueError as error:
        raise ValueError(f"{path}: expected json; got an error: {error}") from None
    except RecursionError:
        raise ValueError(f"{path}: expected json of a few levels; got too many") from None


def csv_row(place: str, line: str) -> list[str]:
    """The fields of one line, without quotes and the blanks around them."""
    try:
        return [field.strip() for field in next(csv.reader([line], strict=True))]
    except csv.Error as error:
        raise ValueError(f"{place}: expected fields separated by commas; got an error: {error}") from None


def split_fields(place: str, line: str, names: Sequence[str]) -> list[str]:
    """The fields of a line, which has exactly those named."""
    fields = BLANKS.split(line)
    if len(fields) != len(names):
        raise ValueError(f"{place}: expected {' '.join(names)!r}; got {line!r}")
    return fields


def whole_number(place: str, name: str, value: object) -> int:
    """A whole number from 0, given as one or as its digits."""
    if not isinstance(value, str | int) or isinstance(value, bool) or not _WHOLE_NUMBER.fullmatch(str(value)):
        raise ValueError(f"{place}: {name} must be a whole number; got {value!r:.200}")
    return int(value)


def without_quotes(text: str) -> str:
    """As a csv writer quotes a path for its blanks."""
    return text[1:-1].replace('""', '"') if len(text) > 2 and text[0] == text[-1] == '"' else text
