"""CNN-M-2048, the network of both streams of the first two-stream paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from pyaction.models.backbone import Backbone

_SIDE = 224  # pixels; six by six are left for the first fully connected layer


class CNNM2048(Backbone):
    """CNN-M-2048: five convolutions and three fully connected layers, 91 million weights.

    Pooling windows may hang over the right and lower edge (ceil mode), as in Caffe: without that, weights trained
    there do not fit.

    Args:
        classes: How many classes. Several numbers give several classifiers over one network, for training on
            several data sets at once (multi-task learning, paper 004, section 7): the scores are a tuple then, and
            each data set's loss takes its own. None: no classifier, see `Backbone`.
        stream: `"spatial"`; `"temporal"` has no local response normalisation after its second convolution, to save
            memory (paper 004, section 8).
        in_channels: C of the images; None: 3 of the spatial, 20 of the temporal stream (ten fields of flow).
        dropout: Probabilities after fc6 and fc7.

    Input: `(N, C, 224, 224)`, normalised. Output: logits `(N, classes)`, or a tuple of them.

    Source: paper 004 (Simonyan and Zisserman, 2014), section 8, for the streams; layers from Chatfield et al.,
    "Return of the Devil in the Details", 2014, table 1. Fresh weights are drawn as in He et al., 2015.

    Example:
        >>> import torch
        >>> with torch.device("meta"):  # no memory, for this example
        ...     ucf, hmdb = CNNM2048(classes=(101, 51), stream="temporal")(torch.rand(4, 20, 224, 224))
        >>> ucf.shape, hmdb.shape
        (torch.Size([4, 101]), torch.Size([4, 51]))
    """

    map_channels = 512
    vector_size = 2048

    def __init__(
        self,
        *,
        classes: int | Sequence[int] | None = 101,
        stream: Literal["spatial", "temporal"] = "spatial",
        in_channels: int | None = None,
        dropout: tuple[float, float] = (0.9, 0.9),
    ) -> None:
        if stream not in ("spatial", "temporal"):
            raise ValueError(f"models.CNNM2048: stream must be 'spatial' or 'temporal'; got {stream!r}")
        if in_channels is None:
            in_channels = 3 if stream == "spatial" else 20
        super().__init__(
            in_channels=in_channels, classes=classes if classes is None or isinstance(classes, int) else tuple(classes)
        )
        self.stream = stream
        self.conv1 = nn.Conv2d(in_channels, 96, 7, stride=2)
        self.conv2 = nn.Conv2d(96, 256, 5, stride=2, padding=1)
        self.conv3 = nn.Conv2d(256, 512, 3, padding=1)
        self.conv4 = nn.Conv2d(512, 512, 3, padding=1)
        self.conv5 = nn.Conv2d(512, 512, 3, padding=1)
        self.fc6 = nn.Linear(512 * 6 * 6, 4096)
        self.fc7 = nn.Linear(4096, 2048)
        self.dropout6, self.dropout7 = map(nn.Dropout, dropout)
        # Caffe and torch both divide alpha by the five channels.
        self.norm = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2)
        self.max_pool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        if isinstance(self.classes, tuple):
            self.fc8: nn.Module = Classifiers(2048, self.classes)
        elif self.classes is not None:
            self.fc8 = nn.Linear(2048, self.classes)
        self._initialise()

    def feature_map(self, images: Tensor) -> Tensor:
        """`(N, C, 224, 224)` -> `(N, 512, 6, 6)`, after the last pooling; see `Backbone`."""
        self._check_images(images)
        if images.shape[2] != _SIDE or images.shape[3] != _SIDE:
            height, width = images.shape[2:]
            raise ValueError(f"{self._name}: images must have 224 x 224 pixels; got {height} x {width}")
        x = self.max_pool(self.norm(F.relu(self.conv1(images))))  # (N, 96, 54, 54)
        x = F.relu(self.conv2(x))  # (N, 256, 26, 26)
        x = self.max_pool(self.norm(x) if self.stream == "spatial" else x)  # (N, 256, 13, 13)
        x = F.relu(self.conv3(x))  # (N, 512, 13, 13)
        x = F.relu(self.conv4(x))
        return self.max_pool(F.relu(self.conv5(x)))

    def to_vector(self, feature_map: Tensor) -> Tensor:
        """`(N, 512, 6, 6)` -> `(N, 2048)`: fc6 and fc7."""
        x = self.dropout6(F.relu(self.fc6(feature_map.flatten(1))))
        return F.relu(self.fc7(x))

    def classify(self, vector: Tensor) -> Tensor | tuple[Tensor, ...]:
        """`(N, 2048)` -> logits `(N, classes)`, or a tuple of them: dropout and fc8."""
        self._check_classifier()
        return self.fc8(self.dropout7(vector))

    def _initialise(self) -> None:
        # Without normalisation, torch's own draw would fade out over eight layers.
        for name, parameter in self.named_parameters():
            if name.endswith("weight"):
                nn.init.kaiming_normal_(parameter, nonlinearity="relu")
            else:
                nn.init.zeros_(parameter)


class Classifiers(nn.ModuleList):
    """Several fully connected layers over one vector.

    Args:
        size: D of the vector.
        classes: How many scores each gives.
    """

    def __init__(self, size: int, classes: Sequence[int]) -> None:
        super().__init__(nn.Linear(size, number) for number in classes)

    def forward(self, vector: Tensor) -> tuple[Tensor, ...]:
        """`(N, D)` -> for each data set its logits `(N, classes)`."""
        return tuple(classifier(vector) for classifier in self)
