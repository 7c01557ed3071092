"""How others name and lay out the weights of pyaction's networks."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from pyaction.models.inflation import i3d_name, inflate_kernel

_Entries = list[tuple[str, Tensor]]


class CheckpointFormat(NamedTuple):
    """A scheme of names.

    Attributes:
        signature: Matches a key that no format after this one has; keys are without what wrappers put before them.
        translate: From an entry of the file to those of the model's state dict, one or several; or why there is none.
            What the format does not know keeps its name, which the model then does not have.
        note: From the translated entries: what to know of such a file, if anything.
    """

    signature: re.Pattern[str]
    translate: Callable[[str, Tensor], _Entries | str]
    note: Callable[[Mapping[str, Tensor]], str | None] = lambda entries: None


def _unchanged(key: str, tensor: Tensor) -> _Entries:
    return [(key, tensor)]


# TensorFlow numbers the branches, and the convolutions in each; one is misnamed there, in Mixed_5b: 0a for 0b.
_TENSORFLOW_BRANCHES = {
    "Branch_0/Conv3d_0a_1x1": "b0",
    "Branch_1/Conv3d_0a_1x1": "b1a",
    "Branch_1/Conv3d_0b_3x3": "b1b",
    "Branch_2/Conv3d_0a_1x1": "b2a",
    "Branch_2/Conv3d_0b_3x3": "b2b",
    "Branch_2/Conv3d_0a_3x3": "b2b",
    "Branch_3/Conv3d_0b_1x1": "b3b",
}
_TENSORFLOW_ENTRIES = {
    "conv_3d/w": "conv3d.weight",
    "conv_3d/b": "conv3d.bias",
    "batch_norm/beta": "bn.bias",
    "batch_norm/moving_mean": "bn.running_mean",
    "batch_norm/moving_variance": "bn.running_var",
}
_TENSORFLOW_KEY = re.compile(
    rf"(?:(?:RGB|Flow)/inception_i3d/)?(\w+?)(?:/(\w+/\w+|Conv3d_0c_1x1))?/({'|'.join(_TENSORFLOW_ENTRIES)})(?::0)?"
)


def _tensorflow_i3d(key: str, tensor: Tensor) -> _Entries:
    match = _TENSORFLOW_KEY.fullmatch(key)
    if match is None:  # the optimizer's, say
        return [(key, tensor)]
    endpoint, branch, entry = match.groups()
    unit = "logits" if endpoint == "Logits" else endpoint
    if branch in _TENSORFLOW_BRANCHES:
        unit = f"{endpoint}.{_TENSORFLOW_BRANCHES[branch]}"
    name = f"{unit}.{_TENSORFLOW_ENTRIES[entry]}"
    if entry == "conv_3d/w":
        if tensor.ndim != 5:
            raise ValueError(f"models.load_weights: {key} must be [T, H, W, I, O]; got shape {list(tensor.shape)}")
        return [(name, tensor.permute(4, 3, 0, 1, 2))]
    tensor = tensor.flatten()  # of normalisation: (1, 1, 1, 1, C)
    if entry == "batch_norm/beta":  # there is no gamma
        return [(name, tensor), (f"{unit}.bn.weight", torch.ones_like(tensor))]
    return [(name, tensor)]


_HASSONY_UNITS = {
    "branch_0": "b0",
    "branch_1.0": "b1a",
    "branch_1.1": "b1b",
    "branch_2.0": "b2a",
    "branch_2.1": "b2b",
    "branch_3.1": "b3b",
}


def _hassony_i3d(key: str, tensor: Tensor) -> _Entries:
    name = key.replace(".batch3d.", ".bn.").replace("conv3d_0c_1x1.", "logits.")
    name = re.sub(r"^(conv3d|mixed)_", lambda match: f"{match[1].capitalize()}_", name)
    name = re.sub(r"(?<=\.)branch_\d(\.\d)?(?=\.)", lambda match: _HASSONY_UNITS.get(match[0], match[0]), name)
    return [(name, tensor)]


def _bn_inception(key: str, tensor: Tensor) -> _Entries:
    layer, _, entry = key.rpartition(".")
    if layer.endswith("_bn") and tensor.ndim == 2:  # files of 2017: (1, C)
        tensor = tensor.squeeze(0)
    return [(f"fc.{entry}" if layer == "last_linear" else key, tensor)]


def _segment_network(key: str, tensor: Tensor, last: str) -> _Entries:
    """What tsn-pytorch and TRN-pytorch share; `last` is the layer behind the backbone.

    Trained without dropout, that layer is the backbone's own `fc`, or VGG's `classifier.6`.
    """
    if key.startswith("base_model."):
        ((name, tensor),) = _bn_inception(key.removeprefix("base_model."), tensor)
        classifier = re.fullmatch(r"(?:fc|classifier\.6)\.(\w+)", name)
        return [(f"{last}.{classifier[1]}" if classifier else f"backbone.{name}", tensor)]
    return [(re.sub(r"^new_fc\.", f"{last}.", key), tensor)]


def _note_mean(entries: Mapping[str, Tensor]) -> str | None:
    """Of BN-Inception over RGB; another number of channels is flow, whose mean has no such slip."""
    kernel = entries.get("backbone.conv1_7x7_s2.weight")
    if kernel is None or kernel.shape[1:2] != (3,):
        return None
    return "Trained with the mean 104, 117, 128 (blue, green, red): normalize by transforms.TSN_PYTORCH_RGB"


def _tsn(key: str, tensor: Tensor) -> _Entries:
    return _segment_network(key, tensor, "fc")


def _trn(key: str, tensor: Tensor) -> _Entries:
    key = re.sub(r"^consensus\.fc_fusion_scales\.", "relations.", key)
    key = re.sub(r"^consensus\.classifier\.", "relations.0.", key)  # a single scale
    return _segment_network(key, tensor, "reduction")


_MOTIONNET_LAYERS = (
    (r"conv_pr6", r"flow6"),
    (r"conv_pr([2-5])", r"expand\1.flow"),
    (r"deconv([2-5])", r"expand\1.deconv"),
    (r"smooth_conv([2-5])", r"expand\1.xconv"),
    (r"upsample_flow[3-6]to([2-5])", r"expand\1.upflow"),
)


def _caffe_motionnet(key: str, tensor: Tensor) -> _Entries | str:
    layer, _, entry = key.rpartition(".")
    if entry == "bias" and layer.startswith(("deconv", "upsample_flow")):
        if tensor.any():
            raise ValueError(f"models.load_weights: {key} must be zero, for MotionNet's deconvolutions have no bias")
        return "zero, for which MotionNet needs no bias"
    for pattern, replacement in _MOTIONNET_LAYERS:
        if match := re.fullmatch(pattern, layer):
            return [(f"{match.expand(replacement)}.{entry}", tensor)]
    return [(key, tensor)]


def _torchvision(key: str, tensor: Tensor) -> _Entries | str:
    if key.startswith(("aux1.", "aux2.")):
        return "auxiliary classifier, for training alone"
    if key in ("fc.weight", "fc.bias"):  # GoogLeNet's in I3D; no network of pyaction has the others'
        kernel = tensor[..., None, None, None] if tensor.ndim == 2 else tensor
        return [(f"logits.conv3d.{key.removeprefix('fc.')}", kernel)]
    name = i3d_name(key)
    if name is None:
        return [(key, tensor)]
    # All kernels of I3D are cubes.
    return [(name, inflate_kernel(tensor, tensor.shape[3]) if tensor.ndim == 4 else tensor)]


# In the order in which they are recognised.
FORMATS = {
    "tensorflow-i3d": CheckpointFormat(re.compile(r"(.+/)?Conv3d_1a_7x7/conv_3d/w(:0)?"), _tensorflow_i3d),
    "hassony2-i3d": CheckpointFormat(re.compile(r"conv3d_1a_7x7\.conv3d\.weight"), _hassony_i3d),
    "piergiaj-i3d": CheckpointFormat(re.compile(r"Conv3d_1a_7x7\.conv3d\.weight"), _unchanged),
    "trn-pytorch": CheckpointFormat(re.compile(r"consensus\.(fc_fusion_scales|classifier)\..+"), _trn, _note_mean),
    "tsn-pytorch": CheckpointFormat(re.compile(r"base_model\..+"), _tsn, _note_mean),
    "bn-inception": CheckpointFormat(re.compile(r"conv1_7x7_s2\.weight"), _bn_inception),
    "caffe-motionnet": CheckpointFormat(re.compile(r"smooth_conv2\.weight"), _caffe_motionnet),
    "torchvision": CheckpointFormat(re.compile(r"(layer1\.0\.conv1|features\.0|conv1\.conv)\.weight"), _torchvision),
    # Any of the model's own names, see `load_weights`.
    "pyaction": CheckpointFormat(re.compile(r"(?!)"), _unchanged),
}
