"""One video file in, its frames and flow out."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import torch
from torch import Tensor

from pyaction import video
from pyaction.data.sampling import resample_indices
from pyaction.engine.ahead import Ahead
from pyaction.engine.jobs import Job, OnError
from pyaction.engine.result_folder import ResultFolder, remove
from pyaction.engine.sinks import open_sink

OnProgress = Callable[[int, int | None], None]
"""Called with the number of pairs (or else frames) done, and of all as the file's header has it, or None."""

_AT_A_TIME = 16
_AHEAD = 16  # frames, and pairs: the slack between threads of uneven pace


@dataclass(frozen=True)
class Made:
    """The whole results of one video, where they were made."""

    folder: Path
    """Holds the job's targets, and nothing else."""
    num_frames: int
    """0 where they are not wanted."""
    num_flows: int
    """As above."""


def no_progress(done: int, expected: int | None) -> None:
    """Tells nobody, see `OnProgress`."""


def write_results(
    source: Path,
    folder: ResultFolder,
    name: Path,
    *,
    device: str = "cpu",
    on_error: OnError = "raise",
    on_progress: OnProgress = no_progress,
) -> Made | None:
    """Writes the frames of one video, or the flow between neighbouring ones, or both, as the folder's job says.

    One thread decodes, one computes (on all of torch's threads), and the calling one writes. What is written appears
    under its own name when it is complete, and not before. A video whose results are there already is left alone.

    Args:
        source: The video file.
        folder: Where the results belong, and what they are to be; open.
        name: Name of the results within the folder, without suffix.
        device: Where to compute: "cpu" or "cuda".
        on_error: What to do where the video is damaged, see `video.open`.
        on_progress: See `OnProgress`.

    Returns:
        How many there are, or None if they were there already.

    Raises:
        video.VideoError: The video cannot be read or has fewer than two frames, or something else has its name.
        OSError: The results cannot be written; nothing is left behind.
    """
    if source.exists() and folder.is_finished(name, source):
        return None
    made = make_results(source, folder.job, name, folder.workplace, device, on_error, on_progress)
    folder.place(name, source, made.folder)
    return made


def make_results(
    source: Path,
    job: Job,
    name: Path,
    workplace: Path,
    device: str,
    on_error: OnError,
    on_progress: OnProgress = no_progress,
) -> Made:
    """Does the work of `write_results`, but leaves the results in a new folder in `workplace`."""
    done = 0
    if device == "cuda":  # the computing thread would take another device
        device = f"cuda:{torch.cuda.current_device()}"
    with ExitStack() as stack:
        reader = stack.enter_context(_reading(source, job, on_error))
        steps = stack.enter_context(Ahead(_steps(source, job, on_error, device), _AHEAD))
        expected = reader.expected_length and reader.expected_length - (job.content == "flow")
        on_progress(done, expected)
        batches = iter(lambda: list(islice(steps, _AT_A_TIME)), [])
        first = next(batches)  # a video without flow ends here
        made = Path(tempfile.mkdtemp(dir=workplace))
        try:
            with open_sink(made, job, name, reader) as sink:
                for batch in chain([first], batches):
                    frames, flow = zip(*batch, strict=True)
                    sink.write([one for one in frames if one is not None], [one for one in flow if one is not None])
                    done += len(batch)
                    on_progress(done, expected)
        except BaseException as error:
            remove(made)
            if isinstance(error, OSError) and error.errno and str(error.filename or made).startswith(str(made)):
                target = workplace.parent / job.targets(name)[0]
                raise OSError(error.errno, error.strerror, str(target)) from error
            raise
        return Made(made, sink.num_frames, sink.num_flows)


def _reading(source: Path, job: Job, on_error: OnError) -> video.Reader:
    """Opens a video. What is wrong with one file is a VideoError: it is no reason to leave the others undone."""
    try:
        return video.open(source, size=job.size, short_side=job.short_side, on_error=on_error)
    except OSError as error:
        reason = f"{source}: {error.strerror}" if error.strerror else str(error)
        raise video.VideoError(reason) from error


def _steps(
    source: Path, job: Job, on_error: OnError, device: str
) -> Generator[tuple[Tensor | None, Tensor | None], None, None]:
    """Yields each frame [3, H, W] with the flow [2, H, W] that leads to it, as far as they are wanted."""
    stream = None if job.content == "frames" else job.flow_stream()
    count = 0
    with Ahead(_frames_of(source, job, on_error), _AHEAD) as frames:
        for frame in frames:
            count += 1
            flow = stream.push(frame[None].to(device)) if stream else None
            if flow is not None or job.content != "flow":
                yield None if job.content == "flow" else frame, None if flow is None else flow[0]
    if count < 2 and stream:
        raise video.VideoError(f"{source} has {count} frame; flow needs two")
    if count == 0:
        raise video.VideoError(f"{source} has no frame that decodes; copy or download it again")


def _frames_of(source: Path, job: Job, on_error: OnError) -> Generator[Tensor, None, None]:
    """Yields every frame, [3, H, W], or those at the job's rate. The reader is made here: it belongs to one thread."""
    with _reading(source, job, on_error) as reader:
        if job.fps is None or len(reader) == 0:
            yield from reader
            return
        repeats = torch.bincount(resample_indices(reader.timestamps, job.fps), minlength=len(reader)).tolist()
        for frame, repeat in zip(reader, repeats, strict=True):
            for _ in range(repeat):
                yield frame
