"""Training objectives: plain functions, and thin modules over them."""

from pyaction.losses.cooperative_cross_stream import (
    CooperativeCrossStreamTerms,
    cooperative_cross_stream_loss,
    cross_modality_triplet_loss,
    discriminative_embedding_loss,
)
from pyaction.losses.cross_enhancement import CrossEnhancementTerms, cross_enhancement_loss
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
    "CooperativeCrossStreamTerms",
    "CrossEnhancementTerms",
    "UnsupervisedFlowLoss",
    "UnsupervisedFlowTerms",
    "UnsupervisedFlowWeights",
    "cooperative_cross_stream_loss",
    "cross_enhancement_loss",
    "cross_modality_triplet_loss",
    "discriminative_embedding_loss",
    "photometric_images",
    "unsupervised_flow_loss",
]
