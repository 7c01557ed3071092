"""What networks over single images have in common: a feature map, a feature vector, class scores."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from pyaction.models.checks import check_floating

_LEAST_SIDE = 32  # pixels; what five halvings leave one of


class Backbone(nn.Module, ABC):
    """A network over images, or over the flow of some frames stacked into the channels of one.

    `network(images)` gives class scores. Networks over segments (`TSN`, `TRN`) and over two streams take a backbone
    without a classifier (`classes=None`), and then `network(images)` gives the feature vectors.

    Attributes:
        in_channels: C of the images.
        classes: How many scores there are; None without a classifier.
        map_channels: Channels of the feature map.
        vector_size: Length of the feature vector.
    """

    in_channels: int
    classes: int | tuple[int, ...] | None
    map_channels: int
    vector_size: int

    def __init__(self, *, in_channels: int, classes: int | tuple[int, ...] | None) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.classes = classes
        if in_channels < 1:
            raise ValueError(f"{self._name}: in_channels must be at least 1; got {in_channels}")
        if classes is not None and min((classes,) if isinstance(classes, int) else classes, default=0) < 1:
            raise ValueError(f"{self._name}: classes must be None or at least 1; got {classes}")

    @abstractmethod
    def feature_map(self, images: Tensor) -> Tensor:
        """What the last convolutional block sees where.

        Args:
            images: `(N, C, H, W)`, floating point, normalised as the weights expect it.

        Returns:
            `(N, map_channels, h, w)`; of 224 x 224 pixels 7 x 7, or 6 x 6 of CNN-M.

        Raises:
            TypeError: images is not a tensor.
            ValueError: images has another shape, is too small, or not floating point.
        """

    @abstractmethod
    def to_vector(self, feature_map: Tensor) -> Tensor:
        """`(N, map_channels, h, w)` -> `(N, vector_size)`: pooling, and the layers between it and the classifier."""

    @abstractmethod
    def classify(self, vector: Tensor) -> Tensor | tuple[Tensor, ...]:
        """`(N, vector_size)` -> logits `(N, classes)`: dropout and classifier; a ValueError where there is none."""

    def feature_vector(self, images: Tensor) -> Tensor:
        """`(N, C, H, W)` -> `(N, vector_size)`; what `feature_map` says of images holds."""
        return self.to_vector(self.feature_map(images))

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """`(N, C, H, W)` -> logits `(N, classes)`, or `feature_vector` where there is no classifier."""
        vector = self.feature_vector(images)
        return vector if self.classes is None else self.classify(vector)

    @property
    def _name(self) -> str:
        return f"models.{type(self).__name__}"

    def _check_classifier(self) -> None:
        if self.classes is None:
            raise ValueError(f"{self._name}: there is no classifier; make the network with classes, not classes=None")

    def _check_images(self, images: object) -> None:
        check_floating(self._name, "images", images, ("N", self.in_channels, "H", "W"))

    def _check_least_size(self, images: Tensor) -> None:
        height, width = images.shape[2:]
        if height < _LEAST_SIDE or width < _LEAST_SIDE:
            raise ValueError(f"{self._name}: images must have at least 32 x 32 pixels; got {height} x {width}")
