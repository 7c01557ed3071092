"""MotionNet and Tiny-MotionNet: optical flow from a stack of frames, learned without ground truth.

Zhu, Lan, Newsam and Hauptmann, "Hidden Two-Stream Convolutional Networks for Action Recognition", ACCV 2018 (paper
002), section 3.1; layers, units and scales are those of the authors' released network definition.
"""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyaction.models.checks import check_clip

# The networks predict flow in units of this many pixels of the frames, at every level.
UNIT = 20.0
# Subtracted from frames in 0..255: red, green, blue.
MEAN = (123.0, 117.0, 104.0)
# Windows that together take about this much memory are computed at once.
_CHUNK_BYTES = 2**30


class FlowNetwork(nn.Module, ABC):
    """What both networks share: the frames they take, and flow for clips of any size and length.

    Subclasses define `contract` and `expand`, and set `coarsest` and `feature_channels`.
    """

    coarsest: int  # pixels of the frames in one of the coarsest flow, along each side
    feature_channels: int  # of the last tensor of `contract`
    mean: Tensor

    def __init__(self, frames: int) -> None:
        super().__init__()
        if type(frames) is not int or frames < 2:
            raise ValueError(f"{self._name}: frames must be an integer >= 2; got {frames!r}")
        self.frames = frames
        # Not in the state dict: a constant, and checkpoints are weights alone.
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1) / 255, persistent=False)

    @abstractmethod
    def contract(self, x: Tensor) -> list[Tensor]:
        """`(N, 3T, H, W)` normalised frames -> the features of every level, finest first."""

    @abstractmethod
    def expand(self, features: list[Tensor]) -> list[Tensor]:
        """Those features -> predicted flow `(N, 2(T - 1), h, w)` in units of 20 pixels of the frames, finest first."""

    def normalize(self, clip: Tensor) -> Tensor:
        """What the network sees, and what `losses.unsupervised_flow_loss` compares: zero mean, blue first.

        Args:
            clip: `(N, T, 3, H, W)` RGB, uint8 in 0..255 or floating point in [0, 1].

        Returns:
            `(N, T, 3, H, W)` BGR in about [-0.5, 0.6], of the network's dtype.
        """
        check_clip(self._name, clip, channels=3)
        if clip.dtype == torch.uint8:
            clip = clip.to(self.mean.dtype) / 255
        elif not clip.is_floating_point():
            raise ValueError(f"{self._name}: clip must be uint8, or floating point in [0, 1]; got {clip.dtype}")
        return (clip.to(self.mean.dtype) - self.mean).flip(2)

    def forward(self, clip: Tensor) -> list[Tensor]:
        """The flow between neighbouring frames at every level.

        Args:
            clip: `(N, T, 3, H, W)` RGB, T = `frames`, uint8 in 0..255 or floating point in [0, 1]; H and W multiples
                of `coarsest`. (`flow` takes any T, H and W.)

        Returns:
            `(N, T - 1, 2, h, w)` per level, finest first: h = H / 2, H / 4, ..., H / `coarsest`; in pixels *of that
            level*, channel 0 = x (right), channel 1 = y (down).

        Raises:
            TypeError: clip is not a tensor.
            ValueError: wrong dtype or shape.
        """
        return self.flows_and_features(clip)[0]

    def flows_and_features(self, clip: Tensor) -> tuple[list[Tensor], Tensor]:
        """As `forward`, and the features from which all flow is computed, `(N, feature_channels, h, w)`.

        Args:
            clip: as for `forward`.

        Returns:
            The list of `forward`, and the end of the contracting part, with h = H / `coarsest`.
        """
        frames = self.normalize(clip)
        if frames.shape[1] != self.frames:
            raise ValueError(
                f"{self._name}: clip must have T = {self.frames} frames, see `frames`; got {frames.shape[1]}"
            )
        height, width = frames.shape[3:]
        if height % self.coarsest or width % self.coarsest:
            raise ValueError(
                f"{self._name}: H and W must be multiples of {self.coarsest}; got {height} x {width} "
                "(resize or crop, or call flow, which pads)"
            )
        features = self.contract(frames.flatten(1, 2))  # [N, 3T, H, W]
        flows = []
        for predicted in self.expand(features):
            pixels = height // predicted.shape[2]  # of the frames in one of this level
            flows.append(predicted.unflatten(1, (self.frames - 1, 2)) * (UNIT / pixels))
        return flows, features[-1]

    def flow(self, clip: Tensor) -> Tensor:
        """The flow of clips of any size and length, as `pyaction.flow.estimate(clip, method=network.flow)` wants it.

        The clip is cut into windows of `frames` frames, each starting at the last frame of the one before; the last
        window is filled up with the clip's last frame. Frames are padded by their border pixels to multiples of
        `coarsest`; the finest flow is enlarged bilinearly. Without gradients, memory beside the flow and the clip
        stays near a gigabyte, or what a single window needs.

        Args:
            clip: `(N, T, C, H, W)`, T >= 1, C = 3 (RGB) or 1 (grey), uint8 in 0..255 or floating point in [0, 1].

        Returns:
            `(N, T - 1, 2, H, W)` in pixels of the frames, at least float32; channel 0 = x, channel 1 = y.
        """
        if isinstance(clip, Tensor) and clip.dim() == 5 and clip.shape[2] == 1:
            clip = clip.expand(-1, -1, 3, -1, -1)
        check_clip(self._name, clip, channels=3)
        n, t, _, height, width = clip.shape
        pairs = self.frames - 1
        windows = -(-(t - 1) // pairs)
        if n * windows == 0:
            return self.mean.new_zeros((n, t - 1, 2, height, width), dtype=_at_least_float32(self.mean.dtype))
        starts = torch.arange(windows, device=clip.device) * pairs
        order = (starts[:, None] + torch.arange(self.frames, device=clip.device)).clamp(max=t - 1)
        # A kilobyte per pixel and window: the widest activations, and what convolutions lay beside them.
        at_once = max(1, _CHUNK_BYTES // (1024 * height * width))
        chunks = []
        for chunk in torch.arange(n * windows, device=clip.device).split(at_once):
            chunks.append(self._window_flow(clip[(chunk // windows)[:, None], order[chunk % windows]]))
        return torch.cat(chunks).unflatten(0, (n, windows)).flatten(1, 2)[:, : t - 1]

    def _window_flow(self, clip: Tensor) -> Tensor:
        """`(N, frames, 3, H, W)` -> `(N, frames - 1, 2, H, W)` in pixels of the frames."""
        height, width = clip.shape[3:]
        left, top = (-width % self.coarsest) // 2, (-height % self.coarsest) // 2
        padding = (left, -width % self.coarsest - left, top, -height % self.coarsest - top)
        frames = F.pad(self.normalize(clip).flatten(1, 2), padding, mode="replicate")  # [N, 3 frames, H', W']
        predicted = self.expand(self.contract(frames))[0] * UNIT
        flow = F.interpolate(predicted.to(_at_least_float32(predicted.dtype)), scale_factor=2, mode="bilinear")
        return flow[:, :, top : top + height, left : left + width].unflatten(1, (self.frames - 1, 2))

    @property
    def _name(self) -> str:
        return f"models.{type(self).__name__}"

    def _initialize(self) -> None:
        """Weights as by He et al., ICCV 2015 ("MSRA"), biases zero."""
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


class Expansion(nn.Module):
    """One level of the expanding part: from a level to the flow of the next finer one.

    The extra convolution between two deconvolutions smooths the flow (paper 002, section 3.1; table 2, "CDC"); no
    activation follows it. Deconvolutions have no bias: the release freezes it at zero.

    Args:
        source: channels of the coarser level.
        skip: channels of the contracting part's features at the finer level.
        out: channels of the finer level.
        flow: channels of the flow, 2(T - 1).
    """

    def __init__(self, *, source: int, skip: int, out: int, flow: int) -> None:
        super().__init__()
        self.deconv = nn.ConvTranspose2d(source, out, 4, stride=2, padding=1, bias=False)
        self.upflow = nn.ConvTranspose2d(flow, flow, 4, stride=2, padding=1, bias=False)
        self.xconv = nn.Conv2d(skip + out + flow, out, 3, padding=1)
        self.flow = nn.Conv2d(out, flow, 3, padding=1)

    def forward(self, x: Tensor, flow: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        """`(N, source, h, w)`, `(N, flow, h, w)`, `(N, skip, 2h, 2w)` -> `(N, out, 2h, 2w)`, `(N, flow, 2h, 2w)`."""
        x = self.xconv(torch.cat([skip, _activated(self.deconv(x)), self.upflow(flow)], dim=1))
        return x, self.flow(x)


class MotionNet(FlowNetwork):
    """The flow network of hidden two-stream networks: flow at 1/2, 1/4, 1/8, 1/16 and 1/32 of the resolution.

    42,318,820 parameters with 11 frames. Untrained it predicts noise: train it with
    `losses.unsupervised_flow_loss`. Convolutions start with MSRA weights and zero biases.

    Args:
        frames: T, how many frames go in at once, >= 2; T - 1 flow fields come out.

    Raises:
        ValueError: frames is less than 2.

    Source: paper 002, section 3.1; the layer table is that of the authors' `deploy.prototxt`.

    Example:
        >>> network = MotionNet(frames=2)
        >>> [list(flow.shape) for flow in network(torch.rand(1, 2, 3, 64, 96))][::2]
        [[1, 1, 2, 32, 48], [1, 1, 2, 8, 12], [1, 1, 2, 2, 3]]
        >>> network.flow(torch.rand(1, 4, 3, 60, 90)).shape
        torch.Size([1, 3, 2, 60, 90])
    """

    coarsest = 32
    feature_channels = 1024

    def __init__(self, *, frames: int = 11) -> None:
        super().__init__(frames)
        flow = 2 * (frames - 1)
        self.conv1 = nn.Conv2d(3 * frames, 64, 3, padding=1)
        self.conv1_1 = nn.Conv2d(64, 64, 3, padding=1)
        self.conv2 = nn.Conv2d(64, 128, 3, stride=2, padding=1)
        self.conv2_1 = nn.Conv2d(128, 128, 3, padding=1)
        self.conv3 = nn.Conv2d(128, 256, 3, stride=2, padding=1)
        self.conv3_1 = nn.Conv2d(256, 256, 3, padding=1)
        self.conv4 = nn.Conv2d(256, 512, 3, stride=2, padding=1)
        self.conv4_1 = nn.Conv2d(512, 512, 3, padding=1)
        self.conv5 = nn.Conv2d(512, 512, 3, stride=2, padding=1)
        self.conv5_1 = nn.Conv2d(512, 512, 3, padding=1)
        self.conv6 = nn.Conv2d(512, 1024, 3, stride=2, padding=1)
        self.conv6_1 = nn.Conv2d(1024, 1024, 3, padding=1)
        self.flow6 = nn.Conv2d(1024, flow, 3, padding=1)
        self.expand5 = Expansion(source=1024, skip=512, out=512, flow=flow)
        self.expand4 = Expansion(source=512, skip=512, out=256, flow=flow)
        self.expand3 = Expansion(source=256, skip=256, out=128, flow=flow)
        self.expand2 = Expansion(source=128, skip=128, out=64, flow=flow)
        self._initialize()

    def contract(self, x: Tensor) -> list[Tensor]:
        """See `FlowNetwork.contract`."""
        x = _activated(self.conv1_1(_activated(self.conv1(x))))  # [N, 64, H, W]
        level2 = _activated(self.conv2_1(_activated(self.conv2(x))))  # [N, 128, H/2, W/2]
        level3 = _activated(self.conv3_1(_activated(self.conv3(level2))))  # [N, 256, H/4, W/4]
        level4 = _activated(self.conv4_1(_activated(self.conv4(level3))))  # [N, 512, H/8, W/8]
        level5 = _activated(self.conv5_1(_activated(self.conv5(level4))))  # [N, 512, H/16, W/16]
        level6 = _activated(self.conv6_1(_activated(self.conv6(level5))))  # [N, 1024, H/32, W/32]
        return [level2, level3, level4, level5, level6]

    def expand(self, features: list[Tensor]) -> list[Tensor]:
        """See `FlowNetwork.expand`."""
        level2, level3, level4, level5, level6 = features
        flow6 = self.flow6(level6)
        x, flow5 = self.expand5(level6, flow6, level5)
        x, flow4 = self.expand4(x, flow5, level4)
        x, flow3 = self.expand3(x, flow4, level3)
        x, flow2 = self.expand2(x, flow3, level2)
        return [flow2, flow3, flow4, flow5, flow6]


class TinyMotionNet(FlowNetwork):
    """MotionNet with few layers: flow at 1/2, 1/4 and 1/8 of the resolution, 1,950,076 parameters with 11 frames.

    Args:
        frames: T, how many frames go in at once, >= 2; T - 1 flow fields come out.

    Raises:
        ValueError: frames is less than 2.

    Source: paper 002, supplementary material. The authors' own definition is lost; this table is the one on which two
    independent public re-implementations agree, and it has the size that the paper names.

    Example:
        >>> [list(flow.shape) for flow in TinyMotionNet(frames=3)(torch.rand(1, 3, 3, 32, 48))]
        [[1, 2, 2, 16, 24], [1, 2, 2, 8, 12], [1, 2, 2, 4, 6]]
    """

    coarsest = 8
    feature_channels = 128

    def __init__(self, *, frames: int = 11) -> None:
        super().__init__(frames)
        flow = 2 * (frames - 1)
        self.conv1 = nn.Conv2d(3 * frames, 64, 7, padding=3)
        self.conv2 = nn.Conv2d(64, 128, 5, stride=2, padding=2)
        self.conv3 = nn.Conv2d(128, 256, 3, stride=2, padding=1)
        self.conv4 = nn.Conv2d(256, 128, 3, stride=2, padding=1)
        self.flow4 = nn.Conv2d(128, flow, 3, padding=1)
        self.expand3 = Expansion(source=128, skip=256, out=128, flow=flow)
        self.expand2 = Expansion(source=128, skip=128, out=64, flow=flow)
        self._initialize()

    def contract(self, x: Tensor) -> list[Tensor]:
        """See `FlowNetwork.contract`."""
        level2 = _activated(self.conv2(_activated(self.conv1(x))))  # [N, 128, H/2, W/2]
        level3 = _activated(self.conv3(level2))  # [N, 256, H/4, W/4]
        level4 = _activated(self.conv4(level3))  # [N, 128, H/8, W/8]
        return [level2, level3, level4]

    def expand(self, features: list[Tensor]) -> list[Tensor]:
        """See `FlowNetwork.expand`."""
        level2, level3, level4 = features
        flow4 = self.flow4(level4)
        x, flow3 = self.expand3(level4, flow4, level3)
        x, flow2 = self.expand2(x, flow3, level2)
        return [flow2, flow3, flow4]


def _activated(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.1, inplace=True)


def _at_least_float32(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
