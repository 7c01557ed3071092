"""Transforms of whole clips: crops, flips, colours, what networks expect, and flow stacked into channels.

A clip is `(..., C, H, W)`: `(T, C, H, W)` or `(N, T, C, H, W)`, all frames transformed alike. What moves pixels about
must know what they are, so it is told with each clip (`Content`):

* `"frames"`: RGB or grey, uint8 in 0..255 or floating point in [0, 1].
* `"flow"`: displacements in pixels of that resolution, floating point; x and y channels in turn, one pair or many.
* `"encoded_flow"`: the same channels as bytes of `pyaction.flow.encode`, uint8 or floating point in 0..255.

`random_...` draws once, from a torch.Generator; what it returns does the same to every clip it is called with:

    crop, flip = random_crop(frames.shape[-2:], generator, size=224), random_flip(generator)
    frames, flow = flip(crop(frames, "frames"), "frames"), flip(crop(flow, "flow"), "flow")

The same for the items of a data set, as a list of transforms (`TrainingCrop`, `RandomFlip`, ...): module `items`.
"""

from pyaction.data.transforms.add_flow import AddFlow
from pyaction.data.transforms.color import ColorJitter, random_color_jitter
from pyaction.data.transforms.content import Content
from pyaction.data.transforms.crops import (
    FLOW_SCALES,
    RGB_SCALES,
    Crop,
    center_crop,
    five_crop,
    multi_scale_crop,
    random_crop,
    resize,
    ten_crop,
)
from pyaction.data.transforms.flips import HorizontalFlip, random_flip
from pyaction.data.transforms.flow_stacks import (
    stack_bidirectional,
    stack_flow,
    stack_trajectories,
    subtract_mean_flow,
)
from pyaction.data.transforms.items import (
    Item,
    ItemTransform,
    Normalize,
    RandomColorJitter,
    RandomFlip,
    StackFlow,
    TestCrop,
    TrainingCrop,
)
from pyaction.data.transforms.normalization import (
    BN_INCEPTION_FLOW,
    BN_INCEPTION_RGB,
    HIDDEN_TWO_STREAM_FLOW,
    I3D_FLOW,
    I3D_RGB,
    TORCHVISION_FLOW,
    TORCHVISION_RGB,
    TSN_PYTORCH_RGB,
    Normalization,
)

__all__ = [
    "BN_INCEPTION_FLOW",
    "BN_INCEPTION_RGB",
    "FLOW_SCALES",
    "HIDDEN_TWO_STREAM_FLOW",
    "I3D_FLOW",
    "I3D_RGB",
    "RGB_SCALES",
    "TORCHVISION_FLOW",
    "TORCHVISION_RGB",
    "TSN_PYTORCH_RGB",
    "AddFlow",
    "ColorJitter",
    "Content",
    "Crop",
    "HorizontalFlip",
    "Item",
    "ItemTransform",
    "Normalization",
    "Normalize",
    "RandomColorJitter",
    "RandomFlip",
    "StackFlow",
    "TestCrop",
    "TrainingCrop",
    "center_crop",
    "five_crop",
    "multi_scale_crop",
    "random_color_jitter",
    "random_crop",
    "random_flip",
    "resize",
    "stack_bidirectional",
    "stack_flow",
    "stack_trajectories",
    "subtract_mean_flow",
    "ten_crop",
]
