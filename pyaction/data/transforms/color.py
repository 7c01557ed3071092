"""Random changes of colour: the RGB jitter of paper 004, section 8."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pyaction.data.transforms.content import check_clip
from pyaction.data.transforms.draws import draw_integer, draw_uniform

Change = Literal["brightness", "contrast", "saturation", "hue"]


@dataclass(frozen=True)
class ColorJitter:
    """One change of colour for all frames of a clip, by the functions of torchvision.transforms.v2.

    Call it with RGB frames `(..., 3, H, W)`, uint8 or floating point in [0, 1]; it returns the same shape, dtype and
    range. Contrast is about the mean grey of each frame.

    Raises:
        TypeError: The frames are not a tensor.
        ValueError: The frames are not RGB.
    """

    brightness: float = 1.0
    """Factor; 1 changes nothing, 0 is black."""
    contrast: float = 1.0
    """Factor; 0 is grey."""
    saturation: float = 1.0
    """Factor; 0 is black and white."""
    hue: float = 0.0
    """Turn of the colour circle, in [-0.5, 0.5]."""
    order: tuple[Change, ...] = ("brightness", "contrast", "saturation", "hue")
    """Which change comes first, and so on."""

    def __call__(self, frames: Tensor) -> Tensor:
        """The frames in other colours."""
        from torchvision.transforms.v2 import functional

        check_clip("transforms.ColorJitter", frames, "frames")
        if frames.shape[-3] != 3:
            raise ValueError(f"transforms.ColorJitter: frames must be RGB, (..., 3, H, W); got {list(frames.shape)}")
        for change in self.order:
            if change == "brightness" and self.brightness != 1:
                frames = functional.adjust_brightness(frames, self.brightness)
            elif change == "contrast" and self.contrast != 1:
                frames = functional.adjust_contrast(frames, self.contrast)
            elif change == "saturation" and self.saturation != 1:
                frames = functional.adjust_saturation(frames, self.saturation)
            elif change == "hue" and self.hue != 0:
                frames = functional.adjust_hue(frames, self.hue)
        return frames


def random_color_jitter(
    generator: torch.Generator,
    *,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    hue: float = 0.0,
) -> ColorJitter:
    """Draws a change of colour: factors uniform in [1 - strength, 1 + strength], but not negative, in random order.

    Args:
        generator: where the random numbers come from.
        brightness: strength, >= 0; 0 leaves it alone.
        contrast: strength, >= 0.
        saturation: strength, >= 0.
        hue: largest turn either way, in [0, 0.5] of the colour circle.

    Returns:
        One change for all frames of a clip.

    Raises:
        TypeError: generator is not a torch.Generator.
        ValueError: a strength is out of range.

    Example:
        >>> jitter = random_color_jitter(torch.Generator().manual_seed(3), brightness=0.4, hue=0.1)
        >>> jitter(torch.rand(8, 3, 32, 32)).shape
        torch.Size([8, 3, 32, 32])
    """
    caller = "transforms.random_color_jitter"
    strengths = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}
    for name, strength in strengths.items():
        largest = 0.5 if name == "hue" else float("inf")
        if not (0 <= strength <= largest and strength != float("inf")):
            limit = "in [0, 0.5]" if name == "hue" else "finite and >= 0"
            raise ValueError(f"{caller}: {name} must be {limit}; got {strength}")
    # Each is drawn whatever the strengths, so that one strength does not change what the others become.
    left: list[Change] = ["brightness", "contrast", "saturation", "hue"]
    order = tuple(left.pop(draw_integer(caller, len(left), generator)) for _ in range(4))
    return ColorJitter(
        brightness=draw_uniform(caller, max(0.0, 1 - brightness), 1 + brightness, generator),
        contrast=draw_uniform(caller, max(0.0, 1 - contrast), 1 + contrast, generator),
        saturation=draw_uniform(caller, max(0.0, 1 - saturation), 1 + saturation, generator),
        hue=draw_uniform(caller, -hue, hue, generator),
        order=order,
    )
