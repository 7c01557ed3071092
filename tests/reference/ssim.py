"""Structural similarity in plain PyTorch: every window cut out, its moments about its own means."""

import torch
import torch.nn.functional as F
from torch import Tensor

SIGMA = 1.5


def ssim(image0: Tensor, image1: Tensor, *, window: int, stride: int, weighting: str, c1: float, c2: float) -> Tensor:
    """As pyaction.ops.ssim; torch's autograd gives the gradients."""
    distance = torch.arange(window, dtype=torch.float64) - (window - 1) / 2
    weights = torch.exp(-(distance**2) / (2 * SIGMA**2)) if weighting == "gaussian" else torch.ones_like(distance)
    weights = (weights[:, None] * weights).flatten()
    weights = (weights / weights.sum()).to(image0).view(1, 1, -1, 1)

    n, c, height, width = image0.shape
    h, w = (height - window) // stride + 1, (width - window) // stride + 1
    # (N, C * window * window, h * w) -> (N, C, window * window, h * w)
    windows0, windows1 = (
        F.unfold(image, window, stride=stride).view(n, c, window * window, h * w) for image in (image0, image1)
    )
    mean0, mean1 = ((weights * windows).sum(dim=2, keepdim=True) for windows in (windows0, windows1))
    off0, off1 = windows0 - mean0, windows1 - mean1
    variance0, variance1, covariance = ((weights * p).sum(dim=2) for p in (off0 * off0, off1 * off1, off0 * off1))
    mean0, mean1 = mean0.squeeze(2), mean1.squeeze(2)
    luminance = (2 * mean0 * mean1 + c1) / (mean0**2 + mean1**2 + c1)
    structure = (2 * covariance + c2) / (variance0 + variance1 + c2)
    return (luminance * structure).view(n, c, h, w)


def sample(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor]:
    """Two images in [0, 1] that resemble each other."""
    image = torch.rand(shape, dtype=torch.float64)
    other = (image + 0.3 * torch.randn_like(image)).clamp(0, 1)
    return image.to(dtype).to(device), other.to(dtype).to(device)
