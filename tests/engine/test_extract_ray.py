"""`pyaction extract --engine ray` on a cluster of this machine: the same results, whatever is killed."""

import subprocess
import sys
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import ray.data
from engine.moving_texture import write_data_set
from engine.trees import record_of, tree_of

from pyaction.engine import Job, extract
from pyaction.engine.ray_workers import run, run_on_ray
from pyaction.engine.tasks import Failure

JOB = Job(content="both", format="dense_flow")


@pytest.fixture(scope="module")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_data_set(tmp_path_factory.mktemp("set"), [16] * 16, 144, 192)
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
    with start(data_set, tmp_path) as driver:
        wait_for_results(tmp_path, 2)
        processes = psutil.Process(driver.pid).children(recursive=True)
        working = [process for process in processes if process.name().startswith("ray::Map(")]
        assert 1 <= len(working) <= 2
        working[0].kill()
        out, err = driver.communicate(timeout=120)
    assert driver.returncode == 2, err
    assert "16 videos written, 0 already there, 1 failed" in out
    assert err.count("text.mp4 cannot be opened as a video") == err.count("pyaction: ") == 1
    assert tree_of(tmp_path) == tree_of(undisturbed)
    assert record_of(tmp_path) == record_of(undisturbed)


def test_driver_that_is_killed(data_set: Path, undisturbed: Path, tmp_path: Path) -> None:
    """What it has begun on Ray is finished without."""
    with start(data_set, tmp_path) as driver:
        wait_for_results(tmp_path, 3)
        driver.kill()
    report = extract(data_set, tmp_path, JOB, workers=2)
    assert report.skipped >= 3 and report.written == 16 - report.skipped and len(report.failures) == 1
    assert tree_of(tmp_path) == tree_of(undisturbed)


def test_task_that_ends_its_processes_is_given_up(tmp_path: Path) -> None:
    """Ray would begin it again for ever. A folder stays behind each time."""
    task = SimpleNamespace(source=Path("video.mp4"), workplace=tmp_path, run=partial(abs, -7))
    for number in range(3):
        assert run(task, "attempt-4-") == 7
        assert len(list(tmp_path.iterdir())) == number  # nothing of what succeeds
        (tmp_path / f"attempt-4-{number}").mkdir()
    assert run(task, "attempt-4-") == Failure("video.mp4 was given up: the process that did it died, 3 times")
    assert run(task, "attempt-44-") == 7


def test_every_outcome_comes_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many tasks there are: blocks of several would be lost with a driver that is killed."""
    blocks = []
    from_items = ray.data.from_items

    def noting(rows: list[object], *, override_num_blocks: int) -> ray.data.Dataset:
        blocks.append((len(rows), override_num_blocks))
        return from_items(rows, override_num_blocks=override_num_blocks)

    monkeypatch.setattr(ray.data, "from_items", noting)
    monkeypatch.setattr("pyaction.engine.ray_workers._BLOCKS", 3)
    tasks = [
        SimpleNamespace(source=Path(str(number)), device="cpu", workplace=tmp_path, run=partial(abs, -number))
        for number in range(10, 18)
    ]
    with closing(run_on_ray(tasks, 2, None)) as outcomes:
        assert sorted((str(task.source), outcome) for task, outcome in outcomes) == [
            (str(number), number) for number in range(10, 18)
        ]
    assert blocks == [(3, 3), (3, 3), (2, 2)]


def test_machine_that_does_not_see_the_folder(tmp_path: Path) -> None:
    task = SimpleNamespace(source=Path("video.mp4"), workplace=tmp_path / "a" / "b", run=partial(abs, -7))
    assert f"there is no {tmp_path}/a on" in str(run(task, "attempt-4-").error)
