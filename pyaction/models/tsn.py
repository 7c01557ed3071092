"""TSN: temporal segment networks."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor, nn

from pyaction.models.backbone import Backbone
from pyaction.models.segments import SegmentNetwork

Consensus = Literal["average", "max", "multiplication", "concatenation"]


class TSN(SegmentNetwork):
    """Classifies a video by the consensus of some segments, all seen by one backbone.

    Each segment's feature vector goes through dropout and a fully connected layer, new and N(0, 0.001²); the scores
    of the segments become those of the video by one of the four aggregation functions of paper 001, figure 5a:

    * `"average"`: the mean; the default of TSN, and the best there.
    * `"max"`: for each class its greatest score.
    * `"multiplication"`: the product of the segments' class probabilities. The scores given are its logarithm, for
      a product of logits would have no meaningful sign.
    * `"concatenation"`: the segments' feature vectors side by side are classified as one.

    Args:
        backbone: `BNInception`, `ResNet`, `VGG16` (paper 001, figure 5b) or `CNNM2048`, made with `classes=None`.
            Its input channels decide the modality: 3 for RGB, 10 for five fields of flow.
        classes: How many classes.
        segments: S in training. Only concatenation needs the same S later; the others are usually tested with 25.
        dropout: Probability before the classifier: 0.8 with RGB, 0.7 with flow.
        consensus: As above.
        partial_batch_norm: Whether all batch normalisation of the backbone but the first is frozen: its statistics
            by `train()`, its weights by `requires_grad`, anew at each `train()`. False thaws a backbone that another
            network has left so; what you froze yourself beyond that stays frozen.

    Attributes:
        backbone: As given.
        classes: As given.
        segments: As given.
        fixed_segments: Whether clips must have just these segments, in evaluation too.
        in_channels: C of the segments.

    Source: Wang et al., "Temporal Segment Networks", ECCV 2016, sections 3.1 and 3.2; paper 001 (Zhang et al., 2019),
    section 4.3.

    Raises:
        ValueError: An argument has no such value.

    Example:
        >>> import torch
        >>> from pyaction import models
        >>> TSN(models.ResNet(classes=None, depth=18), classes=7)(torch.rand(2, 3, 3, 64, 64)).shape
        torch.Size([2, 7])
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        classes: int,
        segments: int = 3,
        dropout: float = 0.8,
        consensus: Consensus = "average",
        partial_batch_norm: bool = True,
    ) -> None:
        if consensus not in get_args(Consensus):
            raise ValueError(f"{self._name}: consensus must be one of {get_args(Consensus)}; got {consensus!r}")
        fixed = consensus == "concatenation"
        super().__init__(
            backbone, classes=classes, segments=segments, fixed_segments=fixed, partial_batch_norm=partial_batch_norm
        )
        self.consensus = consensus
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(backbone.vector_size * (segments if fixed else 1), classes)
        nn.init.normal_(self.fc.weight, std=0.001)
        nn.init.zeros_(self.fc.bias)

    def forward(self, clips: Tensor) -> Tensor:
        """Classifies videos.

        Args:
            clips: `(N, S, C, H, W)`, as `feature_map` takes them.

        Returns:
            `(N, classes)`, logits.

        Raises:
            TypeError: clips is not a tensor.
            ValueError: clips has another shape, or is not floating point.
        """
        return self.classify(self.segment_vectors(clips))

    def classify(self, vectors: Tensor) -> Tensor:
        """`(N, S, D)` -> logits `(N, classes)`: dropout, classifier and consensus."""
        vectors = self.dropout(vectors)
        if self.consensus == "concatenation":
            return self.fc(vectors.flatten(1))
        scores = self.fc(vectors)  # (N, S, classes)
        if self.consensus == "average":
            return scores.mean(1)
        if self.consensus == "max":
            return scores.amax(1)
        return scores.log_softmax(2).sum(1)
