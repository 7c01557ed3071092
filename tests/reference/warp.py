"""Bilinear warping with torch's own grid_sample."""

import torch
import torch.nn.functional as F
from torch import Tensor


def warp(image: Tensor, flow: Tensor, padding: str) -> Tensor:
    """As pyaction.ops.warp, by grid_sample with corners aligned: -1 and 1 are the centres of the edge pixels."""
    # One more row and column, of what the padding would show there, so that an axis of one pixel has a length.
    image = F.pad(image, (0, 1, 0, 1), mode="replicate" if padding == "border" else "constant")
    h, w = flow.shape[-2:]
    y = torch.arange(h, dtype=flow.dtype, device=flow.device).view(h, 1) + flow[:, 1]
    x = torch.arange(w, dtype=flow.dtype, device=flow.device).view(1, w) + flow[:, 0]
    grid = torch.stack([2 * x / w - 1, 2 * y / h - 1], dim=-1)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode=padding, align_corners=True)
