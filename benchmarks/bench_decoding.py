"""Chosen frames of every clip of UCF101 at hand, beside other libraries: python benchmarks/bench_decoding.py --json

All on one thread, each file in memory already. Frame numbers are given, so nobody has to count the frames. "In order"
is the cleverest way to decode a file from its start: as far as the last wanted frame, converting only the wanted ones.
"Later visits" know the file from an earlier one, by `index_folder`.
"""

import functools
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import av
import cv2
import machine
import numpy as np
import torch
from command import run
from decoding_tables import decoding_table
from peers.decoding import Frames, Read, pyav_sequential, usable_peers, versions
from rich.console import Console
from scenes import data_folder
from tables import Result
from timing import interleaved, summary, timed
from verification import VerificationError

from pyaction import video
from pyaction.data.sampling import clip_indices, segment_indices

FIRST, LATER = "pyaction, first visit", "pyaction, later visits"
ROUNDS, QUICK_ROUNDS = 11, 3
QUICK_CLIPS = 5
# Mean absolute difference, in grey levels, between one frame as two libraries convert it to RGB: they scale chroma
# differently. Besides, no other frame of the clip may be nearer.
LARGEST_DIFFERENCE = 6.0


class Clip(NamedTuple):
    path: str
    count: int


class Task(NamedTuple):
    name: str
    numbers: list[list[int]]  # for each clip


def ours(path: str, numbers: Sequence[int], index_folder: str | None = None) -> Frames:
    with video.open(path, index_folder=index_folder) as reader:
        return reader.frames(numbers).permute(0, 2, 3, 1).numpy()


def find_clips(folder: Path, quick: bool) -> tuple[list[Clip], str]:
    """The UCF101 clips, or as many made in `folder`; and which."""
    data = data_folder()
    if data is None:
        paths = [folder / f"{seed}.avi" for seed in range(QUICK_CLIPS if quick else 25)]
        for seed, path in enumerate(paths):
            write_clip(path, seed)
    else:
        paths = sorted((data / "videos" / "ucf101").glob("*/*.avi"))
        paths = paths[:: max(len(paths) // QUICK_CLIPS, 1)] if quick else paths
    clips = []
    for path in paths:
        with video.open(path) as reader:
            clips.append(Clip(str(path), len(reader)))
    return clips, "generated" if data is None else "real"


def write_clip(path: Path, seed: int, count: int = 180) -> None:
    """As in UCF101: 320 x 240, MPEG-4, a keyframe every 12 frames. Smooth noise that moves, with a grain of its own."""
    draw = np.random.default_rng(seed)
    scene = cv2.GaussianBlur(draw.integers(0, 256, (300, 320 + 2 * count, 3), dtype=np.uint8), (0, 0), 3)
    scene = cv2.convertScaleAbs(scene, alpha=6, beta=-640)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25, options={"g": "12", "b": "600000"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for number in range(count):
            grain = draw.integers(0, 8, (240, 320, 3), dtype=np.uint8)
            picture = cv2.add(scene[30:270, 2 * number : 2 * number + 320], grain)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def tasks(clips: Sequence[Clip]) -> list[Task]:
    """The same frames for all contenders."""
    generator = torch.Generator().manual_seed(16)

    def for_each(choose: Callable[[int], torch.Tensor]) -> list[list[int]]:
        return [choose(clip.count).flatten().tolist() for clip in clips]

    return [
        Task("16 random frames", for_each(lambda count: torch.randint(count, (16,), generator=generator))),
        Task("3 frames, one of each third", for_each(lambda count: segment_indices(count, 3, generator=generator))),
        Task("64 neighbouring frames", for_each(lambda count: clip_indices(count, 64, generator=generator))),
    ]


def wrong_frames(clips: Sequence[Clip], task: Task, contenders: dict[str, Read]) -> tuple[dict[str, int], set[str]]:
    """How many of the frames that each returns are not those asked for, by plain decoding in order; and who fails."""
    wrong, failing = dict.fromkeys(contenders, 0), set()
    for clip, numbers in zip(clips, task.numbers, strict=True):
        every = pyav_sequential(clip.path, range(clip.count))
        for name, read in contenders.items():
            try:
                found = read(clip.path, numbers)
            except Exception:  # noqa: BLE001 - of another library, of whatever kind
                wrong[name] += len(numbers)
                failing.add(name)
                continue
            wrong[name] += sum(not is_frame(frame, every, number) for frame, number in zip(found, numbers, strict=True))
    return wrong, failing


def is_frame(frame: Frames, every: Frames, number: int) -> bool:
    """Whether it is the frame of that number: near enough, and none of its neighbours in time is nearer."""
    if frame.shape != every[number].shape:
        return False
    neighbours = range(max(number - 3, 0), min(number + 4, len(every)))
    distance = {other: float(cv2.norm(frame, every[other], cv2.NORM_L1)) / frame.size for other in neighbours}
    return distance[number] <= LARGEST_DIFFERENCE and distance[number] == min(distance.values())


def samples(clips: Sequence[Clip], task: Task, contenders: dict[str, Read]) -> dict[str, Callable[[int], float]]:
    def sample(read: Read) -> Callable[[int], float]:
        def all_clips() -> None:
            for clip, numbers in zip(clips, task.numbers, strict=True):
                read(clip.path, numbers)

        return lambda calls: timed(all_clips, calls)

    return {name: sample(read) for name, read in contenders.items()}


def measure(quick: bool, console: Console, folder: Path) -> Result:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    head = machine.describe()
    head["versions"] |= versions()
    clips, data = find_clips(folder, quick)
    if data == "generated":
        console.print("PYACTION_TEST_DATA is not set: the clips are made here, of the shape of UCF101's.")
    indexes = folder / "indexes"
    indexes.mkdir()
    peers, left_out = usable_peers(clips[0].path)
    for sentence in left_out:
        console.print(sentence)
    later: Read = functools.partial(ours, index_folder=str(indexes))
    contenders: dict[str, Read] = {FIRST: ours, LATER: later, **peers}
    for clip in clips:
        later(clip.path, [0])  # leaves the index behind
    result: Result = {"benchmark": "decoding", "device": "cpu", "quick": quick, **head, "threads": 1}
    result |= {"data": data, "clips": len(clips), "left_out": left_out, "tasks": []}
    for task in tasks(clips):
        console.print(f"verifying and timing {task.name}")
        wrong, failing = wrong_frames(clips, task, contenders)
        if wrong[FIRST] or wrong[LATER]:
            raise VerificationError(f"{task.name}: pyaction returns {wrong[FIRST]} and {wrong[LATER]} wrong frames")
        working = {name: read for name, read in contenders.items() if name not in failing}
        seconds = interleaved(samples(clips, task, working), QUICK_ROUNDS if quick else ROUNDS)
        frames = sum(map(len, task.numbers))
        result["tasks"].append({"task": task.name, "frames": frames, "methods": list(rows(seconds, wrong))})
    return result


def rows(seconds: dict[str, list[float]], wrong: dict[str, int]) -> Iterator[dict[str, Any]]:
    for name, count in wrong.items():
        timing = summary(seconds[name])._asdict() if name in seconds else None
        yield {"method": name, "wrong_frames": count, "seconds": timing}


def main(arguments: list[str] | None = None) -> int:
    def in_a_folder(quick: bool, console: Console) -> Result:
        with tempfile.TemporaryDirectory() as folder:
            return measure(quick, console, Path(folder))

    description = "Verifies the frames that video readers return, then times them."
    return run(description, in_a_folder, decoding_table, arguments)


if __name__ == "__main__":
    sys.exit(main())
