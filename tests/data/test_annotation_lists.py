"""Plain lists of clips; see test_annotations.py for the files of the data sets."""

import pytest

from pyaction.data.annotations import Annotation, AnnotationList, read_list


@pytest.mark.parametrize(
    ("fields", "line", "expected"),
    [
        ("path label", "a.mp4 3", Annotation("a.mp4", 3)),
        ("path label", "/my videos/a  b 7.mp4\t3", Annotation("/my videos/a  b 7.mp4", 3)),
        ("path label", '"my ""best"" video.mp4" 3', Annotation('my "best" video.mp4', 3)),
        ("path label", "  a.mp4 -1 ", Annotation("a.mp4", None)),
        ("path label", "a\u3000b\u2028c \u00a0 12", Annotation("a\u3000b\u2028c \u00a0", 12)),
        ("path num_frames label", "a b 12 3", Annotation("a b", 3, 12)),
        ("path offset num_frames label", "a b 5 12 3", Annotation("a b", 3, 12, 5)),
    ],
)
def test_list(tmp_path, fields, line, expected):
    path = tmp_path / "a.txt"
    path.write_bytes(f"\n{line}\r\n".encode())
    assert read_list(path, fields) == AnnotationList((expected,), ())


def test_list_parts_of_one_video(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("v 0 8 2\nv 8 8 2\n")
    result = read_list(path, "path offset num_frames label", class_names=["x", "y", "z"])
    assert result == AnnotationList((Annotation("v", 2, 8, 0), Annotation("v", 2, 8, 8)), ("x", "y", "z"))


@pytest.mark.parametrize(
    ("fields", "text", "message"),
    [
        ("path label", "a.mp4\n", "a.txt:1: expected 'path label', separated by blanks; got 'a.mp4'"),
        ("path label", "a b.mp4,3\n", "a.txt:1: label must be a whole number; got 'b.mp4,3'"),
        ("path label", "a 1_0\n", "a.txt:1: label must be a whole number; got '1_0'"),
        ("path label", "a \u0663\n", "a.txt:1: label must be a whole number; got "),
        ("path label", "a -2\n", "a.txt:1: label must be a whole number; got '-2'"),
        ("path label", f"a {'9' * 5000}\n", "a.txt:1: label must be a whole number; got '999"),
        ("path label", "a 3\n", "a.txt:1: label must be less than 3, the number of classes; got 3"),
        ("path label", "a 1\nb -1\n", "a.txt:2: expected labels for all clips or for none; 'b' differs"),
        ("path label", "a 1\nb 1\na 2\n", "a.txt:3: 'a' was there before, at .*a.txt:1$"),
        ("path label", "a\0b 1\n", r"a.txt:1: .* control character '\\x00'"),
        ("path num_frames label", "a 1\n", "a.txt:1: expected 'path num_frames label', separated by blanks"),
        ("path num_frames label", "a b 1\n", "a.txt:1: num_frames must be a whole number; got 'b'"),
        ("path num_frames label", "a 0 1\n", "a.txt:1: num_frames must be at least 1; got 0"),
        ("path label num_frames", "a 1 1\n", "fields must be one of 'path label', .*; got 'path label num_frames'"),
        ("path label", "\n", "a.txt is empty"),
    ],
)
def test_list_rejects(tmp_path, fields, text, message):
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode())
    with pytest.raises(ValueError, match=message):
        read_list(path, fields, class_names=["x", "y", "z"])


def test_unreadable(tmp_path):
    with pytest.raises(ValueError, match=r"none.txt cannot be read: No such file or directory"):
        read_list(tmp_path / "none.txt")
    with pytest.raises(ValueError, match=r" cannot be read: Is a directory"):
        read_list(tmp_path)
