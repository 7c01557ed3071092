"""How far an estimated flow is from the true one: the measures of the public flow benchmarks."""

from typing import Literal

import torch
from torch import Tensor

from pyaction.flow.convention import check_flow, check_valid

Reduction = Literal["pooled", "per_image"]


def endpoint_error(
    flow: Tensor, target: Tensor, valid: Tensor | None = None, reduction: Reduction = "pooled"
) -> Tensor:
    """Mean end-point error (EPE): the distance `√((u - u')² + (v - v')²)` in pixels.

    Sintel and Middlebury pool the pixels of all images. KITTI averages the images' own means:
    `endpoint_error(..., reduction="per_image").nanmean()`.

    Args:
        flow: the estimate, floating point `(..., 2, H, W)`, pixels.
        target: the truth, of the same shape.
        valid: bool `(..., H, W)`, the pixels to use; None uses all. What flow and target hold
            elsewhere, NaN included, plays no part.
        reduction: `"pooled"`: one mean over every valid pixel of every image.
            `"per_image"`: one mean for each image.

    Returns:
        A scalar, or `(...)` for `"per_image"`, in pixels; float64 for float64 input, else float32.
        NaN where no pixel is valid.

    Raises:
        TypeError: an argument is not a tensor.
        ValueError: wrong dtype, wrong or differing shapes, unknown reduction.

    Example:
        >>> from pyaction import flow
        >>> flow.endpoint_error(torch.zeros(2, 4, 6), torch.full((2, 4, 6), 3.0)).item()
        4.242640495300293
    """
    flow, target = _check("flow.endpoint_error", flow, target, valid, reduction)
    return _mean(_distance(flow, target), valid, reduction)


def outlier_rate(
    flow: Tensor,
    target: Tensor,
    valid: Tensor | None = None,
    reduction: Reduction = "pooled",
    *,
    pixels: float = 3.0,
    share: float = 0.05,
) -> Tensor:
    """Share of pixels that are plainly wrong: error > `pixels` and error > `share` · |target|.

    The defaults are KITTI 2015's, whose tables print 100 times this as "Fl". `share=0` leaves the one
    threshold in pixels, as in Sintel's and others' 1 px, 3 px and 5 px figures. An estimate that is NaN
    counts as wrong.

    Args:
        flow: the estimate, floating point `(..., 2, H, W)`, pixels.
        target: the truth, of the same shape.
        valid: bool `(..., H, W)`, the pixels to use; None uses all.
        reduction: `"pooled"` (KITTI's Fl-all) or `"per_image"`, as for `endpoint_error`.
        pixels: the largest error that is never wrong, in pixels, ≥ 0.
        share: the largest error that is never wrong, as a share of the true displacement, ≥ 0.

    Returns:
        A scalar, or `(...)` for `"per_image"`, 0..1; float64 for float64 input, else float32.
        NaN where no pixel is valid.

    Raises:
        TypeError: an argument is not a tensor.
        ValueError: wrong dtype, wrong or differing shapes, unknown reduction, negative threshold.

    Source: Menze and Geiger, "Object Scene Flow for Autonomous Vehicles", CVPR 2015.

    Example:
        >>> from pyaction import flow
        >>> flow.outlier_rate(torch.zeros(2, 4, 6), torch.full((2, 4, 6), 3.0)).item()
        1.0
    """
    flow, target = _check("flow.outlier_rate", flow, target, valid, reduction)
    if not (pixels >= 0 and share >= 0):
        raise ValueError(f"flow.outlier_rate: pixels and share must be >= 0; got {pixels} and {share}")
    error = _distance(flow, target)
    right = (error <= pixels) | (error <= share * torch.linalg.vector_norm(target, dim=-3))
    return _mean((~right).to(error.dtype), valid, reduction)


def angular_error(flow: Tensor, target: Tensor, valid: Tensor | None = None, reduction: Reduction = "pooled") -> Tensor:
    """Mean angular error (AAE), in degrees: the angle between `(u, v, 1)` and `(u', v', 1)`.

    The third component, one frame of time, keeps the angle defined for small motions.

    Args:
        flow: the estimate, floating point `(..., 2, H, W)`, pixels.
        target: the truth, of the same shape.
        valid: bool `(..., H, W)`, the pixels to use; None uses all.
        reduction: `"pooled"` or `"per_image"`, as for `endpoint_error`.

    Returns:
        A scalar, or `(...)` for `"per_image"`, 0..180 degrees; float64 for float64 input, else float32.
        NaN where no pixel is valid.

    Raises:
        TypeError: an argument is not a tensor.
        ValueError: wrong dtype, wrong or differing shapes, unknown reduction.

    Source: Barron, Fleet and Beauchemin, "Performance of Optical Flow Techniques", IJCV 1994.

    Example:
        >>> from pyaction import flow
        >>> right = torch.tensor([1.0, 0.0]).view(2, 1, 1)
        >>> round(flow.angular_error(right, torch.zeros(2, 1, 1)).item(), 3)
        45.0
    """
    flow, target = _check("flow.angular_error", flow, target, valid, reduction)
    u, v = flow.unbind(dim=-3)
    true_u, true_v = target.unbind(dim=-3)
    # atan2(|a × b|, a · b): the textbook's arccos loses all angles below 0.02 degrees in float32.
    cross = torch.stack([v - true_v, true_u - u, u * true_v - v * true_u])
    angle = torch.atan2(torch.linalg.vector_norm(cross, dim=0), 1 + u * true_u + v * true_v)
    return _mean(torch.rad2deg(angle), valid, reduction)


def _check(caller: str, flow: Tensor, target: Tensor, valid: Tensor | None, reduction: str) -> tuple[Tensor, Tensor]:
    """Refuse what the measures cannot compare; return both flows in one dtype, at least float32."""
    check_flow(caller, "flow", flow)
    check_flow(caller, "target", target)
    if flow.shape != target.shape:
        raise ValueError(
            f"{caller}: flow and target must have one shape; got {list(flow.shape)} and {list(target.shape)}"
        )
    check_valid(caller, valid, flow)
    if reduction not in ("pooled", "per_image"):
        raise ValueError(f"{caller}: reduction must be 'pooled' or 'per_image'; got {reduction!r}")
    dtype = torch.promote_types(torch.promote_types(flow.dtype, target.dtype), torch.float32)
    return flow.to(dtype), target.to(dtype)


def _distance(flow: Tensor, target: Tensor) -> Tensor:
    return torch.linalg.vector_norm(flow - target, dim=-3)


def _mean(errors: Tensor, valid: Tensor | None, reduction: str) -> Tensor:
    """Mean of errors `(..., H, W)` over the valid pixels; NaN where there is none."""
    if valid is None:
        valid = torch.ones_like(errors, dtype=torch.bool)
    dims = (-2, -1) if reduction == "per_image" else tuple(range(errors.dim()))
    return errors.masked_fill(~valid, 0).sum(dims) / valid.sum(dims)
