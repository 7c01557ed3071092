"""TV-L1 against its peers: verified, then timed in turn. python benchmarks/bench_tvl1.py [--quick] [--json [FILE]]

PYACTION_TEST_DATA may name a folder with Middlebury's flow/middlebury and videos/ucf101; without it the frames are
made here.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
import tables
from ceiling import Ceiling, has_compiler
from ours import Ours, Worker
from peers.optical_flow import Peer, opencv_dis, opencv_tvl1, skimage_tvl1
from rich.console import Console
from scenes import MAX_CLIPS, Scene, data_folder, load_clips, load_scenes, resized_pairs
from sequences import measure_sequences
from stages import measure_iterations, measure_stages
from timing import interleaved, summary
from verification import Verification, VerificationError, mean_error

from pyaction.ops import TVL1_PRESETS, TVL1Params

SMALL, WIDER, VGA, FULL_HD = (320, 240), (340, 256), (640, 480), (1920, 1080)
SIZES = (SMALL, WIDER, VGA, FULL_HD)
DIS_PRESETS = ("ultrafast", "fast", "medium")
ROUNDS = 5
BUSY = 0.5  # load average
# Equal work: no stopping rule, so that both do the same number of iterations.
EQUAL_WORK = TVL1Params(scales=5, warps=5, inner_iterations=30, outer_iterations=1, epsilon=0.0)
EQUAL = "equal work"
EQUAL_WORK_SIZES = (SMALL, WIDER)  # of peers that would take minutes beyond
OPENCV_EQUAL = f"{tables.OPENCV} {EQUAL}"


@dataclass(frozen=True)
class Plan:
    """What is left out, and how often the rest is repeated."""

    quick: bool

    @property
    def shortest(self) -> float:
        """Seconds of one sample."""
        return 0.02 if self.quick else 0.1

    @property
    def slow_peers(self) -> dict[tuple[int, int], list[int]]:
        """At which sizes TV-L1 of others runs, and OpenCV's with how many threads."""
        if self.quick:
            return {SMALL: [machine.cores()]}
        return {SMALL: one_and_all(), WIDER: [machine.cores()], VGA: [machine.cores()], FULL_HD: [machine.cores()]}

    def presets(self, size: tuple[int, int], best_simd: bool, threads: int) -> list[str]:
        """pyaction's, for single pairs."""
        if self.quick:
            everything = best_simd and threads == machine.cores() and size != FULL_HD
        else:
            everything = best_simd or size in (SMALL, VGA)
        return list(TVL1_PRESETS) if everything else ["fast"]

    @property
    def left_out(self) -> list[str]:
        if self.quick:
            return [
                f"{tables.OPENCV} and scikit-image beyond 320 × 240, and on one thread",
                "all presets but fast with lesser instruction sets and on one thread, and at 1920 × 1080",
                "batches of 64, and of 8 beyond 320 × 240",
                "equal work: verified on one pair only, so it has no EPE here",
            ]
        return [
            f"{tables.OPENCV} on one thread beyond 320 × 240; equal work and scikit-image beyond 340 × 256",
            "all presets but fast with lesser instruction sets at 340 × 256 and 1920 × 1080",
            "batches of 8: all presets but fast at 1920 × 1080 and on one thread",
            "batches of 64: 1920 × 1080, presets accurate and opencv, one thread",
            "batches of 8 and 64: all peers but DIS medium (the others' ratios are those of single pairs)",
        ]


def one_and_all() -> list[int]:
    """Numbers of threads."""
    return sorted({1, machine.cores()})


class Benchmark:
    """One run: what it has found so far is in `result`."""

    def __init__(self, plan: Plan, workers: dict[str, Worker], head: dict[str, Any], console: Console) -> None:
        self.plan, self.workers, self.console = plan, workers, console
        self.best = list(workers)[-1]
        self.threads = machine.cores()
        self.scenes = load_scenes()
        self.clips = load_clips(*((2, 5) if plan.quick else (MAX_CLIPS, 9)))
        self.result: dict[str, Any] = {
            "benchmark": "tvl1",
            "quick": plan.quick,
            "data": "real" if data_folder() else "generated",
            **head,
            "left_out": plan.left_out,
        }

    def ours(self, preset: str, simd: str = "", threads: int = 0, params: TVL1Params | None = None) -> Ours:
        return Ours(self.workers[simd or self.best], preset, threads or self.threads, params)

    def equal(self, simd: str, threads: int = 0) -> Ours:
        return self.ours(EQUAL, simd, threads, EQUAL_WORK)

    def verify(self) -> None:
        """Raises VerificationError; else leaves the errors of all methods."""
        verification = Verification()
        accuracy: dict[str, float] = {}
        for preset in TVL1_PRESETS:
            flows = {simd: verification.flows(self.ours(preset, simd), self.scenes) for simd in self.workers}
            verification.simd_levels_agree(preset, flows)
            if preset == "opencv":
                fused = {simd: flow for simd, flow in flows.items() if simd != "baseline"}
            else:
                verification.accuracy(preset, flows[self.best], self.scenes, self.result["data"])
            accuracy[f"pyaction {preset}"] = mean_error(flows[self.best], self.scenes)
        for clip in self.clips.values():
            verification.clip_is_stream(self.ours("video"), clip)
        expected = verification.flows(opencv_tvl1(tables.OPENCV, self.threads), self.scenes)
        accuracy[tables.OPENCV] = mean_error(expected, self.scenes)
        for simd, flow in fused.items():
            verification.same_as_opencv(f"opencv, {simd}", flow, expected)
        accuracy |= self._verify_equal_work(verification, self.scenes[-1:] if self.plan.quick else self.scenes)
        for peer in (*(opencv_dis(preset, self.threads) for preset in DIS_PRESETS), skimage_tvl1()):
            accuracy[peer.method] = mean_error(verification.flows(peer, self.scenes), self.scenes)
        self.result["checks"], self.result["accuracy"] = verification.checks, accuracy

    def _verify_equal_work(self, verification: Verification, scenes: list[Scene]) -> dict[str, float]:
        expected = verification.flows(opencv_tvl1("", self.threads, EQUAL_WORK), scenes)
        for simd in self.workers:
            if simd != "baseline":
                verification.same_as_opencv(f"{EQUAL}, {simd}", verification.flows(self.equal(simd), scenes), expected)
        if len(scenes) < len(self.scenes):
            return {}
        return {f"pyaction {EQUAL}": mean_error(expected, scenes), OPENCV_EQUAL: mean_error(expected, scenes)}

    def time_pairs(self) -> None:
        rows = self.result["pairs"] = []
        for size, batch, solvers in self._groups():
            self.console.print(f"timing {size[0]} × {size[1]}, batch {batch}: {len(solvers)} contestants")
            pairs = resized_pairs(self.scenes, *size, batch)
            samples = {str(i): solver.sample(pairs) for i, solver in enumerate(solvers)}
            seconds = interleaved(samples, ROUNDS, self.plan.shortest)
            for i, solver in enumerate(solvers):
                row = solver.describe() | {"width": size[0], "height": size[1], "batch": batch}
                rows.append(row | {"seconds": summary(seconds[str(i)])._asdict()})

    def _groups(self) -> Iterator[tuple[tuple[int, int], int, list[Ours | Peer]]]:
        """(size, batch, who is timed there)."""
        for size in SIZES:
            yield size, 1, [*self._our_singles(size), *self._peer_singles(size)]
        for size in SIZES[:1] if self.plan.quick else SIZES:
            others = [] if self.plan.quick or size == FULL_HD else ["accurate", "video", "opencv"]
            ours = [self.ours("fast", threads=threads) for threads in one_and_all()]
            yield (
                size,
                8,
                [*ours, *map(self.ours, others), *(opencv_dis("medium", threads) for threads in one_and_all())],
            )
        for size in SIZES[:0] if self.plan.quick else SIZES[:3]:
            yield size, 64, [self.ours("fast"), self.ours("video"), opencv_dis("medium", self.threads)]

    def _our_singles(self, size: tuple[int, int]) -> list[Ours]:
        solvers = []
        for simd in self.workers:
            for threads in one_and_all():
                presets = self.plan.presets(size, simd == self.best, threads)
                solvers += [self.ours(preset, simd, threads) for preset in presets]
                if size in EQUAL_WORK_SIZES and threads in self.plan.slow_peers.get(size, []):
                    solvers.append(self.equal(simd, threads))
        return solvers

    def _peer_singles(self, size: tuple[int, int]) -> list[Peer]:
        peers = [opencv_dis(preset, threads) for preset in DIS_PRESETS for threads in one_and_all()]
        for threads in self.plan.slow_peers.get(size, []):
            peers.append(opencv_tvl1(tables.OPENCV, threads))
            if size in EQUAL_WORK_SIZES:
                peers.append(opencv_tvl1(OPENCV_EQUAL, threads, EQUAL_WORK))
        if size in EQUAL_WORK_SIZES and size in self.plan.slow_peers:
            peers.append(skimage_tvl1())
        return peers

    def time_stages(self) -> None:
        """Iterations alone beside the ceiling, and the stages of preset fast."""
        worker, rounds = self.workers[self.best], 5 if self.plan.quick else 11
        with tempfile.TemporaryDirectory() as folder:
            ceiling = Ceiling(Path(folder)) if has_compiler() else None
            if ceiling is None:
                self.result["left_out"].append("the arithmetic's ceiling: no C++ compiler")
            cases = [(SMALL, 8), (SMALL, 1), (VGA, 8), (FULL_HD, 1)]
            self.result["iterations"] = [
                measure_iterations(worker, ceiling, resized_pairs(self.scenes, *size, batch), threads, rounds)
                for size, batch in (cases[:1] if self.plan.quick else cases)
                for threads in one_and_all()
            ]
        self.result["stages"] = [
            measure_stages(worker, resized_pairs(self.scenes, *size, batch), self.threads, rounds)
            for size, batch in (cases[:1] if self.plan.quick else cases)
        ]

    def time_video(self) -> None:
        dis, slow = opencv_dis("medium", self.threads), opencv_tvl1(tables.OPENCV, self.threads)
        self.result["video"] = measure_sequences(self.ours("video"), [dis], slow, self.clips, ROUNDS)


def run(plan: Plan, console: Console) -> dict[str, Any]:
    """Raises VerificationError before anything is timed."""
    start = time.perf_counter()
    head = machine.describe()
    if head["load"] > BUSY:
        console.print(f"[bold]Others use this machine (load {head['load']}): the figures will be noisy.[/]")
    with ExitStack() as stack:
        workers = {simd: Worker(simd) for simd in machine.simd_levels()}
        for worker in workers.values():
            stack.callback(worker.close)
        benchmark = Benchmark(plan, workers, head, console)
        console.print("verifying")
        benchmark.verify()
        console.print(f"{len(benchmark.result['checks'])} checks passed")
        benchmark.time_pairs()
        console.print("timing iterations and stages")
        benchmark.time_stages()
        console.print("timing video")
        benchmark.time_video()
    benchmark.result["seconds"] = round(time.perf_counter() - start, 1)
    return benchmark.result


def show(result: dict[str, Any], console: Console) -> None:
    for table in tables.all_tables(result):
        tables.show(table, console)
    console.print(tables.heading(result))
    console.print("Left out:", *(f"\n  {what}" for what in result["left_out"]))
    console.print(f"Done in {result['seconds']:.0f} s.")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Verifies TV-L1, then times it against its peers.")
    parser.add_argument("--quick", action="store_true", help="a minute instead of ten: fewer sizes, fewer peers")
    parser.add_argument("--json", nargs="?", const="", metavar="FILE", help="default: a file in results/")
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 160)
    try:
        result = run(Plan(options.quick), console)
    except VerificationError as error:
        console.print(f"[bold red]Refused:[/] {error}. Nothing was timed.")
        return 1
    show(result, console)
    if options.json is not None:
        path = Path(options.json) if options.json else machine.result_path(result, "cpu", "tvl1")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")
        console.print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
