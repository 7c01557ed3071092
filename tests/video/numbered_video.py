"""Videos in which every frame carries its own number, so that a test can tell which one it was given."""

from fractions import Fraction

import av
import numpy as np
import torch
from av.video.reformatter import ColorRange, Colorspace

from pyaction import video

HEIGHT, WIDTH, COUNT = 64, 96, 45
BITS = 6

# name: codec, pixel format, encoder options
STREAMS = {
    "h264_b_frames.mp4": ("libx264", "yuv420p", {"bf": "3", "g": "12", "x264-params": "scenecut=0:b-adapt=0"}),
    "h264_open_gop.mkv": ("libx264", "yuv420p", {"bf": "3", "x264-params": "keyint=12:open-gop=1:scenecut=0"}),
    "h264_intra_refresh.ts": ("libx264", "yuv420p", {"x264-params": "intra-refresh=1:keyint=12"}),
    "h264_interlaced.ts": ("libx264", "yuv420p", {"bf": "3", "g": "12", "x264-params": "tff=1:scenecut=0:b-adapt=0"}),
    "mpeg2_b_frames.mpg": ("mpeg2video", "yuv420p", {"bf": "2", "g": "12"}),
    "vp9.webm": ("libvpx-vp9", "yuv420p", {"g": "12", "cpu-used": "8"}),
    "mpeg4.avi": ("mpeg4", "yuv420p", {"g": "12"}),
    "mpeg4_b_frames.avi": ("mpeg4", "yuv420p", {"bf": "2", "g": "12"}),
    "mjpeg.avi": ("mjpeg", "yuvj420p", {"qmin": "2", "qmax": "2"}),
}


def numbered_picture(number):
    """The frame number in binary, as bright and dark columns above, and something that moves below."""
    picture = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    for bit in range(BITS):
        if number >> bit & 1:
            picture[: HEIGHT // 2, bit * 16 : bit * 16 + 16] = 210
    x = number * 2 % (WIDTH - 16)
    picture[HEIGHT // 2 + 8 : HEIGHT - 8, x : x + 16] = (220, 60, 30)
    return picture


def number_in(frame):
    """Read the number back from a (C, H, W) frame of any size."""
    above = frame.float().mean(0)[: frame.shape[1] // 2]
    columns = above.reshape(above.shape[0], BITS, -1).mean((0, 2))
    return sum(int(value > 125) << bit for bit, value in enumerate(columns))


def encode(path, codec, pixel_format, options, pictures, *, ticks=None, rotation=0, colorspace=5):
    rate = 25
    full = pixel_format.startswith("yuvj")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pixel_format
        stream.codec_context.colorspace = colorspace
        if rotation:
            stream.set_display_rotation(rotation)
        if ticks is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(
                format=pixel_format,
                dst_colorspace=Colorspace.ITU709 if colorspace == 1 else Colorspace.ITU601,
                dst_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
            )
            frame.pts = number if ticks is None else ticks[number]
            frame.time_base = Fraction(1, rate) if ticks is None else Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def sequential(path, **options):
    """Every frame, in order."""
    with video.open(path, **options) as reader:
        return torch.stack(list(reader))
