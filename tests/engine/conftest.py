"""Generated videos with known motion."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine.moving_texture import moving_texture

from pyaction import video


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
