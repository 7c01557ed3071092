"""FuseNet, which learns how far to trust each stream in each class."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyaction.models.checks import check_floating


class FuseNet(nn.Module):
    """Fuses the scores of two streams by one or two fully connected layers over the probabilities of both.

    With a hidden layer this is the FuseNet of mode 1 of the paper, the whole data set; without one it is that of
    mode 2, the sampled data set: a learned weighting of both streams' classes, with less to overfit by.

    Args:
        classes: How many classes both streams have.
        hidden: Width of the hidden layer, which the paper does not tell; None: no hidden layer.

    Source: paper 003 (Devarakonda et al.), sections III-D and V-C.

    Example:
        >>> FuseNet(classes=51)(torch.rand(4, 51), torch.rand(4, 51)).shape
        torch.Size([4, 51])
    """

    def __init__(self, *, classes: int = 51, hidden: int | None = 256) -> None:
        super().__init__()
        for name, number in (("classes", classes), ("hidden", hidden)):
            if number is not None and number < 1:
                raise ValueError(f"models.FuseNet: {name} must be at least 1; got {number}")
        self.classes = classes
        self.hidden = None if hidden is None else nn.Linear(2 * classes, hidden)
        self.fc = nn.Linear(2 * classes if hidden is None else hidden, classes)

    def forward(self, spatial: Tensor, temporal: Tensor) -> Tensor:
        """Fuses scores.

        Args:
            spatial: `(N, classes)`, logits of the spatial stream. Of probabilities, such as means over many frames,
                give the logarithm.
            temporal: `(N, classes)`, logits of the temporal stream.

        Returns:
            `(N, classes)`, logits.

        Raises:
            TypeError: an argument is not a tensor.
            ValueError: an argument has another shape or is not floating point.
        """
        for name, scores in (("spatial", spatial), ("temporal", temporal)):
            check_floating("models.FuseNet", name, scores, ("N", self.classes))
        x = torch.cat([spatial.softmax(1), temporal.softmax(1)], dim=1)  # (N, 2 classes)
        return self.fc(x if self.hidden is None else F.relu(self.hidden(x)))
