"""Networks, one file per architecture."""

from pyaction.models.hidden_two_stream import (
    BranchedTemporalStream,
    StackedTemporalStream,
    TemporalStreamOutput,
    normalize_flow,
)
from pyaction.models.i3d import I3D, inflate
from pyaction.models.motionnet import FlowNetwork, MotionNet, TinyMotionNet

__all__ = [
    "I3D",
    "BranchedTemporalStream",
    "FlowNetwork",
    "MotionNet",
    "StackedTemporalStream",
    "TemporalStreamOutput",
    "TinyMotionNet",
    "inflate",
    "normalize_flow",
]
