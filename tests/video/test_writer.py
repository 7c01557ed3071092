"""Writing: what is written can be read back, and a file appears whole or not at all."""

import os
import re
import subprocess
import sys
from pathlib import Path

import av
import pytest
import torch

from pyaction import video

SUFFIXES = [".mp4", ".mov", ".mkv", ".webm", ".avi"]
CODECS = {".mp4": "h264", ".mov": "h264", ".mkv": "h264", ".webm": "vp9", ".avi": "mjpeg"}


def moving_blocks(count, height=48, width=64, channels=3):
    """Smooth blocks of colour that move by 3 pixels a frame: (count, channels, height, width)."""
    generator = torch.Generator().manual_seed(5)
    coarse = torch.randint(30, 226, (1, channels, 3, 9), generator=generator).float()
    wide = torch.nn.functional.interpolate(coarse, size=(height, width + 3 * count), mode="bicubic").clamp(0, 255)
    return torch.cat([wide[..., 3 * t : 3 * t + width] for t in range(count)]).round().to(torch.uint8)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_round_trip(tmp_path, suffix):
    frames = moving_blocks(20)
    path = tmp_path / f"a.b{suffix}"
    video.write(path, frames, fps=12.5)
    with video.open(path) as reader:
        assert reader.fps == 12.5
        assert reader.size == (48, 64)
        read = reader.frames()
        assert torch.allclose(reader.timestamps, torch.arange(20, dtype=torch.float64) / 12.5, atol=1e-3)
    assert read.shape == frames.shape
    difference = (read.float() - frames.float()).abs()
    assert difference.mean() < 4
    # Each frame is itself and not its neighbour.
    assert (read[1:].float() - frames[:-1].float()).abs().mean() > 3 * difference.mean()
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == CODECS[suffix]
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("size", [(47, 63), (47, 64), (48, 63), (1, 1), (3, 5)])
def test_odd_sizes(tmp_path, suffix, size):
    frames = moving_blocks(4, *size)
    video.write(tmp_path / f"a{suffix}", frames, fps=25)
    with video.open(tmp_path / f"a{suffix}") as reader:
        read = reader.frames()
    if CODECS[suffix] == "h264":  # the last row and column twice
        assert read.shape[2:] == (size[0] + size[0] % 2, size[1] + size[1] % 2)
        if size[0] > 40 and size[0] % 2:
            assert (read[..., -1, :].float() - read[..., -2, :].float()).abs().mean() < 3
    else:
        assert read.shape[2:] == size
    if size[0] > 40:  # in the tiny ones every pixel has its own colour, which 4:2:0 cannot hold
        assert (read[..., : size[0], : size[1]].float() - frames.float()).abs().mean() < 6


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_gray(tmp_path, suffix):
    frames = moving_blocks(5, channels=1)
    video.write(tmp_path / f"a{suffix}", frames, fps=25)
    with video.open(tmp_path / f"a{suffix}", color="gray") as reader:
        assert (reader.frames().float() - frames.float()).abs().mean() < 3
    with video.open(tmp_path / f"a{suffix}") as reader:
        rgb = reader.frames().float()
    assert (rgb - frames.float()).abs().mean() < 3  # no tint


def test_extremes_of_gray_keep_their_range(tmp_path):
    frames = torch.zeros(3, 1, 32, 64, dtype=torch.uint8)
    frames[..., 32:] = 255
    for suffix in (".mp4", ".avi"):
        video.write(tmp_path / f"a{suffix}", frames, fps=25)
        with video.open(tmp_path / f"a{suffix}", color="gray") as reader:
            read = reader.frames()
        assert read[..., :24].max() <= 3
        assert read[..., 40:].min() >= 252


def test_one_at_a_time_and_several_at_once(tmp_path):
    frames = moving_blocks(7)
    video.write(tmp_path / "a.mp4", frames, fps=25)
    video.write(tmp_path / "b.mp4", (frame for frame in frames), fps=25)
    with video.Writer(str(tmp_path / "c.mp4"), fps=25) as writer:
        writer.write(frames[0])
        writer.write(frames[1:1])
        writer.write(frames[1:5])
        writer.write(frames[5:].permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2))  # any strides
    contents = {(tmp_path / f"{name}.mp4").read_bytes() for name in "abc"}
    assert len(contents) == 1


def test_television_rate(tmp_path):
    video.write(tmp_path / "a.mp4", moving_blocks(9), fps=29.97002997)
    with video.open(tmp_path / "a.mp4") as reader:
        assert reader.fps == 30000 / 1001


def test_nothing_appears_before_the_end(tmp_path):
    path = tmp_path / "a.avi"
    path.write_bytes(b"older")
    with video.Writer(path, fps=25) as writer:
        writer.write(moving_blocks(3))
        assert path.read_bytes() == b"older"
        assert sorted(os.listdir(tmp_path)) == [".a.partial.avi", "a.avi"]
    assert os.listdir(tmp_path) == ["a.avi"]
    with video.open(path) as reader:
        assert len(reader) == 3


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_error_inside_leaves_nothing(tmp_path, suffix):
    with pytest.raises(KeyError, match="mine"), video.Writer(tmp_path / f"a{suffix}", fps=25) as writer:
        writer.write(moving_blocks(3))
        raise KeyError("mine")
    assert os.listdir(tmp_path) == []
    with pytest.raises(ValueError, match="is finished; make a new Writer"):
        writer.write(moving_blocks(1))


def test_a_frame_that_does_not_fit_leaves_nothing(tmp_path):
    with (
        pytest.raises(ValueError, match=r"every frame must be \[3, 48, 64\] like the first; got \[3, 48, 62\]"),
        video.Writer(tmp_path / "a.mp4", fps=25) as writer,
    ):
        writer.write(moving_blocks(3))
        writer.write(moving_blocks(3, width=62))
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files")
@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_a_full_disk_leaves_nothing(tmp_path, suffix):
    """The limit on file size fails writes as a full disk does; it holds for a process, so in one of its own."""
    code = f"""
import resource, signal, torch
from pyaction import video
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
noise = torch.randint(0, 256, (40, 3, 128, 128), dtype=torch.uint8)
try:
    video.write({str(tmp_path / ("a" + suffix))!r}, noise, fps=25)
except OSError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert re.search(rf"File too large: '.*a\{suffix}'$", done.stdout)
    assert os.listdir(tmp_path) == []


def test_no_frames(tmp_path):
    with pytest.raises(ValueError, match="no frame was written to .*a.mp4"):
        video.write(tmp_path / "a.mp4", torch.zeros(0, 3, 8, 8, dtype=torch.uint8), fps=25)
    assert os.listdir(tmp_path) == []


def test_close_without_with(tmp_path):
    writer = video.Writer(tmp_path / "a.webm", fps=25)
    writer.write(moving_blocks(2))
    writer.close()
    writer.close()
    with video.open(tmp_path / "a.webm") as reader:
        assert len(reader) == 2


@pytest.mark.parametrize(
    ("frames", "error", "message"),
    [
        (torch.rand(3, 8, 8), TypeError, r"must be uint8, 0..255; got torch.float32 \(from 0..1: "),
        (torch.zeros(2, 8, 8, dtype=torch.uint8), ValueError, r"with 1 or 3 channels; got \[2, 8, 8\]"),
        (torch.zeros(8, 8, dtype=torch.uint8), ValueError, r"got \[8, 8\]"),
        (torch.zeros(3, 0, 8, dtype=torch.uint8), ValueError, r"got \[3, 0, 8\]"),
        (torch.zeros(1, 1, 3, 8, 8, dtype=torch.uint8), ValueError, r"got \[1, 1, 3, 8, 8\]"),
    ],
)
def test_rejects_frames(tmp_path, frames, error, message):
    with pytest.raises(error, match=message), video.Writer(tmp_path / "a.mp4", fps=25) as writer:
        writer.write(frames)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("fps", [0, -5, float("nan"), float("inf")])
def test_rejects_fps(tmp_path, fps):
    with pytest.raises(ValueError, match=f"fps must be a positive number; got {fps}"):
        video.Writer(tmp_path / "a.mp4", fps=fps)


def test_rejects_paths(tmp_path):
    with pytest.raises(ValueError, match=r"must end in one of \.mp4, .*; got 'a\.gif'"):
        video.Writer(tmp_path / "a.gif", fps=25)
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*none; create it to write a\.mp4"):
        video.Writer(tmp_path / "none" / "a.mp4", fps=25)
    (tmp_path / "taken.mp4").mkdir()
    with pytest.raises(IsADirectoryError, match="taken.mp4"):
        video.write(tmp_path / "taken.mp4", moving_blocks(2), fps=25)
    assert not Path(tmp_path / ".taken.partial.mp4").exists()


def test_less_than_one_frame_in_a_second(tmp_path):
    video.write(tmp_path / "slow.mkv", moving_blocks(3), fps=1 / 60)
    with video.open(tmp_path / "slow.mkv") as reader:
        assert len(reader) == 3 and reader.timestamps.diff().tolist() == [60, 60]
    with pytest.raises(ValueError, match="at least one frame in a million seconds"):
        video.Writer(tmp_path / "none.mp4", fps=1e-9)


def test_rejects_what_is_no_tensor(tmp_path):
    with pytest.raises(TypeError, match=r"must be a torch\.Tensor; got ndarray"):
        video.write(tmp_path / "a.mp4", moving_blocks(2).numpy(), fps=25)
    assert os.listdir(tmp_path) == []
