"""Other libraries' optical flow, for grey frames (H, W), uint8."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scenes import Pairs
from timing import Sample, timed

from pyaction.ops import TVL1Params

Frame = NDArray[np.uint8]
Flow = NDArray[np.float32]  # (2, H, W)


@dataclass(frozen=True)
class Peer:
    """One of them with a certain number of threads."""

    method: str
    solve: Callable[[Frame, Frame], Flow]
    threads: int
    params: dict[str, Any] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        return {"method": self.method, "simd": "", "threads": self.threads, "params": self.params}

    def flow(self, pairs: Pairs) -> Flow:
        """(N, 2, H, W)"""
        cv2.setNumThreads(self.threads)
        return np.stack([self.solve(*pair) for pair in zip(*pairs, strict=True)])

    def sample(self, pairs: Pairs) -> Sample:
        return lambda calls: timed(lambda: self.flow(pairs), calls)


def opencv_tvl1(method: str, threads: int, params: TVL1Params | None = None) -> Peer:
    """cv2.optflow.DualTVL1OpticalFlow with its defaults, or with ours."""
    given = {}
    if params is not None:
        given = {
            "tau": params.tau,
            "lambda_": params.attachment,
            "theta": params.theta,
            "nscales": params.scales,
            "warps": params.warps,
            "epsilon": params.epsilon,
            "innnerIterations": params.inner_iterations,  # three n
            "outerIterations": params.outer_iterations,
            "scaleStep": params.scale_step,
            "medianFiltering": params.median_size,
        }

    def solve(frame0: Frame, frame1: Frame) -> Flow:
        # A new object each time: one that has seen a small image uses no more levels for a large one.
        solver = cv2.optflow.DualTVL1OpticalFlow_create(**given)
        return solver.calc(frame0, frame1, None).transpose(2, 0, 1)

    return Peer(method, solve, threads, asdict(params) if params else {})


def opencv_dis(preset: str, threads: int) -> Peer:
    """Dense inverse search (Kroeger et al. 2016), OpenCV's fast flow."""
    solver = cv2.DISOpticalFlow_create(getattr(cv2, f"DISOPTICAL_FLOW_PRESET_{preset.upper()}"))
    return Peer(
        f"OpenCV DIS {preset}", lambda frame0, frame1: solver.calc(frame0, frame1, None).transpose(2, 0, 1), threads
    )


def skimage_tvl1() -> Peer:
    """skimage.registration.optical_flow_tvl1 with its defaults; it uses one thread."""
    from skimage.registration import optical_flow_tvl1

    def solve(frame0: Frame, frame1: Frame) -> Flow:
        return optical_flow_tvl1(frame0, frame1, dtype=np.float32)[::-1]  # its first channel is y

    return Peer("scikit-image TV-L1", solve, 1)
