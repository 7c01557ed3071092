"""Labelled clips: annotation files, folders of frames, sampling, transforms, data sets, made-up actions.

`pyaction.data.data_module` holds the Lightning `ClipDataModule`; it is apart because it imports Lightning.
"""

from pyaction.data import sampling, transforms
from pyaction.data.annotations import (
    Annotation,
    AnnotationList,
    read_hmdb51,
    read_kinetics,
    read_list,
    read_something_v1,
    read_something_v2,
    read_ucf101,
)
from pyaction.data.batches import BalancedBatchSampler
from pyaction.data.dali_loader import DALILoader
from pyaction.data.data_sets import ClipDataSet, ClipSpec, VideoDataSet
from pyaction.data.flow_cache import FlowCache
from pyaction.data.frame_folders import FrameFolders
from pyaction.data.generated import ACTIONS, ActionScene, write_actions
from pyaction.data.layouts import FrameFolder, FrameLayout, Pictures
from pyaction.data.named_sets import HMDB51, UCF101, GeneratedActions, Kinetics, SomethingSomethingV2

__all__ = [
    "ACTIONS",
    "HMDB51",
    "UCF101",
    "ActionScene",
    "Annotation",
    "AnnotationList",
    "BalancedBatchSampler",
    "ClipDataSet",
    "ClipSpec",
    "DALILoader",
    "FlowCache",
    "FrameFolder",
    "FrameFolders",
    "FrameLayout",
    "GeneratedActions",
    "Kinetics",
    "Pictures",
    "SomethingSomethingV2",
    "VideoDataSet",
    "read_hmdb51",
    "read_kinetics",
    "read_list",
    "read_something_v1",
    "read_something_v2",
    "read_ucf101",
    "sampling",
    "transforms",
    "write_actions",
]
