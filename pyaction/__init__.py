"""Two-stream action recognition in video, with its own C++ and CUDA kernels.

`pyaction.ops`: the kernels as functions on tensors; `pyaction.flow`: optical flow as files, bytes, errors and pictures;
`pyaction.video`: reading and writing video files; `pyaction.data`: labelled clips for training; `pyaction.models`: the
networks; `pyaction.losses`: what they are trained with.
"""

from pyaction import data, flow, losses, models, ops, video
from pyaction._native import build_facts

__version__ = build_facts()["version"]

__all__ = ["data", "flow", "losses", "models", "ops", "video"]
