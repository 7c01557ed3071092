"""Training objectives: plain functions, and thin modules over them."""

from pyaction.losses.unsupervised_flow import (
    UNSUPERVISED_FLOW_PRESETS,
    UnsupervisedFlowLoss,
    UnsupervisedFlowTerms,
    UnsupervisedFlowWeights,
    photometric_images,
    unsupervised_flow_loss,
)

__all__ = [
    "UNSUPERVISED_FLOW_PRESETS",
    "UnsupervisedFlowLoss",
    "UnsupervisedFlowTerms",
    "UnsupervisedFlowWeights",
    "photometric_images",
    "unsupervised_flow_loss",
]
