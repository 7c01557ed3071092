"""Video: how well the flow predicts the next frame, and how fast it comes."""

import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ours import Ours
from peers.optical_flow import Peer
from scenes import Image, Pairs
from timing import interleaved, summary

from pyaction.ops import warp

NO_MOTION = "no motion"


def measure_sequences(
    ours: Ours, peers: list[Peer], slow: Peer, clips: dict[str, Image], rounds: int
) -> dict[str, Any]:
    """Every clip is a round. `slow` runs once for each clip, timed; it has to be warm."""
    solvers: list[Ours | Peer] = [ours, *peers, slow]
    errors: dict[str, list[float]] = {method: [] for method in (NO_MOTION, *(solver.method for solver in solvers))}
    seconds: dict[str, list[float]] = {solver.method: [] for solver in solvers}  # per pair
    for clip in clips.values():
        pairs = neighbours(clip)
        count, height, width = pairs.frames0.shape
        samples = {ours.method: ours.clip_sample(clip[None])} | {peer.method: peer.sample(pairs) for peer in peers}
        for method, values in interleaved(samples, 1).items():
            seconds[method].append(values[0] / count)
        start = time.perf_counter()
        flows = {slow.method: slow.flow(pairs)}
        seconds[slow.method].append((time.perf_counter() - start) / count)
        flows |= {ours.method: ours.clip_flow(clip)} | {peer.method: peer.flow(pairs) for peer in peers}
        flows[NO_MOTION] = np.zeros((count, 2, height, width), np.float32)
        for method, flow in flows.items():
            errors[method].append(warping_error(pairs, flow))
    ratios = [peer / our for peer, our in zip(seconds[slow.method], seconds[ours.method], strict=True)]
    batch = np.stack(list(clips.values()))
    at_once = interleaved({"": ours.clip_sample(batch)}, rounds)[""]
    return {
        "clips": list(clips),
        "frames": batch.shape[1],
        "width": batch.shape[3],
        "height": batch.shape[2],
        "rows": [
            solver.describe()
            | {"error": float(np.mean(errors[solver.method]))}
            | {"seconds_per_pair": summary(seconds[solver.method])._asdict()}
            for solver in solvers
        ],
        "no_motion_error": float(np.mean(errors[NO_MOTION])),
        "all_clips_at_once": summary([value / (len(clips) * count) for value in at_once])._asdict(),
        "ratio": summary(ratios)._asdict(),  # of slow and ours, clip by clip
    }


def neighbours(clip: Image) -> Pairs:
    return Pairs(np.ascontiguousarray(clip[:-1]), np.ascontiguousarray(clip[1:]))


def warping_error(pairs: Pairs, flow: NDArray[np.float32]) -> float:
    """Mean difference, in grey levels, of frame 0 from frame 1 warped by the flow (N, 2, H, W)."""
    frames0, frames1 = (torch.from_numpy(frames).float()[:, None] for frames in pairs)
    back = warp(frames1, torch.from_numpy(flow), padding="border")
    return float((back - frames0).abs().mean())
