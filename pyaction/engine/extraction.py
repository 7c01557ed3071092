"""Frames and flow of whole data sets."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pyaction._native import simd_level
from pyaction.data.annotations import AnnotationList
from pyaction.engine.jobs import Job, OnError
from pyaction.engine.result_folder import ResultFolder, results_of
from pyaction.engine.sources import AnyPath, find_data_set, refuse_clashes
from pyaction.engine.tasks import Failure, Outcome, Stop, Task
from pyaction.video import VideoError

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
        device: Where to compute flow: "cpu" or "cuda". Where there are several GPUs, workers are spread over them.
        on_error: Damaged videos: "raise": no results, and their place among the failures; "stop": the results of what
            decodes before the damage, see `video.open`.
        engine: "local": processes on this machine; "ray": a Ray cluster, by Ray Data.
        ray_address: Of the cluster; None: that of RAY_ADDRESS, else a cluster of this machine's cores alone.
        on_progress: Called at first and after every video, always with the same report.

    Returns:
        What was done. It does not raise that single videos cannot be read.

    Raises:
        FileNotFoundError, ValueError: As in `find_data_set` and `refuse_clashes`; or the layout takes no such name; or
            `output` holds results of another job, or another run is writing to it.
        OSError: Results cannot be written (a full disk, say).
        RuntimeError: PYACTION_SIMD is wrong; or no process can be started; or a worker breaks in an unforeseen way.
        ImportError: engine="ray" without Ray.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be a whole number from 1; got {workers}")
    if engine not in ("local", "ray"):
        raise ValueError(f"engine must be local or ray; got {engine!r}")
    if job.method == "hardware" and device == "cpu":
        raise ValueError("method hardware is the engine of an NVIDIA GPU, which is none of device 'cpu'")
    path = Path(os.path.abspath(output))
    # Found before a folder is made for nothing. Earlier results may lie among the videos.
    videos = find_data_set(data_set, root, exclude=results_of(path))
    refuse_clashes(videos, job)
    simd_level()  # a wrong PYACTION_SIMD is said once, and not of every video
    start = time.perf_counter()
    report = ExtractReport(len(videos))
    with ResultFolder(path, job) as folder:
        tasks = [
            Task(Path(os.path.abspath(source)), name, job, folder.workplace, device, on_error)
            for source, name in _unfinished(videos, folder, report)
        ]
        on_progress(report)
        with closing(_outcomes(tasks, folder, workers, engine, ray_address)) as outcomes:
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


def _outcomes(
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
