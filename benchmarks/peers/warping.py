"""Warping by a flow with torch's own operations."""

import torch
import torch.nn.functional as F
from torch import Tensor


def grid_sample_warp(image: Tensor, flow: Tensor) -> Tensor:
    """As pyaction.ops.warp with padding "zeros"."""
    h, w = image.shape[-2:]
    y = torch.arange(h, dtype=flow.dtype, device=flow.device).view(h, 1)
    x = torch.arange(w, dtype=flow.dtype, device=flow.device)
    grid = torch.stack([(x + flow[:, 0]) * (2 / (w - 1)) - 1, (y + flow[:, 1]) * (2 / (h - 1)) - 1], dim=-1)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
