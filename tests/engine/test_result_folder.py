"""What lies in a folder of results: names, settings, locks, and other results in the way."""

import json
from pathlib import Path

import pytest
import torch

from pyaction import video
from pyaction.cli import main
from pyaction.engine import Job, ResultFolder, find_videos, write_results


def test_find_videos_and_write_results(folder: Path, tmp_path: Path) -> None:
    found = find_videos([folder])
    assert found == {folder / "a.avi": Path("a"), folder / "deep/er/b.mp4": Path("deep/er/b")}
    out = tmp_path / "out"
    seen: list[tuple[int, int]] = []
    with ResultFolder(out, Job(format="npz")) as opened:
        made = write_results(folder / "a.avi", opened, Path("a"), on_progress=lambda *at: seen.append(at))
        assert made.num_flows == 3 and seen == [(0, 3), (3, 3)]
        assert write_results(folder / "a.avi", opened, Path("a")) is None
    assert json.loads((out / "pyaction.json").read_text())["format"] == "npz"


def test_one_run_at_a_time(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = ["flow", str(clip), "-o", str(out)]
    with ResultFolder(out, Job()):
        assert main(command) == 2
    assert "another run is writing to" in capsys.readouterr().err
    assert main(command) == 0


def test_same_name_elsewhere_is_not_taken_for_finished(
    clip: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise a loop over the folders of classes, each with a 001.mp4, would leave out all but the first."""
    out = tmp_path / "out"
    other = folder / clip.name
    video.write(other, torch.zeros(3, 3, 32, 32, dtype=torch.uint8), fps=25)
    assert main(["flow", str(clip), "-o", str(out), "--format", "npz"]) == 0
    assert main(["flow", str(other), "-o", str(out), "--format", "npz"]) == 2
    error = capsys.readouterr().err
    assert f"moving.npz is of {clip}, not of {other}; choose another -o" in error


def test_folder_of_the_same_name_is_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """deep.avi would have its results in out/deep, and deep/er/b.mp4 among them."""
    (folder / "a.avi").rename(folder / "deep.avi")
    out = tmp_path / "out"
    assert main(["flow", str(folder), "-o", str(out)]) == 2
    assert "b.mp4 would lie in deep/er/b, among those of" in capsys.readouterr().err
    assert main(["flow", str(folder), "-o", str(out), "--format", "npz"]) == 0  # deep.npz is in nobody's way


def test_results_are_no_videos_to_work_on(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "out"
    for _ in range(2):
        assert main(["flow", str(folder), "-o", str(out), "--format", "video"]) == 0
    assert "0 videos written, 2 already there, 0 failed" in capsys.readouterr().out
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.mp4")) == ["a.mp4", "deep/er/b.mp4"]


def test_results_beside_their_videos(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """a.mp4, made of a.avi, is no second video of that name when the command is run again."""
    command = ["flow", str(folder), "-o", str(folder), "--format", "video"]
    (folder / "deep" / "er" / "b.mp4").unlink()
    for _ in range(2):
        assert main(command) == 0
    assert "0 videos written, 1 already there, 0 failed" in capsys.readouterr().out


def test_source_is_never_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = folder / "deep" / "er" / "b.mp4"
    before = source.read_bytes()
    assert main(["flow", str(source), "-o", str(source.parent), "--format", "video"]) == 2
    assert "b.mp4 is in the way of the results of" in capsys.readouterr().err
    assert source.read_bytes() == before


def test_dangling_link_does_not_stop_the_others(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "0.mp4").symlink_to(folder / "nowhere.mp4")
    assert main(["flow", str(folder), "-o", str(tmp_path / "out"), "--format", "npz"]) == 2
    captured = capsys.readouterr()
    assert "2 videos written, 0 already there, 1 failed" in captured.out and "0.mp4" in captured.err


@pytest.mark.parametrize("text", ["[]", "no json", "{}"])
def test_foreign_settings_are_refused(
    text: str, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pyaction.json").write_text(text)
    assert main(["flow", str(clip), "-o", str(tmp_path)]) == 2
    assert "pyaction.json is not pyaction's; choose another -o" in capsys.readouterr().err
    assert (tmp_path / "pyaction.json").read_text() == text
