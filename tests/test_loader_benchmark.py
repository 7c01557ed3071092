"""The parts of benchmarks/bench_loader.py that time nothing."""

from pathlib import Path
from typing import Any

import bench_loader
import pytest
import render
import torch
from bench_loader import OpenCVClips, measured, ours, read
from loader_tables import TOGETHER, loader_table
from peers.optical_flow import opencv_dis

from pyaction import data, ops, video


@pytest.fixture
def path(tmp_path: Path) -> Path:
    scene = data.ActionScene(data.ACTIONS[2], group=0, clip=0, size=(48, 64), frames=9)
    video.write(tmp_path / "clip.mp4", scene.frames(), 25)
    return tmp_path / "clip.mp4"


def test_all_compute_the_flow_of_the_same_frames(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_loader, "LENGTH", 5)
    monkeypatch.setattr(bench_loader, "SIDE", 40)
    frames = read(path)
    assert frames.shape == (1, 5, 3, 48, 64)
    item = ours([path])[0]
    assert torch.equal(item["frames"], frames[:, :1, :, 4:44, 12:52])
    assert torch.allclose(item["flow"], ops.tvl1_flow_clip(frames)[..., 4:44, 12:52], atol=1e-4)
    theirs = OpenCVClips([path], 5, 40, opencv_dis("medium", 1))[0]
    assert (theirs["frames"].float() - item["frames"][0, 0]).abs().mean() < 3
    assert theirs["flow"].shape == (4, 2, 40, 40)
    assert (theirs["flow"] - item["flow"][0]).abs().mean() < 0.3


def test_measured_counts_fields_and_work() -> None:
    def busy() -> int:
        total = sum(i * i for i in range(300_000))
        return 6 if total else 0

    (row,) = measured({"counting": busy}, 2)
    assert row["method"] == "counting" and row["fields_per_second"] > 6 and 0 < row["busy"] <= 1.5


def test_table_says_what_the_result_says() -> None:
    rows = [("pyaction", 90.0, 0.97), (TOGETHER, 100.0, 0.98), ("other", 45.0, 0.5)]
    result: dict[str, Any] = {
        **{"benchmark": "loader", "quick": False, "data": "UCF101", "clips": 25, "length": 65, "commit": "abc"},
        **{"date": "2030-01-02T03:04:05+00:00", "machine": {"cpu": "Some CPU", "cores": 2}},
        "versions": {"torch": "1.2", "opencv-contrib-python-headless": "3.4"},
        "rows": [{"method": name, "fields_per_second": rate, "busy": busy} for name, rate, busy in rows],
    }
    assert loader_table(result).rows[0] == ["pyaction", "90", "97 %", "90.0 %", "1"]
    assert loader_table(result).rows[2] == ["other", "45", "50 %", "45.0 %", "2"]
    assert render.loader_markdown(result).startswith(
        "Some CPU; 2030-01-02, commit abc; torch 1.2, OpenCV 3.4; 25 clips"
    )
    with pytest.raises(ValueError, match="quick run"):
        render.loader_markdown({**result, "quick": True})
