"""Tasks done on a Ray cluster."""

from __future__ import annotations

import logging
import os
import pickle
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from pyaction.engine.tasks import Failure, Outcome, Stop, Task, prepare_worker

_ATTEMPTS = 3
# Of one run of Ray Data, which needs about 12 ms for each. A block holds one task: the outcomes of several would come
# together, and be lost where this process is killed before.
_BLOCKS = 10_000


def run_on_ray(
    tasks: Sequence[Task], workers: int | None, address: str | None
) -> Generator[tuple[Task, Outcome], None, None]:
    """Yields the outcome of each task, in the order in which they come.

    Ray begins the task of a process or machine that dies again; it is given up where that happens three times.

    Args:
        tasks: What to do. Each takes a CPU, and a GPU where it computes on one.
        workers: How many at a time; None: as many as the cluster has room for.
        address: Of the cluster; None: the one that this process is connected to, else the one of RAY_ADDRESS, else one
            of this machine, which is started with `workers` CPUs, and ended.

    Raises:
        ImportError: Ray is not installed.
        ConnectionError: There is no cluster at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ImportError("--engine ray needs Ray: pip install 'pyaction[ray]'") from error

    connects = not ray.is_initialized()
    if connects:
        _connect(address or os.environ.get("RAY_ADDRESS"), workers)
    try:
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        numbered = list(enumerate(tasks))
        for begin in range(0, len(tasks), _BLOCKS):
            yield from _outcomes(dict(numbered[begin : begin + _BLOCKS]), workers)
    finally:
        if connects:
            ray.shutdown()


def _connect(address: str | None, workers: int | None) -> None:
    import ray

    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address:
        ray.init(address=address, **quiet)
    else:
        ray.init(address="local", num_cpus=workers, include_dashboard=False, **quiet)


def _outcomes(tasks: dict[int, Task], workers: int | None) -> Generator[tuple[Task, Outcome], None, None]:
    import ray.data

    rows = [{"number": number, "task": pickle.dumps(task)} for number, task in tasks.items()]
    # Every block of rows is one task of Ray's.
    data = ray.data.from_items(rows, override_num_blocks=len(rows))
    data.context.enable_progress_bars = False
    data.context.print_on_execution_start = False
    data.context.execution_no_progress_timeout_s = -1  # some videos last for hours
    done = data.map(
        _work,
        num_cpus=1,
        num_gpus=1 if next(iter(tasks.values())).device == "cuda" else None,
        compute=ray.data.TaskPoolStrategy(size=workers),
    )
    for row in done.iter_rows():
        yield tasks[row["number"]], pickle.loads(row["outcome"])


def _work(row: dict[str, Any]) -> dict[str, Any]:
    prepare_worker()
    task: Task = pickle.loads(row["task"])
    return {"number": row["number"], "outcome": pickle.dumps(run(task, f"attempt-{row['number']}-"))}


def run(task: Task, prefix: str) -> Outcome:
    """Runs a task, but not where it has ended too many processes before: Ray itself would go on for ever."""
    if not task.workplace.is_dir():
        text = f"there is no {task.workplace.parent} on {os.uname().nodename}; all machines must see it at this path"
        return Stop(RuntimeError(text), "")
    # A folder stays behind for each process that died, where every machine sees it.
    if len(list(task.workplace.glob(f"{prefix}*"))) == _ATTEMPTS:
        return Failure(f"{task.source} was given up: the process that did it died, {_ATTEMPTS} times")
    attempt = Path(tempfile.mkdtemp(prefix=prefix, dir=task.workplace))
    outcome = task.run()
    attempt.rmdir()
    return outcome
