"""pyaction.losses of the cooperative cross-stream network, against loops over equations 4 to 6 of paper 001."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pyaction.losses import (
    cooperative_cross_stream_loss,
    cross_modality_triplet_loss,
    discriminative_embedding_loss,
)

LABELS = torch.tensor([4, 1, 4, 7, 1, 4])
Vectors = list[list[float]]


def sample(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return torch.randn(6, 3, dtype=dtype), torch.randn(6, 3, dtype=dtype)


def square(a: list[float], b: list[float]) -> float:
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def hinges_across(anchors: Vectors, references: Vectors, labels: list[int], margin: float) -> list[float]:
    """Every positive pair with the anchor's nearest negative."""
    hinges = []
    for i, anchor in enumerate(anchors):
        negatives = [square(anchor, z) for z, label in zip(references, labels, strict=True) if label != labels[i]]
        for z, label in zip(references, labels, strict=True):
            if label == labels[i] and negatives:
                hinges.append(max(0.0, square(anchor, z) - min(negatives) + margin))
    return hinges


def hinges_within(vectors: Vectors, labels: list[int], intra: float, inter: float) -> tuple[list[float], list[float]]:
    means = {}
    for label in set(labels):
        members = [z for z, other in zip(vectors, labels, strict=True) if other == label]
        means[label] = [sum(values) / len(members) for values in zip(*members, strict=True)]
    compact = [max(0.0, square(z, means[label]) - intra) for z, label in zip(vectors, labels, strict=True)]
    apart = [max(0.0, inter - square(means[c], means[d])) for c in means for d in means if c != d]
    return compact, apart


def total(hinges: list[float], reduction: str) -> float:
    return sum(hinges) / (max(len(hinges), 1) if reduction == "mean" else 1)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_triplets_match_reference(reduction: Any) -> None:
    spatial, temporal = sample()
    f, o, labels = spatial.tolist(), temporal.tolist(), LABELS.tolist()
    expected = total(hinges_across(f, o, labels, 1.7), reduction) + total(hinges_across(o, f, labels, 1.7), reduction)
    actual = cross_modality_triplet_loss(spatial, temporal, LABELS, margin=1.7, reduction=reduction)
    assert float(actual) == pytest.approx(expected)


def test_other_minings() -> None:
    spatial, temporal = sample()
    losses = {
        mining: float(cross_modality_triplet_loss(spatial, temporal, LABELS, margin=1.7, mining=mining))
        for mining in ("batch_hard", "hard_negative", "semihard", "all")
    }
    assert losses["batch_hard"] > losses["hard_negative"] > losses["all"]
    assert losses["semihard"] < 1.7 * 2


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("labels", [LABELS, torch.full((6,), 3), torch.arange(6)], ids=["some", "one class", "all"])
def test_embedding_matches_reference(labels: Tensor, reduction: Any) -> None:
    embeddings, _ = sample()
    compact, apart = hinges_within(embeddings.tolist(), labels.tolist(), 0.45, 3.1)
    expected = total(compact, reduction) + total(apart, reduction)
    actual = discriminative_embedding_loss(embeddings, labels, intra_margin=0.45, inter_margin=3.1, reduction=reduction)
    assert float(actual) == pytest.approx(expected)
    assert expected > 0


WEIGHTS = {
    "triplet_weight": 0.35, "embedding_weight": 2.4, "triplet_margin": 1.7, "intra_margin": 0.45, "inter_margin": 3.1
}  # fmt: skip


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_total_matches_reference(reduction: Any) -> None:
    spatial, temporal = sample()
    logits = [torch.randn(6, 9, dtype=torch.float64) for _ in range(2)]
    terms = cooperative_cross_stream_loss(*logits, spatial, temporal, LABELS, **WEIGHTS, reduction=reduction)
    f, o, labels = spatial.tolist(), temporal.tolist(), LABELS.tolist()
    triplet = sum(total(hinges_across(*pair, labels, 1.7), reduction) for pair in ((f, o), (o, f)))
    embedding = sum(
        total(hinges, reduction) for vectors in (f, o) for hinges in hinges_within(vectors, labels, 0.45, 3.1)
    )
    classification = 0.0
    for scores in logits:
        for row, label in zip(scores.tolist(), labels, strict=True):
            classification += (math.log(sum(map(math.exp, row))) - row[label]) / 6
    assert [float(term) for term in terms[1:]] == pytest.approx([triplet, embedding, classification])
    assert float(terms.total) == pytest.approx(0.35 * triplet + 2.4 * embedding + classification)


def test_gradcheck() -> None:
    """Through the class means as well."""
    spatial, temporal = (value.requires_grad_() for value in sample())
    logits = torch.randn(6, 9, dtype=torch.float64, requires_grad=True)

    def loss(*values: Tensor) -> Tensor:
        return cooperative_cross_stream_loss(values[0], 0.3 * values[0], *values[1:], LABELS, **WEIGHTS).total

    assert torch.autograd.gradcheck(loss, (logits, spatial, temporal))


def test_brings_modalities_together_and_classes_apart() -> None:
    """The learnt embeddings cost nothing: both modalities of a class lie together, away from others."""
    embeddings = torch.stack(sample(torch.float32)).requires_grad_()
    optimizer = torch.optim.Adam([embeddings], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        loss = cross_modality_triplet_loss(*embeddings, LABELS, margin=0.4)
        loss = loss + sum(discriminative_embedding_loss(z, LABELS, inter_margin=0.9) for z in embeddings)
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 1e-3
    distances = torch.cdist(*embeddings.detach()).square()
    same = LABELS[:, None] == LABELS
    assert all(distances[i][same[i]].max() < distances[i][~same[i]].min() for i in range(6))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_for_memory_alone(dtype: torch.dtype) -> None:
    spatial, temporal = sample(dtype)
    logits = torch.randn(6, 9, dtype=dtype)
    actual = cooperative_cross_stream_loss(logits, logits, spatial, temporal, LABELS, **WEIGHTS)
    expected = cooperative_cross_stream_loss(
        *(x.float() for x in (logits, logits, spatial, temporal)), LABELS, **WEIGHTS
    )
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("size", [0, 1])
def test_few(size: int) -> None:
    """Nothing to compare: zero, with a zero gradient."""
    embeddings, labels = torch.rand(size, 3, requires_grad=True), LABELS[:size]
    loss = discriminative_embedding_loss(embeddings, labels)
    loss = loss + cross_modality_triplet_loss(embeddings, embeddings, labels)
    loss.backward()
    assert loss.item() == 0
    assert embeddings.grad is not None
    assert embeddings.grad.count_nonzero() == 0


def test_compile() -> None:
    values = (*[torch.randn(6, 9)] * 2, *sample(torch.float32), LABELS)
    torch._dynamo.reset()
    compiled = torch.compile(cooperative_cross_stream_loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*values, **WEIGHTS), cooperative_cross_stream_loss(*values, **WEIGHTS))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"triplet_weight": -0.5}, "cooperative_cross_stream_loss: triplet_weight must be finite and .* 0; got -0.5"),
        ({"embedding_weight": math.nan}, "cooperative_cross_stream_loss: embedding_weight must be .*; got nan"),
        ({"intra_margin": -0.1}, "discriminative_embedding_loss: intra_margin must be finite and at least 0; got -0.1"),
        ({"inter_margin": math.inf}, "discriminative_embedding_loss: inter_margin must be finite .*; got inf"),
        ({"triplet_margin": -2.0}, "triplet_loss: margin must be finite and at least 0; got -2.0"),
        ({"reduction": "median"}, "cross_modality_triplet_loss: reduction must be 'mean' or 'sum'; got 'median'"),
        ({"temporal_logits": torch.rand(5, 9)},
         r"cooperative_cross_stream_loss: temporal_logits must be \[N, classes\] and .*; got \[5, 9\] and \[6\]"),
    ],
)  # fmt: skip
def test_rejects(change: dict[str, Any], message: str) -> None:
    names = ("spatial_logits", "temporal_logits", "spatial_embeddings", "temporal_embeddings")
    arguments: dict[str, Any] = dict(zip(names, (*[torch.rand(6, 9)] * 2, *sample(torch.float32)), strict=True))
    with pytest.raises(ValueError, match=rf"^{message}$"):
        cooperative_cross_stream_loss(**{**arguments, "labels": LABELS, **WEIGHTS, **change})


@pytest.mark.parametrize(
    "name", ["spatial_logits", "temporal_logits", "spatial_embeddings", "temporal_embeddings", "labels"]
)
def test_rejects_lists(name: str) -> None:
    names = ("spatial_logits", "temporal_logits", "spatial_embeddings", "temporal_embeddings")
    values = dict(zip(names, (*[torch.rand(6, 9)] * 2, *sample(torch.float32)), strict=True))
    values["labels"] = LABELS
    arguments: dict[str, Any] = {**values, name: values[name].tolist()}
    with pytest.raises(TypeError, match=rf"^cooperative_cross_stream_loss: {name} must be a torch.Tensor; got list$"):
        cooperative_cross_stream_loss(**arguments)
    if name == "labels" or name.endswith("embeddings"):
        spatial, temporal, labels = (arguments[key] for key in ("spatial_embeddings", "temporal_embeddings", "labels"))
        name = name.removesuffix("_embeddings")
        with pytest.raises(TypeError, match=rf"^cross_modality_triplet_loss: {name} must be a torch.Tensor; got list$"):
            cross_modality_triplet_loss(spatial, temporal, labels)


def test_rejects_embeddings() -> None:
    message = "^discriminative_embedding_loss: {} must be a torch.Tensor; got list$"
    with pytest.raises(TypeError, match=message.format("embeddings")):
        discriminative_embedding_loss([[0.3]], LABELS[:1])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=message.format("labels")):
        discriminative_embedding_loss(torch.rand(1, 3), [4])  # type: ignore[arg-type]
    message = r"^discriminative_embedding_loss: embeddings must be \[N, D\] and labels \[N\]; got \[6\] and \[6\]$"
    with pytest.raises(ValueError, match=message):
        discriminative_embedding_loss(torch.rand(6), LABELS)
