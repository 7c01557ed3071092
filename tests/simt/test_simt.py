"""The emulator itself: what it computes, and which mistakes it finds. The kernels are in kernels.cu."""

import ctypes
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from simt import harness

pytestmark = pytest.mark.simt

KERNELS = harness.HERE / "kernels.cu"


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    return harness.load(harness.build([KERNELS]))


@pytest.fixture(params=harness.ORDERS)
def order(request: pytest.FixtureRequest, library: ctypes.CDLL) -> str:
    library.simt_set_order(harness.ORDERS.index(request.param), ctypes.c_uint64(7))
    return request.param


def run(name: str, x: Tensor, *arguments: int) -> Tensor:
    return getattr(torch.ops.simt_test, name)(x, *arguments)


def test_barrier_makes_the_order_of_turns_not_matter(order: str) -> None:
    x = torch.randint(0, 1000, (200,))
    assert torch.equal(run("reverse", x, 2)[0], x.flip(0))


def test_missing_barrier_shows_as_results_that_differ(library: ctypes.CDLL) -> None:
    x = torch.randint(0, 1000, (200,))
    results = []
    for number in range(len(harness.ORDERS)):
        library.simt_set_order(number, ctypes.c_uint64(7))
        results.append(run("reverse_without_barrier", x, 1)[0])
    right = [(result == x.flip(0)) for result in results]
    assert right[0][100:].all() and (results[0][:100] == -1).all()  # ascending: only what comes later is not there
    assert right[1][:100].all() and (results[1][100:] == -1).all()
    assert 60 < right[2].sum() < 140 and not torch.equal(right[2], right[0])


def test_seed_chooses_the_random_order(library: ctypes.CDLL) -> None:
    def result(seed: int) -> Tensor:
        library.simt_set_order(2, ctypes.c_uint64(seed))
        return run("reverse_without_barrier", torch.arange(200), 1)

    assert torch.equal(result(3), result(3)) and not torch.equal(result(3), result(4))


def test_sum_by_shuffles(order: str) -> None:
    x = torch.randint(0, 1000, (256,))
    assert (run("sum", x, 3)[0, :32] == x.sum()).all()


def test_shuffles(order: str) -> None:
    x = torch.arange(64) * 10
    lane, warp = torch.arange(64) % 32, torch.arange(64) // 32 * 32
    result = run("shuffle", x, 1)
    expected = [
        warp + 5,
        warp + lane // 8 * 8 + 1,
        warp + torch.where(lane < 3, lane, lane - 3),
        warp + torch.where(lane % 16 > 12, lane, lane + 3),
        warp + (lane ^ 6),
    ]
    assert torch.equal(result[:5], 10 * torch.stack(expected))
    halves = torch.where(lane < 16, lane ^ 1, -(lane ^ 15)) + torch.where(lane < 16, warp, -warp)
    assert torch.equal(result[5], 10 * halves)


def test_shuffle_from_lanes_that_are_not_there_is_poison(order: str) -> None:
    result = run("shuffle", torch.arange(20), 1)
    assert torch.equal(result[3, 13:], torch.tensor([13, 14, 15, 19, -1, -1, -1]))


def test_votes(order: str) -> None:
    result = run("vote", torch.arange(64), 1)
    ballots = [sum(1 << lane for lane in range(32) if (first + lane) % 3 == 0) for first in (0, 32)]
    expected = [[ballots[0]] * 32 + [ballots[1]] * 32, [0] * 32 + [1] * 32, [1] * 32 + [0] * 32]
    assert torch.equal(result[:3], torch.tensor(expected))
    assert (result[3] == 13).all() and (result[4] == 1).all() and (result[5] == 0).all()


def test_atomics(order: str) -> None:
    x = torch.randint(1, 1000, (130,))
    result = run("add", x, 3).flatten()
    assert result[:4].tolist() == [3 * x.sum(), x.max(), -x.max(), 3 * x.sum()]


def test_threads_that_exited_count_as_arrived(order: str) -> None:
    x = torch.randint(0, 1000, (77,))
    result = run("exit_early", x, 1)[0]
    assert (result[::2] == x[::2].sum()).all() and (result[1::2] == 0).all()


def test_shared_memory_is_poisoned_before_each_block(order: str) -> None:
    assert run("read_unwritten", torch.zeros(1, dtype=torch.int64), 4).tolist() == [[v] for v in (1, -1) * 4]


def test_indices(order: str) -> None:
    z, y, x = torch.meshgrid(torch.arange(2), torch.arange(3), torch.arange(4), indexing="ij")
    expected = 1000 * torch.arange(12).view(12, 1) + (100 * x + 10 * y + z).flatten()
    assert torch.equal(run("number_threads", torch.zeros(1, dtype=torch.int64)), expected)


def test_any_thread_of_the_system_may_launch(library: ctypes.CDLL) -> None:
    """Shared memory is thread-local."""
    x = torch.randint(0, 1000, (200,))
    with ThreadPoolExecutor(3) as pool:
        assert all(torch.equal(result[0], x.flip(0)) for result in pool.map(lambda _: run("reverse", x, 9), range(20)))


ERRORS = {
    "diverge": r"divergent barrier in block \(0, 0, 0\): 8 threads at kernels.cu:\d+ \(__syncthreads\), "
    r"25 threads at kernels.cu:\d+ \(__syncthreads\)",
    "diverge_in_warp": r"divergent barrier in block \(0, 0, 0\): 1 thread at kernels.cu:\d+ \(__syncthreads\), "
    r"31 threads at kernels.cu:\d+ \(__shfl_sync\)",
    "shuffle_outside_the_mask": "__shfl_sync: the calling lane is not in the mask",
    "fail": "thread 7 has had enough",
}


@pytest.mark.parametrize("kernel", ERRORS)
def test_error_reaches_python_and_does_not_stay(kernel: str, order: str) -> None:
    x = torch.arange(33)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="pyaction: kernel launch failed: .*" + ERRORS[kernel]):
            run(kernel, x, 1)
        assert torch.equal(run("reverse", x, 1)[0], x.flip(0))


@pytest.mark.parametrize(("threads", "blocks"), [(1025, 1), (0, 1), (5, 0)])
def test_launch_that_no_gpu_takes_is_refused(threads: int, blocks: int, library: ctypes.CDLL) -> None:
    with pytest.raises(RuntimeError, match="kernel launch failed: invalid configuration argument"):
        run("reverse", torch.zeros(threads, dtype=torch.int64), blocks)


UNDER_ASAN = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from simt import harness
from pathlib import Path
library = harness.load(Path(sys.argv[2]))
x = torch.arange(64)
for order in range(3):
    library.simt_set_order(order, 7)
    assert torch.equal(torch.ops.simt_test.reverse(x, 2)[0], x.flip(0))
    try:
        torch.ops.simt_test.fail(x, 1)
    except RuntimeError as error:
        assert "has had enough" in str(error)
print("so far so good", flush=True)
torch.ops.simt_test.write_past_the_end(x, 1)
"""


def test_address_sanitizer_finds_what_is_out_of_bounds(tmp_path: Path) -> None:
    libraries = []
    for name in ("libasan.so", "libstdc++.so"):  # python knows neither, and both have to be there first
        found = subprocess.run(["c++", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
        libraries.append(found.stdout.strip())
    if not Path(libraries[0]).is_absolute():
        pytest.skip("no address sanitizer is installed")
    environment = {**os.environ, "LD_PRELOAD": " ".join(libraries), "ASAN_OPTIONS": "detect_leaks=0"}
    binary = harness.build([KERNELS], sanitize="address,undefined")
    command = [sys.executable, "-c", UNDER_ASAN, str(harness.HERE.parent), str(binary)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert process.returncode != 0 and process.stdout == "so far so good\n", process.stderr
    assert "heap-buffer-overflow" in process.stderr and "write_past_the_end" in process.stderr
