"""Triplet mining and loss over the whole cube of (anchor, positive, negative), as the definitions read."""

import torch
from torch import Tensor


def distances(anchors: Tensor, references: Tensor, distance: str) -> Tensor:
    """(N, M), from differences of coordinates. The square root's slope at 0 counts as 0."""
    squared = (anchors[:, None] - references[None]).square().sum(-1)
    if distance == "squared_euclidean":
        return squared
    return torch.where(squared == 0, 0.0, torch.where(squared == 0, 1.0, squared).sqrt())


def select(
    d: Tensor, anchor_labels: Tensor, reference_labels: Tensor, mining: str, margin: float, exclude_self: bool
) -> Tensor:
    """The selected triplets as a boolean cube (N, M, M) of anchor, positive and negative; d: (N, M), float64."""
    n, m = d.shape
    is_negative = anchor_labels[:, None] != reference_labels[None]
    is_positive = ~is_negative
    if exclude_self:
        is_positive = is_positive & ~torch.eye(n, m, dtype=torch.bool, device=d.device)
    cube = is_positive[:, :, None] & is_negative[:, None, :]
    to_positive, to_negative = d[:, :, None], d[:, None, :]
    if mining == "all" or cube.numel() == 0:
        return cube
    if mining == "semihard":
        return cube & (to_positive < to_negative) & (to_negative < to_positive + margin)
    if mining == "semihard_closest":
        farther = cube & (to_positive < to_negative)
        closest = best(to_negative, farther, dim=2, largest=False)
        farthest = best(to_negative, cube, dim=2, largest=True)
        return torch.where(farther.any(dim=2, keepdim=True), closest, farthest)
    cube = best(to_negative, cube, dim=2, largest=False)
    return best(to_positive, cube, dim=1, largest=True) if mining == "batch_hard" else cube


def best(values: Tensor, allowed: Tensor, dim: int, largest: bool) -> Tensor:
    """The allowed place with the largest or smallest value along `dim`, the first of equals, as a mask."""
    values = values.expand(allowed.shape).masked_fill(~allowed, -torch.inf if largest else torch.inf)
    extreme = values.amax(dim, keepdim=True) if largest else values.amin(dim, keepdim=True)
    candidates = allowed & (values == extreme)
    return candidates & (candidates.cumsum(dim) == 1)


def mine_triplets(
    anchors: Tensor,
    references: Tensor | None,
    anchor_labels: Tensor,
    reference_labels: Tensor | None,
    mining: str,
    margin: float,
    distance: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """As pyaction.ops.mine_triplets, but ordered by anchor, positive and negative index."""
    exclude_self = references is None
    if references is None or reference_labels is None:
        references, reference_labels = anchors, anchor_labels
    d = distances(anchors, references, distance).double()
    cube = select(d, anchor_labels, reference_labels, mining, margin, exclude_self)
    a, p, n = cube.nonzero(as_tuple=True)
    return a, p, n


def triplet_loss(
    anchors: Tensor,
    references: Tensor | None,
    anchor_labels: Tensor,
    reference_labels: Tensor | None,
    margin: float,
    mining: str,
    distance: str,
    reduction: str,
) -> Tensor:
    """As pyaction.ops.triplet_loss; the hinges are formed and summed in float64."""
    a, p, n = mine_triplets(anchors, references, anchor_labels, reference_labels, mining, margin, distance)
    d = distances(anchors, anchors if references is None else references, distance).double()
    hinge = (d[a, p] - d[a, n] + margin).relu()
    count = {"sum": 1, "mean": len(hinge), "active_mean": int((d[a, n] < d[a, p] + margin).sum())}[reduction]
    return (hinge.sum() / max(count, 1)).to(anchors.dtype)
