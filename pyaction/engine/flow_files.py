"""Video files in, optical-flow files out."""

import os
import shutil
from collections.abc import Callable, Collection, Generator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from pyaction import ops, video
from pyaction.engine.ahead import Ahead
from pyaction.engine.flow_folder import FlowFolder
from pyaction.engine.flow_sinks import SINKS, FlowJob

VIDEO_SUFFIXES = frozenset(
    ".3gp .avi .flv .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv".split(),
)
_PAIRS_AT_A_TIME = 16
_AHEAD = 16  # frames, and pairs: the slack between threads of uneven pace


def find_videos(paths: Sequence[str | os.PathLike[str]], exclude: Collection[Path] = ()) -> dict[Path, Path]:
    """Lists the videos behind some paths, and where the flow of each belongs.

    Args:
        paths: Video files, and folders that are searched through for files with a video's suffix. Hidden files are
            passed by.
        exclude: Resolved paths to pass by in the folders: results of earlier runs, which may be videos too.

    Returns:
        source -> target: the file's name without suffix; for a file found in a folder, with the folders between.

    Raises:
        FileNotFoundError: A path does not exist.
        ValueError: A folder holds no video, or two videos would have one target.
    """
    targets: dict[Path, Path] = {}
    for path in map(Path, paths):
        if path.is_dir():
            files = (file for file in path.rglob("*") if file.suffix.lower() in VIDEO_SUFFIXES)
            found = [
                file
                for file in sorted(files)
                if not (file.name.startswith(".") or file.is_dir() or file.resolve() in exclude)
            ]
            if not found:
                raise ValueError(f"{path} holds no video file ({' '.join(sorted(VIDEO_SUFFIXES))})")
            targets.update((file, file.relative_to(path).with_suffix("")) for file in found)
        elif path.exists():
            targets[path] = Path(path.stem)
        else:
            raise FileNotFoundError(f"there is no file or folder {path}; check the path")
    sources: dict[Path, Path] = {}
    for source, target in targets.items():
        other = sources.setdefault(target, source)
        if other != source:
            raise ValueError(f"{other} and {source} would both be written to {target}; run them with two -o folders")
    return targets


def write_flow(
    source: Path,
    folder: FlowFolder,
    name: Path,
    *,
    device: str = "cpu",
    on_error: Literal["raise", "stop"] = "raise",
    on_progress: Callable[[int, int | None], None] = lambda done, expected: None,
) -> int | None:
    """Writes the flow between all neighbouring frames of one video.

    One thread decodes, one computes (on all of torch's threads), and the calling one writes. What is written appears
    under its own name when it is complete, and not before. A video whose flow is there already is left alone.

    Args:
        source: The video file.
        folder: Where the result belongs, and what it is to be; open.
        name: Name of the result within the folder, without suffix.
        device: Where to compute: "cpu" or "cuda".
        on_error: What to do where the video is damaged, see `video.open`.
        on_progress: Called with the number of pairs done, and of all pairs as the file's header has it, or None.

    Returns:
        The number of pairs of frames, or None if the flow was there already.

    Raises:
        video.VideoError: The video cannot be read or has fewer than two frames, or something else has its name.
        OSError: The result cannot be written; nothing is left behind.
    """
    job = folder.job
    sink_type = SINKS[job.format]
    target = folder.path / name.with_name(name.name + sink_type.suffix)
    partial = target.with_name(f".partial.{target.name}")
    if source.exists() and folder.is_finished(target, source):
        return None
    done = 0
    if device == "cuda":  # the computing thread would take another device
        device = f"cuda:{torch.cuda.current_device()}"
    with _reading(source, job, on_error) as reader, Ahead(_flow_of(source, job, on_error, device), _AHEAD) as flow:
        expected = reader.expected_length and reader.expected_length - 1
        on_progress(done, expected)
        batches = iter(lambda: list(islice(flow, _PAIRS_AT_A_TIME)), [])
        first = next(batches)  # a video without flow ends here, and leaves no folder behind
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _remove(partial)  # of a run that was killed
            with sink_type(partial, job, reader) as sink:
                for batch in chain([first], batches):
                    sink.write(torch.cat(batch).cpu())
                    done += len(batch)
                    on_progress(done, expected)
            os.replace(partial, target)
        except BaseException as error:
            _remove(partial)
            if isinstance(error, OSError) and error.errno and str(error.filename or partial).startswith(str(partial)):
                raise OSError(error.errno, error.strerror, str(target)) from error
            raise
    folder.note_finished(target, source)
    return done


def _reading(source: Path, job: FlowJob, on_error: Literal["raise", "stop"]) -> video.Reader:
    """Opens a video. What is wrong with one file is a VideoError: it is no reason to leave the others undone."""
    try:
        return video.open(source, color="gray", short_side=job.short_side, on_error=on_error)
    except OSError as error:
        reason = f"{source}: {error.strerror}" if error.strerror else str(error)
        raise video.VideoError(reason) from error


def _flow_of(source: Path, job: FlowJob, on_error: Literal["raise", "stop"], device: str) -> Generator[Tensor]:
    """Yields [1, 2, H, W] for each pair of neighbouring frames, while another thread decodes."""
    stream = ops.TVL1Stream(job.preset)
    count = 0
    with Ahead(_frames_of(source, job, on_error), _AHEAD) as frames:
        for frame in frames:
            count += 1
            flow = stream.push(frame[None].to(device))
            if flow is not None:
                yield flow
    if count < 2:
        raise video.VideoError(f"{source} has {count} frame; flow needs two")


def _frames_of(source: Path, job: FlowJob, on_error: Literal["raise", "stop"]) -> Generator[Tensor]:
    """Yields every frame, [1, H, W]. The reader is made here because it belongs to one thread."""
    with _reading(source, job, on_error) as reader:
        yield from reader


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
