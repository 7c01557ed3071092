"""Video files in, optical-flow files out."""

import os
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from pyaction import ops, video
from pyaction.engine.flow_folder import FlowFolder
from pyaction.engine.flow_sinks import SINKS, FlowJob

VIDEO_SUFFIXES = frozenset(
    ".3gp .avi .flv .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv".split(),
)
_PAIRS_AT_A_TIME = 16


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
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> int | None:
    """Writes the flow between all neighbouring frames of one video.

    What is written appears under its own name when it is complete, and not before. A video whose flow is there
    already is left alone.

    Args:
        source: The video file.
        folder: Where the result belongs, and what it is to be; open.
        name: Name of the result within the folder, without suffix.
        device: Where to compute: "cpu" or "cuda".
        on_error: What to do where the video is damaged, see `video.open`.
        on_progress: Called with the number of pairs done and the number of all pairs.

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
    with _reading(source, job, on_error) as reader:
        pairs = len(reader) - 1
        if pairs < 1:
            raise video.VideoError(f"{source} has {len(reader)} frame; flow needs two")
        on_progress(0, pairs)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _remove(partial)  # of a run that was killed
            with sink_type(partial, job, reader) as sink:
                done = 0
                for flow in _flow_of(reader, job, device):
                    sink.write(flow)
                    done += len(flow)
                    on_progress(done, pairs)
            os.replace(partial, target)
        except BaseException as error:
            _remove(partial)
            if isinstance(error, OSError) and error.errno and str(error.filename or partial).startswith(str(partial)):
                raise OSError(error.errno, error.strerror, str(target)) from error
            raise
    folder.note_finished(target, source)
    return pairs


def _reading(source: Path, job: FlowJob, on_error: Literal["raise", "stop"]) -> video.Reader:
    """Opens a video. What is wrong with one file is a VideoError: it is no reason to leave the others undone."""
    try:
        return video.open(source, color="gray", short_side=job.short_side, on_error=on_error)
    except OSError as error:
        reason = f"{source}: {error.strerror}" if error.strerror else str(error)
        raise video.VideoError(reason) from error


def _flow_of(reader: video.Reader, job: FlowJob, device: str) -> Iterator[Tensor]:
    """Yields [n, 2, H, W] for n neighbouring pairs at a time, on the CPU."""
    frames: list[Tensor] = []

    def flow() -> Tensor:
        clip = torch.stack(frames).to(device)
        return ops.tvl1_flow(clip[:-1], clip[1:], params=job.preset).cpu()

    for frame in reader:
        frames.append(frame)
        if len(frames) > _PAIRS_AT_A_TIME:
            yield flow()
            frames = frames[-1:]
    if len(frames) > 1:
        yield flow()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
