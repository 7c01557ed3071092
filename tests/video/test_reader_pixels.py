"""Colours, sizes and rotations of the frames that a reader returns."""

import av
import cv2
import numpy as np
import pytest
import torch
from video.numbered_video import encode, number_in, numbered_picture, sequential

from pyaction import video
from pyaction.video.frame_pixels import Layout, PixelConverter


def test_colours_survive(folder):
    frames = sequential(folder / "mjpeg.avi")
    expected = torch.from_numpy(numbered_picture(21)).permute(2, 0, 1)
    # Away from edges, where chroma is shared by 4 pixels.
    for y, x in ((8, 8), (8, 24), (48, 50), (60, 4)):
        assert (frames[21, :, y, x].int() - expected[:, y, x].int()).abs().max() <= 8


@pytest.mark.parametrize("width", [340, 1080, 66])
def test_the_right_margin(tmp_path, width):
    """swscale leaves the last columns of some formats unwritten where the width is no multiple of 16."""
    picture = np.full((32, width, 3), (200, 120, 40), np.uint8)
    encode(tmp_path / "plain.mp4", "libx264", "yuv420p", {}, [picture])
    frame = sequential(tmp_path / "plain.mp4")[0]
    assert (frame.int() - torch.tensor([200, 120, 40])[:, None, None]).abs().max() <= 4


@pytest.mark.parametrize("colorspace", [5, 1], ids=["bt601", "bt709"])
def test_gray_is_the_luma_of_rgb(tmp_path, colorspace):
    generator = np.random.default_rng(3)
    blocks = generator.integers(0, 256, (4, 6, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
    encode(tmp_path / "v.mp4", "libx264", "yuv420p", {"crf": "5"}, [blocks] * 3, colorspace=colorspace)
    rgb = sequential(tmp_path / "v.mp4").double()
    gray = sequential(tmp_path / "v.mp4", color="gray")
    assert gray.shape == (3, 1, 64, 96)
    luma = 0.299 * rgb[:, 0] + 0.587 * rgb[:, 1] + 0.114 * rgb[:, 2]
    assert (gray[:, 0] - luma).abs().max() < 0.6
    centres = torch.from_numpy(blocks).permute(2, 0, 1)[:, 8::16, 8::16]
    assert (rgb[1, :, 8::16, 8::16] - centres).abs().max() <= 6  # the tag was followed


@pytest.mark.parametrize("colorspace", [5, 1], ids=["bt601", "bt709"])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuvj420p"])
@pytest.mark.parametrize(("height", "width"), [(48, 80), (30, 320), (31, 80), (48, 72), (38, 340)])
def test_planes_have_the_pixels_of_packed_rgb(pixel_format, colorspace, height, width):
    """Which conversion is taken depends on the size; what comes out does not."""
    noise = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8).numpy()
    frame = av.VideoFrame.from_ndarray(noise, format="rgb24").reformat(format=pixel_format)
    frame.colorspace = colorspace
    result = np.empty((3, height, width), np.uint8)
    PixelConverter().convert(frame, Layout(height, width, quarter_turns=0), result)
    packed = frame.reformat(format="rgb24", interpolation="BICUBIC").to_ndarray()
    np.testing.assert_array_equal(result, packed.transpose(2, 0, 1))


def test_a_rare_colour_tag(tmp_path):
    """swscale refuses some; the frames are read as BT.601 then."""
    encode(tmp_path / "v.mp4", "libx264", "yuv420p", {}, [numbered_picture(9)], colorspace=8)
    with av.open(str(tmp_path / "v.mp4")) as container, pytest.raises(OSError, match="not supported"):
        next(container.decode(video=0)).to_ndarray(format="rgb24")
    frame = sequential(tmp_path / "v.mp4")[0]
    assert (frame[:, 60, 4].int() - 40).abs().max() <= 4


def test_size(path):
    every = sequential(path)
    with video.open(path, size=(32, 48)) as reader:
        assert reader.size == (32, 48)
        small = reader.frames([44, 7])
    assert small.shape == (2, 3, 32, 48)
    assert [number_in(frame) for frame in small] == [44, 7]
    # Bicubic, widened for shrinking, as torch's with antialias.
    expected = torch.nn.functional.interpolate(
        every[[44, 7]].float(), size=(32, 48), mode="bicubic", antialias=True
    ).clamp(0, 255)
    assert (small - expected).abs().mean() < 3


@pytest.mark.parametrize(("shape", "expected"), [((64, 96), (30, 45)), ((98, 66), (44, 30)), ((50, 50), (30, 30))])
def test_short_side(tmp_path, shape, expected):
    encode(tmp_path / "v.mp4", "libx264", "yuv420p", {}, [np.zeros((*shape, 3), np.uint8)])
    with video.open(tmp_path / "v.mp4", short_side=30) as reader:
        assert reader.size == expected
        assert next(iter(reader)).shape[1:] == expected


@pytest.mark.skipif(not hasattr(av.VideoStream, "set_display_rotation"), reason="PyAV 18 writes rotations")
@pytest.mark.parametrize("rotation", [90, -90, 180])
def test_frames_come_upright(tmp_path, rotation):
    path = tmp_path / "phone.mp4"
    picture = np.full((64, 96, 3), 30, np.uint8)
    picture[:32, :48] = 220
    encode(path, "libx264", "yuv420p", {}, [picture] * 3, rotation=rotation)
    capture = cv2.VideoCapture(str(path))  # an independent reader that turns frames as players do
    expected = torch.from_numpy(capture.read()[1]).permute(2, 0, 1).flip(0)
    capture.release()
    with video.open(path) as reader:
        assert reader.size == tuple(expected.shape[1:])
        frame = reader.frames([1])[0]
    assert (frame.int() - expected.int()).abs().max() <= 8
    with video.open(path, size=(24, 20)) as reader:
        assert reader.frames().shape == (3, 3, 24, 20)


def test_a_size_that_changes(tmp_path):
    """Two MJPEG streams of different sizes, one after the other in one file."""
    for name, shape in (("a.mjpeg", (64, 96)), ("b.mjpeg", (32, 48))):
        picture = cv2.resize(numbered_picture(33), shape[::-1], interpolation=cv2.INTER_AREA)
        encode(tmp_path / name, "mjpeg", "yuvj420p", {}, [picture] * 2)
    joined = tmp_path / "joined.mjpeg"
    joined.write_bytes((tmp_path / "a.mjpeg").read_bytes() + (tmp_path / "b.mjpeg").read_bytes())
    with video.open(joined) as reader:
        frames = reader.frames()
    assert frames.shape == (4, 3, 64, 96)
    assert [number_in(frame) for frame in frames] == [33] * 4
