"""From frames as FFmpeg decodes them, mostly YUV, to RGB or grey pixels of the size that a reader returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

if TYPE_CHECKING:
    from av import VideoFrame

# FFmpeg's numbers of the colour tags that swscale knows: RGB, BT.709, none, FCC, BT.601 (2), SMPTE 240M, BT.2020.
_COLORSPACES = (0, 1, 2, 4, 5, 6, 7, 9)


@dataclass(frozen=True)
class Layout:
    """How every frame is returned, decided by the first one."""

    height: int
    width: int
    quarter_turns: int
    """Anticlockwise, after scaling."""


class PixelConverter:
    """Converts frame after frame; keeps what FFmpeg's scaler prepares for one kind of frame."""

    def __init__(self) -> None:
        self._to_rgb = VideoReformatter()
        self._to_gray = VideoReformatter()

    def convert(self, frame: VideoFrame, layout: Layout, result: np.ndarray) -> None:
        """Write the pixels of a decoded frame into (C, H, W) uint8, RGB where C = 3, else grey.

        On this thread alone: torch shares even 100 kB between its threads, and where all cores are busy (data
        loading!) waiting for them was seen to take 16 ms a frame instead of 0.2.
        """
        if len(result) == 3 and _is_exact_in_planes(frame, layout):
            self._convert_planes(frame, result)
            return
        height, width = layout.height, layout.width
        if layout.quarter_turns % 2:
            height, width = width, height
        converted = self._rescale(frame, width, height, "rgb24")
        if len(result) == 1:
            # By way of RGB, because the luma of a file tagged BT.709 has other weights.
            converted = self._to_gray.reformat(
                converted,
                format="gray",
                dst_colorspace=Colorspace.ITU601,
                dst_color_range=ColorRange.JPEG,
                threads=1,
            )
        pixels = converted.to_ndarray()  # [H, W, 3] or [H, W]
        pixels = pixels.transpose(2, 0, 1) if len(result) == 3 else pixels[None]
        result[...] = np.rot90(pixels, layout.quarter_turns, (1, 2)) if layout.quarter_turns else pixels

    def _convert_planes(self, frame: VideoFrame, result: np.ndarray) -> None:
        planes = self._rescale(frame, frame.width, frame.height, "gbrp").planes
        for channel, plane in zip((1, 2, 0), planes, strict=True):
            strides = (plane.line_size, 1)
            result[channel] = np.ndarray((plane.height, plane.width), np.uint8, memoryview(plane), strides=strides)

    def _rescale(self, frame: VideoFrame, width: int, height: int, pixel_format: str) -> VideoFrame:
        return self._to_rgb.reformat(
            frame,
            width,
            height,
            pixel_format,
            # swscale refuses the rarer colour tags ("reserved", say, of old encoders); most players take BT.601.
            src_colorspace=None if frame.colorspace in _COLORSPACES else Colorspace.ITU601,
            interpolation=Interpolation.BICUBIC,
            # Handing slices of a small frame to other threads costs more than converting it.
            threads=1,
        )


def _is_exact_in_planes(frame: VideoFrame, layout: Layout) -> bool:
    """Tell whether planar RGB has the same pixels as packed RGB, whose channels are slow to part: 30 µs, not 100.

    In swscale 9.5 it does for 4:2:0 frames of even height that keep their size and whose width is a multiple of
    16; where it is none (340, 1080), the last columns are left unwritten.
    """
    return (
        frame.width == layout.width
        and frame.height == layout.height
        and frame.width % 16 == frame.height % 2 == layout.quarter_turns == 0
        and frame.format.name in ("yuv420p", "yuvj420p")
    )
