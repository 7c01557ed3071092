"""Any text in place of an annotation file: a ValueError or a correct result."""

import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyaction.data.annotations import (
    read_hmdb51,
    read_kinetics,
    read_list,
    read_something_v1,
    read_something_v2,
    read_ucf101,
)

KINETICS = "label,youtube_id,time_start,time_end,split,is_cc"

# Made of what the formats are made of, so that some of it is nearly right, and of anything at all.
PIECES = ["A", "B", "A/a.avi", "B/b.avi", "1", "2", "0", "-1", " ", "  ", "\t", "\n", "\r\n", ",", ";", '"', "a.avi",
          "abc", "17", "27", KINETICS + "\n", "\ufeff", "[", "]", "{", "}", ":", '"id"', '"template"', '"7"',
          "\0", "\u2028", "\x85", "é", "\ud800", "9" * 30]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=30).map(
    lambda pieces: "".join(pieces).encode("utf-8", "surrogatepass")
) | st.binary(max_size=60)
READERS = {
    "classInd.txt": lambda folder: read_ucf101(folder, 2, "train"),
    "trainlist02.txt": lambda folder: read_ucf101(folder, 2, "train"),
    "testlist02.txt": lambda folder: read_ucf101(folder, 2, "test"),
    "wave_test_split1.txt": lambda folder: read_hmdb51(folder, 1, "train"),
    "val.csv": lambda folder: read_kinetics(folder / "val.csv"),
    "v2.json": lambda folder: read_something_v2(folder / "v2.json", folder / "labels.json"),
    "labels.json": lambda folder: read_something_v2(folder / "v2.json", folder / "labels.json"),
    "v1.csv": lambda folder: read_something_v1(folder / "v1.csv", folder / "labels.csv"),
    "labels.csv": lambda folder: read_something_v1(folder / "v1.csv", folder / "labels.csv", class_order="sorted"),
    "list.txt": lambda folder: read_list(folder / "list.txt"),
    "frames.txt": lambda folder: read_list(folder / "frames.txt", "path num_frames label", class_names=["A", "B"]),
    "parts.txt": lambda folder: read_list(folder / "parts.txt", "path offset num_frames label"),
}


@pytest.fixture(scope="module")
def good_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    good = {
        "classInd.txt": "1 A\n2 B\n",
        "trainlist02.txt": "A/a.avi 1\n",
        "testlist02.txt": "B/b.avi\n",
        "v2.json": '[{"id": "7", "template": "A"}]',
        "labels.json": '{"A": "0", "B": "1"}',
        "v1.csv": "7;A\n",
        "labels.csv": "A\nB\n",
    }
    for name, text in good.items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("name", READERS)
@settings(deadline=None)  # files
@given(text=TEXTS)
def test_any_text(good_folder: Path, name: str, text: bytes):
    path = good_folder / name
    before = path.read_bytes() if path.exists() else None
    path.write_bytes(text)
    try:
        result = READERS[name](good_folder)
    except ValueError as error:
        # Whatever is wrong is said of a file, in a sentence of one line.
        assert str(good_folder) in str(error) and "\n" not in str(error)
        return
    finally:
        path.write_bytes(before) if before is not None else path.unlink()
    assert result.items and len({(item.path, item.offset) for item in result.items}) == len(result.items)
    for item in result.items:
        assert item.path and not set(item.path) & {"\0", "\n", "\r"}
        assert item.label is None or item.label in range(len(result.class_names) or 10**15)
        if name == "classInd.txt":
            assert result.class_names[item.label] == item.path.partition("/")[0]


PATHS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1).map(
    lambda path: path.strip(" ").replace('"', "") or "a"
)


@settings(deadline=None)  # files
@given(
    clips=st.lists(
        st.tuples(PATHS, st.integers(0, 10**9), st.integers(1, 10**9), st.integers(0, 400)),
        min_size=1,
        unique_by=lambda clip: clip[:2],
    ),
    end=st.sampled_from(["\n", "\r\n", " \n", "\t\r\n\n"]),
    blank=st.sampled_from([" ", "\t", "  "]),
)
def test_any_list(tmp_path_factory, clips, end, blank):
    path = tmp_path_factory.mktemp("list") / "a.txt"
    path.write_bytes("".join(blank.join(map(str, clip)) + end for clip in clips).encode())
    items = read_list(path, "path offset num_frames label").items
    expected = [clip if i or not clip[0].startswith("\ufeff") else None for i, clip in enumerate(clips)]
    for item, clip in zip(items, expected, strict=True):
        assert clip is None or (item.path, item.offset, item.num_frames, item.label) == clip


WORDS = st.text(
    string.ascii_letters + string.punctuation.replace("/", "").replace("_", "").replace('"', ""), min_size=1
)


@settings(deadline=None)  # files
@given(
    names=st.lists(st.lists(WORDS, min_size=1).map(" ".join), min_size=1, unique=True),
    times=st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)).map(sorted),
)
def test_any_kinetics_classes(tmp_path_factory, names, times):
    path = tmp_path_factory.mktemp("kinetics") / "a.csv"
    rows = [f'"{name}",id-{i},{times[0]},{times[1]},train,0' for i, name in enumerate(names)]
    path.write_text("\n".join([KINETICS, *rows]))
    result = read_kinetics(path)
    assert list(result.class_names) == sorted(names)
    for i, (item, name) in enumerate(zip(result.items, names, strict=True)):
        assert result.class_names[item.label] == name
        assert item.path == f"{name.replace(' ', '_')}/id-{i}_{times[0]:06d}_{times[1]:06d}.mp4"
