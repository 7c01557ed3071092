"""Tasks done on a Ray cluster."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Generator, Sequence
from typing import Any

from pyaction.engine.tasks import Failure, Outcome, Task, prepare_worker

# Ray Data needs about 12 ms for each block of tasks, whose results come together.
_BLOCKS = 10_000


def run_on_ray(
    tasks: Sequence[Task], workers: int | None, address: str | None
) -> Generator[tuple[Task, Outcome], None, None]:
    """Yields the outcome of each task, in the order in which they come.

    Ray begins the task of a process or machine that dies again, three times at most.

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
        yield from _outcomes(tasks, workers)
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


def _outcomes(tasks: Sequence[Task], workers: int | None) -> Generator[tuple[Task, Outcome], None, None]:
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = -1  # a video that kills whoever takes it must not end the run
    context.execution_no_progress_timeout_s = -1
    rows = [{"number": number, "task": pickle.dumps(task)} for number, task in enumerate(tasks)]
    # Every block of rows is one task of Ray's.
    data = ray.data.from_items(rows, override_num_blocks=min(len(rows), _BLOCKS)).map(
        _work,
        num_cpus=1,
        num_gpus=1 if tasks[0].device == "cuda" else None,
        compute=ray.data.TaskPoolStrategy(size=workers),
    )
    left = dict(enumerate(tasks))
    for row in data.iter_rows():
        yield left.pop(row["number"]), pickle.loads(row["outcome"])
    for task in left.values():
        yield task, Failure(f"{task.source} was given up: the Ray processes that did it died")


def _work(row: dict[str, Any]) -> dict[str, Any]:
    prepare_worker()
    outcome = pickle.loads(row["task"]).run()
    return {"number": row["number"], "outcome": pickle.dumps(outcome)}
