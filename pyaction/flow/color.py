"""Flow as pictures for people: direction as hue, speed as saturation."""

import math
from itertools import pairwise

import torch
from torch import Tensor

from pyaction.flow.convention import check_flow, known_pixels

# The corners of the colour circle, and the number of steps from each to the next: more steps where
# the eye tells more hues apart.
_CORNERS = [
    ((255, 0, 0), 15),  # red -> yellow
    ((255, 255, 0), 6),  # -> green
    ((0, 255, 0), 4),  # -> cyan
    ((0, 255, 255), 11),  # -> blue
    ((0, 0, 255), 13),  # -> magenta
    ((255, 0, 255), 6),  # -> red
]
# Added to an image's largest radius, so that a still image is white and rounding noise stays pale.
_LEAST_RADIUS = 1e-5


def to_image(flow: Tensor, max_radius: float | None = None) -> Tensor:
    """Colour-code flow: red right, yellow down, cyan-blue left, violet up; white is still, black unknown.

    The colour circle of Baker et al. Saturation grows linearly from zero motion to `max_radius`; longer
    motions are drawn 25 % darker.

    Args:
        flow: floating point `(..., 2, H, W)`, pixels. A component that is NaN or beyond ±1e9 marks its
            pixel unknown.
        max_radius: the displacement in pixels that is drawn fully saturated, finite, > 0. None takes
            each image's own largest; give a number to images that are looked at together, such as the
            frames of a video, which would flicker otherwise.

    Returns:
        uint8 `(..., 3, H, W)`, RGB.

    Raises:
        TypeError: flow is not a tensor.
        ValueError: wrong dtype or shape of flow; max_radius is not positive and finite.

    Source: Baker, Scharstein, Lewis, Roth, Black and Szeliski, "A Database and Evaluation Methodology
    for Optical Flow", IJCV 2011.

    Example:
        >>> from pyaction import flow
        >>> right = torch.tensor([5.0, 0.0]).view(2, 1, 1)
        >>> flow.to_image(right, max_radius=10).flatten().tolist()
        [255, 127, 127]
    """
    check_flow("flow.to_image", "flow", flow)
    if max_radius is not None and not (math.isfinite(max_radius) and max_radius > 0):
        raise ValueError(f"flow.to_image: max_radius must be None or a finite number of pixels > 0; got {max_radius}")
    flow = flow.to(torch.promote_types(flow.dtype, torch.float32))
    known = known_pixels(flow)  # [..., H, W]
    u, v = flow.masked_fill(~known.unsqueeze(-3), 0).unbind(dim=-3)
    radius = torch.hypot(u, v)
    if max_radius is None:
        radius = radius / (radius.amax(dim=(-2, -1), keepdim=True) + _LEAST_RADIUS)
    else:
        radius = radius / max_radius

    wheel = _color_wheel().to(flow)  # [55, 3]
    # From the first hue (right) through down, left and up to the last hue (right again).
    position = (torch.atan2(-v, -u) / math.pi + 1) / 2 * (len(wheel) - 1)
    below = position.floor()
    index = below.long()
    hue = torch.lerp(
        wheel[index % len(wheel)], wheel[(index + 1) % len(wheel)], (position - below).unsqueeze(-1)
    )  # [..., H, W, 3]

    radius = radius.unsqueeze(-1)
    color = torch.where(radius <= 1, 255 - radius * (255 - hue), 0.75 * hue)
    color = color.masked_fill(~known.unsqueeze(-1), 0)
    return color.floor().to(torch.uint8).movedim(-1, -3).contiguous()


def _color_wheel() -> Tensor:
    """The 55 hues as RGB 0..255, whole numbers in float64 `(55, 3)`."""
    corners = torch.tensor([color for color, _ in _CORNERS] + [_CORNERS[0][0]], dtype=torch.float64)
    segments = [
        start + torch.trunc(torch.arange(steps).unsqueeze(-1) * (stop - start) / steps)
        for (start, stop), (_, steps) in zip(pairwise(corners), _CORNERS, strict=True)
    ]
    return torch.cat(segments)
