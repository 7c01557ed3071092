"""What pyaction.ops.mine_triplets and triplet_loss refuse, and the words they refuse it with."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pyaction.ops import mine_triplets, triplet_loss

ANCHORS, LABELS = torch.rand(5, 3), torch.tensor([0, 0, 1, 1, 2])
REFERENCES, REFERENCE_LABELS = torch.rand(4, 3), torch.tensor([0, 1, 1, 2])
BATCH = {
    "anchors": ANCHORS,
    "references": REFERENCES,
    "anchor_labels": LABELS,
    "reference_labels": REFERENCE_LABELS,
    "mining": "all",
    "margin": 0.4,
}
REJECTS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "not a tensor": ({"anchors": ANCHORS.numpy()}, TypeError, r"anchors must be a torch.Tensor \[.*\]; got ndarray"),
    "rank": ({"anchors": ANCHORS[0]}, ValueError, r"anchors must have 2 dimensions, \[N, D\]; got shape \[3\]"),
    "dtype": ({"anchors": ANCHORS.half()}, ValueError, "anchors must be float32 or float64; got float16"),
    "mixed": (
        {"references": REFERENCES.double()},
        ValueError,
        "references and anchors must have one dtype; got float64 and float32",
    ),
    "dimensions": (
        {"references": REFERENCES[:, :2]},
        ValueError,
        r"references must be \[M, D of the anchors\] = \[4, 3\]; got \[4, 2\]",
    ),
    "label dtype": ({"anchor_labels": LABELS.int()}, ValueError, "anchor_labels must be int64; got int32"),
    "label rank": ({"anchor_labels": LABELS[None]}, ValueError, "anchor_labels must have 1 dimension"),
    "label size": (
        {"reference_labels": LABELS},
        ValueError,
        r"reference_labels must be one for each of the references = \[4\]; got \[5\]",
    ),
    "label device": (
        {"anchor_labels": LABELS.to("meta")},
        ValueError,
        "anchor_labels and anchors must be on one device; got meta and cpu",
    ),
    "device": (
        {"references": REFERENCES.to("meta")},
        ValueError,
        "references and anchors must be on one device; got meta and cpu",
    ),
    "no references": ({"references": None}, ValueError, "must both be given or both be None; got only references"),
    "no labels": ({"reference_labels": None}, ValueError, "both be None; got only reference_labels as None"),
    "mining": ({"mining": "hardest"}, ValueError, "mining must be one of 'batch_hard', .*; got 'hardest'"),
    "distance": ({"distance": "cosine"}, ValueError, "distance must be one of .*'euclidean'; got 'cosine'"),
    "negative margin": ({"margin": -0.5}, ValueError, "margin must be finite and at least 0; got -0.5"),
    "NaN margin": ({"margin": math.nan}, ValueError, "margin must be finite and at least 0; got nan"),
    "margin": ({"margin": "soft"}, TypeError, "margin must be a number; got str"),
}


@pytest.mark.parametrize("op", [mine_triplets, triplet_loss])
@pytest.mark.parametrize("case", REJECTS)
def test_rejects(case: str, op: Any) -> None:
    changes, error, message = REJECTS[case]
    with pytest.raises(error, match=f"{op.__name__}: .*{message}"):
        op(**{**BATCH, **changes})


def test_rejects_reduction() -> None:
    with pytest.raises(ValueError, match="reduction must be one of 'mean', 'active_mean', 'sum'; got 'none'"):
        triplet_loss(**BATCH, reduction="none")


KERNEL_REJECTS: dict[str, tuple[dict[int, Any], str]] = {
    "rank": ({0: torch.rand(5)}, "distances must have 2 dimensions; got 1"),
    "dtype": ({0: torch.rand(5, 5).half()}, "dtype must be float32 or float64"),
    "label size": ({2: LABELS[:4]}, "reference_labels must have size 5 in dimension 0; got 4"),
    "label dtype": ({1: LABELS.int()}, "anchor_labels must be int64 and on the device of distances"),
    "mining": ({3: 4}, r"mining must be in \[0, 4\); got 4"),
    "self": ({0: torch.rand(3, 5), 1: LABELS[:3]}, r"distances must be square .*got \[3, 5\]"),
}


@pytest.mark.parametrize("op", ["mine_triplets", "triplet_hinge"])
@pytest.mark.parametrize("case", KERNEL_REJECTS)
def test_kernels_refuse_what_would_read_out_of_bounds(case: str, op: str, device: str) -> None:
    """A direct call of the op skips the Python checks, not the kernel's own."""
    changes, message = KERNEL_REJECTS[case]
    arguments: list[Any] = [torch.rand(5, 5), LABELS, LABELS, 2, 0.4, True]
    for place, value in changes.items():
        arguments[place] = value
    arguments = [value.to(device) if isinstance(value, Tensor) else value for value in arguments]
    with pytest.raises(RuntimeError, match=f"{op}: {message}"):
        getattr(torch.ops.pyaction, op)(*arguments)


HARDEST_REJECTS: dict[str, tuple[dict[int, Any], str]] = {
    "rank": ({0: ANCHORS[0]}, "anchors must have 2 dimensions; got 1"),
    "reference rank": ({1: ANCHORS[0]}, "references must have 2 dimensions; got 1"),
    "dtype": ({0: ANCHORS.half(), 1: ANCHORS.half()}, "dtype must be float32 or float64"),
    "mixed": ({1: ANCHORS.double()}, "references must have the dtype and device of the first argument"),
    "dimensions": ({1: ANCHORS[:, :2]}, "references must have size 3 in dimension 1; got 2"),
    "label size": ({3: LABELS[:4]}, "reference_labels must have size 5 in dimension 0; got 4"),
    "label dtype": ({2: LABELS.int()}, "anchor_labels must be int64 and on the device of anchors"),
    "self": ({1: REFERENCES, 3: REFERENCE_LABELS}, "as many references as anchors where .* excluded; got 4 and 5"),
}


@pytest.mark.parametrize("case", HARDEST_REJECTS)
def test_hardest_pairs_refuse_what_would_read_out_of_bounds(case: str, device: str) -> None:
    changes, message = HARDEST_REJECTS[case]
    arguments: list[Any] = [ANCHORS, ANCHORS, LABELS, LABELS, True]
    for place, value in changes.items():
        arguments[place] = value
    arguments = [value.to(device) if isinstance(value, Tensor) else value for value in arguments]
    with pytest.raises(RuntimeError, match=f"hardest_pairs: .*{message}"):
        torch.ops.pyaction.hardest_pairs(*arguments)
