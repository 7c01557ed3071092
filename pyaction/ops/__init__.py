"""Tensors in, tensors out: the functions over the compiled kernels."""

from pyaction.ops.photometric import PhotometricLoss, photometric_loss
from pyaction.ops.ssim import ssim
from pyaction.ops.triplet import mine_triplets, triplet_loss
from pyaction.ops.tvl1 import PRESETS as TVL1_PRESETS
from pyaction.ops.tvl1 import TVL1Params, TVL1Stream, tvl1_flow, tvl1_flow_clip
from pyaction.ops.warp import warp

# The names of the differentiable or public native ops, for reports; see csrc/library.cpp.
OPS = ("tvl1_flow", "tvl1_flow_clip", "warp", "ssim", "photometric_loss", "triplet_hinge", "mine_triplets")

__all__ = [
    "OPS",
    "TVL1_PRESETS",
    "PhotometricLoss",
    "TVL1Params",
    "TVL1Stream",
    "mine_triplets",
    "photometric_loss",
    "ssim",
    "triplet_loss",
    "tvl1_flow",
    "tvl1_flow_clip",
    "warp",
]
