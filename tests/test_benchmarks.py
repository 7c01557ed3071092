"""The parts of benchmarks/ that time nothing: a wrong result is refused, and tables are what the results say."""

import json
import math
from typing import Any

import bench_tvl1
import numpy as np
import pytest
import render
from numpy.typing import NDArray
from ours import Ours, Worker
from peers.optical_flow import Peer
from scenes import Pairs, layered_clip, layered_scene, resized_pairs
from sequences import neighbours, warping_error
from timing import interleaved, summary
from verification import Verification, VerificationError, mean_error

from pyaction._native import simd_level

HEIGHT, WIDTH = 90, 120
SCENES = [layered_scene(HEIGHT, WIDTH, seed) for seed in (3, 4)]
TRUTHS = [scene.truth for scene in SCENES]


def shifted(by: float, share: float = 1.0) -> list[NDArray[np.float32]]:
    """The true flows, moved to the right in the upper rows."""
    flows = [truth.copy() for truth in TRUTHS]
    for flow in flows:
        flow[0, : round(share * HEIGHT)] += by
    return flows


def test_scenes_have_the_flow_they_say() -> None:
    for scene in SCENES:
        still = warping_error(scene.pair, np.zeros_like(scene.truth)[None])
        assert warping_error(scene.pair, scene.truth[None]) < 0.3 * still
        assert np.ptp(scene.truth) > 1


def test_accuracy_is_checked() -> None:
    verification = Verification()
    verification.accuracy("fast", shifted(0.19), SCENES, "generated")
    assert verification.checks[0]["value"] == pytest.approx(0.19)
    for wrong in (shifted(0.21), shifted(math.nan)):
        with pytest.raises(VerificationError, match="fast: mean error against the truth"):
            verification.accuracy("fast", wrong, SCENES, "generated")


@pytest.mark.parametrize(
    ("by", "share", "message"), [(0.006, 1.0, "mean distance from OpenCV"), (0.15, 0.02, "share of pixels further")]
)
def test_distance_from_opencv_is_checked(by: float, share: float, message: str) -> None:
    Verification().same_as_opencv("avx2", shifted(0.004), TRUTHS)
    with pytest.raises(VerificationError, match=f"avx2: {message}"):
        Verification().same_as_opencv("avx2", shifted(by, share), TRUTHS)


def test_instruction_sets_are_compared() -> None:
    Verification().simd_levels_agree("fast", {"baseline": shifted(0.019), "avx2": TRUTHS})
    with pytest.raises(VerificationError, match="fast: mean distance of baseline from avx512"):
        Verification().simd_levels_agree("fast", {"baseline": TRUTHS, "avx2": TRUTHS, "avx512": shifted(0.021)})


def test_no_flow_is_refused() -> None:
    lost = Peer("lost", lambda frame0, frame1: np.full((2, *frame0.shape), np.nan, np.float32), 1)
    with pytest.raises(VerificationError, match="lost gives no flow for generated 3"):
        Verification().flows(lost, SCENES)


@pytest.fixture(scope="module")
def worker() -> Any:
    worker = Worker(simd_level())
    yield worker
    worker.close()


def test_clip_and_stream_are_compared(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    clip, _ = layered_clip(HEIGHT, WIDTH, 4, seed=5)
    ours = Ours(worker, "video", 2)
    Verification().clip_is_stream(ours, clip)
    stream_flow = ours.stream_flow(clip) + np.float32(1e-4)
    monkeypatch.setattr(Ours, "stream_flow", lambda self, clip: stream_flow)
    with pytest.raises(VerificationError, match="clip at once against frame by frame"):
        Verification().clip_is_stream(ours, clip)


def test_worker_computes_flow(worker: Worker) -> None:
    ours = Ours(worker, "fast", 1)
    pairs = resized_pairs(SCENES, WIDTH, HEIGHT, 3)
    flows = ours.flow(pairs)
    assert mean_error(list(flows[:2]), SCENES) < 0.7 * mean_error([0 * truth for truth in TRUTHS], SCENES)
    assert np.array_equal(ours.flow(Pairs(pairs.frames0[2:], pairs.frames1[2:])), flows[2:])
    assert ours.sample(pairs)(2) > 0
    with pytest.raises(RuntimeError, match=f"flow with {worker.simd}: ValueError.*frame1"):
        ours.flow(Pairs(pairs.frames0, pairs.frames1[:1]))


def test_sabotaged_kernels_are_not_timed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    flow = Ours.flow
    monkeypatch.setattr(Ours, "flow", lambda self, pairs: flow(self, pairs) + np.float32(3))
    monkeypatch.setattr(bench_tvl1, "load_scenes", lambda: SCENES)
    monkeypatch.setattr(bench_tvl1, "load_clips", lambda count, frames: {})
    monkeypatch.setattr(bench_tvl1, "interleaved", lambda *arguments: pytest.fail("it was timed"))
    monkeypatch.setattr(bench_tvl1.machine, "simd_levels", lambda: [simd_level()])
    assert bench_tvl1.main(["--quick"]) == 1
    assert "Refused: " in capsys.readouterr().out


def test_timing_takes_turns() -> None:
    calls: list[str] = []

    def sample(name: str, seconds: float) -> Any:
        return lambda count: calls.extend([name] * count) or seconds * count

    values = interleaved({"slow": sample("slow", 0.3), "fast": sample("fast", 0.04)}, 5)
    assert values["slow"] == [0.3] * 5 and values["fast"] == pytest.approx([0.04] * 5)
    warm = ["slow", "fast", "fast"]
    a_round = {("slow", "fast", "fast", "fast"), ("fast", "fast", "fast", "slow")}
    assert calls[:3] == warm
    assert {tuple(calls[i : i + 4]) for i in range(3, len(calls), 4)} == a_round
    assert summary([5.0, 1.0, 2.0, 4.0, 3.0]) == (3.0, 2.0, 5)


def timing(seconds: float) -> dict[str, float]:
    return {"median": seconds, "iqr": seconds / 10, "rounds": 5}


def made_up_result() -> dict[str, Any]:
    def pair(method: str, simd: str, threads: int, seconds: float, batch: int = 1) -> dict[str, Any]:
        size = {"width": 320, "height": 240, "batch": batch}
        return {"method": method, "simd": simd, "threads": threads, "params": {}, "seconds": timing(seconds), **size}

    video_rows = [
        {"method": "pyaction video", "threads": 2, "error": 2.5, "seconds_per_pair": timing(0.004)},
        {"method": "OpenCV TV-L1", "threads": 2, "error": 3.5, "seconds_per_pair": timing(0.8)},
    ]
    where = {"width": 320, "height": 240, "batch": 8, "threads": 2, "simd": "avx2"}
    packages = ("pyaction", "torch", "opencv-contrib-python-headless", "scikit-image")
    return {
        **{"quick": False, "data": "generated", "date": "2030-01-02T03:04:05+00:00", "commit": "abc", "seconds": 7.0},
        "machine": {"cpu": "Some CPU", "cores": 2, "simd": "avx2"},
        "versions": dict.fromkeys(packages, "1.2"),
        "left_out": ["the rest"],
        "accuracy": {"pyaction fast": 0.25, "OpenCV TV-L1": 1.05},
        "pairs": [
            *(pair("pyaction fast", "avx2", threads, 0.008 / threads) for threads in (1, 2)),
            *(pair("pyaction fast", "baseline", 2, 0.016), pair("pyaction fast", "avx2", 2, 0.016, batch=8)),
            *(pair("OpenCV TV-L1", "", 2, 0.8), pair("OpenCV DIS medium", "", 2, 0.002)),
        ],
        "iterations": [{**where, "rate": timing(3e9), "ceiling": timing(4e9)}, {**where, "rate": timing(1e9)}],
        "stages": [{**where, "shares": {"iterations": 0.5, "warping": 0.3, "median": 0.125, "rest": 0.075}}],
        "video": {
            **{"clips": ["a", "b"], "frames": 9, "width": 320, "height": 240, "rows": video_rows},
            **{"no_motion_error": 11.0, "all_clips_at_once": timing(0.002), "ratio": timing(190.0)},
        },
    }


def test_tables_say_what_the_result_says() -> None:
    text = render.tvl1_markdown(json.loads(json.dumps(made_up_result())))
    assert text.startswith("Some CPU, 2 cores, avx2; 2030-01-02, commit abc; pyaction 1.2, torch 1.2")
    assert "| pyaction fast | 250 | 0.250 | 200 | 0.5 |" in text
    assert "| OpenCV TV-L1 | 1.25 | 1.050 | 1 | 0.0025 |" in text
    assert "(Hidden Two-Stream) | 14.75 | – | – | – |" in text
    assert "| pyaction video | 2 | 2.500 | 250 | 190 |" in text
    assert "| 320 × 240 | 8 | 2 | 3 | 4 | 75 % |" in text
    assert "| 320 × 240 | 8 | 2 | 1 | – | – |" in text
    assert "| 320 × 240 | 8 | 2 | 50 % | 30 % | 12 % | 8 % |" in text


def test_everything_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    bench_tvl1.show(made_up_result(), bench_tvl1.Console(width=160))
    shown = capsys.readouterr().out
    for part in ("320 × 240, batch 1", "320 × 240, batch 8", "baseline", "ns/pixel", "sooner by", "the rest"):
        assert part in shown


def test_readme_keeps_the_rest() -> None:
    readme = "# Title\n\n<!-- a -->\nold\n<!-- end -->\n\n<!-- b -->\nold\n<!-- end -->\n"
    new = render.replaced(readme, "b", "new")
    assert new == "# Title\n\n<!-- a -->\nold\n<!-- end -->\n\n<!-- b -->\n\nnew\n\n<!-- end -->\n"
    assert render.replaced(new, "b", "new") == new
    with pytest.raises(ValueError, match="the README needs the comments <!-- b --> and <!-- end -->"):
        render.replaced("# Title\n<!-- end -->\n<!-- b -->", "b", "new")


def test_neighbours_of_a_clip() -> None:
    clip, _ = layered_clip(HEIGHT, WIDTH, 3, seed=5)
    frames0, frames1 = neighbours(clip)
    assert np.array_equal(frames0[1], clip[1]) and np.array_equal(frames1[1], clip[2]) and len(frames0) == 2
