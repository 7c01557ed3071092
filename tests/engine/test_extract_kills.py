"""`pyaction extract` is killed, or its processes are, and goes on as if nothing had been."""

import multiprocessing
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from engine.moving_texture import write_data_set
from engine.trees import record_of, tree_of

from pyaction.engine import ExtractReport, Job, extract
from pyaction.engine.local_workers import run_locally
from pyaction.engine.tasks import Failure

JOB = Job(content="both", format="twostreamfusion")  # a video has three folders
DONE = "tvl1_flow/v/*/*"  # the last of them
KILLS = 10


@pytest.fixture(scope="module")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 videos, some of which take longer than others."""
    return write_data_set(tmp_path_factory.mktemp("set"), (8 + number % 5 * 4 for number in range(40)), 72, 96)


@pytest.fixture(scope="module")
def undisturbed(data_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    assert extract(data_set, out, JOB, workers=2).written == 40
    return out


# Starts commands that are a copy of it, at once: importing everything takes longer than ten kills.
LAUNCHER = """
import os, sys
from pyaction.cli import main
from pyaction.engine import extraction, local_workers
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        os.setsid()
        os.dup2(2, 1)
        os._exit(main(line.split()))
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def launcher() -> Iterator[subprocess.Popen[str]]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", LAUNCHER], text=True, **pipes) as process:
        yield process


def arguments(data_set: Path, out: Path) -> list[str]:
    return ["extract", str(data_set), "-o", str(out), "--workers", "2", "--layout", JOB.format]


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happens"
        time.sleep(0.005)


def is_writing(out: Path, before: set[Path]) -> bool:
    """Whether results are being made, in another workplace than before."""
    try:
        return any(list(place.iterdir()) for place in out.glob(".partial-*") if place not in before)
    except FileNotFoundError:
        return False


def group_has_ended(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def test_killed_at_any_moment(
    data_set: Path, undisturbed: Path, tmp_path: Path, launcher: subprocess.Popen[str]
) -> None:
    """Either the one process that the user sees, or all at once; ten times in a row, each at once begun anew."""
    moments = random.Random(5)
    whole = tree_of(undisturbed)
    made = []
    for kill in range(KILLS):
        before = set(tmp_path.glob(".partial-*"))
        print(*arguments(data_set, tmp_path), file=launcher.stdin, flush=True)
        pid = int(launcher.stdout.readline())
        wait_until(partial(is_writing, tmp_path, before))
        done = len(list(tmp_path.glob(DONE))) + moments.randint(0, 2)  # of 40, in ten runs: some are always left
        wait_until(lambda done=done: len(list(tmp_path.glob(DONE))) >= done)
        time.sleep(moments.uniform(0, 0.03))
        (os.kill if kill % 2 else os.killpg)(pid, signal.SIGKILL)
        assert int(launcher.stdout.readline()) == -signal.SIGKILL
        if kill == 1:
            wait_until(partial(group_has_ended, pid))
        seen = {name: digest for name, digest in tree_of(tmp_path).items() if not name.startswith(".partial-")}
        # What is there is right, and whole folders of it.
        assert seen.items() <= whole.items()
        for folder in [name for name in seen if Path(name).name.isdecimal()]:
            assert {name for name in whole if name.startswith(folder)} <= set(seen)
        made.append(len(seen))
    assert made == sorted(made) and len(set(made)) > KILLS // 2, f"most were killed while they wrote: {made}"
    report = extract(data_set, tmp_path, JOB, workers=2)
    assert report.failures == [] and report.skipped > 0
    assert tree_of(tmp_path) == whole
    assert record_of(tmp_path) == record_of(undisturbed)
    report = extract(data_set, tmp_path, JOB, workers=2)
    assert (report.written, report.skipped, report.failures) == (0, 40, [])


def test_killed_between_the_folders_of_a_video(
    data_set: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All three are noted before the first is moved; here the second move never comes."""
    rename, moved = os.rename, []

    def stopping(source: Path, target: Path) -> None:
        moved.append(target)
        if len(moved) == 5:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "rename", stopping)
    with pytest.raises(KeyboardInterrupt):
        extract(data_set, tmp_path, JOB, workers=1)
    monkeypatch.undo()
    assert len([name for name in tree_of(tmp_path) if Path(name).name.isdecimal()]) == 4
    report = extract(data_set, tmp_path, JOB, workers=2)
    assert (report.written, report.skipped, report.failures) == (39, 1, [])
    assert tree_of(tmp_path) == tree_of(undisturbed)


def test_interrupted(data_set: Path, undisturbed: Path, tmp_path: Path) -> None:
    """As a terminal does it: all processes get the signal."""
    command = [sys.executable, "-m", "pyaction.cli", *arguments(data_set, tmp_path)]
    with subprocess.Popen(command, start_new_session=True, text=True, stderr=subprocess.PIPE) as run:
        wait_until(lambda: list(tmp_path.glob(DONE)))
        os.killpg(run.pid, signal.SIGINT)
        _, err = run.communicate(timeout=60)
    assert run.returncode == 130
    assert err.strip() == "pyaction: stopped; the same command goes on where it stopped"
    assert not list(tmp_path.glob(".partial*"))
    wait_until(partial(group_has_ended, run.pid))
    assert extract(data_set, tmp_path, JOB, workers=2).failures == []
    assert tree_of(tmp_path) == tree_of(undisturbed)


def test_worker_that_dies_is_replaced(data_set: Path, undisturbed: Path, tmp_path: Path) -> None:
    """The older process each time: a video that has lost one already is with the younger."""
    killed = []

    def kill_one(report: ExtractReport) -> None:
        if report.written in (3, 20) and report.written not in killed:
            killed.append(report.written)
            older = min(process.pid or 0 for process in multiprocessing.active_children())
            os.kill(older, signal.SIGKILL)

    report = extract(data_set, tmp_path, JOB, workers=2, on_progress=kill_one)
    assert killed == [3, 20]
    assert (report.written, report.failures) == (40, [])
    assert tree_of(tmp_path) == tree_of(undisturbed)


def test_task_that_ends_its_process_is_given_up(tmp_path: Path) -> None:
    """In place of videos: calls, two of which end whoever makes them."""
    calls = {
        "a": partial(abs, -7),
        "killed": partial(signal.raise_signal, signal.SIGKILL),
        "b": partial(abs, -8),
        "ended": partial(os._exit, 3),
        "c": partial(abs, -9),
    }
    tasks = [SimpleNamespace(source=Path(name), device="cpu", run=call) for name, call in calls.items()]
    with (tmp_path / "lock").open("w") as lock:
        outcomes = {str(task.source): outcome for task, outcome in run_locally(tasks, 2, lock.fileno())}
    given_up = "was given up: the process that did it"
    assert outcomes == {
        "a": 7,
        "b": 8,
        "c": 9,
        "killed": Failure(f"killed {given_up} was killed by signal 9 (SIGKILL), 2 times"),
        "ended": Failure(f"ended {given_up} ended with code 3, 2 times"),
    }


def test_first_task_does_not_hold_up_the_others(tmp_path: Path) -> None:
    """In place of videos: calls, the first of which takes longer than all others."""
    calls = {"long": partial(select.select, [], [], [], 3), **{str(number): partial(abs, -7) for number in range(6)}}
    tasks = [SimpleNamespace(source=Path(name), device="cpu", run=call) for name, call in calls.items()]
    with (tmp_path / "lock").open("w") as lock:
        order = [str(task.source) for task, _ in run_locally(tasks, 2, lock.fileno())]
    assert order == ["0", "1", "2", "3", "4", "5", "long"]


def test_script_without_the_guard(data_set: Path, tmp_path: Path) -> None:
    """Workers import the script, and must not begin it again."""
    script = tmp_path / "script.py"
    script.write_text(f"from pyaction.engine import extract\nextract({str(data_set)!r}, 'out', workers=2)\n")
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert run.returncode == 1
    assert "a script must call engine.extract below if __name__ == '__main__'" in run.stderr
