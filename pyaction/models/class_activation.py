"""Where a network looks: class activation maps, as paper 001 shows them in section 4.4, and Grad-CAM.

Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016, equation 2; Selvaraju et al.,
"Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV 2017, equations 1 and 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from pyaction.models.backbone import Backbone
from pyaction.models.bn_inception import BNInception
from pyaction.models.cooperative_cross_stream import CooperativeCrossStream, Stream
from pyaction.models.i3d import I3D
from pyaction.models.resnet import ResNet
from pyaction.models.segments import SegmentNetwork
from pyaction.models.trn import TRN
from pyaction.models.tsn import TSN

_Network = Backbone | TSN | I3D | CooperativeCrossStream


class ClassActivation(NamedTuple):
    """Maps, and the classes that they are of.

    Attributes:
        maps: `(N, H, W)` of a backbone, `(N, S, H, W)` of TSN's segments, `(N, T, H, W)` of I3D: as the inputs.
        classes: `(N,)`, int64.
    """

    maps: Tensor
    classes: Tensor


def class_activation_map(
    network: _Network, *inputs: Tensor, classes: int | Tensor | None = None, stream: Stream = "spatial"
) -> ClassActivation:
    r"""How much each place speaks for a class: the feature map, weighted as the linear classifier weighs its channels.

    .. math:: M_c(x, y) = \sum_k w^c_k f_k(x, y)

    enlarged to the input, linearly. For networks whose scores are linear in the mean of the feature map: `BNInception`,
    `TSN` over it or over `ResNet` (each segment's own scores), `I3D`, and `CooperativeCrossStream` of these; `grad_cam`
    is for all.

    Args:
        network: In evaluation mode.
        *inputs: What its `forward` takes: images, clips, or frames and flow.
        classes: One class for all, or `(N,)`, int64, one for each; None: each one's top class.
        stream: Whose maps, of a `CooperativeCrossStream`.

    Returns:
        Maps, positive where it speaks for the class and negative where against; not differentiable.

    Raises:
        TypeError: there are no such maps of the network.
        ValueError: the network is in training mode, its classifier is not linear or missing, or an argument has no
            such value.

    Example:
        >>> from pyaction import models
        >>> network = models.TSN(models.ResNet(classes=None, depth=18), classes=7).eval()
        >>> activation = class_activation_map(network, torch.rand(2, 3, 3, 64, 96), classes=4)
        >>> activation.maps.shape
        torch.Size([2, 3, 64, 96])
    """
    _check("class_activation_map", network, inputs, stream)
    with torch.no_grad():
        weights = _class_weights(network, stream)
        feature_map, scores_of = _split(network, inputs, stream)
        classes = _chosen("class_activation_map", scores_of(feature_map), classes)
        weights = weights[classes]  # (N, K) or, of segments side by side, (N, S, K)
        maps = _map(feature_map, weights, isinstance(_stream(network, stream), SegmentNetwork))
        return ClassActivation(_enlarged(maps, inputs, stream), classes)


def grad_cam(
    network: _Network, *inputs: Tensor, classes: int | Tensor | None = None, stream: Stream = "spatial"
) -> ClassActivation:
    r"""Where the last convolutional block sees what raises the score of a class.

    .. math:: L_c(x, y) = [\sum_k α^c_k f_k(x, y)]_+, \quad α^c_k = \text{mean}_{x, y} ∂s_c / ∂f_k(x, y)

    enlarged to the input, linearly; means are over each image, segment or clip. Where `class_activation_map` is
    defined, this is its positive part times a constant.

    Args:
        network: In evaluation mode. Its parameters' gradients stay as they are.
        *inputs: As for `class_activation_map`.
        classes: As for `class_activation_map`.
        stream: As for `class_activation_map`.

    Returns:
        Maps, at least 0; not differentiable.

    Raises:
        TypeError: there are no such maps of the network.
        ValueError: the network is in training mode or has no classifier, or an argument has no such value.

    Example:
        >>> from pyaction import models
        >>> network = models.ResNet(classes=7, depth=18).eval()
        >>> activation = grad_cam(network, torch.rand(2, 3, 64, 96))
        >>> activation.maps.shape, activation.classes.shape
        (torch.Size([2, 64, 96]), torch.Size([2]))
    """
    _check("grad_cam", network, inputs, stream)
    with torch.no_grad():
        feature_map, scores_of = _split(network, inputs, stream)
    with torch.enable_grad():
        scores = scores_of(feature_map.requires_grad_())
        classes = _chosen("grad_cam", scores, classes)
        # Clips do not see each other, so that the sum gives each its own gradient.
        (slope,) = torch.autograd.grad(scores.gather(1, classes[:, None]).sum(), feature_map)
    with torch.no_grad():
        segmented = isinstance(_stream(network, stream), SegmentNetwork)
        weights = slope.flatten(3 if segmented else 2).mean(-1)  # (N, S, K) or (N, K)
        return ClassActivation(_enlarged(_map(feature_map, weights, segmented).relu(), inputs, stream), classes)


def _stream(network: _Network, stream: Stream) -> Backbone | TSN | TRN | I3D:
    if not isinstance(network, CooperativeCrossStream):
        return network
    return network.spatial if stream == "spatial" else network.temporal


def _check(caller: str, network: _Network, inputs: tuple[Tensor, ...], stream: str) -> None:
    if not isinstance(network, Backbone | TSN | I3D | CooperativeCrossStream):
        raise TypeError(
            f"{caller}: network must be a Backbone, TSN, I3D or CooperativeCrossStream; got {type(network).__name__}"
        )
    if network.training:
        raise ValueError(f"{caller}: network must be in evaluation mode; call its eval()")
    if stream not in get_args(Stream):
        raise ValueError(f"{caller}: stream must be one of {get_args(Stream)}; got {stream!r}")
    count = 2 if isinstance(network, CooperativeCrossStream) else 1
    if len(inputs) != count:
        raise ValueError(f"{caller}: inputs of {type(network).__name__} must be {count}; got {len(inputs)}")
    if isinstance(network, Backbone) and not isinstance(network.classes, int):
        raise ValueError(f"{caller}: network must have one classifier; got classes={network.classes}")


def _split(network: _Network, inputs: tuple[Tensor, ...], stream: Stream) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The last convolutional block's feature map, and the layers behind it."""
    if isinstance(network, CooperativeCrossStream):
        maps = network.feature_maps(*inputs)
        return maps[get_args(Stream).index(stream)], lambda x: network.classify(stream, x)[0]
    if isinstance(network, Backbone):
        return network.feature_map(*inputs), lambda x: cast(Tensor, network.classify(network.to_vector(x)))
    return network.feature_map(*inputs), lambda x: network.classify(network.to_vectors(x))


def _chosen(caller: str, scores: Tensor, classes: int | Tensor | None) -> Tensor:
    """`(N,)`, int64."""
    if classes is None:
        return scores.argmax(1)
    number, count = scores.shape
    if isinstance(classes, int):
        classes = torch.full((number,), classes, device=scores.device)
    if classes.shape != (number,) or classes.dtype != torch.int64:
        dtype = str(classes.dtype).removeprefix("torch.")
        raise ValueError(f"{caller}: classes must be [{number}], int64; got {list(classes.shape)}, {dtype}")
    if number and not 0 <= int(classes.min()) <= int(classes.max()) < count:
        raise ValueError(f"{caller}: classes must be from 0 to {count - 1}; got {classes.tolist()}")
    return classes.to(scores.device)


def _class_weights(network: _Network, stream: Stream) -> Tensor:
    """What a class weighs the channels of the feature map by: `(classes, K)`, or `(classes, S, K)`."""
    of = _stream(network, stream)
    if isinstance(of, I3D):
        weights = of.logits.conv3d.weight.flatten(1)
    elif isinstance(of, TSN) and isinstance(of.backbone, BNInception | ResNet):
        weights = of.fc.weight
        if of.consensus == "concatenation":
            weights = weights.unflatten(1, (-1, of.backbone.vector_size))
    elif isinstance(of, BNInception):
        weights = of.fc.weight
    else:
        name = type(of.backbone if isinstance(of, TSN) else of).__name__
        raise ValueError(
            f"class_activation_map: network must classify the mean of its feature map linearly, which {name} does "
            "not; take grad_cam"
        )
    if isinstance(network, CooperativeCrossStream) and network.shared is not None:
        weights = weights @ network.shared.projection.weight
    return weights


def _map(feature_map: Tensor, weights: Tensor, segmented: bool) -> Tensor:
    """The weighted sum over the channels K: of `(N, S, K, h, w)` where segmented, else of `(N, K, ...)`."""
    if not segmented:
        return torch.einsum("nk...,nk->n...", feature_map, weights)
    if weights.ndim == 2:  # the same for all segments
        return torch.einsum("nskhw,nk->nshw", feature_map, weights)
    return torch.einsum("nskhw,nsk->nshw", feature_map, weights)


def _enlarged(maps: Tensor, inputs: tuple[Tensor, ...], stream: Stream) -> Tensor:
    """`(N, h, w)` -> `(N, H, W)`; `(N, S, h, w)` -> `(N, S, H, W)`; `(N, t, h, w)` -> `(N, T, H, W)`."""
    clips = inputs[get_args(Stream).index(stream)] if len(inputs) == 2 else inputs[0]
    height, width = clips.shape[-2:]
    if maps.ndim == 4 and maps.shape[1] != clips.shape[1]:
        return F.interpolate(maps[:, None], [clips.shape[1], height, width], mode="trilinear")[:, 0]
    if maps.ndim == 4:
        return F.interpolate(maps, [height, width], mode="bilinear")
    return F.interpolate(maps[:, None], [height, width], mode="bilinear")[:, 0]
