"""Tensors in, tensors out: the functions over the compiled kernels."""

from pyaction.ops.ssim import ssim
from pyaction.ops.warp import warp

__all__ = ["ssim", "warp"]
