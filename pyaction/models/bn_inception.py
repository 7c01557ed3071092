"""BN-Inception, the network of TSN, TRN and the cooperative cross-stream network."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyaction.models.backbone import Backbone


class _Block(NamedTuple):
    """Widths of a block's four branches, which see the same input and are put side by side.

    Without `single` and `projection` the block halves the resolution, and its fourth branch is the pooling alone.
    """

    name: str
    single: int  # 1x1
    reduce3: int  # 1x1, before
    triple: int  # 3x3
    reduce5: int  # 1x1, before two
    double: int  # 3x3
    projection: int  # 1x1 after the pooling
    pooling: str = "average"


_BLOCKS = (
    _Block("3a", 64, 64, 64, 64, 96, 32),
    _Block("3b", 64, 64, 96, 64, 96, 64),
    _Block("3c", 0, 128, 160, 64, 96, 0, "max"),
    _Block("4a", 224, 64, 96, 96, 128, 128),
    _Block("4b", 192, 96, 128, 96, 128, 128),
    _Block("4c", 160, 128, 160, 128, 160, 128),
    _Block("4d", 96, 128, 192, 160, 192, 128),
    _Block("4e", 0, 128, 192, 192, 256, 0, "max"),
    _Block("5a", 352, 192, 320, 160, 224, 128),
    _Block("5b", 352, 192, 320, 192, 224, 128, "max"),
)


class BNInception(Backbone):
    """BN-Inception: after three convolutions ten blocks of branches; each convolution with batch normalisation.

    The layers have the names of the weights in circulation (`conv1_7x7_s2`, `conv1_7x7_s2_bn`,
    `inception_3a_double_3x3_1`, ...), which come from Caffe: convolutions have a bias beside the normalisation, and
    the pooling windows of the halving layers may hang over the right and lower edge.

    Args:
        classes: How many classes; None: no classifier, see `Backbone`.
        in_channels: C of the images: 3, or 10 for five fields of flow.
        dropout: Probability before the classifier: 0.8 with RGB, 0.7 with flow.

    Input: `(N, C, H, W)`, H and W multiples of 32, 224 in the papers, normalised: those weights expect BGR in 0..255
    minus the mean. Output: logits `(N, classes)`.

    Source: Ioffe and Szegedy, "Batch Normalization", 2015, figure 5, as changed for TSN (Wang et al., "Temporal
    Segment Networks", ECCV 2016), which paper 001 builds on. New classifiers are N(0, 0.001²).

    Example:
        >>> BNInception(classes=7, in_channels=10)(torch.rand(2, 10, 64, 64)).shape
        torch.Size([2, 7])
    """

    map_channels = 1024
    vector_size = 1024

    def __init__(self, *, classes: int | None = 101, in_channels: int = 3, dropout: float = 0.8) -> None:
        super().__init__(in_channels=in_channels, classes=classes)
        self._add("conv1_7x7_s2", in_channels, 64, 7, stride=2)
        self._add("conv2_3x3_reduce", 64, 64, 1)
        self._add("conv2_3x3", 64, 192, 3)
        channels = 192
        for block in _BLOCKS:
            channels = self._add_block(block, channels)
        if classes is not None:
            self.dropout = nn.Dropout(dropout)
            self.fc = nn.Linear(channels, classes)
            nn.init.normal_(self.fc.weight, std=0.001)
            nn.init.zeros_(self.fc.bias)

    def feature_map(self, images: Tensor) -> Tensor:
        """`(N, C, H, W)` -> `(N, 1024, H / 32, W / 32)`, the output of block 5b; see `Backbone`."""
        self._check_images(images)
        height, width = images.shape[2:]
        if height % 32 or width % 32 or not height or not width:
            raise ValueError(
                f"{self._name}: height and width of images must be multiples of 32; got {height} x {width}"
            )
        x = self._convolve("conv1_7x7_s2", images)  # (N, 64, H/2, W/2)
        x = F.max_pool2d(x, 3, stride=2, ceil_mode=True)
        x = self._convolve("conv2_3x3", self._convolve("conv2_3x3_reduce", x))  # (N, 192, H/4, W/4)
        x = F.max_pool2d(x, 3, stride=2, ceil_mode=True)
        for block in _BLOCKS:
            x = self._apply_block(block, x)
        return x

    def to_vector(self, feature_map: Tensor) -> Tensor:
        """`(N, 1024, h, w)` -> `(N, 1024)`: the mean over the places."""
        return feature_map.mean((2, 3))

    def classify(self, vector: Tensor) -> Tensor:
        """`(N, 1024)` -> logits `(N, classes)`: dropout and the fully connected layer."""
        self._check_classifier()
        return self.fc(self.dropout(vector))

    def _add(self, name: str, channels: int, filters: int, size: int, *, stride: int = 1) -> None:
        self.add_module(name, nn.Conv2d(channels, filters, size, stride=stride, padding=size // 2))
        self.add_module(f"{name}_bn", nn.BatchNorm2d(filters))

    def _convolve(self, name: str, x: Tensor) -> Tensor:
        return F.relu(getattr(self, f"{name}_bn")(getattr(self, name)(x)))

    def _add_block(self, block: _Block, channels: int) -> int:
        """Adds the layers of a block over so many channels; returns how many it gives."""
        prefix = f"inception_{block.name}"
        stride = 1 if block.projection else 2
        if block.single:
            self._add(f"{prefix}_1x1", channels, block.single, 1)
        self._add(f"{prefix}_3x3_reduce", channels, block.reduce3, 1)
        self._add(f"{prefix}_3x3", block.reduce3, block.triple, 3, stride=stride)
        self._add(f"{prefix}_double_3x3_reduce", channels, block.reduce5, 1)
        self._add(f"{prefix}_double_3x3_1", block.reduce5, block.double, 3)
        self._add(f"{prefix}_double_3x3_2", block.double, block.double, 3, stride=stride)
        if block.projection:
            self._add(f"{prefix}_pool_proj", channels, block.projection, 1)
        return block.single + block.triple + block.double + (block.projection or channels)

    def _apply_block(self, block: _Block, x: Tensor) -> Tensor:
        prefix = f"inception_{block.name}"
        triple = self._convolve(f"{prefix}_3x3", self._convolve(f"{prefix}_3x3_reduce", x))
        double = self._convolve(f"{prefix}_double_3x3_1", self._convolve(f"{prefix}_double_3x3_reduce", x))
        double = self._convolve(f"{prefix}_double_3x3_2", double)
        if not block.projection:
            return torch.cat([triple, double, F.max_pool2d(x, 3, stride=2, ceil_mode=True)], dim=1)
        single = self._convolve(f"{prefix}_1x1", x)
        # As in Caffe, averages count the padding as pixels.
        pool = F.max_pool2d if block.pooling == "max" else F.avg_pool2d
        pooled = self._convolve(f"{prefix}_pool_proj", pool(x, 3, stride=1, padding=1))
        return torch.cat([single, triple, double, pooled], dim=1)
