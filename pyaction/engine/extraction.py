"""Frames and flow of whole data sets."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import torch

from pyaction._native import simd_level
from pyaction.data.annotations import AnnotationList
from pyaction.engine.jobs import Job, OnError
from pyaction.engine.result_folder import ResultFolder, results_of
from pyaction.engine.sources import AnyPath, find_data_set, refuse_clashes
from pyaction.engine.tasks import Failure, Outcome, Stop, Task
from pyaction.video import VideoError

Run = Callable[[Sequence[Task], ResultFolder], Generator[tuple[Task, Outcome], None, None]]
"""Yields the outcome of each task, in the order in which they come."""

DEFAULT_JOB = Job(content="both", format="dense_flow")


@dataclass
class ExtractReport:
    """How far a run is, and at its end what it did."""

    total: int
    """Videos of the data set."""
    written: int = 0
    skipped: int = 0
    """They were there already."""
    failures: list[str] = field(default_factory=list)
    """A sentence for each video that has no results."""
    frames: int = 0
    """Decoded frames of the videos written, or those at the job's rate."""
    seconds: float = 0.0

    @property
    def done(self) -> int:
        """Videos that nothing more is to be done about."""
        return self.written + self.skipped + len(self.failures)


def extract(
    data_set: AnyPath | Sequence[AnyPath] | AnnotationList,
    output: AnyPath,
    job: Job = DEFAULT_JOB,
    *,
    root: AnyPath | None = None,
    workers: int | None = None,
    device: str = "cpu",
    on_error: OnError = "raise",
    engine: Literal["local", "ray"] = "local",
    ray_address: str | None = None,
    on_progress: Callable[[ExtractReport], None] = lambda report: None,
) -> ExtractReport:
    """Writes the frames of all videos of a data set, or the flow between neighbouring ones, or both.

    Begun again after whatever ended it, it goes on where it was: a video's results appear under their names when they
    are complete, and not before. They are the same bytes for any number of workers and either engine. What is written
    is found by `FrameLayout.detect`.

    A worker is a process with one thread for each of decoding, computing and writing. A script calls this below
    ``if __name__ == "__main__":``, because workers import it.

    Args:
        data_set: A folder that is searched for videos at any depth; or several, or videos; or annotations; or a file of
            lines "path label" (.txt, .csv or .list). Results keep the folders that the videos lie in.
        output: The folder for the results; made if need be. With Ray, all machines must see it at this path.
        job: What to make of each video.
        root: Folder that the paths in annotations or a list are relative to; None: the list's own.
        workers: How many videos at a time; None: as many as this process may use cores, or the Ray cluster has.
        device: Where to compute flow: "cpu", "cuda" or, of this machine, "cuda:1", say. With "cuda", workers are spread
            over all GPUs.
        on_error: Damaged videos: "raise": no results, and their place among the failures; "stop": the results of what
            decodes before the damage, see `video.open`.
        engine: "local": processes on this machine; "ray": a Ray cluster, by Ray Data.
        ray_address: Of the cluster; None: that of RAY_ADDRESS, else a cluster of this machine's cores alone.
        on_progress: Called at first and after every video, always with the same report.

    Returns:
        What was done. It does not raise that single videos cannot be read.

    Raises:
        FileNotFoundError, ValueError: As in `find_data_set` and `refuse_clashes`; or an argument is none of those
            above; or the layout takes no such name; or `output` holds results of another job, or another run is
            writing to it.
        OSError: Results cannot be written (a full disk, say).
        RuntimeError: PYACTION_SIMD is wrong; or no process can be started; or a worker breaks in an unforeseen way.
        ImportError: engine="ray" without Ray, or what the job's method needs is not installed.
    """
    _check_arguments(job, workers, device, on_error, engine)
    # Earlier results may lie among the videos.
    videos = find_data_set(data_set, root, exclude=results_of(Path(output)))
    run = partial(_run_side_by_side, workers=workers, engine=engine, ray_address=ray_address)
    return finish_videos(videos, Path(output), job, device, on_error, run, on_progress)


def _check_arguments(job: Job, workers: int | None, device: str, on_error: str, engine: str) -> None:
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be a whole number from 1; got {workers}")
    if engine not in ("local", "ray"):
        raise ValueError(f"engine must be local or ray; got {engine!r}")
    if on_error not in get_args(OnError):
        raise ValueError(f"on_error must be one of {', '.join(get_args(OnError))}; got {on_error!r}")
    if not re.fullmatch("cpu|cuda(:[0-9]+)?", device):
        raise ValueError(f"device must be cpu, cuda or cuda:N; got {device!r}")
    if job.method == "hardware" and device == "cpu":
        raise ValueError("method hardware is the engine of an NVIDIA GPU, which is none of device 'cpu'")
    if engine == "ray" and ":" in device:
        raise ValueError(f"Ray chooses the GPU: device must be cpu or cuda; got {device!r}")
    if engine == "local" and device != "cpu":
        count = torch.cuda.device_count()
        if int(device.partition(":")[2] or 0) >= count:
            raise ValueError(f"device {device!r} is not there: torch sees {count} CUDA devices")


def finish_videos(
    videos: dict[Path, Path],
    output: Path,
    job: Job,
    device: str,
    on_error: OnError,
    run: Run,
    on_progress: Callable[[ExtractReport], None],
) -> ExtractReport:
    """Does what `extract` does with those videos (source -> name) that are not finished; `run` does their tasks."""
    refuse_clashes(videos, job)  # before a folder is made for nothing
    simd_level()  # a wrong PYACTION_SIMD is said once, and not of every video
    start = time.perf_counter()
    report = ExtractReport(len(videos))
    with ResultFolder(Path(os.path.abspath(output)), job) as folder:
        tasks = [
            Task(Path(os.path.abspath(source)), name, job, folder.workplace, device, on_error)
            for source, name in _unfinished(videos, folder, report)
        ]
        on_progress(report)
        with closing(run(tasks, folder)) as outcomes:
            for task, outcome in outcomes:
                _settle(task, outcome, folder, report)
                report.seconds = time.perf_counter() - start
                on_progress(report)
    return report


def _unfinished(videos: dict[Path, Path], folder: ResultFolder, report: ExtractReport) -> Iterator[tuple[Path, Path]]:
    for source, name in videos.items():
        try:
            finished = folder.is_finished(name, source)
        except VideoError as error:
            report.failures.append(str(error))
            continue
        report.skipped += finished
        if not finished:
            yield source, name


def _run_side_by_side(
    tasks: Sequence[Task],
    folder: ResultFolder,
    workers: int | None,
    engine: Literal["local", "ray"],
    ray_address: str | None,
) -> Generator[tuple[Task, Outcome], None, None]:
    if engine == "ray":
        from pyaction.engine.ray_workers import run_on_ray

        return run_on_ray(tasks, workers, ray_address)
    from pyaction.engine.local_workers import run_locally

    return run_locally(tasks, workers or len(os.sched_getaffinity(0)), folder.lock)


def _settle(task: Task, outcome: Outcome, folder: ResultFolder, report: ExtractReport) -> None:
    """Puts what was made in its place, and notes what was not."""
    if isinstance(outcome, Stop):
        raise outcome.error from RuntimeError(outcome.trace)
    if isinstance(outcome, Failure):
        report.failures.append(outcome.reason)
        return
    try:
        folder.place(task.name, task.source, outcome.folder)
    except VideoError as error:
        report.failures.append(str(error))
        return
    report.written += 1
    report.frames += max(outcome.num_frames, outcome.num_flows + 1)
