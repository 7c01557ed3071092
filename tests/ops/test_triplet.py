"""pyaction.ops.mine_triplets and triplet_loss: see tests/reference/triplet.py for the reference."""

import itertools
import math
import resource
from typing import Any

import pytest
import torch
from reference.triplet import mine_triplets as reference_mine_triplets
from reference.triplet import triplet_loss as reference_triplet_loss
from torch import Tensor

from pyaction.ops import mine_triplets, triplet_loss

MININGS = ["batch_hard", "hard_negative", "semihard", "semihard_closest", "all"]
DISTANCES = ["squared_euclidean", "euclidean"]
REDUCTIONS = ["mean", "active_mean", "sum"]
# Anchors, references (None: the anchors), dimensions, classes. Odd sizes, one anchor, one class (no negatives),
# many classes (no positives), more references than a CUDA block has threads, and more of all than is in a tile.
SIZES = [
    (33, None, 5, 4),
    (1, None, 3, 2),
    (9, None, 2, 1),
    (7, None, 3, 50),
    (13, 29, 4, 3),
    (5, 1, 2, 2),
    (3, 300, 3, 3),
    (67, None, 18, 9),
]
TOLERANCE = {torch.float32: {"rtol": 1e-4, "atol": 1e-4}, torch.float64: {"rtol": 1e-11, "atol": 1e-11}}
# On the grid of squared distances below, so that d(a, n) = d(a, p) + margin happens; and off it.
MARGINS = [0.75, 0.3]

Batch = tuple[Tensor, Tensor | None, Tensor, Tensor | None]


def sample(size: tuple[int, int | None, int, int], dtype: torch.dtype, device: str, grid: bool = False) -> Batch:
    """Embeddings and labels. On the grid, distances are exact in float32 however summed, and often equal."""
    n, m, dimensions, classes = size

    def embed(count: int) -> Tensor:
        shape = count, dimensions
        values = torch.randint(-3, 4, shape) / 4 if grid else torch.randn(shape, dtype=torch.float64)
        return values.to(dtype).to(device)

    def label(count: int) -> Tensor:
        return torch.randint(-1, classes - 1, (count,), device="cpu").to(device)

    if m is None:
        return embed(n), None, label(n), None
    return embed(n), embed(m), label(n), label(m)


def leaves_of(batch: Batch) -> tuple[list[Tensor], Batch]:
    """The embeddings as leaves that need a gradient, alone and in their batch."""
    anchors, references, *labels = batch
    leaves = [anchors.detach().clone().requires_grad_()]
    if references is not None:
        leaves.append(references.detach().clone().requires_grad_())
    return leaves, (leaves[0], leaves[1] if references is not None else None, *labels)


# Six embeddings on a line. Squared distances to the other label(s): see each anchor's row.
#   anchor 0 at  0, label 0: positives 1 and 2 at 1 and 1;  negatives 3, 4, 5 at 4, 4, 25
#   anchor 1 at  1, label 0: positives 0 and 2 at 1 and 4;  negatives 3, 4, 5 at 1, 9, 16
#   anchor 2 at -1, label 0: positives 0 and 1 at 1 and 4;  negatives 4, 3, 5 at 1, 9, 36
#   anchor 3 at  2, label 1: positive 4 at 16;              negatives 1, 0, 2, 5 at 1, 4, 9, 9
#   anchor 4 at -2, label 1: positive 3 at 16;              negatives 2, 0, 1, 5 at 1, 4, 9, 49
#   anchor 5 at  5, label 2: no positive
LINE = torch.tensor([[0.0], [1.0], [-1.0], [2.0], [-2.0], [5.0]])
LINE_LABELS = torch.tensor([0, 0, 0, 1, 1, 2])
# mining: margin, triplets, sum of hinges, how many of them are above zero
KNOWN: dict[str, tuple[float, list[tuple[int, int, int]], float, int]] = {
    "batch_hard": (3, [(0, 1, 3), (1, 2, 3), (2, 1, 4), (3, 4, 1), (4, 3, 2)], 0 + 6 + 6 + 18 + 18, 4),
    "hard_negative": (
        3,
        [(0, 1, 3), (0, 2, 3), (1, 0, 3), (1, 2, 3), (2, 0, 4), (2, 1, 4), (3, 4, 1), (4, 3, 2)],
        0 + 0 + 3 + 6 + 3 + 6 + 18 + 18,
        6,
    ),
    "semihard": (5, [(0, 1, 3), (0, 1, 4), (0, 2, 3), (0, 2, 4)], 2 + 2 + 2 + 2, 4),
    "semihard_closest": (
        7,
        [(0, 1, 3), (0, 2, 3), (1, 0, 4), (1, 2, 4), (2, 0, 3), (2, 1, 3), (3, 4, 2), (4, 3, 5)],
        4 + 4 + 0 + 2 + 0 + 2 + 14 + 0,
        5,
    ),
    "all": (
        3,
        [(0, p, n) for p in (1, 2) for n in (3, 4, 5)]
        + [(1, p, n) for p in (0, 2) for n in (3, 4, 5)]
        + [(2, p, n) for p in (0, 1) for n in (4, 3, 5)]
        + [(3, 4, n) for n in (1, 0, 2, 5)]
        + [(4, 3, n) for n in (2, 0, 1, 5)],
        (3 + 6) + (3 + 6) + (18 + 15 + 10 + 10) + (18 + 15 + 10),
        11,
    ),
}


@pytest.mark.parametrize("mining", MININGS)
def test_known_value(mining: Any, device: str) -> None:
    margin, triplets, total, active = KNOWN[mining]
    batch = LINE.to(device), None, LINE_LABELS.to(device), None
    mined = mine_triplets(*batch, mining=mining, margin=margin)
    assert list(zip(*(indices.tolist() for indices in mined), strict=True)) == triplets
    expected = {"sum": total, "mean": total / len(triplets), "active_mean": total / active}
    for reduction in REDUCTIONS:
        loss = triplet_loss(*batch, mining=mining, margin=margin, reduction=reduction)  # type: ignore[arg-type]
        torch.testing.assert_close(loss.item(), float(expected[reduction]))


def test_known_value_euclidean(device: str) -> None:
    batch = LINE.to(device), None, LINE_LABELS.to(device), None
    loss = triplet_loss(*batch, mining="batch_hard", margin=1.5, distance="euclidean")
    torch.testing.assert_close(loss.item(), (0.5 + 2.5 + 2.5 + 4.5 + 4.5) / 5)


def test_known_value_of_another_modality(device: str) -> None:
    """References of their own: reference 0 is a positive of anchor 0, and has no triplet itself."""
    anchors, references = torch.tensor([[0.0], [9.0]]), torch.tensor([[2.0], [1.0], [0.5]])
    batch = [t.to(device) for t in (anchors, references, torch.tensor([4, 7]), torch.tensor([4, 4, 6]))]
    mined = mine_triplets(*batch, mining="hard_negative", margin=0.25)
    assert [indices.tolist() for indices in mined] == [[0, 0], [0, 1], [2, 2]]
    loss = triplet_loss(*batch, mining="hard_negative", margin=0.25, reduction="sum")
    torch.testing.assert_close(loss.item(), (4 - 0.25 + 0.25) + (1 - 0.25 + 0.25))


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("mining", MININGS)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("size", SIZES)
def test_matches_reference(size: Any, dtype: torch.dtype, mining: Any, distance: Any, device: str) -> None:
    for margin in MARGINS:
        batch = sample(size, dtype, device, grid=True)
        mined = mine_triplets(*batch, mining=mining, margin=margin, distance=distance)
        reference = reference_mine_triplets(*batch, mining, margin, distance)
        assert sorted(torch.stack(mined, 1).tolist()) == torch.stack(reference, 1).tolist()
        for reduction in REDUCTIONS:
            torch.testing.assert_close(
                triplet_loss(*batch, mining=mining, margin=margin, distance=distance, reduction=reduction),  # type: ignore[arg-type]
                reference_triplet_loss(*batch, margin, mining, distance, reduction),
                **TOLERANCE[dtype],
            )


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("mining", MININGS)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("size", SIZES)
def test_grad_matches_reference(
    size: Any, dtype: torch.dtype, mining: Any, distance: Any, reduction: Any, device: str
) -> None:
    # A sum's gradient is a small difference of large sums: brought to the size that the tolerance is made for.
    weight = 2.5 / (size[1] or size[0]) if reduction == "sum" else 2.5
    for margin in MARGINS:
        leaves, batch = leaves_of(sample(size, dtype, device, grid=True))
        loss = triplet_loss(*batch, mining=mining, margin=margin, distance=distance, reduction=reduction)
        ours = torch.autograd.grad(weight * loss, leaves)
        expected = reference_triplet_loss(*batch, margin, mining, distance, reduction)
        for mine, theirs in zip(ours, torch.autograd.grad(weight * expected, leaves), strict=True):
            torch.testing.assert_close(mine, theirs, **TOLERANCE[dtype])


@pytest.mark.parametrize("size", [(7, None, 3, 3), (4, 6, 3, 2)])
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("mining", MININGS)
def test_gradcheck(mining: Any, distance: Any, size: Any, device: str) -> None:
    leaves, (_, _, *labels) = leaves_of(sample(size, torch.float64, device))

    def loss(anchors: Tensor, references: Tensor | None = None) -> Tensor:
        return triplet_loss(
            anchors, references, *labels, mining=mining, margin=1.3, distance=distance, reduction="active_mean"
        )

    assert loss(*leaves) > 0
    torch.autograd.gradcheck(loss, leaves)


@pytest.mark.gpu
@pytest.mark.parametrize("size", [(65, None, 5, 7), (20, 3000, 8, 5)])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("mining", MININGS)
def test_cpu_matches_cuda(mining: Any, dtype: torch.dtype, size: Any) -> None:
    batch = sample(size, dtype, "cpu", grid=True)
    results = []
    for device in ("cpu", "cuda"):
        leaves, there = leaves_of(tuple(t if t is None else t.to(device) for t in batch))  # type: ignore[arg-type]
        mined = mine_triplets(*there, mining=mining, margin=0.75)
        loss = triplet_loss(*there, mining=mining, margin=0.75)
        results.append([*mined, loss.detach(), *torch.autograd.grad(loss, leaves)])
    for cpu, cuda in zip(*results, strict=True):
        torch.testing.assert_close(cuda.cpu(), cpu, **TOLERANCE[dtype])


@pytest.mark.parametrize("mining", MININGS)
def test_same_bits_on_every_run(mining: Any, device: str) -> None:
    batch = sample((300, 200, 40, 3), torch.float32, device)  # most references are hardest for more than one anchor
    runs = []
    for _ in range(3):
        leaves, own = leaves_of(batch)
        loss = triplet_loss(*own, mining=mining, margin=0.4)
        runs.append([loss.detach(), *torch.autograd.grad(loss, leaves)])
    assert all(torch.equal(one, other) for run in runs for one, other in zip(run, runs[0], strict=True))


@pytest.mark.parametrize("mining", MININGS)
def test_view_input(mining: Any, device: str) -> None:
    """Any strides and storage offset; nothing outside the view is read."""
    anchors, references, anchor_labels, reference_labels = sample((9, 14, 4, 3), torch.float32, device, grid=True)
    assert references is not None and reference_labels is not None
    buffer = torch.full((6, 20), math.nan, device=device)
    buffer[1:5, 2:11] = anchors.T
    rows = torch.full((30, 7), math.nan, device=device)
    rows[3:17, 1:5] = references
    labels = torch.full((28,), 99, device=device)
    labels[::2] = reference_labels
    batch = anchors, references, anchor_labels, reference_labels
    views = buffer[1:5, 2:11].T, rows[3:17, 1:5], anchor_labels, labels[::2]
    for one, other in zip(
        mine_triplets(*views, mining=mining, margin=0.3),
        mine_triplets(*batch, mining=mining, margin=0.3),
        strict=True,
    ):
        assert torch.equal(one, other)
    torch.testing.assert_close(
        triplet_loss(*views, mining=mining, margin=0.3), triplet_loss(*batch, mining=mining, margin=0.3)
    )


@pytest.mark.parametrize("size", [(0, None, 3, 2), (0, 4, 3, 2), (4, 0, 3, 2), (0, 0, 3, 2), (4, None, 0, 2)])
@pytest.mark.parametrize("mining", MININGS)
def test_empty_batch(mining: Any, size: Any, device: str) -> None:
    for distance, reduction in itertools.product(DISTANCES, REDUCTIONS):
        leaves, batch = leaves_of(sample(size, torch.float32, device))
        options: Any = {"mining": mining, "margin": 0.0, "distance": distance}  # no hinge above 0 where D = 0
        loss = triplet_loss(*batch, **options, reduction=reduction)
        assert loss.shape == () and loss == 0
        loss.backward()
        for leaf in leaves:
            assert leaf.grad is not None and leaf.grad.shape == leaf.shape and (leaf.grad == 0).all()
        mined = mine_triplets(*batch, **options)
        assert len({len(indices) for indices in mined}) == 1
        if size[2] > 0:
            assert len(mined[0]) == 0


@pytest.mark.parametrize("labels", [[3, 3, 3], [3, 4, 5]])
@pytest.mark.parametrize("mining", MININGS)
def test_nothing_selected_is_zero_with_zero_gradients(mining: Any, labels: list[int], device: str) -> None:
    for reduction in REDUCTIONS:
        embeddings = torch.randn(3, 4, device=device, requires_grad=True)
        batch = embeddings, None, torch.tensor(labels, device=device), None
        loss = triplet_loss(*batch, mining=mining, margin=0.4, reduction=reduction)  # type: ignore[arg-type]
        loss.backward()
        assert loss == 0
        assert embeddings.grad is not None and (embeddings.grad == 0).all()


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("mining", MININGS)
def test_nan_embedding_gives_nan(mining: Any, distance: Any, device: str) -> None:
    embeddings, _, labels, _ = sample((40, None, 3, 4), torch.float32, device)
    embeddings[[5, 17], 1] = math.nan
    loss = triplet_loss(embeddings, None, labels, None, mining=mining, margin=0.4, distance=distance)
    assert loss.isnan()
    for indices in mine_triplets(embeddings, None, labels, None, mining=mining, margin=0.4, distance=distance):
        assert ((indices >= 0) & (indices < 40)).all()


@pytest.mark.parametrize("mining", MININGS)
def test_nan_is_not_hidden_by_an_empty_selection(mining: Any, device: str) -> None:
    """One class: everyone is a positive, and nobody has a negative."""
    embeddings, labels = torch.rand(70, 3, device=device), torch.full((70,), 4, device=device)
    embeddings[66, 2] = math.nan
    assert triplet_loss(embeddings, None, labels, None, mining=mining, margin=0.4).isnan()
    assert len(mine_triplets(embeddings, None, labels, None, mining=mining, margin=0.4)[0]) == 0


def test_memory_does_not_grow_with_the_triplets() -> None:
    """2048 anchors in 8 classes have nearly a thousand million triplets; a matrix of distances has 16 MB."""
    embeddings = torch.randn(2048, 16, requires_grad=True)
    labels = torch.arange(2048) % 8
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    triplet_loss(embeddings, None, labels, None, mining="all", margin=0.4).backward()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 300 * 1024, f"{grown // 1024} MB"


@pytest.mark.parametrize("distance", DISTANCES)
def test_far_from_the_origin(distance: Any, device: str) -> None:
    """Embeddings with a common offset, as after a ReLU, keep their digits."""
    embeddings = (torch.randn(64, 128, dtype=torch.float64) * 0.01 + 10).to(device)
    labels = (torch.arange(64) % 8).to(device)
    options: Any = {"margin": 0.02, "mining": "batch_hard", "distance": distance}
    exact = triplet_loss(embeddings, None, labels, None, **options)
    rounded = triplet_loss(embeddings.float(), None, labels, None, **options)
    torch.testing.assert_close(rounded.double(), exact, rtol=1e-3, atol=0)


@pytest.mark.parametrize("references", [None, 24])
@pytest.mark.parametrize("mining", MININGS)
def test_autocast(mining: Any, references: int | None, device: str) -> None:
    """Everything is computed in float32, whatever comes."""
    single = sample((20, references, 8, 3), torch.float32, device, grid=True)  # exact in half precision too
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        leaves, batch = leaves_of(tuple(t.to(dtype) if t is not None and t.is_floating_point() else t for t in single))  # type: ignore[arg-type]
        single_leaves, single_batch = leaves_of(single)
        expected = triplet_loss(*single_batch, mining=mining, margin=0.4, distance="euclidean")
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = triplet_loss(*batch, mining=mining, margin=0.4, distance="euclidean")
            mined = mine_triplets(*batch, mining=mining, margin=0.4)
        assert torch.equal(loss, expected) and loss.dtype == torch.float32
        for ours, theirs in zip(
            torch.autograd.grad(loss, leaves), torch.autograd.grad(expected, single_leaves), strict=True
        ):
            assert torch.equal(ours, theirs.to(dtype))
        for ours, theirs in zip(mined, mine_triplets(*single, mining=mining, margin=0.4), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("mining", MININGS)
def test_second_derivative(mining: Any, distance: Any, device: str) -> None:
    """Hinges are straight lines in the distances: all curvature is that of the distances, and torch's own."""
    (anchors,), (_, _, labels, _) = leaves_of(sample((7, None, 3, 3), torch.float64, device))
    torch.autograd.gradgradcheck(
        lambda a: triplet_loss(a, None, labels, None, mining=mining, margin=1.3, distance=distance), anchors
    )


def test_mined_triplets_carry_no_gradient(device: str) -> None:
    _, batch = leaves_of(sample((7, None, 3, 3), torch.float32, device))
    assert not any(indices.requires_grad for indices in mine_triplets(*batch, mining="all", margin=0.4))


@pytest.mark.parametrize("mining", ["batch_hard", "semihard"])
def test_compile(mining: Any, device: str) -> None:
    def step(anchors: Tensor, labels: Tensor) -> Tensor:
        return triplet_loss(anchors * 2, None, labels, None, mining=mining, margin=1.4, distance="euclidean")

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    for size in [(9, None, 3, 3), (14, None, 5, 3)]:
        (anchors,), (_, _, labels, _) = leaves_of(sample(size, torch.float32, device))
        (ours,) = torch.autograd.grad(compiled(anchors, labels), anchors)
        (eager,) = torch.autograd.grad(step(anchors, labels), anchors)
        torch.testing.assert_close(ours, eager)


@pytest.mark.parametrize("mining", ["batch_hard", "semihard_closest"])
def test_compile_mining(mining: Any, device: str) -> None:
    def step(anchors: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        a, p, n = mine_triplets(anchors * 2, None, labels, None, mining=mining, margin=1.4)
        return (anchors[a] - anchors[p]).square().sum(1), n

    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
        for size in [(9, None, 3, 3), (14, None, 5, 3)]:
            anchors, _, labels, _ = sample(size, torch.float32, device)
            for ours, eager in zip(compiled(anchors, labels), step(anchors, labels), strict=True):
                torch.testing.assert_close(ours, eager)
