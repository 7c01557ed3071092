"""What must not show in the TV-L1 ops: threads, instruction sets, CUDA graphs, and how many calls went before."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from reference.tvl1 import PARAMS as REFERENCE_PARAMS
from reference.tvl1 import wavy_clip
from torch import Tensor

from pyaction._native import simd_level
from pyaction.flow import endpoint_error
from pyaction.ops import TVL1_PRESETS, TVL1Stream, tvl1_flow, tvl1_flow_clip

# More inner iterations than one sweep over the image takes (csrc/tvl1/cpu/iterate.h).
PARAMS = replace(REFERENCE_PARAMS, warps=2, outer_iterations=3, inner_iterations=19)
SETTINGS = {
    "own": replace(PARAMS, epsilon=0.0),
    "own, stops": PARAMS,
    "exact": replace(PARAMS, epsilon=0.0, as_opencv=True),
    "exact, stops": replace(PARAMS, as_opencv=True),
}
# Mean end-point error between two roundings of one algorithm, in pixels; see test_tvl1.py.
SHORT_RUN, LONG_RUN = 3e-4, 0.03


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("setting", SETTINGS)
def test_number_of_threads_does_not_show(setting: str, n: int) -> None:
    """203 rows are up to five bands; three clips on five threads are teams of one, where three on two wait."""
    clip = wavy_clip(n, 3, 203, 45)
    flows = []
    for threads in (1, 2, 3, 5):
        with torch_threads(threads):
            flows.append(tvl1_flow_clip(clip, params=SETTINGS[setting]))
    for flow in flows[1:]:
        assert torch.equal(flow, flows[0])
    assert endpoint_error(flows[0][:, 0], flows[0][:, 1]) > 0.01


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_calls_at_the_same_time_do_not_touch_each_other(threads: int) -> None:
    """Python threads each with frames of their own, of another size."""
    clips = [wavy_clip(2, 3, 97 + 16 * i, 40 + 3 * i) for i in range(4)]

    def solve(clip: Tensor) -> Tensor:
        stream = TVL1Stream(PARAMS)
        flows = [stream.push(frame) for frame in clip.unbind(1)]
        pair = tvl1_flow(clip[:, 0], clip[:, 1], params=SETTINGS["exact"])
        return torch.stack([pair, *(flow for flow in flows if flow is not None)], dim=1)

    expected = [solve(clip) for clip in clips]
    with torch_threads(threads), ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            for flow, alone in zip(pool.map(solve, clips), expected, strict=True):
                assert torch.equal(flow, alone)


@pytest.mark.gpu
@pytest.mark.parametrize("setting", [*SETTINGS, "fast"])
def test_recorded_call_is_the_call(setting: str) -> None:
    """A CUDA graph, replayed on other frames in the same memory. It would not be recorded if a call waited for it."""
    params = {**SETTINGS, **TVL1_PRESETS}[setting]
    clips = [wavy_clip(2, 3, 45, 60, "cuda").roll(shift, dims=-1) for shift in (0, 5, 9)]
    memory = clips[0].clone()

    def solve(clip: Tensor) -> Tensor:
        pair = tvl1_flow(clip[:, 0], clip[:, 1], params=params)
        return torch.stack([pair, *tvl1_flow_clip(clip, params=params).unbind(1)])

    expected = [solve(clip) for clip in clips]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        flow = solve(memory)
    for clip, alone in zip(clips[1:], expected[1:], strict=True):
        memory.copy_(clip)
        graph.replay()
        assert torch.equal(flow, alone)
    assert endpoint_error(expected[1], expected[2]) > 0.01


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux tells how much memory is resident")
@pytest.mark.parametrize("as_opencv", [False, True])
def test_memory_does_not_grow(as_opencv: bool) -> None:
    """A thousand times the flow of two pairs alone is 10 MB. (One thread: with several, small images are slow.)"""
    frames, params = wavy_clip(2, 2, 20, 31), replace(TVL1_PRESETS["fast"], as_opencv=as_opencv)
    stream = TVL1Stream(params)
    calls: list[Callable[[], object]] = [
        lambda: tvl1_flow(frames[:, 0], frames[:, 1], params=params),
        lambda: tvl1_flow_clip(frames, params=params),
        lambda: stream.push(frames[:, 0]),
    ]
    with torch_threads(1):
        for _ in range(200):
            for call in calls:
                call()
        before = resident_bytes()
        for _ in range(1000):
            for call in calls:
                call()
    assert resident_bytes() - before < 2 << 20


def run_with_simd(level: str, script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs Python code in a process whose kernels are of one instruction set, in a folder without a pyaction."""
    environment = {**os.environ, "PYACTION_SIMD": level}
    command = [sys.executable, "-c", script]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


SOLVE_EACH = """
import torch
from pyaction._native import simd_level
from pyaction.ops import TVL1Params, tvl1_flow_clip
clip, settings = torch.load("clip.pt"), torch.load("settings.pt")
flows = {name: tvl1_flow_clip(clip, params=TVL1Params(**fields)) for name, fields in settings.items()}
torch.save({"level": simd_level(), "flows": flows}, "flows.pt")
"""


@pytest.mark.parametrize("level", ["baseline", "avx2", "avx512"])
def test_instruction_sets_agree(level: str, tmp_path: Path) -> None:
    clip, settings = wavy_clip(2, 3, 37, 130), {**SETTINGS, **TVL1_PRESETS}
    torch.save(clip, tmp_path / "clip.pt")
    torch.save({name: vars(params) for name, params in settings.items()}, tmp_path / "settings.pt")
    process = run_with_simd(level, SOLVE_EACH, tmp_path)
    if "but this CPU has only" in process.stderr:
        pytest.skip(process.stderr.splitlines()[-1])
    assert process.returncode == 0, process.stderr
    result = torch.load(tmp_path / "flows.pt")
    assert result["level"] == level
    for name, params in settings.items():
        flow = tvl1_flow_clip(clip, params=params)
        # Only the baseline has no fused multiply-add; apart from that the width of a vector changes nothing.
        if level == simd_level() or "baseline" not in (level, simd_level()):
            assert torch.equal(result["flows"][name], flow), name
        assert endpoint_error(result["flows"][name], flow) < (LONG_RUN if name == "opencv" else SHORT_RUN), name


def test_unknown_instruction_set_is_refused(tmp_path: Path) -> None:
    script = "import torch; from pyaction.ops import tvl1_flow; tvl1_flow(*torch.rand(2, 1, 1, 8, 8))"
    process = run_with_simd("sse9", script, tmp_path)
    assert process.returncode == 1
    assert "RuntimeError: PYACTION_SIMD must be baseline, avx2 or avx512; got sse9" in process.stderr
