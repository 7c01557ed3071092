"""TV-L1 on a GPU beside OpenCV's structure of kernels, as CuPy runs it: python benchmarks/bench_tvl1_cuda.py --json

Equal work: the same five levels, warps and iterations, without median filter. The presets, which have no peer that
does the same, are timed alone. bench_tvl1.py is the comparison on the CPU.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace

import bench_tvl1
import numpy as np
import torch
from op_benchmark import Case, main
from peers.cupy_tvl1 import cupy_solver
from scenes import load_clips, load_scenes, resized_pairs

from pyaction.ops import tvl1_flow, tvl1_flow_clip

WIDTH, HEIGHT = bench_tvl1.SMALL
BATCHES = (1, 64)
CLIPS, FRAMES = 8, 9
EQUAL_WORK = replace(bench_tvl1.EQUAL_WORK, median_size=1)
# Where pixels have no partner TV-L1 is chaotic: another rounding leads to another flow. The other pixels, this share of
# them, differ by 4e-5 of the largest flow (measured with tests/simt), and by 7e-4 for one iteration less in each warp.
SHARE, TOLERANCE = 0.8, 2e-4


def cases(device: str, quick: bool) -> Iterator[Case]:
    peers = {
        "two kernels, CuPy": cupy_solver(HEIGHT, WIDTH, EQUAL_WORK, graph=False),
        "two kernels, CuPy, one CUDA graph per pair": cupy_solver(HEIGHT, WIDTH, EQUAL_WORK, graph=True),
    }
    for batch in BATCHES[:1] if quick else BATCHES:
        pairs = resized_pairs(load_scenes(), WIDTH, HEIGHT, batch)
        frames = [torch.from_numpy(frames).to(device) for frames in pairs]
        grey = [frames[:, None] for frames in frames]
        methods = {"pyaction": lambda grey=grey: [tvl1_flow(*grey, params=EQUAL_WORK)]}
        methods |= {name: (lambda f=solve, frames=frames: [f(*frames)]) for name, solve in peers.items()}
        name = f"{WIDTH} × {HEIGHT}, batch {batch}"
        yield Case(f"{name}, equal work", methods, TOLERANCE, share=SHARE)
        yield Case(f"{name}, preset fast", {"pyaction": lambda grey=grey: [tvl1_flow(*grey, params="fast")]}, 0.0)
    clips = torch.from_numpy(np.stack([*load_clips(CLIPS, FRAMES).values()])).to(device)[:, :, None]
    count, frames, _, height, width = clips.shape
    name = f"{width} × {height}, {count} clips of {frames} frames, preset video"
    yield Case(name, {"pyaction": lambda: [tvl1_flow_clip(clips, params="video")]}, 0.0)


if __name__ == "__main__":
    sys.exit(main("tvl1", lambda device, quick: list(cases(device, quick)), devices=("cuda",)))
