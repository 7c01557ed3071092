"""The loss by which one stream learns from another: paper 000 (Cao, Xu and Zhang, 2019), equations 1 and 2."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_Pair = tuple[Tensor, Tensor]


class CrossEnhancementTerms(NamedTuple):
    """The loss, and what it is made of; scalars.

    Attributes:
        total: the weighted sum.
        bridge: unweighted, as are the others.
        output: of the bridge at the output.
        classification: cross entropy.
    """

    total: Tensor
    bridge: Tensor
    output: Tensor
    classification: Tensor


def cross_enhancement_loss(
    logits: Tensor, labels: Tensor, bridge: _Pair, output: _Pair, *, alpha: float, beta: float, gamma: float
) -> CrossEnhancementTerms:
    r"""Two bridges and the labels: paper 000, equation 1 where flow teaches RGB, 2 where RGB teaches flow.

    .. math::
        \alpha \, \text{mse}(\text{bridge}) + \beta \, \text{mse}(\text{output}) + \gamma \, \text{CE}(\text{logits})

    where mse is the mean over all elements of the squared difference of student and teacher. With alpha = 0 it is the
    loss of MARS; with alpha = beta = 0 the student learns alone (section 3.1).

    Args:
        logits: `(N, classes)` of the student.
        labels: `(N,)`, int64.
        bridge: (student, teacher), features of one shape; the teacher counts as constant.
        output: likewise.
        alpha: weight of the bridge. The paper gives no value of the three.
        beta: weight of the output; 50 in MARS.
        gamma: weight of the cross entropy; 1 in MARS.

    Returns:
        The loss and its terms, at least float32.

    Raises:
        ValueError: shapes do not fit, or a weight is not finite and at least 0.

    Source: paper 000, section 3; Crasto et al., "MARS: Motion-Augmented RGB Stream for Action Recognition", CVPR 2019.

    Example:
        >>> student, teacher = torch.full((2, 8, 4, 4, 4), 0.5), torch.zeros(2, 8, 4, 4, 4)
        >>> labels = torch.tensor([2, 0])
        >>> loss = cross_enhancement_loss(
        ...     torch.rand(2, 3), labels, (student, teacher), (student, teacher), alpha=2, beta=50, gamma=1
        ... )
        >>> loss.bridge
        tensor(0.2500)
    """
    for name, weight in (("alpha", alpha), ("beta", beta), ("gamma", gamma)):
        if not 0 <= weight < math.inf:
            raise ValueError(f"cross_enhancement_loss: {name} must be finite and at least 0; got {weight}")
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"cross_enhancement_loss: logits must be [N, classes] and labels [N]; "
            f"got {list(logits.shape)} and {list(labels.shape)}"
        )
    bridge_term = _mean_squared_error("bridge", *bridge)
    output_term = _mean_squared_error("output", *output)
    classification = F.cross_entropy(_at_least_float32(logits), labels)
    total = alpha * bridge_term + beta * output_term + gamma * classification
    return CrossEnhancementTerms(total, bridge_term, output_term, classification)


def _mean_squared_error(name: str, student: Tensor, teacher: Tensor) -> Tensor:
    if student.shape != teacher.shape:
        raise ValueError(
            f"cross_enhancement_loss: student and teacher of {name} must have one shape; "
            f"got {list(student.shape)} and {list(teacher.shape)}"
        )
    return F.mse_loss(_at_least_float32(student), _at_least_float32(teacher.detach()))


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
