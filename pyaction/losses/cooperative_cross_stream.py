"""The loss of the cooperative cross-stream network: paper 001 (Zhang et al., 2019), equations 4 to 6.

Its authors train on balanced batches: some classes, and of each as many videos, all in both modalities.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pyaction.ops import triplet_loss
from pyaction.ops.triplet import Mining

Reduction = Literal["mean", "sum"]


class CooperativeCrossStreamTerms(NamedTuple):
    """The loss, and what it is made of; scalars.

    Attributes:
        total: the weighted sum, equation 6.
        triplet: L_1, unweighted, as are the others.
        embedding: L_2, of both modalities.
        classification: L_3, the cross entropies of both streams, added up.
    """

    total: Tensor
    triplet: Tensor
    embedding: Tensor
    classification: Tensor


def cross_modality_triplet_loss(
    spatial: Tensor,
    temporal: Tensor,
    labels: Tensor,
    *,
    margin: float = 0.3,
    mining: Mining = "hard_negative",
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Pulls the modalities of a class together, and those of different classes apart: paper 001, equation 4.

    .. math::
        \sum [\|z^f_a - z^o_p\|^2 - \|z^f_a - z^o_n\|^2 + α_1]_+
        + \sum [\|z^o_a - z^f_p\|^2 - \|z^o_a - z^f_n\|^2 + α_1]_+

    Anchors are of one modality, positives and negatives of the other: each positive pair with the anchor's nearest
    negative, as section 3.3 describes it, unless `mining` says otherwise.

    Args:
        spatial: `(N, D)` embeddings.
        temporal: `(N, D)` embeddings of the same videos.
        labels: `(N,)`, int64, of the videos.
        margin: α_1, in squared distance.
        mining: see `ops.mine_triplets`.
        reduction: of each of the two sums: `"mean"` over its triplets, so that the batch's size does not matter; or
            `"sum"`, as the equation is written.

    Returns:
        A scalar.

    Raises:
        TypeError: an argument is not a tensor.
        ValueError: as `ops.triplet_loss`, or there is no such reduction.

    Example:
        >>> spatial = torch.tensor([[0.0], [1.0]])
        >>> cross_modality_triplet_loss(spatial, spatial, torch.tensor([0, 1]), margin=1.5)
        tensor(1.)
    """
    _check_tensors("cross_modality_triplet_loss", spatial=spatial, temporal=temporal, labels=labels)
    _check_reduction("cross_modality_triplet_loss", reduction)
    spatial, temporal = _at_least_float32(spatial), _at_least_float32(temporal)
    loss = torch.zeros((), dtype=spatial.dtype, device=spatial.device)
    for anchors, references in ((spatial, temporal), (temporal, spatial)):
        loss = loss + triplet_loss(
            anchors, references, labels, labels, margin=margin, mining=mining, reduction=reduction
        )
    return loss


def discriminative_embedding_loss(
    embeddings: Tensor,
    labels: Tensor,
    *,
    intra_margin: float = 0.3,
    inter_margin: float = 0.8,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Gathers each class around its mean, and keeps the means apart: one modality's half of paper 001, equation 5.

    .. math:: \sum_i [\|z_i - m_{c_i}\|^2 - α_2]_+ + \sum_{c \ne c'} [α_3 - \|m_c - m_{c'}\|^2]_+

    where m_c is the mean of the minibatch's embeddings of class c. Both sums have a gradient through the means.

    Args:
        embeddings: `(N, D)`, of one modality.
        labels: `(N,)`, int64.
        intra_margin: α_2, the squared distance to the mean that costs nothing.
        inter_margin: α_3, the squared distance between two means from which on it costs nothing.
        reduction: `"mean"`, of each of the two sums, over instances and over pairs of classes; `"sum"`, as the
            equation is written: over each pair in both orders.

    Returns:
        A scalar, at least float32.

    Raises:
        TypeError: an argument is not a tensor.
        ValueError: a shape does not fit, a margin is not finite and at least 0, or there is no such reduction.

    Example:
        >>> embeddings = torch.tensor([[0.0], [2.0], [1.5]])
        >>> discriminative_embedding_loss(embeddings, torch.tensor([0, 0, 1]), reduction="sum")
        tensor(2.5000)
    """
    name = "discriminative_embedding_loss"
    _check_tensors(name, embeddings=embeddings, labels=labels)
    _check_reduction(name, reduction)
    for margin_name, margin in (("intra_margin", intra_margin), ("inter_margin", inter_margin)):
        if not 0 <= margin < math.inf:
            raise ValueError(f"{name}: {margin_name} must be finite and at least 0; got {margin}")
    if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1]:
        raise ValueError(
            f"{name}: embeddings must be [N, D] and labels [N]; got {list(embeddings.shape)} and {list(labels.shape)}"
        )
    embeddings = _at_least_float32(embeddings)
    # By masks of [N, N]: how many classes there are is known to the data alone, and would break the graph.
    same = labels[:, None] == labels
    first = ~(same.tril(-1).any(1))  # the one instance that stands for its class
    pairs = first[:, None] & first & ~same
    with torch.autocast(embeddings.device.type, enabled=False):
        means = same.to(embeddings.dtype) @ embeddings / same.sum(1, keepdim=True)  # [N, D], of each instance's class
        within = ((embeddings - means).square().sum(1) - intra_margin).relu()
        # Not by a matrix product, which loses the digits of small distances.
        distances = torch.cdist(means, means, compute_mode="donot_use_mm_for_euclid_dist").square()
        between = (inter_margin - distances).relu() * pairs
    if reduction == "sum":
        return within.sum() + between.sum()
    return within.sum() / max(within.shape[0], 1) + between.sum() / pairs.sum().clamp_min(1)


def cooperative_cross_stream_loss(
    spatial_logits: Tensor,
    temporal_logits: Tensor,
    spatial_embeddings: Tensor,
    temporal_embeddings: Tensor,
    labels: Tensor,
    *,
    triplet_weight: float = 0.5,
    embedding_weight: float = 0.5,
    triplet_margin: float = 0.3,
    intra_margin: float = 0.3,
    inter_margin: float = 0.8,
    mining: Mining = "hard_negative",
    reduction: Reduction = "mean",
) -> CooperativeCrossStreamTerms:
    r"""Ranking between and within the modalities, and cross entropy: paper 001, equation 6.

    .. math:: λ_1 L_1 + λ_2 L_2 + L_3

    Args:
        spatial_logits: `(N, classes)`; these four in the order of `models.CrossStreamOutput`.
        temporal_logits: `(N, classes)`.
        spatial_embeddings: `(N, D)`.
        temporal_embeddings: `(N, D)`.
        labels: `(N,)`, int64.
        triplet_weight: λ_1.
        embedding_weight: λ_2.
        triplet_margin: α_1, see `cross_modality_triplet_loss`.
        intra_margin: α_2, see `discriminative_embedding_loss`.
        inter_margin: α_3, likewise.
        mining: see `cross_modality_triplet_loss`.
        reduction: of L_1 and L_2. Cross entropies are means.

    Returns:
        The loss and its terms.

    Raises:
        TypeError: an argument is not a tensor.
        ValueError: an argument has another shape, is out of range, or there is no such name.

    Source: paper 001, section 3.3; weights and margins from section 4.1 and table 4.
    """
    _check_tensors(
        "cooperative_cross_stream_loss",
        spatial_logits=spatial_logits,
        temporal_logits=temporal_logits,
        spatial_embeddings=spatial_embeddings,
        temporal_embeddings=temporal_embeddings,
        labels=labels,
    )
    for name, weight in (("triplet_weight", triplet_weight), ("embedding_weight", embedding_weight)):
        if not 0 <= weight < math.inf:
            raise ValueError(f"cooperative_cross_stream_loss: {name} must be finite and at least 0; got {weight}")
    for name, logits in (("spatial_logits", spatial_logits), ("temporal_logits", temporal_logits)):
        if logits.ndim != 2 or logits.shape[:1] != labels.shape:
            raise ValueError(
                f"cooperative_cross_stream_loss: {name} must be [N, classes] and labels [N]; "
                f"got {list(logits.shape)} and {list(labels.shape)}"
            )
    triplet = cross_modality_triplet_loss(
        spatial_embeddings, temporal_embeddings, labels, margin=triplet_margin, mining=mining, reduction=reduction
    )
    spatial, temporal = (
        discriminative_embedding_loss(
            embeddings, labels, intra_margin=intra_margin, inter_margin=inter_margin, reduction=reduction
        )
        for embeddings in (spatial_embeddings, temporal_embeddings)
    )
    embedding = spatial + temporal
    classification = F.cross_entropy(_at_least_float32(spatial_logits), labels)
    classification = classification + F.cross_entropy(_at_least_float32(temporal_logits), labels)
    total = triplet_weight * triplet + embedding_weight * embedding + classification
    return CooperativeCrossStreamTerms(total, triplet, embedding, classification)


def _check_tensors(caller: str, **values: object) -> None:
    for name, value in values.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{caller}: {name} must be a torch.Tensor; got {type(value).__name__}")


def _check_reduction(caller: str, reduction: str) -> None:
    if reduction not in ("mean", "sum"):
        raise ValueError(f"{caller}: reduction must be 'mean' or 'sum'; got {reduction!r}")


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
