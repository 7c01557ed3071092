"""`pyaction extract` and `engine.extract`: what they write, and what they refuse."""

import os
import re
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from engine.moving_texture import moving_texture
from engine.trees import record_of, tree_of
from PIL import Image

from pyaction import flow, ops, video
from pyaction.cli import main
from pyaction.data.annotations import Annotation, AnnotationList
from pyaction.data.data_sets import ClipSpec
from pyaction.data.frame_folders import FrameFolders
from pyaction.data.layouts import LAYOUTS, FrameLayout
from pyaction.data.sampling import resample_indices
from pyaction.engine import Job, extract
from pyaction.engine.result_folder import ResultFolder
from pyaction.engine.video_results import write_results

BOTH = Job(content="both", format="dense_flow", bound=8.0)
JPEG_ERROR = 2.5  # mean, in grey levels


def read(path: Path) -> torch.Tensor:
    """(C, H, W)"""
    pixels = torch.from_numpy(np.array(Image.open(path)))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def assert_alike(picture: torch.Tensor, wanted: torch.Tensor) -> None:
    assert picture.shape == wanted.shape
    assert (picture.float() - wanted.float()).abs().mean() < JPEG_ERROR


@pytest.fixture(scope="module")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """wave/000101.mp4, wave/000102.avi and run/000103.mp4, of 6, 7 and 8 frames."""
    root = tmp_path_factory.mktemp("set")
    for count, name in enumerate(("wave/000101.mp4", "wave/000102.avi", "run/000103.mp4"), 6):
        (root / name).parent.mkdir(exist_ok=True)
        video.write(root / name, moving_texture(count), fps=25)
    (root / "run" / "notes.md").write_text("no video")
    return root


def check_video(layout: FrameLayout, path: Path, job: Job) -> None:
    """Every picture that was written of a video is there, and is what it should be."""
    with video.open(path, size=job.size, short_side=job.short_side) as reader:
        frames = reader.frames(None if job.fps is None else resample_indices(reader.timestamps, job.fps))
    folder = layout.open(str(path))
    assert folder.num_frames == (len(frames) if job.content != "flow" else 0)
    assert folder.num_flows == (len(frames) - 1 if job.content != "frames" else 0)
    for index in range(folder.num_frames):
        assert_alike(read(folder.frame_path(index)), frames[index])
    stream = ops.TVL1Stream(job.preset)
    fields = [stream.push(frame[None]) for frame in frames][1:]
    for index in range(folder.num_flows):
        pictures = torch.cat([read(path) for path in folder.flow_paths(index)])
        assert_alike(pictures[:2], flow.encode(fields[index][0], job.bound))


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_found_again(name: str, data_set: Path, tmp_path: Path) -> None:
    job = replace(BOTH, format=name, content="both" if LAYOUTS[name].flow else "frames")
    report = extract(data_set, tmp_path, job, workers=2)
    assert (report.written, report.frames, report.skipped, report.failures) == (3, 21, 0, [])
    annotations = AnnotationList((Annotation("wave/000102.avi", 1),), ())
    spec = ClipSpec(lambda length, generator: torch.arange(2, length)[None])
    stored = FrameFolders(annotations, tmp_path, spec, read=job.content)
    assert stored.layout == replace(FrameLayout.named(name, tmp_path), class_folders=True)
    for path in data_set.rglob("0*"):
        check_video(stored.layout, path, job)
    lengths = {kind: stored[0][kind].shape[1] for kind in ("frames", "encoded_flow") if kind in stored[0]}
    assert lengths == ({"frames": 4, "encoded_flow": 4} if job.content == "both" else {"frames": 5})
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".partial")]


@pytest.mark.parametrize("name", ["mmaction2", "twostreamfusion", "tsm_v2"])
def test_contents_alone(name: str, data_set: Path, tmp_path: Path) -> None:
    """They are the same bytes as together."""
    for content in ("both", "flow", "frames"):
        extract(data_set, tmp_path / content, replace(BOTH, format=name, content=content), workers=1)
    trees = {content: tree_of(tmp_path / content) for content in ("both", "flow", "frames")}
    for tree in trees.values():
        del tree["pyaction.json"]
    pictures = {content: {key for key in tree if key.endswith(".jpg")} for content, tree in trees.items()}
    assert not pictures["flow"] & pictures["frames"]
    assert trees["flow"] | trees["frames"] == trees["both"]


@pytest.mark.parametrize(
    "change", [{"size": (40, 56), "preset": "fast"}, {"short_side": 32, "bound": 4.0}, {"fps": 15.0}, {"fps": 40.0}]
)
def test_settings_are_used(change: dict[str, object], data_set: Path, tmp_path: Path) -> None:
    job = replace(BOTH, **change)
    extract(data_set, tmp_path, job, workers=1)
    layout = FrameLayout.detect(tmp_path)
    for path in data_set.rglob("0*"):
        check_video(layout, path, job)


def test_same_bytes_for_any_number_of_workers(data_set: Path, tmp_path: Path) -> None:
    for workers in (1, 2, 5):
        extract([data_set], tmp_path / str(workers), BOTH, workers=workers)
    trees = [tree_of(tmp_path / str(workers)) for workers in (1, 2, 5)]
    assert trees[0] == trees[1] == trees[2] and len(trees[0]) > 2 * 21
    records = [record_of(tmp_path / str(workers)) for workers in (1, 2, 5)]
    assert records[0] == records[1] == records[2] and len(records[0]) == 3


def test_same_as_pyaction_flow(data_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One command may go on where the other was stopped."""
    out = str(tmp_path)
    assert main(["flow", str(data_set / "wave"), "-o", out, "--format", "jpg", "--bound", "8"]) == 0
    before = tree_of(tmp_path)
    shutil.rmtree(tmp_path / "000101")
    arguments = ["--content", "flow", "--bound", "8", "--workers", "1"]
    assert main(["extract", str(data_set / "wave"), "-o", out, *arguments]) == 0
    assert tree_of(tmp_path) == before
    text = capsys.readouterr().out
    assert "1 videos written, 1 already there, 0 failed" in text
    assert re.search(r"^6 frames in \d+\.\d s: \d+\.\d\d videos/s, \d+\.\d fps$", text, re.MULTILINE)


def test_list_of_videos(data_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = tmp_path / "train.csv"
    listed.write_text(f'wave/000102.avi 1\n"wave/with blanks.mp4" 1\n{data_set / "run" / "000103.mp4"} 0\n')
    out = tmp_path / "out"
    command = ["extract", str(listed), "-o", str(out), "--root", str(data_set), "--workers", "2"]
    assert main(command) == 2  # one is not there
    captured = capsys.readouterr()
    assert "2 videos written, 0 already there, 1 failed" in captured.out
    assert captured.err.count("pyaction: ") == 1
    assert f"there is no file {data_set / 'wave' / 'with blanks.mp4'}" in captured.err
    assert sorted(path.name for path in out.glob("*/*")) == ["000102", "000103"]

    annotations = AnnotationList((Annotation("wave/000102.avi", 1), Annotation("run/000103.mp4", 0)), ())
    job = Job(content="both", format="dense_flow")
    report = extract(annotations, out, job, root=data_set)
    assert (report.written, report.skipped) == (0, 2)
    with pytest.raises(ValueError, match="root must be the folder that the annotations' paths are relative to"):
        extract(annotations, out, job)


def test_paths_that_leave_the_root(data_set: Path, tmp_path: Path) -> None:
    (tmp_path / "list").mkdir()
    shutil.copytree(data_set / "wave", tmp_path / "elsewhere")
    (tmp_path / "list" / "all.txt").write_text("../elsewhere/000101.mp4 0\n")
    assert extract(tmp_path / "list" / "all.txt", tmp_path / "a" / "out", BOTH, workers=1).written == 1
    assert (tmp_path / "a" / "out" / "000101" / "img_00006.jpg").exists()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["out"]


@pytest.fixture
def damaged(data_set: Path, tmp_path: Path) -> Path:
    """The data set, and three files that are no whole videos."""
    copy = tmp_path / "damaged"
    shutil.copytree(data_set, copy)
    whole = (copy / "wave" / "000102.avi").read_bytes()
    (copy / "wave" / "cut.avi").write_bytes(whole[: len(whole) * 3 // 4])
    (copy / "run" / "text.mp4").write_text("this is no video")
    video.write(copy / "run" / "still.mp4", torch.zeros(1, 3, 32, 32, dtype=torch.uint8), fps=25)
    return copy


@pytest.mark.parametrize(("on_error", "code", "written"), [("raise", 2, 3), ("skip", 0, 3), ("stop", 2, 4)])
def test_damaged_videos(
    on_error: str, code: int, written: int, damaged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["extract", str(damaged), "-o", str(out), "--on-error", on_error, "--workers", "2"]
    for run in ("first", "second"):
        assert main(command) == code
        captured = capsys.readouterr()
        done = f"{written} videos written, 0 already" if run == "first" else f"0 videos written, {written} already"
        assert f"{done} there, {6 - written} failed" in captured.out
        assert captured.err.count("pyaction: ") == 6 - written
        assert "text.mp4 cannot be opened as a video" in captured.err
        assert "still.mp4 has 1 frame; flow needs two" in captured.err
        assert ("cut.avi is cut short" in captured.err) == (on_error != "stop")
    names = ["000101", "000102", "000103", "cut"] if on_error == "stop" else ["000101", "000102", "000103"]
    assert sorted(path.name for path in out.glob("*/*")) == names
    if on_error == "stop":
        with video.open(damaged / "wave" / "cut.avi", on_error="stop") as reader:
            assert len(list((out / "wave" / "cut").glob("img_*"))) == len(reader) < 7


def test_video_that_cannot_be_stored(data_set: Path, tmp_path: Path) -> None:
    """A JPEG has at most 65500 rows."""
    job = Job(content="frames", format="dense_flow", size=(70_000, 16))
    report = extract(data_set / "wave", tmp_path, job, workers=1)
    assert report.written == 0 and len(report.failures) == 2
    assert "000101.mp4 cannot be stored as .jpg of 16 x 70000 pixels" in report.failures[0]


def test_wrong_instruction_set_is_said_once(data_set: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYACTION_SIMD": "sse9"}
    command = [sys.executable, "-m", "pyaction.cli", "extract", str(data_set), "-o", str(tmp_path / "out")]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert run.returncode == 2 and run.stderr.count("PYACTION_SIMD must be") == 1


def test_what_is_there_is_left_alone(data_set: Path, tmp_path: Path) -> None:
    job = replace(BOTH, format="twostreamfusion")
    assert extract(data_set, tmp_path, job, workers=1).written == 3
    before = tree_of(tmp_path)
    marked = tmp_path / "jpegs_256" / "wave" / "000101" / "frame000001.jpg"
    times = marked.stat().st_mtime_ns
    shutil.rmtree(tmp_path / "tvl1_flow" / "v" / "run" / "000103")  # one of three folders: done anew
    report = extract(data_set, tmp_path, job, workers=1)
    assert (report.written, report.skipped) == (1, 2)
    assert tree_of(tmp_path) == before and marked.stat().st_mtime_ns == times


def test_foreign_results_are_not_overwritten(data_set: Path, tmp_path: Path) -> None:
    for folder in ("wave/000101", "run/000103"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "wave" / "000101" / "img_00001.jpg").write_bytes(b"mine")
    report = extract(data_set, tmp_path, BOTH, workers=1)
    assert report.written == 1 and len(report.failures) == 2
    assert "wave/000101 is in the way of the results of" in "".join(report.failures)
    assert (tmp_path / "wave" / "000101" / "img_00001.jpg").read_bytes() == b"mine"


def test_record_cut_off_by_a_full_disk(data_set: Path, tmp_path: Path) -> None:
    extract(data_set / "wave", tmp_path, BOTH, workers=1)
    before = tree_of(tmp_path)
    record = tmp_path / "finished.jsonl"
    last = record.read_text().splitlines()[-1]
    shutil.rmtree(tmp_path / "000102" if "000102" in last else tmp_path / "000101")
    record.write_text(record.read_text()[: -len(last) // 2])
    for written in (1, 0):
        report = extract(data_set / "wave", tmp_path, BOTH, workers=1)
        assert (report.written, report.failures) == (written, [])
    assert tree_of(tmp_path) == before


def test_full_disk(data_set: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands in for a full disk."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "pyaction.cli", "extract", str(data_set), "-o", str(out), "--workers", "2"]

    def limit_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, 1_000))

    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit_files, env=environment, check=False)
    assert run.returncode == 2, run.stderr
    assert re.fullmatch(rf"\s*pyaction: {out}/(wave|run)/00010\d: File too large\n", run.stderr), run.stderr
    assert set(tree_of(out)) == {".lock", "pyaction.json"}
    assert (
        extract(data_set, out, Job(content="both", format="dense_flow"), workers=1).written == 3
    )  # there is room again


def test_other_settings_are_refused(data_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["extract", str(data_set), "-o", str(tmp_path), "--workers", "1"]
    assert main(command) == 0
    before = tree_of(tmp_path)
    assert main([*command, "--layout", "mars", "--size", "32", "40", "--fps", "10"]) == 2
    text = (
        "holds results made with format 'dense_flow', not 'mars', size None, not [32, 40], fps None, not 10.0; choose"
    )
    assert text in capsys.readouterr().err
    assert tree_of(tmp_path) == before
    with pytest.raises(ValueError, match="content 'both', not 'flow'"):
        extract(data_set, tmp_path, Job(format="dense_flow"))


def test_another_method(data_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each pair of frames by itself; in this process, where the network can be a small one."""
    raft = flow.RAFT("small", weights=None, updates=2)
    monkeypatch.setattr("pyaction.flow.estimation._named", lambda name: {"raft": raft}[name])
    source, job = data_set / "wave" / "000101.mp4", Job(method="raft")
    with ResultFolder(tmp_path, job) as folder:
        write_results(source, folder, Path("000101"))
    with video.open(source) as reader:
        fields = raft(reader.frames()[None])[0]
    for number, field in enumerate(fields, 1):
        assert torch.allclose(flow.read(tmp_path / "000101" / f"flow_{number:05d}.flo").flow, field, atol=1e-4)


# Arguments, with {set} for the data set and {odd} for one of names that clash; and what the message says.
BAD_COMMANDS = {
    "missing path": ("nowhere -o out", "there is no file or folder nowhere"),
    "missing list": ("nowhere.csv -o out", "nowhere.csv cannot be read"),
    "root without a list": ("{set} -o out --root {set}", "root is of the paths in a list (.txt, .csv, .list)"),
    "two lists": ("a.txt b.txt -o out", "a list must be the only one; got 2 paths"),
    "no videos": ("{odd}/empty -o out", "empty holds no video file"),
    "no flow": ("{set} -o out --layout resnets_3d", "layout 'resnets_3d' has no flow"),
    "method": ("{set} -o out --method brox", "method must be one of tvl1, raft, hardware; got 'brox'"),
    "no GPU": ("{set} -o out --method hardware --device cpu", "method hardware is the engine of an NVIDIA GPU"),
    "no GPU by itself": ("{set} -o out --method hardware", "method hardware is the engine of an NVIDIA GPU"),
    "workers": ("{set} -o out --workers 0", "workers must be a whole number from 1; got 0"),
    "fps": ("{set} -o out --fps 0", "fps must be a number of frames per second greater than 0; got 0"),
    "size": ("{set} -o out --size 0 9", "height must be a number of pixels greater than 0; got 0"),
    "sizes": ("{set} -o out --size 9 9 --short-side 9", "give size or short_side, not both"),
    "same name": ("{odd}/twins -o out", "would both be written to a"),
    "same number": ("{odd}/numbers -o out --layout tsm_v1", "would both be written to flow/000007"),
    "no number": ("{odd}/nested -o out --layout tsm_v1", "video must be a number for"),
    "among others": ("{odd}/nested -o out", "would lie in a/b, among those of"),
}


@pytest.mark.parametrize("case", BAD_COMMANDS)
def test_bad_command(
    case: str, data_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = tmp_path / "odd"
    for name in ("twins/a.mp4", "twins/a.avi", "nested/a.mp4", "nested/a/b.mp4", "numbers/x/7.mp4", "numbers/y/07.mp4"):
        (odd / name).parent.mkdir(parents=True, exist_ok=True)
        (odd / name).touch()
    (odd / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    template, message = BAD_COMMANDS[case]
    assert main(["extract", *template.format(set=data_set, odd=odd).split()]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("pyaction: ") and message in error and error.count("\n") == 0
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "tsn"}, "format must be one of flo, npz, video, dense_flow, .*; got 'tsn'"),
        ({"content": "all"}, "content must be one of flow, frames, both; got 'all'"),
        ({"format": "npz", "content": "both"}, "format 'npz' is of flow alone; frames need a layout: dense_flow, "),
        ({"format": "npz", "fps": 5.0}, "format 'npz' has every frame; fps needs a layout: dense_flow, "),
    ],
)
def test_job_rejects(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Job(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"on_error": "skip"}, "on_error must be one of raise, stop; got 'skip'"),
        ({"device": "gpu"}, "device must be cpu, cuda or cuda:N; got 'gpu'"),
        ({"device": "cuda:-1"}, "device must be cpu, cuda or cuda:N; got 'cuda:-1'"),
        ({"device": "cuda:77"}, "device 'cuda:77' is not there: torch sees [0-9]+ CUDA devices"),
        ({"device": "cuda:1", "engine": "ray"}, "Ray chooses the GPU: device must be cpu or cuda; got 'cuda:1'"),
    ],
)
def test_extract_rejects(arguments: dict[str, str], message: str, data_set: Path, tmp_path: Path) -> None:
    """At once, and not of every video."""
    with pytest.raises(ValueError, match=message):
        extract(data_set, tmp_path / "out", BOTH, **arguments)
    assert not (tmp_path / "out").exists()


def test_layout_that_is_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["extract", "videos", "-o", "out", "--layout", "tsn"])
    assert stop.value.code == 2 and "invalid choice: 'tsn' (choose from" in capsys.readouterr().err


def test_without_ray(
    data_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["extract", str(data_set), "-o", str(tmp_path / "out"), "--engine", "ray"]) == 2
    assert capsys.readouterr().err.strip() == "pyaction: --engine ray needs Ray: pip install 'pyaction[ray]'"
