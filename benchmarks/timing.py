"""Times things against each other: all in turn, round after round, so that a busy moment of the machine hits all."""

import math
import random
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

Sample = Callable[[int], float]  # runs something so many times and returns the seconds this took
SETTLE = 0.005  # seconds in which the idle threads of whatever ran before stop spinning


class Timing(NamedTuple):
    """Seconds per call."""

    median: float
    iqr: float
    rounds: int


def interleaved(samples: Mapping[str, Sample], rounds: int, shortest: float = 0.1) -> dict[str, list[float]]:
    """Seconds per call of each, one value per round.

    Every round runs each of them once, in another order. What takes less than `shortest` seconds is called
    repeatedly. One call before the first round is not counted.
    """
    calls = {name: _calls_for(sample, shortest) for name, sample in samples.items()}
    seconds: dict[str, list[float]] = {name: [] for name in samples}
    order = list(samples)
    shuffle = random.Random(0).shuffle
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            time.sleep(SETTLE)
            seconds[name].append(samples[name](calls[name]) / calls[name])
    return seconds


def summary(values: list[float]) -> Timing:
    lower, median, upper = np.percentile(values, [25, 50, 75])
    return Timing(float(median), float(upper - lower), len(values))


def _calls_for(sample: Sample, shortest: float) -> int:
    cold = sample(1)
    warm = sample(1) if cold < shortest else cold
    return max(1, math.ceil(shortest / max(warm, 1e-6)))


def timed(function: Callable[[], object], calls: int) -> float:
    """Seconds that so many calls take."""
    start = time.perf_counter()
    for _ in range(calls):
        function()
    return time.perf_counter() - start
