"""triplet_loss beside pytorch-metric-learning: python benchmarks/bench_triplet.py --json"""

import sys
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from op_benchmark import Case, main, with_grad
from torch import Tensor

from pyaction.ops import triplet_loss

DIMENSIONS, PER_CLASS, MARGIN = 256, 32, 0.3


def peers() -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """By the mining that they do."""
    from pytorch_metric_learning import distances, losses, miners

    squared = distances.LpDistance(normalize_embeddings=False, power=2)
    loss = losses.TripletMarginLoss(margin=MARGIN, distance=squared)
    hardest = miners.BatchHardMiner(distance=squared)
    return {"all": loss, "batch_hard": lambda embeddings, labels: loss(embeddings, labels, hardest(embeddings, labels))}


def cases(device: str, quick: bool) -> Iterator[Case]:
    for count in (256,) if quick else (256, 1024):
        labels = torch.arange(count, device=device) % (count // PER_CLASS)
        embeddings = F.normalize(torch.randn(count, DIMENSIONS, device=device)).requires_grad_()
        for mining, peer in peers().items():

            def ours(leaf: Tensor, mining=mining, labels=labels) -> Tensor:
                return triplet_loss(leaf, None, labels, None, margin=MARGIN, mining=mining, reduction="active_mean")

            def theirs(leaf: Tensor, peer=peer, labels=labels) -> Tensor:
                return peer(leaf, labels)

            yield Case(
                f"{count} embeddings of {DIMENSIONS}, {mining}, forward and gradient",
                {"pyaction": with_grad(ours, [embeddings]), "pytorch-metric-learning": with_grad(theirs, [embeddings])},
                1e-3,
                compare_memory=count == 1024,
            )


if __name__ == "__main__":
    sys.exit(main("triplet", lambda device, quick: list(cases(device, quick))))
