"""Clips with flow computed on the fly, from video files, beside TV-L1 alone and loaders that use OpenCV.

Fields of flow per second of a DataLoader with one worker for each core, and how busy it keeps the cores. Each clip
comes as two streams take it: its first frame, and 64 fields of flow computed of whole frames, both cropped to 224 x
224. The videos are those of PYACTION_TEST_DATA, or else made here.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import machine
import psutil
import torch
from command import run
from loader_tables import TOGETHER, loader_table
from peers.loaders import OpenCVClips
from peers.optical_flow import opencv_dis, opencv_tvl1
from rich.console import Console
from scenes import data_folder
from tables import Result
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from verification import Verification

from pyaction import data, ops, video
from pyaction.data import transforms

LENGTH = 65  # frames: 64 fields, I3D's clip
SIDE = 224
AT_ONCE = 8  # clips in one call of tvl1_flow_clip
EPOCHS = 3  # in a row, so that it hardly matters which worker ends first
ROUNDS, QUICK_ROUNDS = 5, 2


def middle(frames: int, *, generator: torch.Generator) -> Tensor:
    return data.sampling.clip_indices(frames, LENGTH, mode="validation")


@contextmanager
def videos(quick: bool) -> Iterator[tuple[list[Path], str]]:
    """320 x 240 clips, and where they come from."""
    folder = data_folder()
    if folder is not None:
        yield sorted((folder / "videos" / "ucf101").rglob("*.avi"))[: 8 if quick else None], "UCF101"
        return
    with tempfile.TemporaryDirectory() as root:
        paths = []
        for group in range(8):
            scene = data.ActionScene(data.ACTIONS[group], group=group, clip=0, size=(240, 320), frames=2 * LENGTH)
            paths.append(Path(root, f"{group}.mp4"))
            video.write(paths[-1], scene.frames(), 25)
        yield paths, "generated"


class Loader:
    """A DataLoader whose workers run already."""

    def __init__(self, data_set: Dataset[Any]) -> None:
        self.clips = len(data_set)  # type: ignore[arg-type]
        order = list(range(self.clips)) * EPOCHS
        self._loader = DataLoader(data_set, None, sampler=order, num_workers=machine.cores(), persistent_workers=True)

    def __call__(self) -> int:
        """Some epochs; gives the number of fields."""
        return sum(item["flow"].flatten(0, -4).shape[0] for item in self._loader)


def ours(paths: Sequence[Path], index_folder: Path | None = None) -> data.VideoDataSet:
    annotations = data.AnnotationList(tuple(data.Annotation(str(path), 0) for path in paths), ())
    two_streams = [transforms.AddFlow(keep_frames=1), transforms.TestCrop(SIDE)]
    return data.VideoDataSet(annotations, "/", data.ClipSpec(middle, two_streams, index_folder=index_folder))


def alone(clips: Tensor) -> int:
    """tvl1_flow_clip with all threads."""
    return sum(ops.tvl1_flow_clip(part).flatten(0, -4).shape[0] for part in clips.split(AT_ONCE))


def measured(runs: dict[str, Callable[[], int]], rounds: int) -> list[dict[str, Any]]:
    """All in turn: fields per second, and the share of all cores' time that this process and its workers used."""
    process = psutil.Process()
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for once in runs.values():
        once()
    for _ in range(rounds):
        for name, once in runs.items():
            before, start = _cpu_seconds(process), time.perf_counter()
            fields = once()
            seconds = time.perf_counter() - start
            busy = (_cpu_seconds(process) - before) / (seconds * machine.cores())
            found[name].append((fields / seconds, busy))
    medians = {name: tuple(map(statistics.median, zip(*values, strict=True))) for name, values in found.items()}
    return [{"method": name, "fields_per_second": rate, "busy": busy} for name, (rate, busy) in medians.items()]


def _cpu_seconds(process: psutil.Process) -> float:
    family = (process, *process.children(recursive=True))
    return sum(sum(member.cpu_times()[:2]) for member in family)


def measure(quick: bool, console: Console) -> Result:
    """Raises VerificationError before anything is timed."""
    torch.set_num_threads(machine.cores())
    with videos(quick) as (paths, kind):
        result = {"benchmark": "loader", "device": "cpu", "quick": quick, **machine.describe()}
        result |= {"data": kind, "clips": len(paths), "length": LENGTH}
        clips = torch.cat([read(path) for path in paths])
        verification = Verification()
        for index in (0, len(paths) // 2):
            alone_flow = transforms.center_crop(ops.tvl1_flow_clip(clips[index : index + 1]), SIDE, "flow")
            difference = (ours(paths)[index]["flow"] - alone_flow).abs().max()
            verification.at_most(f"loader's flow of {paths[index].name}", float(difference), 1e-5)
        console.print(f"{len(verification.checks)} checks passed; timing {len(paths)} clips of {LENGTH} frames")
        with tempfile.TemporaryDirectory() as folder:
            runs = {
                "pyaction's data set, with index_folder": Loader(ours(paths, Path(folder))),
                "pyaction's data set": Loader(ours(paths)),
                TOGETHER: lambda: alone(clips),
                "OpenCV decoding, OpenCV DIS medium": Loader(OpenCVClips(paths, LENGTH, SIDE, opencv_dis("medium", 1))),
            }
            result["rows"] = measured(runs, QUICK_ROUNDS if quick else ROUNDS)
        # Hundreds of times slower: a few short clips, once.
        slow = OpenCVClips(paths[: machine.cores()], 5, SIDE, opencv_tvl1("OpenCV TV-L1", 1))
        result["rows"] += measured({"OpenCV decoding, OpenCV TV-L1": Loader(slow)}, 1)
        result["checks"] = verification.checks
    return result


def read(path: Path) -> Tensor:
    with video.open(path) as reader:
        return reader.clips(middle(len(reader), generator=torch.Generator()))


def main(arguments: list[str] | None = None) -> int:
    return run("Clips with flow on the fly, from files: loaders beside TV-L1 alone.", measure, loader_table, arguments)


if __name__ == "__main__":
    sys.exit(main())
