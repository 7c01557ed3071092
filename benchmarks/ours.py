"""pyaction's TV-L1, each instruction set in a process of its own: PYACTION_SIMD is read once per process.

The processes live as long as the benchmark, so that the instruction sets can be timed in turn, with peers in between.
"""

import multiprocessing
import os
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scenes import Pairs
from timing import Sample, timed

from pyaction import _native
from pyaction.ops import TVL1_PRESETS, TVL1Params, TVL1Stream, tvl1_flow, tvl1_flow_clip


class Kernels:
    """What a worker process does when asked."""

    def __init__(self) -> None:
        self._frames: dict[int, tuple[torch.Tensor, ...]] = {}

    def simd(self) -> str:
        return _native.simd_level()

    def flow(self, frames: tuple[NDArray, ...], params: TVL1Params, threads: int) -> NDArray:
        return self._flow(tuple(map(torch.from_numpy, frames)), params, threads).numpy()

    def stream(self, clip: NDArray, params: TVL1Params) -> NDArray:
        """As `flow` of a clip, frame by frame."""
        stream = TVL1Stream(params)
        flows = [stream.push(frame) for frame in torch.from_numpy(clip).unbind(1)]
        return torch.stack([flow for flow in flows if flow is not None], dim=1).numpy()

    def keep(self, frames: tuple[NDArray, ...]) -> int:
        """Takes the input of later timings, out of the timed part."""
        self._frames[len(self._frames)] = tuple(map(torch.from_numpy, frames))
        return len(self._frames) - 1

    def seconds(self, kept: int, params: TVL1Params, threads: int, calls: int) -> float:
        frames = self._frames[kept]
        return timed(lambda: self._flow(frames, params, threads), calls)

    def _flow(self, frames: tuple[torch.Tensor, ...], params: TVL1Params, threads: int) -> torch.Tensor:
        """Of pairs (frames0, frames1), or of a clip (frames,)."""
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        return tvl1_flow(*frames, params=params) if len(frames) == 2 else tvl1_flow_clip(*frames, params=params)


def serve(connection: Connection) -> None:
    """Answers (method, arguments) until None comes."""
    kernels = Kernels()
    while (request := connection.recv()) is not None:
        method, arguments = request
        try:
            connection.send((getattr(kernels, method)(*arguments), None))
        except Exception as error:  # whatever it is, the benchmark shall say so
            connection.send((None, repr(error)))


class Worker:
    """The other end of `serve`."""

    def __init__(self, simd: str) -> None:
        self.simd = simd
        self._connection, theirs = multiprocessing.Pipe()
        before = os.environ.get("PYACTION_SIMD")
        os.environ["PYACTION_SIMD"] = simd
        try:
            self._process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
            self._process.start()
        finally:
            if before is None:
                del os.environ["PYACTION_SIMD"]
            else:
                os.environ["PYACTION_SIMD"] = before
        theirs.close()
        if (used := self.ask("simd")) != simd:
            raise RuntimeError(f"a process that was to use {simd} uses {used}")

    def ask(self, method: str, *arguments: Any) -> Any:
        self._connection.send((method, arguments))
        answer, error = self._connection.recv()
        if error is not None:
            raise RuntimeError(f"{method} with {self.simd}: {error}")
        return answer

    def close(self) -> None:
        self._connection.send(None)
        self._process.join()


@dataclass(frozen=True)
class Ours:
    """pyaction's TV-L1 with certain parameters, instruction set and threads."""

    worker: Worker
    preset: str  # or a name for `params`
    threads: int
    params: TVL1Params | None = None

    @property
    def method(self) -> str:
        return f"pyaction {self.preset}"

    @property
    def used(self) -> TVL1Params:
        return self.params or TVL1_PRESETS[self.preset]

    def describe(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "simd": self.worker.simd,
            "threads": self.threads,
            "params": asdict(self.used),
        }

    def flow(self, pairs: Pairs) -> NDArray[np.float32]:
        """(N, 2, H, W)"""
        return self.worker.ask("flow", _with_channel(pairs), self.used, self.threads)

    def clip_flow(self, clip: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(T - 1, 2, H, W) of (T, H, W)."""
        return self.worker.ask("flow", (clip[None, :, None],), self.used, self.threads)[0]

    def stream_flow(self, clip: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The same, frame by frame."""
        return self.worker.ask("stream", clip[None, :, None], self.used)[0]

    def sample(self, pairs: Pairs) -> Sample:
        return self._sample(_with_channel(pairs))

    def clip_sample(self, clips: NDArray[np.uint8]) -> Sample:
        """Of (N, T, H, W)."""
        return self._sample((clips[:, :, None],))

    def _sample(self, frames: tuple[NDArray, ...]) -> Sample:
        kept = self.worker.ask("keep", frames)
        return lambda calls: self.worker.ask("seconds", kept, self.used, self.threads, calls)


def _with_channel(pairs: Pairs) -> tuple[NDArray, NDArray]:
    return pairs.frames0[:, None], pairs.frames1[:, None]
