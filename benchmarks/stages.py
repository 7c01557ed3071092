"""Where the time of TV-L1 goes, seen from outside: through its public parameters."""

import statistics
from dataclasses import replace
from typing import Any

from ceiling import Ceiling
from ours import Ours, Worker
from scenes import Pairs
from timing import interleaved, summary

from pyaction.ops import TVL1_PRESETS, TVL1Params

# Nothing but iterations: one level, one warp, no median, no stopping rule.
BARE = TVL1Params(
    scales=1, warps=1, outer_iterations=1, inner_iterations=20, epsilon=0.0, median_size=1, as_opencv=False
)
MORE = replace(BARE, inner_iterations=120)
FAST = TVL1_PRESETS["fast"]
# Fewer and more iterations than FAST has, in one sweep over the image (csrc/tvl1/cpu/iterate.h) all the same.
FEW, MANY = 2, 16
MORE_WARPS = 2


def measure_iterations(
    worker: Worker, ceiling: Ceiling | None, pairs: Pairs, threads: int, rounds: int
) -> dict[str, Any]:
    """The rate of the iterations, from two numbers of them, beside the ceiling from the same rounds."""
    samples = {str(p.inner_iterations): Ours(worker, "iterations", threads, p).sample(pairs) for p in (BARE, MORE)}
    if ceiling is not None:
        # A rate disguised as a time: what one pixel-iteration takes.
        samples["ceiling"] = lambda calls: calls / ceiling.rate(threads, 0.1)
    seconds = interleaved(samples, rounds)
    count, height, width = pairs.frames0.shape
    work = count * height * width * (MORE.inner_iterations - BARE.inner_iterations)
    rates = [work / (long - short) for short, long in zip(*(seconds[name] for name in ("20", "120")), strict=True)]
    row = {
        **{"width": width, "height": height, "batch": count, "threads": threads, "simd": worker.simd},
        "rate": summary(rates)._asdict(),
    }
    if ceiling is not None:
        row["ceiling"] = summary([1 / second for second in seconds["ceiling"]])._asdict()
    return row


def measure_stages(worker: Worker, pairs: Pairs, threads: int, rounds: int) -> dict[str, Any]:
    """Shares of preset "fast": of time, by stage.

    Iterations and warps: the slope over their number. The median: with it less without it. A warp is one median, one
    round of iterations, and the warping itself; what remains are pyramids, carrying from level to level, loading. What
    a round of iterations costs whatever their number (the first touch of the image) counts as warping.
    """
    variants = {
        "fast": FAST,
        "no median": replace(FAST, median_size=1),
        "few iterations": replace(FAST, inner_iterations=FEW),
        "many iterations": replace(FAST, inner_iterations=MANY),
        "more warps": replace(FAST, warps=FAST.warps + MORE_WARPS),
    }
    samples = {name: Ours(worker, name, threads, params).sample(pairs) for name, params in variants.items()}
    seconds = {name: statistics.median(values) for name, values in interleaved(samples, rounds).items()}
    total = seconds["fast"]
    one_iteration = (seconds["many iterations"] - seconds["few iterations"]) / (MANY - FEW)
    iterations = one_iteration * FAST.inner_iterations
    median = total - seconds["no median"]
    all_warps = (seconds["more warps"] - total) / MORE_WARPS * FAST.warps
    count, height, width = pairs.frames0.shape
    return {
        **{"width": width, "height": height, "batch": count, "threads": threads, "simd": worker.simd},
        "seconds": total,
        "rounds": rounds,
        "shares": {
            "iterations": iterations / total,
            "warping": (all_warps - iterations - median) / total,
            "median": median / total,
            "rest": (total - all_warps) / total,
        },
    }
