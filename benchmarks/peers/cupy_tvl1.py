"""TV-L1 as OpenCV's CUDA code runs it: one pair at a time, two launches per iteration. The kernels: two_kernel_tvl1.cu.

Level by level, the loops are generic over where they run. With CuPy, GPU tensors of torch go in and come out.
"""

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyaction.ops import TVL1Params

KERNELS = Path(__file__).with_name("two_kernel_tvl1.cu")
BLOCK = (32, 8)
MIN_LEVEL_SIZE = 16

Array = Any  # of numpy or CuPy
Launch = Callable[[str, tuple[int, int], tuple[int, int], Sequence[Any]], None]  # name, grid, block, arguments


class Level:
    """The fields of one level of the pyramid, (H, W) each, kept from pair to pair as OpenCV keeps them."""

    def __init__(self, xp: Any, height: int, width: int) -> None:
        def planes(count: int) -> tuple[Array, ...]:
            return tuple(xp.zeros((height, width), xp.float32) for _ in range(count))

        self.size = xp.int32(width), xp.int32(height)
        self.grid = -(-width // BLOCK[0]), -(-height // BLOCK[1])
        self.frames, self.gradient, self.flow = planes(2), planes(2), planes(2)
        self.duals = planes(4)  # p11, p12 of u1, p21, p22 of u2
        self.term = planes(4)  # wx, wy, norm, constant


class TwoKernelTVL1:
    """A solver for pairs of one size: pyaction.ops.tvl1_flow(params=TVL1Params(as_opencv=True, ...)) at epsilon 0."""

    def __init__(self, xp: Any, launch: Launch, height: int, width: int, params: TVL1Params) -> None:
        if not params.as_opencv or (params.epsilon, params.median_size, params.outer_iterations) != (0, 1, 1):
            raise ValueError("TwoKernelTVL1 runs all iterations of one round, without median, as OpenCV")
        self.xp, self.launch, self.params = xp, launch, params
        self.levels: list[Level] = []  # finest first
        while len(self.levels) < params.scales and min(height, width) >= MIN_LEVEL_SIZE:
            self.levels.append(Level(xp, height, width))
            height, width = round(height * params.scale_step), round(width * params.scale_step)
        self.frames, self.flow = self.levels[0].frames, self.levels[0].flow

    def solve(self) -> tuple[Array, Array]:
        """u1, u2 for the grey levels 0..255 in `frames`. The next call overwrites them."""
        step = self.params.scale_step
        for finer, level in zip(self.levels, self.levels[1:], strict=False):
            self._resize(finer, finer.frames, level, level.frames, (1 / step, 1 / step))
        for u in self.levels[-1].flow:
            u.fill(0)
        for coarser, level in zip([None, *self.levels[:0:-1]], self.levels[::-1], strict=True):
            if coarser is not None:
                ratios = [int(mine) / int(target) for mine, target in zip(coarser.size, level.size, strict=True)]
                self._resize(coarser, coarser.flow, level, level.flow, ratios)
                for u in level.flow:
                    self._run("scale", level, u, self.xp.float32(1 / step))
            self._solve_level(level)
        return self.flow

    def _solve_level(self, level: Level) -> None:
        number, params = self.xp.float32, self.params
        flow_step = (*level.term, *level.flow, *level.duals, number(params.attachment * params.theta))
        dual_step = (*level.flow, *level.duals, number(params.tau / params.theta))
        for p in level.duals:
            p.fill(0)
        self._run("centred_gradient", level, level.frames[1], *level.gradient)
        for _ in range(params.warps):
            self._run("warp", level, *level.frames, *level.gradient, *level.flow, *level.term)
            for _ in range(params.inner_iterations):
                self._run("estimate_flow", level, *flow_step, number(params.theta))
                self._run("estimate_duals", level, *dual_step)

    def _resize(
        self, source: Level, fields: Sequence[Array], target: Level, results: Sequence[Array], ratios: Sequence[float]
    ) -> None:
        for field, result in zip(fields, results, strict=True):
            self._run("resize", target, field, *source.size, *map(self.xp.float64, ratios), result)

    def _run(self, kernel: str, level: Level, *arguments: Any) -> None:
        self.launch(kernel, level.grid, BLOCK, (*arguments, *level.size))


def cupy_solver(height: int, width: int, params: TVL1Params, *, graph: bool) -> Callable[[Tensor, Tensor], Tensor]:
    """From frames (N, H, W), uint8, on the GPU to the flow (N, 2, H, W), on torch's current stream.

    graph: the launches for a pair are recorded once and replayed. Python's share of their cost, which OpenCV does not
    have, is not counted then, nor most of the launches' own, which it has.
    """
    import cupy

    kernel = functools.cache(cupy.RawModule(code=KERNELS.read_text()).get_function)
    solver = TwoKernelTVL1(cupy, lambda name, *launch: kernel(name)(*launch), height, width, params)
    solve: Callable[[], Any] = solver.solve
    if graph:
        with _on_torchs_stream():
            solve()  # what is compiled and loaded at the first call cannot be recorded
        recorded = torch.cuda.CUDAGraph()
        with torch.cuda.graph(recorded), _on_torchs_stream():
            solve()
        solve = recorded.replay
    inputs, outputs = ([torch.from_dlpack(plane) for plane in planes] for planes in (solver.frames, solver.flow))

    def flow(frames0: Tensor, frames1: Tensor) -> Tensor:
        result = frames0.new_empty((len(frames0), 2, height, width), dtype=torch.float32)
        with _on_torchs_stream():
            for pair, target in zip(zip(frames0, frames1, strict=True), result, strict=True):
                for plane, frame in zip(inputs, pair, strict=True):
                    plane.copy_(frame)
                solve()
                torch.stack(outputs, out=target)
        return result

    return flow


def _on_torchs_stream() -> AbstractContextManager[Any]:
    """Within it, CuPy launches on the stream that is torch's current one."""
    import cupy

    return cupy.cuda.Stream.from_external(torch.cuda.current_stream())
