"""pyaction.losses.cross_enhancement_loss, against a loop."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pyaction.losses import cross_enhancement_loss

ALPHA, BETA, GAMMA = 0.7, 31.0, 1.9


def sample(dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    draw = [torch.randn(shape, dtype=dtype) for shape in ((3, 4), *[(3, 2, 2, 1, 3)] * 2, *[(3, 5)] * 2)]
    return {
        "logits": draw[0].requires_grad_(),
        "labels": torch.tensor([2, 0, 3]),
        "bridge": (draw[1].requires_grad_(), draw[2].requires_grad_()),
        "output": (draw[3].requires_grad_(), draw[4].requires_grad_()),
    }


def mean_square(student: Tensor, teacher: Tensor) -> float:
    squares = [(a - b) ** 2 for a, b in zip(student.flatten().tolist(), teacher.flatten().tolist(), strict=True)]
    return sum(squares) / len(squares)


def cross_entropy(logits: Tensor, labels: Tensor) -> float:
    losses = []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        losses.append(math.log(sum(math.exp(score) for score in row)) - row[label])
    return sum(losses) / len(losses)


def test_matches_reference() -> None:
    values = sample()
    terms = cross_enhancement_loss(**values, alpha=ALPHA, beta=BETA, gamma=GAMMA)
    expected = [mean_square(*values["bridge"]), mean_square(*values["output"])]
    expected.append(cross_entropy(values["logits"], values["labels"]))
    assert [term.item() for term in terms[1:]] == pytest.approx(expected)
    assert terms.total.item() == pytest.approx(ALPHA * expected[0] + BETA * expected[1] + GAMMA * expected[2])


@pytest.mark.parametrize(
    ("weights", "reached"),
    [
        ((0, 0, GAMMA), ["logits"]),  # the student alone
        ((0, BETA, GAMMA), ["logits", "output"]),  # MARS
        ((ALPHA, BETA, GAMMA), ["logits", "output", "bridge"]),
    ],
)
def test_degenerate_cases(weights: tuple[float, float, float], reached: list[str]) -> None:
    """What a weight of 0 leaves out neither counts nor learns; and the teacher never does."""
    values = sample()
    alpha, beta, gamma = weights
    terms = cross_enhancement_loss(**values, alpha=alpha, beta=beta, gamma=gamma)
    terms.total.backward()
    parts = {"logits": gamma * terms.classification, "output": beta * terms.output, "bridge": alpha * terms.bridge}
    assert terms.total.item() == pytest.approx(sum(parts[name].item() for name in reached))
    for name in ("logits", "output", "bridge"):
        student = values[name] if name == "logits" else values[name][0]
        assert (student.grad.abs().max() > 0) == (name in reached), name
    assert values["bridge"][1].grad is None
    assert values["output"][1].grad is None


def test_gradcheck() -> None:
    values = sample()

    def total(logits: Tensor, bridge: Tensor, output: Tensor) -> Tensor:
        pairs = (bridge, values["bridge"][1]), (output, values["output"][1])
        return cross_enhancement_loss(logits, values["labels"], *pairs, alpha=ALPHA, beta=BETA, gamma=GAMMA).total

    assert torch.autograd.gradcheck(total, (values["logits"], values["bridge"][0], values["output"][0]))


def test_half_precision_is_for_memory_alone() -> None:
    values = sample(torch.bfloat16)
    terms = cross_enhancement_loss(**values, alpha=ALPHA, beta=BETA, gamma=GAMMA)
    assert terms.total.dtype == torch.float32
    assert float(terms.output) == pytest.approx(mean_square(*values["output"]), rel=1e-5)


def test_compile() -> None:
    values = sample()
    torch._dynamo.reset()
    compiled = torch.compile(cross_enhancement_loss, fullgraph=True, backend="eager")
    weights = {"alpha": ALPHA, "beta": BETA, "gamma": GAMMA}
    torch.testing.assert_close(compiled(**values, **weights), cross_enhancement_loss(**values, **weights))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": -0.5}, "alpha must be finite and at least 0; got -0.5"),
        ({"beta": math.inf}, "beta must be finite and at least 0; got inf"),
        ({"gamma": math.nan}, "gamma must be finite and at least 0; got nan"),
        ({"labels": torch.tensor([1, 2])}, r"logits must be \[N, classes\] and labels \[N\]; got \[3, 4\] and \[2\]"),
        ({"output": (torch.rand(3, 5), torch.rand(3, 6))}, r"student and teacher of output .* \[3, 5\] and \[3, 6\]"),
    ],
)  # fmt: skip
def test_rejects(change: dict[str, Any], message: str) -> None:
    arguments = {**sample(), "alpha": ALPHA, "beta": BETA, "gamma": GAMMA, **change}
    with pytest.raises(ValueError, match=rf"^cross_enhancement_loss: {message}$"):
        cross_enhancement_loss(**arguments)
