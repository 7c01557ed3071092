"""VGG-16, the network of the very deep two streams and of the hidden two streams."""

from __future__ import annotations

from torch import Tensor, nn

from pyaction.models.backbone import Backbone
from pyaction.models.first_convolution import adapt_first_convolution
from pyaction.models.torchvision_networks import torchvision_network


class VGG16(Backbone):
    """VGG-16 as torchvision has it (without batch normalisation), as a spatial or temporal stream.

    Its weights have torchvision's names, but for the last layer, which is new: N(0, 0.001²).

    Args:
        classes: How many classes; None: no classifier, see `Backbone`.
        in_channels: C of the images: 3, or 20 for ten fields of flow.
        dropout: Probabilities after fc6 and fc7. Paper 002 has (0.9, 0.8) in its temporal stream; (0.9, 0.9) is
            usual in the spatial one.
        weights: The name of weights of torchvision ("DEFAULT"), which downloads them; for other than three channels
            the first convolution becomes that of `adapt_first_convolution`. None: random.

    Input: `(N, C, H, W)`, at least 32 x 32 pixels, 224 x 224 in the papers, normalised. Output: logits `(N, classes)`.

    Source: paper 002 (Zhu et al., 2018), section 4 and supplement; Wang et al., "Towards Good Practices for Very Deep
    Two-Stream ConvNets", 2015.

    Raises:
        ValueError: An argument has no such value.
        OSError: The weights cannot be downloaded.

    Example:
        >>> import torch
        >>> with torch.device("meta"):  # no memory, for this example
        ...     VGG16(classes=51, in_channels=20)(torch.rand(4, 20, 224, 224)).shape
        torch.Size([4, 51])
    """

    map_channels = 512
    vector_size = 4096

    def __init__(
        self,
        *,
        classes: int | None = 101,
        in_channels: int = 3,
        dropout: tuple[float, float] = (0.9, 0.8),
        weights: str | None = None,
    ) -> None:
        super().__init__(in_channels=in_channels, classes=classes)
        network = torchvision_network(self._name, "vgg16", weights)
        self.features: nn.Sequential = network.features
        self.avgpool: nn.Module = network.avgpool
        fc6, relu6, _, fc7, relu7, *_ = network.classifier
        self.classifier = nn.Sequential(fc6, relu6, nn.Dropout(dropout[0]), fc7, relu7)
        if classes is not None:
            fc8 = nn.Linear(4096, classes)
            nn.init.normal_(fc8.weight, std=0.001)
            nn.init.zeros_(fc8.bias)
            self.classifier.extend((nn.Dropout(dropout[1]), fc8))
        if in_channels != 3:
            adapt_first_convolution(self, in_channels, pretrained=weights is not None)

    def feature_map(self, images: Tensor) -> Tensor:
        """`(N, C, H, W)` -> `(N, 512, H // 32, W // 32)`, after the last pooling; see `Backbone`."""
        self._check_images(images)
        self._check_least_size(images)
        return self.features(images)

    def to_vector(self, feature_map: Tensor) -> Tensor:
        """`(N, 512, h, w)` -> `(N, 4096)`: averaged to 7 x 7, then fc6 and fc7."""
        return self.classifier[:5](self.avgpool(feature_map).flatten(1))

    def classify(self, vector: Tensor) -> Tensor:
        """`(N, 4096)` -> logits `(N, classes)`: dropout and the last layer."""
        self._check_classifier()
        return self.classifier[5:](vector)
