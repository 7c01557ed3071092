"""TRN: temporal relation networks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from pyaction.models.backbone import Backbone
from pyaction.models.segments import SegmentNetwork

_TUPLES = 3  # of each scale but the largest


class TRN(SegmentNetwork):
    """Classifies a video by the relations between its segments: what pairs, triples, ... in their order tell.

    Each segment's feature vector is reduced by dropout and a fully connected layer, new and N(0, 0.001²). With
    `scales="multi"` each number s from S down to 2 has one network of two layers over s segments in order. It sees
    the one tuple of all S segments, and of each smaller s three tuples, or all where there are fewer; the scores of
    all tuples are added up. With `"single"` there is but the tuple of all.

    Which tuples are seen is random in training: `network(clips, network.draw_tuples(generator))`. In evaluation
    `network(clips)` always sees the same ones, drawn from `seed` when the network was made; they are in its state dict.

    Args:
        backbone: As for `TSN`.
        classes: How many classes.
        segments: S.
        scales: `"multi"` or `"single"`.
        features: Length of the reduced feature vectors.
        hidden: Width of the relations' hidden layers; None: 256, or 512 of a single scale.
        dropout: Probability before the reduction.
        seed: Decides the tuples of evaluation.
        partial_batch_norm: As for `TSN`.

    Source: Zhou et al., "Temporal Relational Reasoning in Videos", ECCV 2018, sections 3.1 and 3.2. Reduction, widths
    and the sum after the last layer are those of its authors' release, whose evaluation draws tuples too.

    Raises:
        ValueError: An argument has no such value.

    Example:
        >>> from pyaction import models
        >>> network = TRN(models.ResNet(classes=None, depth=18), classes=7, segments=4)
        >>> tuples = network.draw_tuples(torch.Generator().manual_seed(1))
        >>> [tuple(scale.shape) for scale in tuples]
        [(1, 4), (3, 3), (3, 2)]
        >>> network(torch.rand(2, 4, 3, 64, 64), tuples).shape
        torch.Size([2, 7])
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        classes: int,
        segments: int = 8,
        scales: Literal["multi", "single"] = "multi",
        features: int = 256,
        hidden: int | None = None,
        dropout: float = 0.8,
        seed: int = 0,
        partial_batch_norm: bool = True,
    ) -> None:
        super().__init__(backbone, segments=segments, partial_batch_norm=partial_batch_norm)
        if scales not in ("multi", "single"):
            raise ValueError(f"{self._name}: scales must be 'multi' or 'single'; got {scales!r}")
        if hidden is None:
            hidden = 256 if scales == "multi" else 512
        if segments < 2:
            raise ValueError(f"{self._name}: segments must be at least 2; got {segments}")
        for name, number in (("classes", classes), ("features", features), ("hidden", hidden)):
            if number < 1:
                raise ValueError(f"{self._name}: {name} must be at least 1; got {number}")
        self.segments = segments
        self.scales = tuple(range(segments, 1, -1)) if scales == "multi" else (segments,)
        self.dropout = nn.Dropout(dropout)
        self.reduction = nn.Linear(backbone.vector_size, features)
        nn.init.normal_(self.reduction.weight, std=0.001)
        nn.init.zeros_(self.reduction.bias)
        self.relations = nn.ModuleList(
            nn.Sequential(nn.ReLU(), nn.Linear(scale * features, hidden), nn.ReLU(), nn.Linear(hidden, classes))
            for scale in self.scales
        )
        # In the state dict, so that a checkpoint is always evaluated alike.
        for scale, tuples in zip(self.scales, self.draw_tuples(torch.Generator().manual_seed(seed)), strict=True):
            self.register_buffer(f"evaluation_tuples_{scale}", tuples)

    def draw_tuples(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Draws the tuples of a training step.

        Args:
            generator: Of the CPU.

        Returns:
            For each scale s from S down: `(M, s)`, int64, on the CPU: in each row the indices of s segments, in
            rising order, no row twice. M is 1 for the largest scale, and for the others 3 or all there are.
        """
        drawn = []
        for scale in self.scales:
            rows: set[tuple[int, ...]] = set()
            while len(rows) < min(_TUPLES, math.comb(self.segments, scale)):
                order = torch.randperm(self.segments, generator=generator, device="cpu").tolist()
                rows.add(tuple(sorted(order[:scale])))
            drawn.append(torch.tensor(sorted(rows), device="cpu"))
        return tuple(drawn)

    def forward(self, clips: Tensor, tuples: Sequence[Tensor] | None = None) -> Tensor:
        """Classifies videos.

        Args:
            clips: `(N, S, C, H, W)`, as `feature_map` takes them.
            tuples: What `draw_tuples` gives; None: those of evaluation.

        Returns:
            `(N, classes)`, logits.

        Raises:
            TypeError: clips is not a tensor.
            ValueError: clips has another shape, or is not floating point; in training there are no tuples, though
                there is more than one scale; or tuples has other shapes than those of `draw_tuples`.
        """
        return self.classify(self.segment_vectors(clips), tuples)

    def classify(self, vectors: Tensor, tuples: Sequence[Tensor] | None = None) -> Tensor:
        """`(N, S, D)` -> logits `(N, classes)`: dropout, reduction and relations; tuples as for `forward`."""
        tuples = self._checked(tuples)
        reduced = self.reduction(self.dropout(vectors))  # (N, S, features)
        scores = []
        for relation, scale in zip(self.relations, tuples, strict=True):
            ordered = reduced[:, scale.to(reduced.device)].flatten(2)  # (N, M, s features)
            scores.append(relation(ordered).sum(1))
        return torch.stack(scores).sum(0)

    def _checked(self, tuples: Sequence[Tensor] | None) -> Sequence[Tensor]:
        if tuples is None:
            if self.training and len(self.scales) > 1:
                raise ValueError(f"{self._name}: in training give tuples, by draw_tuples(generator)")
            return [self.get_buffer(f"evaluation_tuples_{scale}") for scale in self.scales]
        if [scale.shape[1:] for scale in tuples] != [(scale,) for scale in self.scales]:
            got = [list(scale.shape) for scale in tuples]
            raise ValueError(f"{self._name}: tuples must be [M, s] for each s of {list(self.scales)}; got shapes {got}")
        return tuples
