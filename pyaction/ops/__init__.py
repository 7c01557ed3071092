"""Tensors in, tensors out: the functions over the compiled kernels."""

from pyaction.ops.warp import warp

__all__ = ["warp"]
