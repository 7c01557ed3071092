"""The GPU peer of bench_tvl1_cuda.py without a GPU: its kernels run in tests/simt, its loops on numpy arrays."""

import ctypes
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from peers.cupy_tvl1 import KERNELS, TwoKernelTVL1, cupy_solver
from reference.tvl1 import moving_texture
from simt import harness
from torch import Tensor

from pyaction.ops import TVL1Params, tvl1_flow

pytestmark = pytest.mark.simt

PARAMS = TVL1Params(scales=3, warps=2, inner_iterations=10, outer_iterations=1, epsilon=0.0, median_size=1)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    texts = [f'#line 1 "{path.name}"\n{path.read_text()}' for path in (KERNELS, harness.HERE / "by_name.cu")]
    source = tmp_path_factory.mktemp("peer") / KERNELS.name
    source.write_text("\n".join(["#include <cuda_runtime.h>", *texts]))
    library = harness.load(harness.build([source]))
    library.launch_by_name.restype = ctypes.c_char_p
    return library


class NumpyLauncher:
    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        self.count = 0

    def __call__(self, name: str, grid: tuple[int, int], block: tuple[int, int], arguments: Sequence[Any]) -> None:
        self.count += 1
        arrays = [value for value in arguments if isinstance(value, np.ndarray)]
        assert all(array.flags.c_contiguous and array.dtype == np.float32 for array in arrays)
        values = [
            np.array(value.ctypes.data) if isinstance(value, np.ndarray) else np.array(value) for value in arguments
        ]
        addresses = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
        sizes = [(ctypes.c_uint * 2)(*size) for size in (grid, block)]
        error = self.library.launch_by_name(name.encode(), *sizes, addresses, ctypes.c_size_t(len(values)))
        assert error is None, f"{name}: {error.decode()}"


def moving_frames(height: int = 48, width: int = 64) -> tuple[Tensor, Tensor]:
    """Grey levels (1, 1, H, W). The picture grows: there are pixels that leave it on every side."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    flow = torch.stack([0.07 * (x - 24), 0.06 * (y - 28)])[None]
    frame0, frame1 = moving_texture(flow.float(), seed=3)
    return (255 * frame0).round().byte(), (255 * frame1).round().byte()


def peer_flow(launcher: NumpyLauncher, frame0: Tensor, frame1: Tensor, params: TVL1Params, calls: int = 1) -> Tensor:
    solver = TwoKernelTVL1(np, launcher, *frame0.shape[-2:], params)
    for _ in range(calls):
        for field, frame in zip(solver.frames, (frame0, frame1), strict=True):
            field[...] = frame[0, 0]
        flow = solver.solve()
    return torch.from_numpy(np.stack(flow))[None]


def mean_distance(flow: Tensor, other: Tensor) -> float:
    return float((flow - other).norm(dim=1).mean())


def test_peer_finds_the_same_flow_in_every_order_of_turns(library: ctypes.CDLL) -> None:
    frames = moving_frames()
    expected = tvl1_flow(*frames, params=PARAMS)
    assert expected.norm(dim=1).mean() > 1  # px: it is the motion that is compared
    flows = []
    for order in range(len(harness.ORDERS)):
        library.simt_set_order(order, ctypes.c_uint64(7))
        flows.append(peer_flow(NumpyLauncher(library), *frames, PARAMS))
        assert mean_distance(flows[-1], expected) < 1e-3
        assert torch.equal(flows[-1], flows[0])


def test_a_solver_forgets_the_pair_before(library: ctypes.CDLL) -> None:
    frames = moving_frames(40, 33)
    once, twice = (peer_flow(NumpyLauncher(library), *frames, PARAMS, calls) for calls in (1, 2))
    assert torch.equal(once, twice)


def test_batches_go_pair_by_pair_through_cupy(library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = NumpyLauncher(library)
    module = SimpleNamespace(get_function=lambda name: partial(launcher, name))
    cuda = SimpleNamespace(Stream=SimpleNamespace(from_external=lambda stream: nullcontext()))
    cupy = SimpleNamespace(**vars(np) | {"RawModule": lambda code: module, "cuda": cuda})
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: None)
    frame0, frame1 = moving_frames()
    batch = torch.cat([frame0, frame1])[:, 0]  # there and back
    flow = cupy_solver(48, 64, PARAMS, graph=False)(batch, batch.flip(0))
    assert torch.equal(flow[:1], peer_flow(launcher, frame0, frame1, PARAMS))
    assert torch.equal(flow[1:], peer_flow(launcher, frame1, frame0, PARAMS))


def test_launches_are_two_per_iteration(library: ctypes.CDLL) -> None:
    launcher = NumpyLauncher(library)
    peer_flow(launcher, *moving_frames(), PARAMS)
    levels, warps, iterations = PARAMS.scales, PARAMS.warps, PARAMS.inner_iterations
    between = 2 + 4  # frames to the coarser level, flow to the finer one and scaled
    assert launcher.count == levels * (1 + warps * (1 + 2 * iterations)) + (levels - 1) * between


@pytest.mark.parametrize(
    "wrong", [{"median_size": 3}, {"epsilon": 0.02}, {"as_opencv": False}, {"outer_iterations": 2}]
)
def test_what_the_peer_does_not_do_is_refused(wrong: dict[str, Any]) -> None:
    params = TVL1Params(**{"outer_iterations": 1, "epsilon": 0.0, "median_size": 1, **wrong})
    with pytest.raises(ValueError, match="all iterations of one round"):
        TwoKernelTVL1(np, print, 48, 64, params)
