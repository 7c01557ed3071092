"""The mirror image of a clip."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pyaction.data.transforms.content import Content, check_clip
from pyaction.data.transforms.draws import draw_uniform


@dataclass(frozen=True)
class HorizontalFlip:
    """Mirrors a clip left to right, motion included.

    What moved right moves left afterwards: x-flow becomes -x, encoded x-flow 255 - x (no motion, 128, becomes 127).

    Call it with a clip `(..., C, H, W)` and what it holds, see `pyaction.data.transforms`. The result has the clip's
    shape and dtype; TypeError and ValueError say what is wrong with a clip.

    Example:
        >>> flow = torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]])  # (2, 1, 2)
        >>> HorizontalFlip()(flow, "flow").tolist()
        [[[-2.0, -1.0]], [[4.0, 3.0]]]
    """

    flipped: bool = True
    """False: return the clip as it is."""

    def __call__(self, clip: Tensor, content: Content) -> Tensor:
        """The clip mirrored, or itself where `flipped` is False."""
        check_clip("transforms.HorizontalFlip", clip, content)
        if not self.flipped:
            return clip
        mirrored = clip.flip(-1)
        x = mirrored[..., 0::2, :, :]
        if content == "flow":
            x.neg_()
        elif content == "encoded_flow":
            x.copy_(255 - x)
        return mirrored


def random_flip(generator: torch.Generator, *, probability: float = 0.5) -> HorizontalFlip:
    """Draws whether to flip.

    Args:
        generator: where the random number comes from.
        probability: of a flip, in [0, 1].

    Returns:
        One flip for every tensor of a clip.

    Raises:
        TypeError: generator is not a torch.Generator.
        ValueError: probability is outside [0, 1].
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"transforms.random_flip: probability must be in [0, 1]; got {probability}")
    return HorizontalFlip(draw_uniform("transforms.random_flip", 0, 1, generator) < probability)
