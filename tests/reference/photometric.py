"""The photometric losses in plain PyTorch, term by term; torch's autograd gives the gradients."""

import math

import torch
from torch import Tensor

from reference.warp import warp


def photometric_loss(
    frame0: Tensor,
    frame1: Tensor,
    flow: Tensor,
    *,
    pixel_alpha: float = 0.4,
    pixel_scale: float = 255.0,
    smoothness_alpha: float = 0.3,
    smoothness_scale: float = 1.0,
    epsilon: float = 1e-3,
    border: float = 0.1,
    window: int = 8,
    c1: float = 1e-4,
    c2: float = 1e-3,
    padding: str = "zeros",
) -> tuple[Tensor, Tensor, Tensor]:
    """As pyaction.ops.photometric_loss."""
    height, width = flow.shape[-2:]
    margin = min(math.floor(border * min(height, width) + 0.5), (min(height, width) - 1) // 2)
    inside = (..., slice(margin, height - margin), slice(margin, width - margin))

    def rho(x: Tensor, scale: float, alpha: float) -> Tensor:
        return ((scale * x) ** 2 + epsilon**2) ** alpha

    warped = warp(frame1, flow, padding)
    pixel = rho(frame0 - warped, pixel_scale, pixel_alpha)[inside].mean()
    slope_x = flow.diff(dim=3, append=flow[..., -1:])
    slope_y = flow.diff(dim=2, append=flow[..., -1:, :])
    costs = rho(slope_x, smoothness_scale, smoothness_alpha) + rho(slope_y, smoothness_scale, smoothness_alpha)
    smoothness = costs.sum(dim=1)[inside].mean()
    dissimilarities = []
    for rows0, rows1 in zip(frame0.split(window, dim=2), warped.split(window, dim=2), strict=True):
        for patch0, patch1 in zip(rows0.split(window, dim=3), rows1.split(window, dim=3), strict=True):
            dissimilarities.append(1 - _similarity(patch0.flatten(2), patch1.flatten(2), c1, c2))
    return pixel, smoothness, torch.stack(dissimilarities).mean()


def _similarity(patch0: Tensor, patch1: Tensor, c1: float, c2: float) -> Tensor:
    """Of patches (N, C, pixels) -> (N, C)."""
    mean0, mean1 = patch0.mean(2), patch1.mean(2)
    off0, off1 = patch0 - mean0[..., None], patch1 - mean1[..., None]
    variances = (off0**2).mean(2) + (off1**2).mean(2)
    luminance = (2 * mean0 * mean1 + c1) / (mean0**2 + mean1**2 + c1)
    return luminance * (2 * (off0 * off1).mean(2) + c2) / (variances + c2)
