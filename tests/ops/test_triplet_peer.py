"""pyaction.ops.mine_triplets and triplet_loss against pytorch-metric-learning."""

from typing import Any

import pytest
import torch
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.miners import BatchHardMiner, TripletMarginMiner
from pytorch_metric_learning.reducers import AvgNonZeroReducer, MeanReducer
from pytorch_metric_learning.utils.loss_and_miner_utils import get_all_triplets_indices
from torch import Tensor

from pyaction.ops import mine_triplets, triplet_loss


def as_set(triplets: tuple[Tensor, Tensor, Tensor]) -> set[tuple[int, ...]]:
    return {tuple(triplet) for triplet in torch.stack(tuple(triplets), 1).tolist()}


@pytest.mark.parametrize("distance", ["squared_euclidean", "euclidean"])
@pytest.mark.parametrize("cross", [False, True])
def test_matches_pytorch_metric_learning(cross: bool, distance: Any) -> None:
    """A peer with the same definitions: its "hard" is ours for each anchor, its "semihard" is the whole set."""
    margin = 1.3
    lp = LpDistance(normalize_embeddings=False, p=2, power=2 if distance == "squared_euclidean" else 1)
    anchors, labels = torch.randn(30, 4, dtype=torch.float64), torch.randint(0, 5, (30,))
    references = torch.randn(40, 4, dtype=torch.float64) if cross else None
    reference_labels = torch.randint(0, 5, (40,)) if cross else None
    batch = anchors, references, labels, reference_labels
    peer_batch = anchors, labels, references, reference_labels
    miners = {
        "all": lambda *_: get_all_triplets_indices(labels, reference_labels),
        "batch_hard": BatchHardMiner(distance=lp),
        "semihard": TripletMarginMiner(margin=margin, type_of_triplets="semihard", distance=lp),
    }
    for mining, miner in miners.items():
        options: Any = {"mining": mining, "margin": margin, "distance": distance}
        theirs = miner(*peer_batch)
        assert as_set(mine_triplets(*batch, **options)) == as_set(theirs)
        for reduction, reducer in {"mean": MeanReducer(), "active_mean": AvgNonZeroReducer()}.items():
            loss = TripletMarginLoss(margin=margin, distance=lp, reducer=reducer)
            expected = loss(anchors, labels, theirs, references, reference_labels)
            ours = triplet_loss(*batch, **options, reduction=reduction)  # type: ignore[arg-type]
            torch.testing.assert_close(ours, expected, rtol=1e-11, atol=1e-11)
    # Its "all" miner means the triplets whose hinge is above zero.
    violating = TripletMarginMiner(margin=margin, type_of_triplets="all", distance=lp)(*peer_batch)
    a, p, n = mine_triplets(*batch, mining="all", margin=margin, distance=distance)
    d = torch.cdist(anchors, anchors if references is None else references)
    d = d.square() if distance == "squared_euclidean" else d
    active = d[a, n] < d[a, p] + margin
    assert as_set((a[active], p[active], n[active])) == as_set(violating)
