"""The `pyaction flow` command and the functions behind it."""

import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pyaction import flow, ops, video
from pyaction.cli import main
from pyaction.video.pyav_reader import PyAVReader

MOTION = torch.tensor([2.0, 1.0])


def visible(folder: Path) -> list[str]:
    """Every file but the bookkeeping; leftovers of half-written results would show."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in (".lock", "finished.jsonl"))
    return sorted(str(path.relative_to(folder)) for path in files)


def frames_of(path: Path) -> torch.Tensor:
    with video.open(path) as reader:
        return reader.frames()


def damage(path: Path) -> None:
    """Makes bytes behind the middle wrong, which shows only when they are decoded."""
    content = bytearray(path.read_bytes())
    at = len(content) * 4 // 5
    content[at : at + 400] = bytes(255 - byte for byte in content[at : at + 400])
    path.write_bytes(content)


def inner(field: torch.Tensor) -> torch.Tensor:
    """The median motion away from the edges, where content comes in."""
    return field[..., 8:-8, 8:-8].flatten(-2).median(dim=-1).values


def test_flo(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["flow", str(clip), "-o", str(out)]) == 0
    assert visible(out) == [*(f"moving/flow_{n:05d}.flo" for n in range(1, 20)), "pyaction.json"]
    for path in out.rglob("*.flo"):
        torch.testing.assert_close(inner(flow.read(path).flow), MOTION, atol=0.15, rtol=0)
    text = capsys.readouterr().out
    assert "1 videos written, 0 already there, 0 failed" in text
    assert re.search(r"^19 pairs of frames in \d+\.\d s on cpu: \d+\.\d fps$", text, re.MULTILINE)


def test_fps_is_of_the_work_done_now(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["flow", str(folder), "-o", str(tmp_path / "out"), "--format", "npz"]
    assert main(command) == 0
    (tmp_path / "out" / "a.npz").unlink()
    capsys.readouterr()
    push = ops.TVL1Stream.push
    monkeypatch.setattr(ops.TVL1Stream, "push", lambda stream, frame: (time.sleep(0.2), push(stream, frame))[1])
    assert main(command) == 0
    pairs, seconds, rate = re.search(
        r"(\d+) pairs of frames in (.+) s on cpu: (.+) fps", capsys.readouterr().out
    ).groups()
    assert pairs == "3" and float(seconds) >= 0.8  # of 4 frames
    assert float(rate) == pytest.approx(3 / float(seconds), rel=0.1, abs=0.5)


def test_npz_holds_the_same_flow(clip: Path, tmp_path: Path) -> None:
    assert main(["flow", str(clip), "-o", str(tmp_path / "flo")]) == 0
    assert main(["flow", str(clip), "-o", str(tmp_path / "npz"), "--format", "npz"]) == 0
    data = np.load(tmp_path / "npz" / "moving.npz")
    assert data["flow"].shape == (19, 2, 48, 64) and data["flow"].dtype == np.float32
    np.testing.assert_allclose(data["timestamps"], np.arange(20) / 25)
    assert data["fps"] == 25
    for number, pair in enumerate(data["flow"], 1):
        stored = flow.read(tmp_path / "flo" / "moving" / f"flow_{number:05d}.flo").flow
        assert torch.equal(torch.from_numpy(pair), stored)
    assert torch.equal(torch.from_numpy(data["flow"]), ops.tvl1_flow_clip(frames_of(clip)[None])[0])


def test_jpg(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["flow", str(clip), "-o", str(out), "--format", "jpg", "--bound", "8"]) == 0
    assert len(visible(out)) == 1 + 2 * 19
    pictures = [np.asarray(Image.open(out / "moving" / f"flow_{axis}_00011.jpg")) for axis in "xy"]
    assert pictures[0].shape == (48, 64)
    field = flow.decode(torch.from_numpy(np.stack(pictures)), bound=8.0)
    torch.testing.assert_close(inner(field), MOTION, atol=0.2, rtol=0)


def test_color_video(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["flow", str(clip), "-o", str(out), "--format", "video", "--radius", "4"]) == 0
    expected = flow.to_image(MOTION.view(2, 1, 1), max_radius=4.0).flatten().float()
    with video.open(out / "moving.mp4") as reader:
        assert len(reader) == 19 and reader.fps == 25 and reader.size == (48, 64)
        shown = inner(reader.frames().float()).mean(0)
    torch.testing.assert_close(shown, expected, atol=25, rtol=0)  # chroma is stored at half resolution


def test_radius_comes_from_the_first_pairs(clip: Path, tmp_path: Path) -> None:
    """Without --radius the motion of the video itself is drawn saturated, not pale."""
    assert main(["flow", str(clip), "-o", str(tmp_path / "out"), "--format", "video"]) == 0
    with video.open(tmp_path / "out" / "moving.mp4") as reader:
        red, _, blue = inner(reader.frames([9]).float())[0]
    assert red - blue > 150


def test_short_side(clip: Path, tmp_path: Path) -> None:
    arguments = ["flow", str(clip), "-o", str(tmp_path / "out"), "--format", "npz", "--short-side", "24"]
    assert main(arguments) == 0
    data = np.load(tmp_path / "out" / "moving.npz")
    assert data["flow"].shape == (19, 2, 24, 32)
    motion = inner(torch.from_numpy(data["flow"])).mean(0)
    torch.testing.assert_close(motion, MOTION / 2, atol=0.15, rtol=0)  # in pixels of that resolution


@pytest.mark.parametrize("preset", ["fast", "opencv"])
def test_preset_is_used(preset: ops.tvl1.Preset, clip: Path, tmp_path: Path) -> None:
    arguments = ["flow", str(clip), "-o", str(tmp_path / "out"), "--format", "npz", "--preset", preset]
    assert main(arguments) == 0
    expected = ops.tvl1_flow_clip(frames_of(clip)[None], params=preset)[0]
    assert torch.equal(torch.from_numpy(np.load(tmp_path / "out" / "moving.npz")["flow"]), expected)


def test_folder_keeps_its_shape(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["flow", str(folder), "-o", str(out), "--format", "npz"]) == 0
    assert visible(out) == ["a.npz", "deep/er/b.npz", "pyaction.json"]


def test_finished_videos_are_skipped(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = ["flow", str(folder), "-o", str(out), "--format", "npz"]
    assert main(command) == 0
    before = (out / "a.npz").stat().st_mtime_ns
    (out / "deep" / "er" / "b.npz").unlink()
    capsys.readouterr()
    assert main(command) == 0
    assert "1 videos written, 1 already there, 0 failed" in capsys.readouterr().out
    assert (out / "a.npz").stat().st_mtime_ns == before
    assert (out / "deep" / "er" / "b.npz").exists()


@pytest.mark.parametrize("form", ["flo", "npz", "jpg", "video"])
def test_interrupted_video_is_done_anew(
    form: str, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["flow", str(clip), "-o", str(out), "--format", form]

    class SlowStream(ops.TVL1Stream):
        pushed = 0

        def push(self, frame: torch.Tensor) -> torch.Tensor | None:
            SlowStream.pushed += 1
            if SlowStream.pushed == 18:  # the first batch is being written, or is already
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            if SlowStream.pushed >= 18:
                time.sleep(0.2)
            return super().push(frame)

    with monkeypatch.context() as patch:
        patch.setattr(ops, "TVL1Stream", SlowStream)
        assert main(command) == 130
    assert SlowStream.pushed in (18, 19)  # of 20: what goes on is ended, but no more
    assert "the same command goes on" in capsys.readouterr().err
    assert visible(out) == ["pyaction.json"]
    assert main(command) == 0
    assert len(visible(out)) > 1


@pytest.mark.parametrize("form", ["flo", "npz", "video"])
def test_error_while_decoding(
    form: str, clip: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It comes from another thread, after flow was written; the next video is done all the same."""
    damaged = folder / "b_damaged.mp4"
    video.write(damaged, frames_of(clip).repeat(2, 1, 1, 1), fps=25)
    damage(damaged)
    out = tmp_path / "out"
    assert main(["flow", str(folder), "-o", str(out), "--format", form]) == 2
    captured = capsys.readouterr()
    assert re.search(r"b_damaged\.mp4 is damaged after \d+ frames", captured.err), captured.err
    assert "2 videos written, 0 already there, 1 failed" in captured.out
    assert not [name for name in visible(out) if "b_damaged" in name]


def test_flow_up_to_the_damage(clip: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.mp4"
    video.write(damaged, frames_of(clip).repeat(2, 1, 1, 1), fps=25)
    damage(damaged)
    with video.open(damaged, on_error="stop") as reader:
        frames = len(reader)
    assert 17 < frames < 40
    out = tmp_path / "out"
    assert main(["flow", str(damaged), "-o", str(out), "--on-error", "stop"]) == 0
    assert len(list(out.rglob("*.flo"))) == frames - 1


@pytest.mark.parametrize("error", [RuntimeError("out of memory, say"), MemoryError()])
def test_error_while_computing(
    error: Exception, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is of that video; the next one is done all the same."""
    push, pushed = ops.TVL1Stream.push, []

    def fail_once(stream: ops.TVL1Stream, frame: torch.Tensor) -> torch.Tensor | None:
        pushed.append(frame)
        if len(pushed) == 2:
            raise error
        return push(stream, frame)

    monkeypatch.setattr(ops.TVL1Stream, "push", fail_once)
    assert main(["flow", str(folder), "-o", str(tmp_path / "out"), "--format", "npz"]) == 2
    captured = capsys.readouterr()
    assert captured.err.strip() == f"pyaction: {folder}/a.avi: {str(error) or 'MemoryError'}"
    assert "1 videos written, 0 already there, 1 failed" in captured.out
    assert visible(tmp_path / "out") == ["deep/er/b.npz", "pyaction.json"]


def test_npz_never_has_a_wrong_header(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says how many pairs there are before they are computed."""
    monkeypatch.setattr(PyAVReader, "__len__", lambda reader: 19)
    assert main(["flow", str(clip), "-o", str(tmp_path / "out"), "--format", "npz"]) == 2
    assert "moving.mp4 changed while it was read" in capsys.readouterr().err
    assert visible(tmp_path / "out") == ["pyaction.json"]


def test_leftovers_of_a_killed_run_are_cleared(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / ".partial-1/moving").mkdir(parents=True)
    (out / ".partial-1/moving" / "flow_00001.flo").write_bytes(b"half")
    assert main(["flow", str(clip), "-o", str(out)]) == 0
    assert visible(out) == [*(f"moving/flow_{n:05d}.flo" for n in range(1, 20)), "pyaction.json"]


def test_other_settings_need_another_folder(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["flow", str(clip), "-o", str(out), "--format", "npz"]) == 0
    before = visible(out)
    assert main(["flow", str(clip), "-o", str(out), "--format", "jpg", "--bound", "10"]) == 2
    error = capsys.readouterr().err
    assert (
        "format 'npz', not 'dense_flow'" in error and "bound 20.0, not 10.0" in error and "choose another -o" in error
    )
    assert visible(out) == before


def test_damaged_video_does_not_stop_the_others(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (folder / "a.avi").read_bytes()
    (folder / "cut.avi").write_bytes(whole[: len(whole) * 3 // 4])
    (folder / "text.mp4").write_text("this is no video")
    out = tmp_path / "out"
    assert main(["flow", str(folder), "-o", str(out), "--format", "npz"]) == 2
    captured = capsys.readouterr()
    assert "2 videos written, 0 already there, 2 failed" in captured.out
    assert "cut.avi is cut short" in captured.err and "text.mp4 cannot be opened as a video" in captured.err
    assert visible(out) == ["a.npz", "deep/er/b.npz", "pyaction.json"]
    assert main(["flow", str(folder / "cut.avi"), "-o", str(out), "--format", "npz", "--on-error", "stop"]) == 0
    assert np.load(out / "cut.npz")["flow"].shape[0] in (1, 2)  # of 3 pairs


def test_one_frame_is_no_flow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video.write(tmp_path / "still.mp4", torch.zeros(1, 3, 32, 32, dtype=torch.uint8), fps=25)
    assert main(["flow", str(tmp_path / "still.mp4"), "-o", str(tmp_path / "out")]) == 2
    assert "still.mp4 has 1 frame; flow needs two" in capsys.readouterr().err
    assert visible(tmp_path / "out") == ["pyaction.json"]


def test_unreadable_video_leaves_no_folder(tmp_path: Path) -> None:
    """It would be in the way of the results of class.mp4."""
    (tmp_path / "videos" / "class").mkdir(parents=True)
    video.write(tmp_path / "videos" / "class" / "still.mp4", torch.zeros(1, 3, 32, 32, dtype=torch.uint8), fps=25)
    assert main(["flow", str(tmp_path / "videos"), "-o", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out" / "class").exists()


# Arguments, with {clip} and {other} for videos, {file} for a file and {empty} for a folder; and what the message says.
BAD_COMMANDS = {
    "missing path": ("nowhere.mp4 -o out", "there is no file or folder nowhere.mp4"),
    "no videos": ("{empty} -o out", "empty holds no video file"),
    "output is a file": ("{clip} -o {file}", "file: File exists"),
    "output below a file": ("{clip} -o {file}/out", "Not a directory"),
    "preset": ("{clip} -o out --preset best", "preset must be one of opencv, fast, accurate, video; got 'best'"),
    "short side": ("{clip} -o out --short-side 0", "short_side must be a number of pixels greater than 0; got 0"),
    "bound": ("{clip} -o out --bound nan", "bound must be a number of pixels greater than 0; got nan"),
    "same name": ("{clip} {other} -o out", "would both be written to a"),
}


@pytest.mark.parametrize("case", BAD_COMMANDS)
def test_bad_command(
    case: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "file").touch()
    (folder / "empty").mkdir()
    (folder / "deep" / "a.mp4").touch()
    monkeypatch.chdir(tmp_path)
    template, message = BAD_COMMANDS[case]
    places = {"clip": "a.avi", "other": "deep/a.mp4", "file": "file", "empty": "empty"}
    arguments = template.format(**{name: folder / place for name, place in places.items()}).split()
    assert main(["flow", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("pyaction: ") and message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is missing where there is no GPU")
def test_cuda_without_a_gpu(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["flow", str(clip), "-o", str(tmp_path / "out"), "--device", "cuda"]) == 2
    assert re.search("--device cuda: .* (compiled without CUDA|no CUDA device).* --device cpu", capsys.readouterr().err)


@pytest.mark.parametrize("form", ["flo", "npz", "jpg", "video"])
def test_full_disk_leaves_nothing_that_looks_finished(form: str, clip: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands in for a full disk: writing fails in the middle."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "pyaction.cli", "flow", str(clip), "-o", str(out), "--format", form]
    limit = {"flo": 20_000, "npz": 100_000, "jpg": 300, "video": 1_500}[form]

    def limit_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit_files, env=environment, check=False)
    assert run.returncode == 2, run.stderr
    assert "Traceback" not in run.stderr and f"pyaction: {out}/moving" in run.stderr and "too large" in run.stderr
    assert visible(out) == ["pyaction.json"]


def test_unknown_instruction_set_is_one_sentence(clip: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYACTION_SIMD": "sse9"}
    for command in (["info"], ["flow", str(clip), "-o", str(tmp_path / "out")]):
        arguments = [sys.executable, "-m", "pyaction.cli", *command]
        run = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False)
        assert run.returncode == 2
        assert "PYACTION_SIMD must be baseline, avx2 or avx512; got sse9" in run.stderr
        assert "Traceback" not in run.stderr


def test_every_real_video(real_data: Path, tmp_path: Path) -> None:
    """One flow per neighbouring pair of decodable frames; one video of each kind keeps the test short."""
    sources = ["hmdb51/wave/RATRACE_wave_f_nm_np1_fr_goo_37.avi", "ssv2_like/task41/2.webm"]
    for source in sources:
        path = real_data / "videos" / source
        with video.open(path) as reader:
            frames = len(reader)
        assert main(["flow", str(path), "-o", str(tmp_path), "--format", "npz"]) == 0
        field = np.load(tmp_path / f"{path.stem}.npz")["flow"]
        assert len(field) == frames - 1 and np.isfinite(field).all()
