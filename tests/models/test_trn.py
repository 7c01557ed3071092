from collections.abc import Callable

import pytest
import torch
from models.bn_inception_table import trunk_parameters
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from pyaction import models


def trn(**options: object) -> models.TRN:
    return models.TRN(models.ResNet(classes=None, depth=18), classes=5, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def network() -> models.TRN:
    network = trn(segments=5, features=12, hidden=9).eval()
    nn.init.normal_(network.reduction.weight, std=0.1)
    return network


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def reference(network: models.TRN, clips: Tensor, tuples: dict[int, list[tuple[int, ...]]]) -> Tensor:
    """Tuple by tuple: two layers over the concatenated vectors of its segments; all added up."""
    vectors = [network.reduction(network.backbone(clips[:, place])) for place in range(clips.shape[1])]
    total = torch.zeros(len(clips), 5)
    for relation, (scale, rows) in zip(network.relations, tuples.items(), strict=True):
        _, first, _, second = relation
        for row in rows:
            assert len(row) == scale
            x = torch.cat([vectors[place] for place in row], dim=1).clamp(min=0)
            x = (x @ first.weight.T + first.bias).clamp(min=0)
            total += x @ second.weight.T + second.bias
    return total


@torch.no_grad()
def test_matches_reference(network: models.TRN) -> None:
    clips = torch.randn(2, 5, 3, 32, 32)
    tuples = {5: [(0, 1, 2, 3, 4)], 4: [(0, 2, 3, 4), (1, 2, 3, 4)], 3: [(0, 1, 4)], 2: [(0, 3), (1, 2), (2, 4)]}
    given = [torch.tensor(rows) for rows in tuples.values()]
    torch.testing.assert_close(network(clips, given), reference(network, clips, tuples), rtol=1e-4, atol=1e-5)


def test_draws(network: models.TRN) -> None:
    """Distinct, in order, as many as the method wants; every tuple comes up."""
    generator = seeded(3)
    seen: set[tuple[int, ...]] = set()
    for _ in range(60):
        tuples = network.draw_tuples(generator)
        assert [tuple(scale.shape) for scale in tuples] == [(1, 5), (3, 4), (3, 3), (3, 2)]
        for scale in tuples:
            rows = [tuple(row) for row in scale.tolist()]
            assert len(set(rows)) == len(rows)
            assert all(0 <= row[0] and row[-1] < 5 and list(row) == sorted(set(row)) for row in rows)
            seen.update(rows)
    assert len(seen) == 1 + 5 + 10 + 10
    assert [scale.tolist() for scale in network.draw_tuples(seeded(7))] == [
        scale.tolist() for scale in network.draw_tuples(seeded(7))
    ]


def test_few_and_many_segments() -> None:
    with torch.device("meta"):
        few, many = trn(segments=2), trn(segments=25)
        assert [scale.tolist() for scale in few.draw_tuples(seeded(1))] == [[[0, 1]]]
        assert many.draw_tuples(seeded(1))[12].shape == (3, 13)


@torch.no_grad()
def test_classify(network: models.TRN) -> None:
    """The layers behind the vectors."""
    clips = torch.randn(2, 5, 3, 32, 32)
    vectors, tuples = network.segment_vectors(clips), network.draw_tuples(seeded(4))
    torch.testing.assert_close(network.classify(vectors), network(clips))
    torch.testing.assert_close(network.classify(vectors, tuples), network(clips, tuples))


@torch.no_grad()
def test_exports_with_tuples(network: models.TRN) -> None:
    """As an input, whose values no graph looks at."""
    clips = torch.randn(2, 5, 3, 32, 32)
    program = torch.export.export(network, (clips, network.draw_tuples(seeded(4))))
    tuples = network.draw_tuples(seeded(9))
    torch.testing.assert_close(program.module()(clips, tuples), network(clips, tuples))


@torch.no_grad()
def test_evaluation_sees_the_same_tuples(network: models.TRN) -> None:
    """In the same network, in another of the same seed, and in one of another seed that loads its weights."""
    clips = torch.randn(2, 5, 3, 32, 32)
    expected = network(clips)
    assert torch.equal(network(clips), expected)
    torch.testing.assert_close(network(clips, network.draw_tuples(seeded(0))), expected)
    assert not torch.allclose(network(clips, network.draw_tuples(seeded(4))), expected)
    other = trn(segments=5, features=12, hidden=9, seed=4).eval()
    assert any(not torch.equal(a, b) for a, b in zip(network.draw_tuples(seeded(0)), tuples_of(other), strict=True))
    other.load_state_dict(network.state_dict())
    assert torch.equal(other(clips), expected)


def tuples_of(network: models.TRN) -> list[Tensor]:
    return [value for name, value in network.named_buffers() if name.startswith("evaluation_tuples")]


@pytest.mark.parametrize(("scales", "segments"), [("multi", 8), ("single", 8)])
def test_parameter_count(scales: str, segments: int) -> None:
    """Reduction to 256; 256 hidden units per scale from eight to two, or 512 of one."""
    with torch.device("meta"):
        backbone = models.BNInception(classes=None)
        network = models.TRN(backbone, classes=174, scales=scales, segments=segments)  # type: ignore[arg-type]
    widths = [(scale * 256, 256) for scale in range(8, 1, -1)] if scales == "multi" else [(8 * 256, 512)]
    count = (1024 + 1) * 256 + sum((before + 1) * hidden + (hidden + 1) * 174 for before, hidden in widths)
    assert sum(parameter.numel() for parameter in network.parameters()) == trunk_parameters(3) + count
    assert (network.classes, network.segments, network.fixed_segments) == (174, segments, True)


def test_single_scale_needs_no_tuples() -> None:
    network = trn(scales="single", segments=3)
    assert network.training
    network(torch.randn(2, 3, 3, 32, 32)).sum().backward()
    assert network.reduction.weight.grad is not None
    assert network.reduction.weight.std().item() == pytest.approx(0.001, rel=0.1)
    assert network.dropout.p == 0.8


def test_compile_in_training() -> None:
    """One graph, whatever is drawn."""
    network, generator = trn(segments=4), seeded(5)
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(network, fullgraph=True, backend=counter)
    clips = torch.randn(2, 4, 3, 32, 32)
    for _ in range(3):
        compiled(clips, network.draw_tuples(generator)).sum().backward()
    assert counter.frame_count == 1
    assert all(parameter.grad is not None for parameter in network.relations.parameters())


def related(*tuples: list[list[int]]) -> Tensor:
    network = trn(segments=3)
    return network.classify(torch.zeros(1, 3, 512), [torch.tensor(rows, device="cpu") for rows in tuples])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: trn(scales="two"), "scales must be 'multi' or 'single'; got 'two'"),
        (lambda: trn(hidden=0), "hidden must be at least 1; got 0"),
        (lambda: trn(segments=1), "segments must be at least 2; got 1"),
        (lambda: trn(segments=3)(torch.zeros(1, 3, 3, 32, 32)), r"in training give tuples, by draw_tuples\(gen"),
        (lambda: trn(segments=3)(torch.zeros(1, 3, 3, 32, 32), [torch.zeros(1, 3)]),
         r"tuples must be \[M, s\] for each s of \[3, 2\]; got shapes \[\[1, 3\]\]"),
        (lambda: related([[2, 1, 0]], [[0, 1]]), r"tuples must be rising indices from 0 to 2; got \[2, 1, 0\]"),
        (lambda: related([[0, 1, 2]], [[0, 1], [2, 2]]), r"tuples must be rising indices from 0 to 2; got \[2, 2\]"),
        (lambda: related([[0, 1, 2]], [[1, 3]]), r"tuples must be rising indices from 0 to 2; got \[1, 3\]"),
        (lambda: related([[0, 1, 2]], [[-1, 2]]), r"tuples must be rising indices from 0 to 2; got \[-1, 2\]"),
    ],
)  # fmt: skip
def test_rejects(call: Callable[[], nn.Module], message: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=rf"^models\.TRN: {message}"):
        call()
