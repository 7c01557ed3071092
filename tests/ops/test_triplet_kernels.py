"""The ops below mine_triplets and triplet_loss: torch.ops.pyaction.hardest_pairs and triplet_hinge, called directly."""

import math

import pytest
import torch
from torch import Tensor

import pyaction.ops  # noqa: F401  (registers torch.ops.pyaction)

FLOATING = [torch.float32, torch.float64]
# Anchors, references (None: the anchors) and dimensions; tiles are of 4 to 64 anchors and references. The last has more
# of them than CUDA's blocks that are wanted.
SIZES = [
    (1, None, 5),
    (2, None, 1),
    (64, None, 16),
    (65, None, 17),
    (130, None, 4),
    (63, 66, 15),
    (1, 129, 31),
    (128, 1, 33),
    (70, 200, 0),
    (2100, None, 2),
]


def reference_pairs(
    anchors: Tensor, references: Tensor, anchor_labels: Tensor, reference_labels: Tensor, exclude_self: bool
) -> Tensor:
    """[2, N]: by the definition, from every distance. A NaN distance is the largest of all, and the smallest."""
    distances = (anchors[:, None] - references[None]).square().sum(2)
    same = anchor_labels[:, None] == reference_labels[None]
    usable = ~torch.eye(*same.shape, dtype=torch.bool) if exclude_self else torch.ones_like(same)

    def first_largest(hardness: Tensor, allowed: Tensor) -> Tensor:
        hardness = hardness.nan_to_num(nan=torch.inf).masked_fill(~allowed, -torch.inf)
        first = (hardness == hardness.amax(1, keepdim=True)).byte().argmax(1)
        return torch.where(allowed.any(1), first, -1)

    return torch.stack([first_largest(distances, same & usable), first_largest(-distances, ~same & usable)])


@pytest.mark.parametrize("classes", [1, 3, 1000])
@pytest.mark.parametrize("dtype", FLOATING)
@pytest.mark.parametrize("size", SIZES)
def test_hardest_pairs_match_reference(
    size: tuple[int, int | None, int], dtype: torch.dtype, classes: int, device: str
) -> None:
    n, m, dimensions = size
    for nans in (0, 2):
        # On a grid: distances are exact, and often equal.
        embeddings = [(torch.randint(-2, 3, (count, dimensions)) / 4).to(dtype) for count in (n, m or n)]
        labels = [torch.randint(0, classes, (count,)) for count in (n, m or n)]
        if nans and dimensions > 0:
            embeddings[1][torch.randint(0, m or n, (nans,)), -1] = math.nan
        anchors, references = embeddings if m else (embeddings[1], embeddings[1])
        batch = anchors, references, labels[0], labels[1] if m else labels[0]
        found = torch.ops.pyaction.hardest_pairs(*(t.to(device) for t in batch), m is None)
        # The first reference is the origin: where it is NaN, so is every distance.
        if not references[:1].isnan().any():
            assert torch.equal(found.cpu(), reference_pairs(*batch, m is None))


def test_hardest_pairs_of_equal_embeddings_are_the_first(device: str) -> None:
    embeddings, labels = torch.full((150, 7), 0.3, device=device), torch.arange(150, device=device) % 3
    positives, negatives = torch.ops.pyaction.hardest_pairs(embeddings, embeddings, labels, labels, True)
    assert positives.tolist() == [3, 4, 5] + [i % 3 for i in range(3, 150)]
    assert negatives.tolist() == [1 if i % 3 == 0 else 0 for i in range(150)]


def test_labels_are_compared_in_full(device: str) -> None:
    """Labels that agree in their lower or their upper half are of different classes."""
    labels = torch.tensor([5, 5 + (3 << 32), 6 + (3 << 32), -5, 5, -5 + (1 << 32)], device=device)
    embeddings = torch.arange(6.0, device=device)[:, None]
    positives, negatives = torch.ops.pyaction.hardest_pairs(embeddings, embeddings, labels, labels, True)
    assert positives.tolist() == [4, -1, -1, -1, 0, -1]
    assert negatives.tolist() == [1, 0, 1, 2, 3, 4]


def test_hardest_pairs_of_a_view(device: str) -> None:
    """Any strides and storage offset; nothing outside the view is read."""
    embeddings, labels = torch.randn(20, 9, device=device), torch.arange(20, device=device) % 4
    wide = torch.full((12, 41), math.nan, device=device)
    wide[2:11, 1::2] = embeddings.T
    strided = torch.full((60,), 77, device=device)
    strided[::3] = labels
    view = wide[2:11, 1::2].T
    ours = torch.ops.pyaction.hardest_pairs(view, view, strided[::3], strided[::3], True)
    assert torch.equal(ours, torch.ops.pyaction.hardest_pairs(embeddings, embeddings, labels, labels, True))


@pytest.mark.parametrize("mining", range(4))
def test_hinge_of_a_view(mining: int, device: str) -> None:
    distances, anchor_labels = torch.rand(9, 14, device=device), torch.randint(0, 3, (9,), device=device)
    labels = torch.randint(0, 3, (28,), device=device)
    wide = torch.full((16, 11), math.nan, device=device)
    wide[1:15, 1:10] = distances.T
    ours = torch.ops.pyaction.triplet_hinge(wide[1:15, 1:10].T, anchor_labels, labels[::2], mining, 0.3, False)
    plain = torch.ops.pyaction.triplet_hinge(distances, anchor_labels, labels[::2].clone(), mining, 0.3, False)
    assert all(torch.equal(one, other) for one, other in zip(ours, plain, strict=True))


def test_hinge_has_the_same_bits_on_every_run(device: str) -> None:
    distances = torch.rand(40, 900, device=device)
    labels = torch.randint(0, 3, (940,), device=device)
    for mining in range(4):
        arguments = distances, labels[:40], labels[40:], mining, 0.2, False
        first, second = (torch.ops.pyaction.triplet_hinge(*arguments) for _ in range(2))
        assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("mining", range(4))
def test_survives_any_distance(mining: int, device: str) -> None:
    """NaN comes after everything and spoils its own anchor alone; infinities and negatives are distances too."""
    distances = torch.randn(30, 400, device=device)
    distances[:, ::7] = torch.inf
    distances[:, 3::11] = -torch.inf
    distances[10:20, ::3] = math.nan
    labels = torch.randint(0, 4, (430,), device=device)
    arguments = distances, labels[:30], labels[30:], mining, 0.3, False
    hinge, selected, active, weights = torch.ops.pyaction.triplet_hinge(*arguments)
    assert hinge[10:20].isnan().all() and weights.isfinite().all()
    anchors, positives, negatives = torch.ops.pyaction.mine_triplets(*arguments)
    assert torch.equal(anchors.bincount(minlength=30), selected) and (active <= selected).all()
    assert (labels[anchors] == labels[30:][positives]).all() and (labels[anchors] != labels[30:][negatives]).all()


@pytest.mark.parametrize("mining", range(4))
def test_opcheck(mining: int, device: str) -> None:
    distances = torch.rand(6, 9, device=device)
    labels = torch.randint(0, 3, (15,), device=device)
    arguments = labels[:6], labels[6:], mining, 0.4, False
    torch.library.opcheck(torch.ops.pyaction.triplet_hinge, (distances.requires_grad_(), *arguments))
    torch.library.opcheck(torch.ops.pyaction.mine_triplets, (distances.detach(), *arguments))


@pytest.mark.parametrize("exclude_self", [False, True])
def test_opcheck_of_hardest_pairs(exclude_self: bool, device: str) -> None:
    embeddings, labels = torch.rand(6, 3, device=device), torch.randint(0, 3, (6,), device=device)
    arguments = embeddings, embeddings, labels, labels, exclude_self
    torch.library.opcheck(torch.ops.pyaction.hardest_pairs, arguments)
