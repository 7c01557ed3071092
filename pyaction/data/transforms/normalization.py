"""What each family of networks expects to see: a table of `Normalization`."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pyaction.data.transforms.content import Content, check_clip

FLOW_BOUND = 20.0
"""Displacement in pixels at which flow saturates, in every published two-stream network."""


@dataclass(frozen=True)
class Normalization:
    """Maps a clip to the input of a network: `(scale · x - mean) / std`, with x in [0, 1].

    x is a frame's brightness: uint8 / 255, or the floating-point value. Of flow in pixels it is
    `(clip(v, ±20) + 20) / 40`, not rounded and differentiable, so that flow computed on the fly, or learned, goes in as
    it is; of encoded flow (at bound 20) `byte / 255`. No motion is 1/2.

    Call it with a clip `(..., C, H, W)` and what it holds, see `pyaction.data.transforms`: `"frames"` (RGB) if it is
    for frames, `"flow"` or `"encoded_flow"` if it is for flow. The result has the clip's shape; float32 for uint8,
    else the clip's dtype.

    Raises:
        TypeError: The clip is not a tensor.
        ValueError: The clip cannot hold the content, or the normalisation is for something else; mean or std has
            another number of values than the channels, or std a 0.

    Example:
        >>> BN_INCEPTION_RGB(torch.full((3, 1, 1), 124, dtype=torch.uint8), "frames").flatten()
        tensor([20.,  7.,  1.])
        >>> I3D_FLOW(torch.tensor([5.0, -30.0]).view(2, 1, 1), "flow").flatten()
        tensor([ 0.2500, -1.0000])
    """

    modality: Literal["frames", "flow"]
    """What it is for."""
    scale: float
    """What x is multiplied by: 255 for networks that see 0..255."""
    mean: tuple[float, ...]
    """Subtracted from each channel, in the order of the result; one value is for all channels."""
    std: tuple[float, ...] = (1.0,)
    """Divides each channel."""
    bgr: bool = False
    """Whether the network sees the colours in the order blue, green, red."""

    def __post_init__(self) -> None:
        lengths = (1, 3) if self.modality == "frames" else (1,)
        if len(self.mean) not in lengths or len(self.std) not in lengths or 0 in self.std:
            raise ValueError(
                f"transforms.Normalization: mean and std must have one value, or three for RGB, and std no 0; "
                f"got mean {self.mean}, std {self.std} for {self.modality}"
            )

    def __call__(self, clip: Tensor, content: Content) -> Tensor:
        """The clip as the network expects it, floating point."""
        check_clip("transforms.Normalization", clip, content)
        if (content == "frames") != (self.modality == "frames"):
            raise ValueError(f"transforms.Normalization: this one is for {self.modality}; got {content}")
        if content == "frames" and clip.shape[-3] != 3:
            raise ValueError(f"transforms.Normalization: frames must be RGB, (..., 3, H, W); got {list(clip.shape)}")
        if content == "flow":
            scaled = (clip.clamp(-FLOW_BOUND, FLOW_BOUND) + FLOW_BOUND) * (self.scale / (2 * FLOW_BOUND))
        elif content == "encoded_flow" or clip.dtype == torch.uint8:
            scaled = clip.to(clip.dtype if clip.is_floating_point() else torch.float32) * (self.scale / 255)
        else:
            scaled = clip * self.scale
        if self.bgr:
            scaled = scaled.flip(-3)
        mean, std = (scaled.new_tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return scaled.sub_(mean).div_(std)


TORCHVISION_RGB = Normalization("frames", 1, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""ResNet, VGG-16 and others from torchvision, trained on ImageNet."""
TORCHVISION_FLOW = Normalization("flow", 1, mean=(0.5,), std=(0.226,))
"""The same networks as temporal streams; the deviation is the mean of RGB's three."""
BN_INCEPTION_RGB = Normalization("frames", 255, mean=(104, 117, 123), bgr=True)
"""BN-Inception (Wang et al., *Temporal Segment Networks*, 2016), its weights of ImageNet too."""
TSN_PYTORCH_RGB = Normalization("frames", 255, mean=(104, 117, 128), bgr=True)
"""BN-Inception from tsn-pytorch and TRN-pytorch, which trained with 128 for 123."""
BN_INCEPTION_FLOW = Normalization("flow", 255, mean=(128,))
"""BN-Inception as a temporal stream; 128 is the byte of no motion."""
I3D_RGB = Normalization("frames", 2, mean=(1,))
"""I3D (Carreira and Zisserman, *Quo Vadis, Action Recognition?*, 2017): [-1, 1]."""
I3D_FLOW = Normalization("flow", 2, mean=(1,))
"""I3D as a temporal stream: [-1, 1], that is, pixels clipped to ±20 and divided by 20."""
HIDDEN_TWO_STREAM_FLOW = Normalization("flow", 255, mean=(128,))
"""What the temporal stream of paper 002 sees, section 3.2: clipped to ±20 pixels, 0..255, less 128.

There is none for the frames of `models.MotionNet`, which normalises them itself.
"""
