"""SSIM as people compute it today."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor


def pooled_ssim(image0: Tensor, image1: Tensor, window: int, c1: float = 1e-4, c2: float = 1e-3) -> Tensor:
    """Map over windows side by side, by five average poolings; at the edges, windows of what there is."""

    def pool(image: Tensor) -> Tensor:
        return F.avg_pool2d(image, window, window, ceil_mode=True)

    mean0, mean1 = pool(image0), pool(image1)
    variances = pool(image0 * image0) + pool(image1 * image1) - mean0 * mean0 - mean1 * mean1
    covariance = pool(image0 * image1) - mean0 * mean1
    luminance = (2 * mean0 * mean1 + c1) / (mean0 * mean0 + mean1 * mean1 + c1)
    return luminance * (2 * covariance + c2) / (variances + c2)


def library_ssims() -> dict[str, Any]:
    """Mean of the gaussian index over 11 × 11 windows, of images in [0, 1], by each library."""
    from kornia.metrics import ssim as kornia_ssim
    from pytorch_msssim import ssim as msssim
    from torchmetrics.functional.image import structural_similarity_index_measure as torchmetrics_ssim

    def torchmetrics_mean(image0: Tensor, image1: Tensor) -> Tensor:
        # Its own mean is also over windows that reach over the edges.
        _, index_map = torchmetrics_ssim(image0, image1, data_range=1.0, sigma=1.5, return_full_image=True)
        return index_map[..., 5:-5, 5:-5].mean()

    return {
        "pytorch-msssim": lambda image0, image1: msssim(image0, image1, data_range=1.0),
        "kornia": lambda image0, image1: kornia_ssim(image0, image1, 11, 1.0, padding="valid").mean(),
        "torchmetrics": torchmetrics_mean,
    }
