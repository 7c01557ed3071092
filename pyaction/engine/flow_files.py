"""Video files in, optical-flow files out."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from pyaction import ops, video
from pyaction.engine.flow_sinks import SINKS, FlowJob

VIDEO_SUFFIXES = frozenset(
    ".3gp .avi .flv .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv".split(),
)
_PAIRS_AT_A_TIME = 16
_SETTINGS_NAME = "flow.json"


def find_videos(paths: Sequence[str | os.PathLike[str]]) -> dict[Path, Path]:
    """Lists the videos behind some paths, and where the flow of each belongs.

    Args:
        paths: Video files, and folders that are searched through for files with a video's suffix.

    Returns:
        source -> target: the file's name without suffix; for a file found in a folder, with the folders between.

    Raises:
        FileNotFoundError: A path does not exist.
        ValueError: A folder holds no video, or two videos would have one target.
    """
    targets: dict[Path, Path] = {}
    for path in map(Path, paths):
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.suffix.lower() in VIDEO_SUFFIXES)
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


def prepare_folder(folder: Path, job: FlowJob) -> None:
    """Makes a folder of flow and notes the job in it, or checks that it holds flow of the same job.

    Raises:
        ValueError: The folder holds flow made with other settings.
        OSError: The folder cannot be made or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / _SETTINGS_NAME
    settings = {"version": 1, **asdict(job)}
    if note.exists():
        try:
            found = json.loads(note.read_text())
        except ValueError:
            found = {}
        if found != settings:
            wrong = [f"{key} {found.get(key)!r}, not {value!r}" for key, value in settings.items()
                     if found.get(key) != value]  # fmt: skip
            raise ValueError(f"{folder} holds flow made with {', '.join(wrong)}; choose another -o folder")
        return
    partial = note.with_name(f".{note.name}.partial")
    partial.write_text(json.dumps(settings, indent=1))
    os.replace(partial, note)


def write_flow(
    source: Path,
    folder: Path,
    name: Path,
    job: FlowJob,
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
        folder: A folder that `prepare_folder` has made for `job`.
        name: Name of the result within the folder, without suffix.
        job: What to compute and how to store it.
        device: Where to compute: "cpu" or "cuda".
        on_error: What to do where the video is damaged, see `video.open`.
        on_progress: Called with the number of pairs done and the number of all pairs.

    Returns:
        The number of pairs of frames, or None if the flow was there already.

    Raises:
        video.VideoError: The video cannot be read, or has fewer than two frames.
        OSError: The result cannot be written; nothing is left behind.
    """
    sink_type = SINKS[job.format]
    target = folder / name.with_name(name.name + sink_type.suffix)
    if target.exists():
        return None
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".partial.{target.name}")
    _remove(partial)  # of a run that was killed
    try:
        with video.open(source, color="gray", short_side=job.short_side, on_error=on_error) as reader:
            pairs = len(reader) - 1
            if pairs < 1:
                raise video.VideoError(f"{source} has {len(reader)} frame; flow needs two")
            on_progress(0, pairs)
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
    return pairs


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
