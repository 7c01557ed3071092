"""What the pixels of a clip are, and the check that they can be that."""

from typing import Literal, get_args

import torch
from torch import Tensor

Content = Literal["frames", "flow", "encoded_flow"]


def check_clip(caller: str, clip: object, content: Content) -> None:
    """Refuses a clip that cannot hold what `content` says, see `pyaction.data.transforms`."""
    if content not in get_args(Content):
        raise ValueError(f"{caller}: content must be 'frames', 'flow' or 'encoded_flow'; got {content!r}")
    if not isinstance(clip, Tensor):
        raise TypeError(f"{caller}: clip must be a torch.Tensor; got {type(clip).__name__}")
    if clip.ndim < 3 or 0 in clip.shape[-2:]:
        raise ValueError(f"{caller}: clip must be (..., C, H, W) with pixels in it; got shape {list(clip.shape)}")
    channels = clip.shape[-3]
    if content == "frames" and channels not in (1, 3):
        raise ValueError(f"{caller}: frames must have 3 channels, or 1 if grey; got shape {list(clip.shape)}")
    if content != "frames" and (channels == 0 or channels % 2):
        raise ValueError(f"{caller}: {content} must have 2 channels, x and y, or 2L; got shape {list(clip.shape)}")
    if content == "flow" and not clip.is_floating_point():
        raise ValueError(f"{caller}: flow must be floating point, in pixels; got {clip.dtype}, is it 'encoded_flow'?")
    if clip.dtype != torch.uint8 and not clip.is_floating_point():
        raise ValueError(f"{caller}: {content} must be uint8 or floating point; got {clip.dtype}")
