"""The `pyaction` command."""

import argparse
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pyaction.data.layouts import LAYOUTS

if TYPE_CHECKING:
    from pyaction.engine.extraction import ExtractReport
    from pyaction.engine.video_results import OnProgress

_INTERRUPTED = 130  # as shells count a Ctrl-C
_SECONDS_BETWEEN_LINES = 60.0  # of a log


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; what a user can mend is one sentence on stderr and the exit code 2."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except KeyboardInterrupt:
        print("pyaction: stopped; the same command goes on where it stopped", file=sys.stderr)
        return _INTERRUPTED
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        print(f"pyaction: {_sentence(error)}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pyaction", description="Two-stream action recognition in video.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    demo = commands.add_parser(
        "demo",
        help="compute the flow of a generated video and compare it with the truth",
        description="Makes a video whose motion is known, computes its optical flow, and says how far off it is.",
        epilog="example: pyaction demo -o demo",
    )
    demo.add_argument("-o", "--output", default=Path("pyaction_demo"), type=Path, metavar="DIR", help="(pyaction_demo)")
    demo.set_defaults(run=_demo)

    info = commands.add_parser(
        "info",
        help="show versions, compiled kernels and devices",
        description="Shows versions, compiled kernels and GPU architectures, the SIMD level and the decoders.",
        epilog="example: pyaction info",
    )
    info.set_defaults(run=_info)

    flow = commands.add_parser(
        "flow",
        help="write the optical flow of videos",
        description="Computes TV-L1 optical flow between all neighbouring frames of videos. A finished video is "
        "skipped when the command is run again; an unfinished one is done anew.",
        epilog="example: pyaction flow my_video.mp4 clips/ -o flow --format jpg --short-side 256",
    )
    flow.add_argument("videos", nargs="+", metavar="VIDEO", help="video files, or folders of them")
    flow.add_argument("-o", "--output", required=True, type=Path, metavar="DIR", help="folder for the results")
    flow.add_argument(
        "--format",
        default="flo",
        choices=("flo", "npz", "jpg", "video"),
        help="flo: one file per pair; npz: one per video; jpg: flow_x_*, flow_y_*, as two-stream networks read "
        "them; video: colours (default: flo)",
    )
    flow.add_argument(
        "--preset",
        default="video",
        help="of TV-L1, from the soonest ready to the slowest: video, fast, accurate, opencv (default: video)",
    )
    flow.add_argument("--short-side", type=int, metavar="N", help="scale frames to this shorter side first")
    flow.add_argument("--bound", type=float, default=20.0, metavar="PX", help="jpg: motion that saturates (20)")
    flow.add_argument(
        "--radius",
        type=float,
        metavar="PX",
        help="video: motion drawn in full colour (default: what the video has)",
    )
    flow.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(default: a GPU if any)")
    flow.add_argument(
        "--on-error",
        choices=("raise", "stop"),
        default="raise",
        help="damaged video: raise: no flow for it; stop: flow up to the damage (default: raise)",
    )
    flow.set_defaults(run=_flow)
    _add_extract(commands)
    return parser


def _add_extract(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    extract = commands.add_parser(
        "extract",
        help="write the frames and flow of a data set as pictures",
        description="Writes the frames of all videos of a data set, and the TV-L1 optical flow between them, as "
        "pictures named as the tools in use name them. Many videos are done at a time. Run again after whatever "
        "stopped it, the command goes on with the videos that are not finished.",
        epilog="example: pyaction extract UCF-101/ -o ucf101_pictures --layout mmaction2 --short-side 256",
    )
    extract.add_argument(
        "data_set",
        nargs="+",
        metavar="DATASET",
        help="folders of videos, whose folders of classes are kept; videos; or one list of lines 'path label' "
        "(.txt, .csv, .list)",
    )
    extract.add_argument("-o", "--output", required=True, type=Path, metavar="DIR", help="folder for the results")
    extract.add_argument("--root", type=Path, metavar="DIR", help="that the paths in a list are relative to (its own)")
    extract.add_argument("--content", choices=("flow", "frames", "both"), default="both", help="(default: both)")
    extract.add_argument(
        "--layout",
        choices=tuple(LAYOUTS),
        default="dense_flow",
        metavar="NAME",
        help=f"how the pictures are named: {', '.join(LAYOUTS)} (default: dense_flow)",
    )
    extract.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="scale frames to this size first")
    extract.add_argument("--short-side", type=int, metavar="N", help="scale frames to this shorter side first")
    extract.add_argument("--fps", type=float, metavar="F", help="choose frames at this rate, by their times")
    extract.add_argument("--method", default="tvl1", help="that computes flow: tvl1, raft or hardware (tvl1)")
    extract.add_argument("--preset", default="video", help="of TV-L1, see pyaction flow (default: video)")
    extract.add_argument("--bound", type=float, default=20.0, metavar="PX", help="motion that saturates (20)")
    extract.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(default: a GPU if any)")
    extract.add_argument("--workers", type=int, metavar="N", help="videos at a time (default: one per core)")
    extract.add_argument(
        "--on-error",
        choices=("raise", "stop", "skip"),
        default="raise",
        help="damaged video: raise: no pictures of it, and the exit code 2 at the end; skip: the same with exit code "
        "0; stop: pictures up to the damage (default: raise)",
    )
    extract.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="ray: on a Ray cluster, by Ray Data"
    )
    extract.add_argument(
        "--ray-address", metavar="ADDRESS", help="of the cluster (default: RAY_ADDRESS, else one of this machine alone)"
    )
    extract.set_defaults(run=_extract)


def _demo(options: argparse.Namespace) -> int:
    from pyaction.engine.demo import run_demo

    result = run_demo(options.output, print)
    print(
        f"mean end-point error: {result.endpoint_error:.2f} pixels "
        f"(saying that nothing moves: {result.still_error:.2f})\nlook at {result.picture}"
    )
    return 0


def _info(options: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from pyaction.engine.build_info import build_info

    table = Table.grid(padding=(0, 2))
    for name, text in build_info().items():
        table.add_row(name, text)
    Console(soft_wrap=True).print(table)
    return 0


def _flow(options: argparse.Namespace) -> int:
    from pyaction.engine.extraction import finish_videos
    from pyaction.engine.jobs import Job
    from pyaction.engine.result_folder import ResultFolder, results_of
    from pyaction.engine.sources import find_videos
    from pyaction.engine.tasks import Outcome, Task

    job = Job(
        format="dense_flow" if options.format == "jpg" else options.format,
        preset=options.preset,
        short_side=options.short_side,
        bound=options.bound,
        radius=options.radius,
    )
    device = _device(options.device)
    # Earlier results may lie among the videos, and be videos.
    videos = find_videos(options.videos, exclude=results_of(options.output))
    with _Display() as display:

        def run(tasks: Sequence[Task], folder: ResultFolder) -> Generator[tuple[Task, Outcome], None, None]:
            for task in tasks:
                with display.video(task.name.name) as show:
                    outcome = task.run(show)
                yield task, outcome

        report = finish_videos(videos, options.output, job, device, options.on_error, run, display.show)
    _print_report(options.output, report)
    if report.written:
        pairs = report.frames - report.written  # of n frames n - 1
        print(f"{pairs} pairs of frames in {report.seconds:.1f} s on {device}: {pairs / report.seconds:.1f} fps")
    return 2 if report.failures else 0


def _extract(options: argparse.Namespace) -> int:
    from pyaction.engine.extraction import extract
    from pyaction.engine.jobs import Job

    job = Job(
        content=options.content,
        format=options.layout,
        size=options.size and tuple(options.size),
        short_side=options.short_side,
        fps=options.fps,
        method=options.method,
        preset=options.preset,
        bound=options.bound,
    )
    with _Display() as display:
        report = extract(
            options.data_set,
            options.output,
            job,
            root=options.root,
            workers=options.workers,
            device=_device(options.device),
            on_error="stop" if options.on_error == "stop" else "raise",
            engine=options.engine,
            ray_address=options.ray_address,
            on_progress=display.show,
        )
    _print_report(options.output, report)
    if report.written:
        print(f"{report.frames} frames in {report.seconds:.1f} s: {_rate(report)}")
    return 2 if report.failures and options.on_error != "skip" else 0


class _Display:
    """What a user sees of a run while it lasts, on stderr: bars in a terminal, or else a line now and then."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = Console(stderr=True, soft_wrap=True, highlight=False)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                   TextColumn("{task.fields[rate]}"), TimeRemainingColumn())  # fmt: skip
        self._bars = Progress(*columns, console=self._console, transient=True, disable=not self._console.is_terminal)
        self._videos = self._bars.add_task("videos", total=None, rate="")
        self._failures = 0
        self._last_line = time.monotonic()

    def __enter__(self) -> "_Display":
        self._bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bars.stop()

    def show(self, report: "ExtractReport") -> None:
        """Shows how far all videos are, and what is wrong with those that failed since."""
        for reason in report.failures[self._failures :]:
            self._console.print(f"pyaction: {' '.join(reason.split())}", markup=False)
        self._failures = len(report.failures)
        self._bars.update(self._videos, completed=report.done, total=report.total, rate=_rate(report))
        if not self._console.is_terminal and time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            self._console.print(f"{report.done}/{report.total} videos{_pace(report)}", markup=False)

    @contextmanager
    def video(self, name: str) -> "Iterator[OnProgress]":
        """A bar of one video, and what moves it."""
        bar, start = self._bars.add_task(name, total=None, rate="pairs"), time.perf_counter()

        def show(done: int, expected: int | None) -> None:
            rate = f"pairs, {done / (time.perf_counter() - start):.1f} fps" if done else "pairs"
            self._bars.update(bar, completed=done, total=expected and max(done, expected), rate=rate)

        yield show
        self._bars.remove_task(bar)


def _print_report(output: Path, report: "ExtractReport") -> None:
    print(f"{output}: {report.written} videos written, {report.skipped} already there, {len(report.failures)} failed")


def _pace(report: "ExtractReport") -> str:
    if not report.written:
        return ""
    left = timedelta(seconds=round((report.total - report.done) * report.seconds / report.written))
    return f", {_rate(report)}, {left} left"


def _rate(report: "ExtractReport") -> str:
    if not report.written:
        return ""
    return f"{report.written / report.seconds:.2f} videos/s, {report.frames / report.seconds:.1f} fps"


def _device(wanted: str) -> str:
    """Turns auto into cpu or cuda, and refuses cuda where it cannot be."""
    import torch

    from pyaction._native import build_facts

    compiled, present = bool(build_facts()["cuda_version"]), torch.cuda.is_available()
    if wanted == "auto":
        return "cuda" if compiled and present else "cpu"
    if wanted == "cuda" and not compiled:
        raise ValueError("--device cuda: pyaction was compiled without CUDA; install it anew, or use --device cpu")
    if wanted == "cuda" and not present:
        raise ValueError("--device cuda: torch sees no CUDA device here; use --device cpu")
    return wanted


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())


if __name__ == "__main__":
    sys.exit(main())
