"""`pyaction extract --engine ray` on a cluster of this machine: the same results, whatever is killed."""

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from engine.moving_texture import moving_texture
from engine.trees import record_of, tree_of

from pyaction import video
from pyaction.engine import Job, extract
from pyaction.engine.ray_workers import run_on_ray
from pyaction.engine.tasks import Failure

JOB = Job(content="both", format="dense_flow")


@pytest.fixture(scope="module")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("set")
    for number in range(16):
        path = root / f"class{number % 3}" / f"{number:02d}.avi"
        path.parent.mkdir(exist_ok=True)
        video.write(path, moving_texture(16, 144, 192), fps=25)
    (root / "class0" / "text.mp4").write_text("this is no video")
    return root


@pytest.fixture(scope="module")
def undisturbed(data_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    assert extract(data_set, out, JOB, workers=2).written == 16
    return out


def start(data_set: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pyaction.cli", "extract", str(data_set), "-o", str(out),
               "--engine", "ray", "--workers", "2"]  # fmt: skip
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for_results(out: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(list(out.glob("class*/*"))) < count:
        assert time.monotonic() < deadline, "nothing happens"
        time.sleep(0.01)


def test_worker_that_is_killed(data_set: Path, undisturbed: Path, tmp_path: Path) -> None:
    with start(data_set, tmp_path) as run:
        wait_for_results(tmp_path, 2)
        processes = psutil.Process(run.pid).children(recursive=True)
        working = [process for process in processes if process.name().startswith("ray::Map(")]
        assert 1 <= len(working) <= 2
        working[0].kill()
        out, err = run.communicate(timeout=120)
    assert run.returncode == 2, err
    assert "16 videos written, 0 already there, 1 failed" in out
    assert err.count("text.mp4 cannot be opened as a video") == err.count("pyaction: ") == 1
    assert tree_of(tmp_path) == tree_of(undisturbed)
    assert record_of(tmp_path) == record_of(undisturbed)


def test_driver_that_is_killed(data_set: Path, undisturbed: Path, tmp_path: Path) -> None:
    """What it has begun on Ray is finished without."""
    with start(data_set, tmp_path) as run:
        wait_for_results(tmp_path, 3)
        run.kill()
    report = extract(data_set, tmp_path, JOB, workers=2)
    assert report.skipped >= 3 and report.written == 16 - report.skipped and len(report.failures) == 1
    assert tree_of(tmp_path) == tree_of(undisturbed)


def test_task_that_ends_its_process_is_given_up(tmp_path: Path) -> None:
    """In place of videos: calls, one of which ends whoever makes it; and one on a machine that lacks the folder."""
    calls = {"a": partial(abs, -7), "killed": partial(os._exit, 3), "b": partial(abs, -8)}
    tasks = [
        SimpleNamespace(source=Path(name), device="cpu", workplace=tmp_path, run=call) for name, call in calls.items()
    ]
    elsewhere = SimpleNamespace(source=Path("c"), device="cpu", workplace=tmp_path / "a" / "b", run=partial(abs, -9))
    outcomes = {str(task.source): outcome for task, outcome in run_on_ray([*tasks, elsewhere], 2, None)}
    assert outcomes.pop("killed") == Failure("killed was given up: the process that did it died, 3 times")
    assert f"there is no {tmp_path}/a on" in str(outcomes.pop("c").error)
    assert outcomes == {"a": 7, "b": 8}
