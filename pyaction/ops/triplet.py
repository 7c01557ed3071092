"""Triplets mined from a batch of embeddings, and their hinge loss."""

import math
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from pyaction import _native  # noqa: F401  (registers torch.ops.pyaction)
from pyaction.ops._autograd import register_fake
from pyaction.ops._checks import (
    FLOATING,
    cast_for_autocast,
    check_alike,
    check_choice,
    check_shape,
    check_tensor,
)

Mining = Literal["batch_hard", "hard_negative", "semihard", "semihard_closest", "all"]
Distance = Literal["squared_euclidean", "euclidean"]
Reduction = Literal["mean", "active_mean", "sum"]

# The numbers of csrc/triplet/triplet_math.h. Batch-hard has an op of its own.
_MININGS = {name: number for number, name in enumerate(get_args(Mining)[1:])}


def mine_triplets(
    anchors: Tensor,
    references: Tensor | None,
    anchor_labels: Tensor,
    reference_labels: Tensor | None,
    *,
    mining: Mining,
    margin: float,
    distance: Distance = "squared_euclidean",
) -> tuple[Tensor, Tensor, Tensor]:
    """Selects triplets of an anchor, a positive (same label) and a negative (another label).

    ================== ==========================================================================================
    mining             selects
    ================== ==========================================================================================
    "batch_hard"       for each anchor, its farthest positive with its nearest negative
    "hard_negative"    for each anchor and positive, the anchor's nearest negative
    "semihard"         every triplet with d(a, p) < d(a, n) < d(a, p) + margin
    "semihard_closest" for each anchor and positive, the nearest negative with d(a, n) > d(a, p), or the farthest
                       negative where none is (the online selection that FaceNet describes)
    "all"              every triplet
    ================== ==========================================================================================

    Ties go to the lowest index. Anchors without a positive or without a negative give no triplet. Not
    differentiable: use `triplet_loss`, which stores no triplets, or index the embeddings with the result.

    Args:
        anchors: ``(N, D)`` embeddings, float32 or float64; under autocast also half precision, which becomes float32.
        references: ``(M, D)`` embeddings that positives and negatives come from, say of another modality; same
            dtype and device. None: the anchors themselves, each excluded as its own positive.
        anchor_labels: ``(N,)``, int64, same device.
        reference_labels: ``(M,)``, int64, same device; None exactly where `references` is.
        mining: One of the table's names.
        margin: At least 0, in units of `distance`. Matters to "semihard" alone.
        distance: What d is: ``"squared_euclidean"`` or ``"euclidean"``.

    Returns:
        Three int64 vectors of one length: indices of the anchors, of the positives and of the negatives, ordered
        by anchor, then positive, then the nearest negative first. Only ``"all"`` and ``"semihard"`` give more than
        one triplet for a pair of an anchor and a positive.

    Raises:
        TypeError: An argument is no tensor, or the margin no number.
        ValueError: An argument has the wrong rank, size, dtype, device or name.

    Note:
        The length depends on the data, so on CUDA the call waits for the device, and `torch.compile` takes it
        into a graph only under ``torch._dynamo.config.capture_dynamic_output_shape_ops = True``.

    Reference:
        Schroff, Kalenichenko, Philbin: FaceNet (2015), section 3.2, for the semi-hard negatives.

    Example:
        >>> embeddings = torch.tensor([[0.0], [1.0], [3.0], [4.0]])
        >>> labels = torch.tensor([0, 0, 1, 0])
        >>> mine_triplets(embeddings, None, labels, None, mining="batch_hard", margin=0.2)
        (tensor([0, 1, 3]), tensor([3, 3, 0]), tensor([2, 2, 2]))
    """
    _check_options("mine_triplets", mining, margin, distance)
    anchors, references, reference_labels, exclude_self = _check_embeddings(
        "mine_triplets", anchors, references, anchor_labels, reference_labels
    )
    if mining == "batch_hard":
        pairs = torch.ops.pyaction.hardest_pairs(anchors, references, anchor_labels, reference_labels, exclude_self)
        (selected,) = (pairs >= 0).all(0).nonzero(as_tuple=True)
        return selected, pairs[0, selected], pairs[1, selected]
    with torch.no_grad():
        distances = _distances(anchors, references, distance)
    return torch.ops.pyaction.mine_triplets(
        distances, anchor_labels, reference_labels, _MININGS[mining], float(margin), exclude_self
    )


def triplet_loss(
    anchors: Tensor,
    references: Tensor | None,
    anchor_labels: Tensor,
    reference_labels: Tensor | None,
    *,
    margin: float,
    mining: Mining,
    distance: Distance = "squared_euclidean",
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Pulls same-labelled embeddings together and pushes others a margin further away: paper 001, equation 4.

    .. math:: \sum_{(a, p, n)} \max(0,\; d(a, p) - d(a, n) + \text{margin})

    over the triplets that `mine_triplets` would select. They are never stored: time is O(N M (D + log M)) and
    memory O(N M), however many triplets there are. "batch_hard" stores no distances either: O(N M D) and O((N + M) D).
    Differentiable, also twice, in `anchors` and `references`; the selection counts as constant. Results do not vary
    from run to run.

    Args:
        anchors: ``(N, D)`` embeddings, float32 or float64; under autocast also half precision, which becomes float32.
        references: ``(M, D)`` embeddings that positives and negatives come from, say of another modality; same
            dtype and device. None: the anchors themselves, each excluded as its own positive.
        anchor_labels: ``(N,)``, int64, same device.
        reference_labels: ``(M,)``, int64, same device; None exactly where `references` is.
        margin: At least 0, in units of `distance`.
        mining: ``"batch_hard"``, ``"hard_negative"``, ``"semihard"``, ``"semihard_closest"`` or ``"all"``: see
            `mine_triplets`.
        distance: What d is: ``"squared_euclidean"``, or ``"euclidean"``, whose gradient is zero between equal
            embeddings.
        reduction: ``"sum"``; ``"mean"`` over all selected triplets; or ``"active_mean"`` over those whose hinge is
            above zero.

    Returns:
        A scalar, the embeddings' dtype (float32 where they were cast). Zero, with zero gradients, where nothing is
        selected; NaN where an embedding that is anyone's positive or negative is NaN.

    Raises:
        TypeError: An argument is no tensor, or the margin no number.
        ValueError: An argument has the wrong rank, size, dtype, device or name.

    Example:
        >>> embeddings = torch.tensor([[0.0], [1.0], [3.0], [4.0]])
        >>> labels = torch.tensor([0, 0, 1, 0])
        >>> triplet_loss(embeddings, None, labels, None, mining="all", margin=0.2, reduction="sum")
        tensor(35.8000)
    """
    _check_options("triplet_loss", mining, margin, distance)
    check_choice("triplet_loss", "reduction", reduction, get_args(Reduction))
    anchors, references, reference_labels, exclude_self = _check_embeddings(
        "triplet_loss", anchors, references, anchor_labels, reference_labels
    )
    if mining == "batch_hard":
        pairs = torch.ops.pyaction.hardest_pairs(anchors, references, anchor_labels, reference_labels, exclude_self)
        hinge, selected, active = _hinge_of_pairs(anchors, references, pairs, distance, margin)
    else:
        distances = _distances(anchors, references, distance)
        hinge, selected, active, _ = torch.ops.pyaction.triplet_hinge(
            distances, anchor_labels, reference_labels, _MININGS[mining], float(margin), exclude_self
        )
    if reduction == "sum":
        return hinge.sum()
    return hinge.sum() / (selected if reduction == "mean" else active).sum().clamp_min(1)


def _check_options(op: str, mining: str, margin: float, distance: str) -> None:
    """Refuses names that are not in the documentation, and margins that are not finite and at least 0."""
    check_choice(op, "mining", mining, get_args(Mining))
    check_choice(op, "distance", distance, get_args(Distance))
    if not isinstance(margin, int | float):
        raise TypeError(f"{op}: margin must be a number; got {type(margin).__name__}")
    if not 0 <= margin < math.inf:
        raise ValueError(f"{op}: margin must be finite and at least 0; got {margin}")


def _check_embeddings(
    op: str, anchors: Tensor, references: Tensor | None, anchor_labels: Tensor, reference_labels: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, bool]:
    """Checks the tensors; returns the embeddings, the references' labels, and whether self-pairs are excluded."""
    (anchors,) = cast_for_autocast(anchors)
    check_tensor(op, "anchors", anchors, "[N, D]", FLOATING)
    _check_labels(op, "anchor_labels", anchor_labels, "anchors", anchors)
    if references is None and reference_labels is None:
        return anchors, anchors, anchor_labels, True
    if references is None or reference_labels is None:
        missing = "references" if references is None else "reference_labels"
        raise ValueError(
            f"{op}: references and reference_labels must both be given or both be None; got only {missing} as None"
        )
    (references,) = cast_for_autocast(references)
    check_tensor(op, "references", references, "[M, D]", FLOATING)
    check_alike(op, "references", references, "anchors", anchors)
    check_shape(op, "references", references, (references.shape[0], anchors.shape[1]), "[M, D of the anchors]")
    _check_labels(op, "reference_labels", reference_labels, "references", references)
    return anchors, references, reference_labels, False


def _check_labels(op: str, name: str, labels: Tensor, other_name: str, embeddings: Tensor) -> None:
    """Refuses labels that are not one int64 for each embedding, on its device."""
    check_tensor(op, name, labels, "[N]", (torch.int64,))
    check_shape(op, name, labels, embeddings.shape[:1], f"one for each of the {other_name}")
    if labels.device != embeddings.device:
        raise ValueError(
            f"{op}: {name} and {other_name} must be on one device; got {labels.device} and {embeddings.device}"
        )


def _distances(anchors: Tensor, references: Tensor, distance: str) -> Tensor:
    """Distances (N, M) of anchors (N, D) and references (M, D), by one matrix product."""
    # Distances do not change when both are moved, but |a|^2 + |r|^2 - 2 a r loses digits far from the origin. To one of
    # the references and not to their mean: embeddings on a grid stay on it, and equal distances equal.
    origin = references[:1].detach()
    if len(origin) > 0:
        anchors, references = anchors - origin, references - origin
    with torch.autocast(anchors.device.type, enabled=False):  # which would make the product float16
        squared = torch.addmm(references.square().sum(1), anchors, references.T, alpha=-2)
        squared += anchors.square().sum(1, keepdim=True)
    return _root(squared, distance)


def _hinge_of_pairs(
    anchors: Tensor, references: Tensor, pairs: Tensor, distance: str, margin: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The hinge of each anchor with its hardest positive and negative; whether it has both; whether it is above 0."""
    if references.shape[0] == 0:
        nothing = _distances(anchors, references, distance).sum(1)  # zeros, with zero gradients
        return nothing, nothing, nothing
    # A look-up in a table: of torch's ways to gather rows, the one whose gradient is the same on every run everywhere.
    hardest = F.embedding(pairs.clamp_min(0), references)  # [2, N, D]
    to_positive, to_negative = _root((anchors - hardest).square().sum(2), distance)
    selected = (pairs >= 0).all(0)
    # A product and no choice: NaN stays, even if it is the only positive of an anchor without a negative.
    hinge = (to_positive - to_negative + margin).relu() * selected
    return hinge, selected, hinge > 0


def _root(squared: Tensor, distance: str) -> Tensor:
    """The distances whose squares are given."""
    if distance == "squared_euclidean":
        return squared
    # The square root has no slope at 0: it is taken elsewhere, and distance and gradient are 0 there. Rounding may have
    # left what should be 0 just below it.
    zero = squared <= 0
    return squared.masked_fill(zero, 1).sqrt().masked_fill(zero, 0)


@register_fake("hardest_pairs")
def _(
    anchors: Tensor, references: Tensor, anchor_labels: Tensor, reference_labels: Tensor, exclude_self: bool
) -> Tensor:
    return anchors.new_empty(2, anchors.shape[0], dtype=torch.int64)


@register_fake("triplet_hinge")
def _(
    distances: Tensor,
    anchor_labels: Tensor,
    reference_labels: Tensor,
    mining: int,
    margin: float,
    exclude_self: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    hinge = distances.new_empty(distances.shape[0])
    counts = [distances.new_empty(distances.shape[0], dtype=torch.int64) for _ in range(2)]
    return hinge, *counts, distances.new_empty(distances.shape)  # type: ignore[return-value]


@register_fake("mine_triplets")
def _(
    distances: Tensor,
    anchor_labels: Tensor,
    reference_labels: Tensor,
    mining: int,
    margin: float,
    exclude_self: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    size = torch.library.get_ctx().new_dynamic_size()
    anchors, positives, negatives = (distances.new_empty(size, dtype=torch.int64) for _ in range(3))
    return anchors, positives, negatives


def _setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    _, selected, active, weights = output
    ctx.mark_non_differentiable(selected, active, weights)
    ctx.set_materialize_grads(False)  # else these would each get a gradient, a matrix of zeros among them
    ctx.save_for_backward(weights)


def _grad(ctx: Any, grad_hinge: Tensor | None, *_: object) -> tuple[Tensor | None, None, None, None, None, None]:
    # The weights are steps: constant wherever they have a derivative. So this can be differentiated again.
    (weights,) = ctx.saved_tensors
    return None if grad_hinge is None else grad_hinge[:, None] * weights, None, None, None, None, None


torch.library.register_autograd("pyaction::triplet_hinge", _grad, setup_context=_setup_context)
