"""Optical flow as a thing: files, uint8 codec, error measures, pictures.

Everywhere: flow is `(..., 2, H, W)`, channel 0 = x (right), channel 1 = y (down), in pixels.
"""

from pyaction.flow.codec import decode, encode
from pyaction.flow.color import to_image
from pyaction.flow.files import FlowFile, read, write
from pyaction.flow.metrics import angular_error, endpoint_error, outlier_rate

__all__ = [
    "FlowFile",
    "angular_error",
    "decode",
    "encode",
    "endpoint_error",
    "outlier_rate",
    "read",
    "to_image",
    "write",
]
