"""ResNet, the network of both streams of the SG3I paper."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from pyaction.models.backbone import Backbone
from pyaction.models.first_convolution import adapt_first_convolution
from pyaction.models.torchvision_networks import torchvision_network


class ResNet(Backbone):
    """ResNet as torchvision has it, with two fully connected layers as the classifier.

    For the spatial stream the input is RGB; for the temporal stream it is SG3I, three grey frames of different times
    in the places of R, G and B, for which weights of ImageNet are as good a start; or stacked flow. The weights up to
    the pooling have torchvision's names.

    Args:
        classes: How many classes; None: no classifier, see `Backbone`.
        depth: 18, 34, 50, 101 or 152 layers; 50 in paper 003.
        hidden: Width of the first fully connected layer, which the paper does not tell.
        dropout: Probability between the two.
        in_channels: C of the images: 3, or 2L for L fields of flow.
        weights: The name of weights of torchvision ("DEFAULT"), which downloads them; for other than three channels
            the first convolution becomes that of `adapt_first_convolution`. None: random.

    Input: `(N, C, H, W)`, at least 32 x 32 pixels, 224 x 224 in the paper, normalised. Output: logits `(N, classes)`.

    Source: paper 003 (Devarakonda et al.), sections III-B and III-C; SG3I: Kim and Won, "Action Recognition in Videos
    Using Pre-Trained 2D Convolutional Neural Networks", 2020.

    Raises:
        ValueError: An argument has no such value.
        OSError: The weights cannot be downloaded.

    Example:
        >>> import torch
        >>> ResNet(classes=7, depth=18)(torch.rand(4, 3, 64, 64)).shape
        torch.Size([4, 7])
    """

    def __init__(
        self,
        *,
        classes: int | None = 51,
        depth: Literal[18, 34, 50, 101, 152] = 50,
        hidden: int = 512,
        dropout: float = 0.5,
        in_channels: int = 3,
        weights: str | None = None,
    ) -> None:
        super().__init__(in_channels=in_channels, classes=classes)
        if depth not in (18, 34, 50, 101, 152):
            raise ValueError(f"{self._name}: depth must be 18, 34, 50, 101 or 152; got {depth!r}")
        if hidden < 1:
            raise ValueError(f"{self._name}: hidden must be at least 1; got {hidden}")
        network = torchvision_network(self._name, f"resnet{depth}", weights)
        self.map_channels = self.vector_size = network.fc.in_features
        self.conv1: nn.Conv2d = network.conv1
        self.bn1: nn.BatchNorm2d = network.bn1
        self.maxpool: nn.MaxPool2d = network.maxpool
        self.layer1: nn.Sequential = network.layer1
        self.layer2: nn.Sequential = network.layer2
        self.layer3: nn.Sequential = network.layer3
        self.layer4: nn.Sequential = network.layer4
        if classes is not None:
            self.fc1 = nn.Linear(self.vector_size, hidden)
            self.dropout = nn.Dropout(dropout)
            self.fc2 = nn.Linear(hidden, classes)
        if in_channels != 3:
            adapt_first_convolution(self, in_channels, pretrained=weights is not None)

    def feature_map(self, images: Tensor) -> Tensor:
        """`(N, C, H, W)` -> `(N, map_channels, h, w)`, h = H / 32 rounded up; see `Backbone`."""
        self._check_images(images)
        self._check_least_size(images)
        x = self.maxpool(F.relu(self.bn1(self.conv1(images))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def to_vector(self, feature_map: Tensor) -> Tensor:
        """`(N, D, h, w)` -> `(N, D)`: the mean over the places; D is 2048, or 512 up to a depth of 34."""
        return feature_map.mean((2, 3))

    def classify(self, vector: Tensor) -> Tensor:
        """`(N, D)` -> logits `(N, classes)`: two fully connected layers."""
        self._check_classifier()
        return self.fc2(self.dropout(F.relu(self.fc1(vector))))
