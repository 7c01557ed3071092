"""Optical flow as a thing: estimators, files, uint8 codec, error measures, pictures.

Everywhere: flow is `(..., 2, H, W)`, channel 0 = x (right), channel 1 = y (down), in pixels.
"""

from pyaction.flow.codec import decode, encode
from pyaction.flow.color import to_image
from pyaction.flow.estimation import TVL1, Estimator, estimate, estimator
from pyaction.flow.files import FlowFile, read, write
from pyaction.flow.hardware import Hardware
from pyaction.flow.metrics import angular_error, endpoint_error, outlier_rate
from pyaction.flow.raft import RAFT

__all__ = [
    "RAFT",
    "TVL1",
    "Estimator",
    "FlowFile",
    "Hardware",
    "angular_error",
    "decode",
    "encode",
    "endpoint_error",
    "estimate",
    "estimator",
    "outlier_rate",
    "read",
    "to_image",
    "write",
]
