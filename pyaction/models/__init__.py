"""Networks, one file per architecture.

Over images, or flow stacked into the channels of one (`Backbone`): `CNNM2048`, `VGG16`, `ResNet`, `BNInception`.
Over the segments of a video, each seen by one of those: `TSN`, `TRN`. Over clips: `I3D`. From frames to flow:
`MotionNet`, `TinyMotionNet`; with a temporal stream behind: `StackedTemporalStream`, `BranchedTemporalStream`. Two
streams that learn from each other: `CooperativeCrossStream`, `CrossEnhancement`. Over the scores of two streams:
`FuseNet`, `CrossEnhancedTwoStream`. Weights from files: `load_weights`. What a network looks at:
`class_activation_map`, `grad_cam`. For speed, once trained: `for_inference`.
"""

from pyaction.models.backbone import Backbone
from pyaction.models.bn_inception import BNInception
from pyaction.models.class_activation import ClassActivation, class_activation_map, grad_cam
from pyaction.models.cnn_m import CNNM2048
from pyaction.models.cooperative_cross_stream import (
    ConnectionBlock,
    CooperativeCrossStream,
    CrossStreamOutput,
    SharedBlock,
)
from pyaction.models.cross_enhancement import (
    BRIDGES,
    CrossEnhancedTwoStream,
    CrossEnhancement,
    CrossEnhancementOutput,
    FeaturePair,
)
from pyaction.models.first_convolution import adapt_first_convolution, average_over_channels
from pyaction.models.fusenet import FuseNet
from pyaction.models.hidden_two_stream import (
    BranchedTemporalStream,
    StackedTemporalStream,
    TemporalStreamOutput,
    normalize_flow,
)
from pyaction.models.i3d import I3D
from pyaction.models.inference import for_inference
from pyaction.models.inflation import inflate
from pyaction.models.motionnet import FlowNetwork, MotionNet, TinyMotionNet
from pyaction.models.parameter_groups import parameter_groups
from pyaction.models.resnet import ResNet
from pyaction.models.trn import TRN
from pyaction.models.tsn import TSN
from pyaction.models.vgg import VGG16
from pyaction.models.weights import LoadReport, load_weights

__all__ = [
    "BRIDGES",
    "CNNM2048",
    "I3D",
    "TRN",
    "TSN",
    "VGG16",
    "BNInception",
    "Backbone",
    "BranchedTemporalStream",
    "ClassActivation",
    "ConnectionBlock",
    "CooperativeCrossStream",
    "CrossEnhancedTwoStream",
    "CrossEnhancement",
    "CrossEnhancementOutput",
    "CrossStreamOutput",
    "FeaturePair",
    "FlowNetwork",
    "FuseNet",
    "LoadReport",
    "MotionNet",
    "ResNet",
    "SharedBlock",
    "StackedTemporalStream",
    "TemporalStreamOutput",
    "TinyMotionNet",
    "adapt_first_convolution",
    "average_over_channels",
    "class_activation_map",
    "for_inference",
    "grad_cam",
    "inflate",
    "load_weights",
    "normalize_flow",
    "parameter_groups",
]
