"""I3D: Inception-v1 with its filters inflated to three dimensions.

Carreira and Zisserman, "Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset", CVPR 2017, figure 3;
paddings, batch normalisation and names are those of the authors' released code.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyaction.models.checks import check_clip
from pyaction.models.first_convolution import average_over_channels
from pyaction.models.inflation import i3d_name, inflate
from pyaction.models.torchvision_networks import torchvision_network

if TYPE_CHECKING:
    from typing_extensions import Self

# Channels of the branches: 1x1x1 | 1x1x1 -> 3x3x3 | 1x1x1 -> 3x3x3 | pool -> 1x1x1.
_MIXED = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
_Size = tuple[int, int, int]


class I3D(nn.Module):
    """I3D, for RGB or flow: `(N, T, C, H, W)` -> logits `(N, classes)`.

    Parameters have the names under which PyTorch checkpoints of I3D circulate (`Mixed_3b.b1a.conv3d.weight`).

    Args:
        classes: number of classes.
        in_channels: C: 3 for RGB, 2 for flow.
        dropout: probability before the classifier.
        fixed_gamma: batch normalisation learns no scales, as in the authors' code: its weights stay what they start
            as, 1 or a file's, frozen anew at each `train()`. They are in the state dict all the same.
        weights: the name of weights of torchvision's GoogLeNet ("DEFAULT"), which downloads them; inflated, as the
            paper starts from ImageNet. The classifier is new all the same; for other than three channels the first
            convolution is averaged, see `average_over_channels`. None: random.

    Those weights expect RGB in [-1, 1], as I3D takes it. In the middle of a video of one frame the inflated network
    answers as GoogLeNet does where both see the same places: height and width 16 k - 1, such as 223. At 224 its first
    windows lie a pixel beside torchvision's, where TensorFlow, from which torchvision has the weights, puts them.

    Trained in bfloat16 on a CPU, some weights of clips with maps of few pixels may get a gradient of NaN (torch 2.15);
    under `torch.backends.mkldnn.flags(enabled=False)` they do not.

    Raises:
        ValueError: classes, in_channels or dropout is out of range, or torchvision has no such weights.
        OSError: the weights cannot be downloaded.

    Source: Carreira and Zisserman, CVPR 2017, figure 3 (the classes of Kinetics-400 by default).

    Example:
        >>> network = I3D(classes=51, in_channels=2).eval()
        >>> clip = torch.rand(1, 16, 2, 64, 64)
        >>> network(clip).shape
        torch.Size([1, 51])
        >>> {name: list(value.shape) for name, value in network.features(clip, ["Mixed_3c", "Mixed_4f"]).items()}
        {'Mixed_3c': [1, 480, 8, 8, 8], 'Mixed_4f': [1, 832, 4, 4, 4]}
    """

    # In the order of computation.
    ENDPOINTS = (
        "Conv3d_1a_7x7",
        "MaxPool3d_2a_3x3",
        "Conv3d_2b_1x1",
        "Conv3d_2c_3x3",
        "MaxPool3d_3a_3x3",
        "Mixed_3b",
        "Mixed_3c",
        "MaxPool3d_4a_3x3",
        "Mixed_4b",
        "Mixed_4c",
        "Mixed_4d",
        "Mixed_4e",
        "Mixed_4f",
        "MaxPool3d_5a_2x2",
        "Mixed_5b",
        "Mixed_5c",
        "AvgPool3d",
        "Logits",
    )

    def __init__(
        self,
        *,
        classes: int = 400,
        in_channels: int = 3,
        dropout: float = 0.5,
        fixed_gamma: bool = True,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        for name, value in {"classes": classes, "in_channels": in_channels}.items():
            if type(value) is not int or value < 1:
                raise ValueError(f"models.I3D: {name} must be an integer >= 1; got {value!r}")
        if not 0 <= dropout < 1:
            raise ValueError(f"models.I3D: dropout must be in [0, 1); got {dropout!r}")
        self.in_channels = in_channels
        self.classes = classes
        self.Conv3d_1a_7x7 = Unit3D(in_channels, 64, (7, 7, 7), (2, 2, 2))
        self.MaxPool3d_2a_3x3 = MaxPool3dSame((1, 3, 3), (1, 2, 2))
        self.Conv3d_2b_1x1 = Unit3D(64, 64)
        self.Conv3d_2c_3x3 = Unit3D(64, 192, (3, 3, 3))
        self.MaxPool3d_3a_3x3 = MaxPool3dSame((1, 3, 3), (1, 2, 2))
        self.MaxPool3d_4a_3x3 = MaxPool3dSame((3, 3, 3), (2, 2, 2))
        self.MaxPool3d_5a_2x2 = MaxPool3dSame((2, 2, 2), (2, 2, 2))
        source = 192
        for name, branches in _MIXED.items():
            self.add_module(name, Mixed(source, branches))
            source = branches[0] + branches[2] + branches[4] + branches[5]
        self.dropout = nn.Dropout(dropout)
        self.logits = Classifier(source, classes)
        self.fixed_gamma = fixed_gamma
        self.train()
        if weights is not None:
            self._start_from_googlenet(weights)

    def train(self, mode: bool = True) -> Self:
        """As of any module; fixed weights of batch normalisation are frozen again if they were not."""
        super().train(mode)
        if self.fixed_gamma:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm3d):
                    module.weight.requires_grad_(False)
        return self

    def forward(self, clip: Tensor) -> Tensor:
        """Logits `(N, classes)`, averaged over time.

        Args:
            clip: `(N, T, C, H, W)`, floating point in [-1, 1]: RGB / 127.5 - 1, or flow in pixels, clipped to
                [-20, 20], / 20. 64 x 224 x 224 in the paper's training; any size and length will do.
        """
        return self.features(clip, ("Logits",))["Logits"]

    def features(self, clip: Tensor, endpoints: Iterable[str]) -> dict[str, Tensor]:
        """What the network has computed at the endpoints, in one pass that ends at the last of them.

        Args:
            clip: as for `forward`.
            endpoints: some of `I3D.ENDPOINTS`.

        Returns:
            By name, in the order of computation: `(N, channels, t, h, w)` after the ReLU or the pool;
            `"AvgPool3d"`: `(N, 1024, t, 1, 1)`, over 2 neighbouring time steps and the whole frame (7 x 7 at 224 x
            224), before dropout; `"Logits"`: `(N, classes)`.

        Raises:
            TypeError: clip is not a tensor, or endpoints is one string.
            ValueError: clip has the wrong shape or dtype, or there is no such endpoint.
        """
        check_clip("models.I3D", clip, self.in_channels)
        if not clip.is_floating_point():
            raise ValueError(f"models.I3D: clip must be floating point in [-1, 1]; got {clip.dtype}")
        wanted = self._checked(endpoints)
        kept: dict[str, Tensor] = {}
        x = clip.transpose(1, 2)  # [N, C, T, H, W]
        for name in self.ENDPOINTS:
            if len(kept) == len(wanted):
                break
            if name == "AvgPool3d":
                x = _pooled(x)  # [N, 1024, t - 1, 1, 1]
            elif name == "Logits":
                x = self.classify(_over_time(x))
            else:
                x = self.get_submodule(name)(x)
            if name in wanted:
                kept[name] = x
        return kept

    def feature_map(self, clip: Tensor) -> Tensor:
        """`(N, T, C, H, W)` -> `(N, 1024, t, h, w)`: what the last block, `Mixed_5c`, sees where and when."""
        return self.features(clip, ("Mixed_5c",))["Mixed_5c"]

    def to_vectors(self, feature_map: Tensor) -> Tensor:
        """`(N, 1024, t, h, w)` -> `(N, t - 1, 1024)`, of one time step 1: the endpoint `AvgPool3d`, time first."""
        return _over_time(_pooled(feature_map))

    def classify(self, vectors: Tensor) -> Tensor:
        """`(N, t, 1024)` -> logits `(N, classes)`: dropout, the classifier at every time step, and their mean."""
        steps = vectors.transpose(1, 2)[..., None, None]  # [N, 1024, t, 1, 1]
        return self.logits(self.dropout(steps)).mean(dim=(2, 3, 4))

    def _start_from_googlenet(self, weights: str) -> None:
        """All but the classifier."""
        network = torchvision_network("models.I3D", "googlenet", weights)
        state = self.state_dict()
        for theirs, value in network.state_dict().items():
            if (ours := i3d_name(theirs)) is not None:
                state[ours] = value
        if self.in_channels != 3:
            first = "Conv3d_1a_7x7.conv3d.weight"
            state[first] = average_over_channels(state[first], self.in_channels)
        self.load_state_dict(inflate(state, self))

    def _checked(self, endpoints: Iterable[str]) -> set[str]:
        if isinstance(endpoints, str):
            raise TypeError(f"models.I3D: endpoints must be a list or tuple of names; got the string {endpoints!r}")
        wanted = set(endpoints)
        unknown = sorted(wanted - set(self.ENDPOINTS))
        if unknown:
            known = ", ".join(self.ENDPOINTS)
            raise ValueError(f"models.I3D: endpoints must be among {known}; got {', '.join(unknown)}")
        return wanted


class Unit3D(nn.Module):
    """Convolution with TensorFlow's padding and no bias, batch normalisation, ReLU.

    Args:
        source: channels that come in.
        out: channels that go out.
        kernel: time, height, width.
        stride: likewise.
    """

    def __init__(self, source: int, out: int, kernel: _Size = (1, 1, 1), stride: _Size = (1, 1, 1)) -> None:
        super().__init__()
        self._strides = stride != (1, 1, 1)
        padding = (0, 0, 0) if self._strides else (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        self.conv3d = nn.Conv3d(source, out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm3d(out, eps=1e-3, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, source, T, H, W)` -> `(N, out, ceil(T / stride), ceil(H / stride), ceil(W / stride))`."""
        if self._strides:  # the padding depends on the size, and there may be more of it behind than before
            (front, back), (top, bottom), (left, right) = _same_padding(x, self.conv3d.kernel_size, self.conv3d.stride)
            x = F.pad(x, (left, right, top, bottom, front, back))
        return F.relu(self.bn(self.conv3d(x)), inplace=True)


class MaxPool3dSame(nn.Module):
    """Max-pool with TensorFlow's padding, which is never the maximum.

    Args:
        kernel: time, height, width.
        stride: likewise.
    """

    def __init__(self, kernel: _Size, stride: _Size) -> None:
        super().__init__()
        self.kernel = kernel
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """`(N, C, T, H, W)` -> `(N, C, ceil(T / stride), ceil(H / stride), ceil(W / stride))`."""
        return _max_pooled(x, self.kernel, self.stride)


class Mixed(nn.Module):
    """Inception block: four branches side by side, concatenated.

    Args:
        source: channels that come in.
        branches: channels of its convolutions, see `_MIXED`.
    """

    def __init__(self, source: int, branches: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        self.b0 = Unit3D(source, branches[0])
        self.b1a = Unit3D(source, branches[1])
        self.b1b = Unit3D(branches[1], branches[2], (3, 3, 3))
        self.b2a = Unit3D(source, branches[3])
        self.b2b = Unit3D(branches[3], branches[4], (3, 3, 3))
        self.b3b = Unit3D(source, branches[5])

    def forward(self, x: Tensor) -> Tensor:
        """`(N, source, T, H, W)` -> `(N, branches 0 + 2 + 4 + 5, T, H, W)`."""
        pooled = self.b3b(_max_pooled(x, (3, 3, 3), (1, 1, 1)))
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), pooled], dim=1)


class Classifier(nn.Module):
    """1x1x1 convolution with bias: a linear classifier at every time step.

    Args:
        source: channels that come in.
        classes: number of classes.
    """

    def __init__(self, source: int, classes: int) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(source, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, source, T, H, W)` -> `(N, classes, T, H, W)`."""
        return self.conv3d(x)


def _pooled(x: Tensor) -> Tensor:
    """`(N, C, t, h, w)` -> `(N, C, t - 1, 1, 1)`: over 2 neighbouring time steps and the whole frame."""
    steps = x.mean((3, 4), keepdim=True)
    return steps if x.shape[2] == 1 else (steps[:, :, 1:] + steps[:, :, :-1]) / 2


def _over_time(x: Tensor) -> Tensor:
    """`(N, C, t, 1, 1)` -> `(N, t, C)`."""
    return x.flatten(2).transpose(1, 2)


def _same_padding(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> list[tuple[int, int]]:
    """TensorFlow's "SAME", (before, after) for time, height, width: as much as ceil(size / stride) outputs need."""
    padding = []
    for size, k, s in zip(x.shape[2:], kernel, stride, strict=True):
        total = max(k - (size % s or s), 0)
        padding.append((total // 2, total - total // 2))
    return padding


def _max_pooled(x: Tensor, kernel: _Size, stride: _Size) -> Tensor:
    """In space, then in time: the same maxima of far fewer values, and in windows that the compiler can fuse."""
    (front, _), (top, _), (left, _) = _same_padding(x, kernel, stride)  # what lies behind comes by rounding up
    x = F.max_pool3d(x, (1, *kernel[1:]), (1, *stride[1:]), (0, top, left), ceil_mode=True)
    if kernel[0] == 1:
        return x
    return F.max_pool3d(x, (kernel[0], 1, 1), (stride[0], 1, 1), (front, 0, 0), ceil_mode=True)
