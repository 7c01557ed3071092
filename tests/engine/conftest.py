"""Generated videos with known motion."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from pyaction import video

MOTION = (2, 1)  # pixels per frame to the right and down


def moving_texture(frames: int, height: int = 48, width: int = 64) -> torch.Tensor:
    """(T, 3, H, W) uint8: smooth noise that moves by MOTION."""
    noise = torch.rand(1, 1, height + frames * MOTION[1] + 8, width + frames * MOTION[0] + 8)
    smooth = F.avg_pool2d(noise, 5, stride=1)[0, 0]
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min()) * 255
    views = []
    for t in range(frames):
        y, x = (frames - t) * MOTION[1], (frames - t) * MOTION[0]
        views.append(smooth[y : y + height, x : x + width])
    return torch.stack(views).round().byte()[:, None].repeat(1, 3, 1, 1)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    """Neither by what succeeds nor by what fails. (The progress bar's own, a daemon, ends when it likes.)"""
    yield
    assert [thread for thread in threading.enumerate() if not thread.daemon] == [threading.main_thread()]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A video of 20 frames: more than one batch of pairs."""
    path = tmp_path / "moving.mp4"
    video.write(path, moving_texture(20), fps=25)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """videos/a.avi, videos/deep/er/b.mp4 and a file that is no video."""
    folder = tmp_path / "videos"
    (folder / "deep" / "er").mkdir(parents=True)
    video.write(folder / "a.avi", moving_texture(4), fps=25)
    video.write(folder / "deep" / "er" / "b.mp4", moving_texture(3), fps=25)
    (folder / "notes.txt").write_text("no video")
    return folder
