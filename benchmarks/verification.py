"""What must hold before anything is timed: a fast wrong result is worth nothing."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scenes import Pairs, Scene

from pyaction.flow import endpoint_error

Flow = NDArray[np.float32]

# Mean end-point error against the truth, in pixels: real pairs (Middlebury) and made ones.
LARGEST_ERROR = {
    "real": {"fast": 0.30, "accurate": 0.25, "video": 0.33},
    "generated": {"fast": 0.20, "accurate": 0.18, "video": 0.22},
}
# Between preset "opencv" and OpenCV, for instruction sets with fused multiply-add.
LARGEST_DEVIATION, SHARE_NEAR, NEAR = 0.005, 0.995, 0.1
# Between any two instruction sets: without fused multiply-add TV-L1 rounds differently, and where pixels have
# no partner it is chaotic.
LARGEST_DIFFERENCE = 0.02


class VerificationError(Exception):
    """A result is wrong."""


class Solver(Protocol):
    """pyaction with certain parameters, or a peer."""

    @property
    def method(self) -> str: ...

    def flow(self, pairs: Pairs) -> Flow: ...


class ClipSolver(Protocol):
    def clip_flow(self, clip: NDArray[np.uint8]) -> Flow: ...

    def stream_flow(self, clip: NDArray[np.uint8]) -> Flow: ...


class Verification:
    """Collects what was checked; refuses what is out of bounds."""

    def __init__(self) -> None:
        self.checks: list[dict[str, Any]] = []

    def at_most(self, what: str, value: float, limit: float) -> None:
        self.checks.append({"what": what, "value": value, "limit": limit})
        if not value <= limit:  # NaN is refused too
            raise VerificationError(f"{what}: {value:.4g}, but at most {limit:g} is right")

    def flows(self, solver: Solver, scenes: Sequence[Scene]) -> list[Flow]:
        """(2, H, W) for each scene."""
        found = [solver.flow(scene.pair)[0] for scene in scenes]
        for scene, flow in zip(scenes, found, strict=True):
            if flow.shape != scene.truth.shape or not np.isfinite(flow).all():
                raise VerificationError(f"{solver.method} gives no flow for {scene.name}")
        return found

    def accuracy(self, preset: str, flows: Sequence[Flow], scenes: Sequence[Scene], kind: str) -> None:
        limit = LARGEST_ERROR[kind][preset]
        self.at_most(f"{preset}: mean error against the truth, px", mean_error(flows, scenes), limit)

    def same_as_opencv(self, what: str, flows: Sequence[Flow], expected: Sequence[Flow]) -> None:
        distance = np.concatenate([_distance(*both).ravel() for both in zip(flows, expected, strict=True)])
        self.at_most(f"{what}: mean distance from OpenCV, px", float(distance.mean()), LARGEST_DEVIATION)
        far = float((distance > NEAR).mean())
        self.at_most(f"{what}: share of pixels further than {NEAR} px from OpenCV", far, 1 - SHARE_NEAR)

    def simd_levels_agree(self, what: str, flows: Mapping[str, Sequence[Flow]]) -> None:
        """flows: for each instruction set, of the same pairs."""
        for (level, ours), (other, theirs) in combinations(flows.items(), 2):
            distance = float(np.mean([_distance(*both).mean() for both in zip(ours, theirs, strict=True)]))
            self.at_most(f"{what}: mean distance of {level} from {other}, px", distance, LARGEST_DIFFERENCE)

    def clip_is_stream(self, solver: ClipSolver, clip: NDArray[np.uint8]) -> None:
        difference = np.abs(solver.clip_flow(clip) - solver.stream_flow(clip)).max()
        self.at_most("video: clip at once against frame by frame, px", float(difference), 0.0)


def mean_error(flows: Sequence[Flow], scenes: Sequence[Scene]) -> float:
    """Average over the scenes of the mean end-point error, in pixels."""
    errors = []
    for scene, flow in zip(scenes, flows, strict=True):
        found, truth, valid = map(torch.from_numpy, (np.ascontiguousarray(flow), scene.truth, scene.valid))
        errors.append(endpoint_error(found, truth, valid))
    return float(torch.stack(errors).mean())


def _distance(flow: Flow, other: Flow) -> Flow:
    return np.hypot(*(flow - other))
