"""Where a network looks: class activation maps, as paper 001 shows them in section 4.4, and Grad-CAM.

Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016, equation 2; Selvaraju et al.,
"Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV 2017, equations 1 and 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyaction.models.backbone import Backbone
from pyaction.models.bn_inception import BNInception
from pyaction.models.cooperative_cross_stream import CooperativeCrossStream, Stream
from pyaction.models.cross_enhancement import CrossEnhancedTwoStream, CrossEnhancement
from pyaction.models.hidden_two_stream import BranchedTemporalStream, StackedTemporalStream
from pyaction.models.i3d import I3D
from pyaction.models.resnet import ResNet
from pyaction.models.trn import TRN
from pyaction.models.tsn import TSN

_Stream = Backbone | TSN | TRN | I3D  # alone, or as a part of a larger network
_TwoStream = CooperativeCrossStream | CrossEnhancement | CrossEnhancedTwoStream
_Network = _Stream | StackedTemporalStream | BranchedTemporalStream | _TwoStream
_Scores = Tensor | tuple[Tensor, ...]


class ClassActivation(NamedTuple):
    """Maps, and the classes that they are of.

    Attributes:
        maps: `(N, H, W)` of a backbone or a branched temporal stream, `(N, S, H, W)` of the segments of TSN and TRN,
            `(N, T, H, W)` of I3D: as the inputs. Of a stacked temporal stream: as its flow, which its temporal network
            sees.
        classes: `(N,)`, int64.
    """

    maps: Tensor
    classes: Tensor


class _Halves(NamedTuple):
    """A network, cut at the feature map that is looked at.

    Attributes:
        feature_map: `(N, K, h, w)`, `(N, K, t, h, w)`, or of segments `(N, S, K, h, w)`.
        scores_of: The layers behind it.
        weights: `(classes, K)`, or `(classes, S, K)`, where scores are linear in the mean of the map; else None.
        size: Of the maps: H and W; T, H and W of I3D.
        name: Of the network that has the feature map.
    """

    feature_map: Tensor
    scores_of: Callable[[Tensor], _Scores]
    weights: Tensor | None
    size: list[int]
    name: str

    @property
    def segmented(self) -> bool:
        """Whether the feature map is of segments."""
        return self.feature_map.ndim == 5 and len(self.size) == 2


def class_activation_map(
    network: _Network, *inputs: Tensor, classes: int | Tensor | None = None, stream: Stream = "spatial"
) -> ClassActivation:
    r"""How much each place speaks for a class: the feature map, weighted as the linear classifier weighs its channels.

    .. math:: M_c(x, y) = \sum_k w^c_k f_k(x, y)

    enlarged to the input, linearly. For networks whose scores are linear in the mean of the feature map: `BNInception`,
    `TSN` over it or over `ResNet` (each segment's own scores), `I3D`, `BranchedTemporalStream` with a mean and one
    fully connected layer as the classifier, and what consists of these; `grad_cam` is for all.

    Args:
        network: In evaluation mode.
        *inputs: What its `forward` takes: images, clips, or frames and flow.
        classes: One class for all, or `(N,)`, int64, one for each; None: each one's top class.
        stream: Whose maps, of `CooperativeCrossStream` and `CrossEnhancedTwoStream`. Those of `CrossEnhancement` are
            its student's.

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
    caller = "class_activation_map"
    _check(caller, network, inputs, stream)
    with torch.no_grad():
        halves = _halves(caller, network, inputs, stream)
        if halves.weights is None:
            raise ValueError(
                f"{caller}: network must classify the mean of its feature map linearly, which {halves.name} does not; "
                "take grad_cam"
            )
        classes = _chosen(caller, cast(Tensor, halves.scores_of(halves.feature_map)), classes)
        # Of each one's class: (N, K) or, of segments side by side, (N, S, K)
        return ClassActivation(_enlarged(_map(halves, halves.weights[classes]), halves.size), classes)


# Gradients are computed even where the caller wants none.
@torch.inference_mode(False)
def grad_cam(
    network: _Network,
    *inputs: Tensor,
    classes: int | Tensor | None = None,
    stream: Stream = "spatial",
    head: int | None = None,
) -> ClassActivation:
    r"""Where the last convolutional block sees what raises the score of a class.

    .. math:: L_c(x, y) = [\sum_k α^c_k f_k(x, y)]_+, \quad α^c_k = \text{mean}_{x, y} ∂s_c / ∂f_k(x, y)

    enlarged to the input, linearly; means are over each image, segment or clip. Where `class_activation_map` is
    defined, this is before enlarging its positive part times a constant, but with TSN's consensus "max" and
    "multiplication", for which segments count differently. Of a `StackedTemporalStream` the block is that of its
    temporal network, and of a `BranchedTemporalStream` the end of the contracting part.

    Args:
        network: In evaluation mode. Its parameters' gradients stay as they are.
        *inputs: As for `class_activation_map`.
        classes: As for `class_activation_map`.
        stream: As for `class_activation_map`.
        head: Of a network with several classifiers, such as `CNNM2048(classes=(101, 51))`: whose classes, from 0.

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
    caller = "grad_cam"
    _check(caller, network, inputs, stream)
    if any(parameter.is_inference() for parameter in network.parameters()):
        raise ValueError(f"{caller}: network must be made outside of torch.inference_mode")
    with torch.no_grad():
        halves = _halves(caller, network, inputs, stream)
    with torch.enable_grad():
        feature_map = halves.feature_map.requires_grad_()
        scores = _of_head(caller, halves.scores_of(feature_map), head)
        classes = _chosen(caller, scores, classes)
        # Clips do not see each other, so that the sum gives each its own gradient.
        (slope,) = torch.autograd.grad(scores.gather(1, classes[:, None]).sum(), feature_map)
    with torch.no_grad():
        weights = slope.flatten(3 if halves.segmented else 2).mean(-1)  # (N, S, K) or (N, K)
        return ClassActivation(_enlarged(_map(halves, weights).relu(), halves.size), classes)


def _check(caller: str, network: _Network, inputs: tuple[Tensor, ...], stream: str) -> None:
    if not isinstance(network, _Network):
        raise TypeError(f"{caller}: network must be a {_names(_Network)}; got {type(network).__name__}")
    if isinstance(network, StackedTemporalStream) and not isinstance(network.temporal, _Stream):
        raise TypeError(
            f"{caller}: temporal of the network must be a {_names(_Stream)}; got {type(network.temporal).__name__}"
        )
    if network.training:
        raise ValueError(f"{caller}: network must be in evaluation mode; call its eval()")
    if stream not in get_args(Stream):
        raise ValueError(f"{caller}: stream must be one of {get_args(Stream)}; got {stream!r}")
    count = 2 if isinstance(network, _TwoStream) else 1
    if len(inputs) != count:
        raise ValueError(f"{caller}: inputs of {type(network).__name__} must be {count}; got {len(inputs)}")


def _names(kinds: object) -> str:
    *names, last = (kind.__name__ for kind in get_args(kinds))
    return f"{', '.join(names)} or {last}"


def _halves(caller: str, network: _Network, inputs: tuple[Tensor, ...], stream: Stream) -> _Halves:
    which = get_args(Stream).index(stream)
    if isinstance(network, CooperativeCrossStream):
        return _halves_of_cooperating(network, inputs, which)
    if isinstance(network, CrossEnhancedTwoStream):
        return _halves_of_enhanced(caller, network, inputs, which)
    if isinstance(network, CrossEnhancement):
        return _halves_of_stream(caller, network.student, inputs[0])
    (clips,) = inputs
    if isinstance(network, StackedTemporalStream):
        return _halves_of_stream(caller, cast(_Stream, network.temporal), _seen_by_temporal(network, clips))
    if isinstance(network, BranchedTemporalStream):
        features = network.motionnet.flows_and_features(clips)[1]
        weights = _weights_of_branch(network.classifier)
        return _Halves(features, network.classifier, weights, [*clips.shape[-2:]], type(network).__name__)
    return _halves_of_stream(caller, network, clips)


def _halves_of_stream(caller: str, network: _Stream, clips: Tensor) -> _Halves:
    if isinstance(network, Backbone) and network.classes is None:
        raise ValueError(f"{caller}: network must have a classifier; got {type(network).__name__} with classes=None")

    def scores_of(feature_map: Tensor) -> _Scores:
        if isinstance(network, Backbone):
            return network.classify(network.to_vector(feature_map))
        return network.classify(network.to_vectors(feature_map))

    return _Halves(
        network.feature_map(clips), scores_of, _class_weights(network), _size(network, clips), _name(network)
    )


def _halves_of_cooperating(network: CooperativeCrossStream, inputs: tuple[Tensor, ...], which: int) -> _Halves:
    """Behind the connection."""
    stream = (network.spatial, network.temporal)[which]
    weights = _class_weights(stream)
    if weights is not None and network.shared is not None:
        weights = weights @ network.shared.projection.weight
    return _Halves(
        network.feature_maps(*inputs)[which],
        lambda x: network.classify(get_args(Stream)[which], x)[0],
        weights,
        _size(stream, inputs[which]),
        _name(stream),
    )


def _halves_of_enhanced(
    caller: str, network: CrossEnhancedTwoStream, inputs: tuple[Tensor, ...], which: int
) -> _Halves:
    """Beside the other stream, whose logits do not depend on the map."""
    streams = network.spatial, network.temporal
    halves = _halves_of_stream(caller, streams[which], inputs[which])
    other = streams[1 - which](inputs[1 - which])
    if len(other) != len(inputs[which]):
        raise ValueError(f"{caller}: frames and flow must be equally many; got {len(inputs[0])} and {len(inputs[1])}")

    def scores_of(feature_map: Tensor) -> Tensor:
        logits = [other, other]
        logits[which] = cast(Tensor, halves.scores_of(feature_map))
        return network.fc(torch.cat(logits, dim=1))

    weights = network.fc.weight.chunk(2, dim=1)[which] @ cast(Tensor, halves.weights)
    return halves._replace(scores_of=scores_of, weights=weights)


def _seen_by_temporal(network: StackedTemporalStream, clip: Tensor) -> Tensor:
    """The flow, as the temporal network is given it."""
    seen: list[Tensor] = []
    with network.temporal.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])):
        network(clip)
    return seen[0]


def _class_weights(network: _Stream) -> Tensor | None:
    """What a class weighs the channels of the feature map by: `(classes, K)`, or `(classes, S, K)`; None: nothing."""
    if isinstance(network, I3D):
        return network.logits.conv3d.weight.flatten(1)
    if isinstance(network, BNInception):
        return network.fc.weight
    if isinstance(network, TSN) and isinstance(network.backbone, BNInception | ResNet):
        side_by_side = network.consensus == "concatenation"
        return network.fc.weight.unflatten(1, (-1, network.backbone.vector_size)) if side_by_side else network.fc.weight
    return None


def _weights_of_branch(classifier: nn.Module) -> Tensor | None:
    """The same, of a mean over the places and one fully connected layer."""
    layers = list(classifier) if isinstance(classifier, nn.Sequential) else []
    match [layer for layer in layers if not isinstance(layer, nn.Dropout)]:
        case [nn.AdaptiveAvgPool2d(output_size=1 | (1, 1)), nn.Flatten(), nn.Linear(weight=weights)]:
            return weights
    return None


def _size(network: nn.Module, clips: Tensor) -> list[int]:
    """Of the maps, but for images and segments, of which each has its own."""
    height, width = clips.shape[-2:]
    return [clips.shape[1], height, width] if isinstance(network, I3D) else [height, width]


def _name(network: _Stream) -> str:
    return type(network.backbone if isinstance(network, TSN) else network).__name__


def _of_head(caller: str, scores: _Scores, head: int | None) -> Tensor:
    if isinstance(scores, Tensor):
        if head is not None:
            raise ValueError(f"{caller}: head must be None, for the network has one classifier; got {head}")
        return scores
    if head is None or not 0 <= head < len(scores):
        raise ValueError(f"{caller}: head must be from 0 to {len(scores) - 1}, one of the classifiers; got {head}")
    return scores[head]


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
    return classes.to(scores.device).clone()  # which a gradient may be recorded with, whatever mode they are from


def _map(halves: _Halves, weights: Tensor) -> Tensor:
    """The weighted sum over the channels of the feature map, by `(N, K)`, or of segments by `(N, S, K)` too."""
    if not halves.segmented:
        return torch.einsum("nk...,nk->n...", halves.feature_map, weights)
    if weights.ndim == 2:  # the same for all segments
        return torch.einsum("nskhw,nk->nshw", halves.feature_map, weights)
    return torch.einsum("nskhw,nsk->nshw", halves.feature_map, weights)


def _enlarged(maps: Tensor, size: list[int]) -> Tensor:
    """`(N, h, w)` -> `(N, H, W)`; `(N, S, h, w)` -> `(N, S, H, W)`; `(N, t, h, w)` -> `(N, T, H, W)`."""
    if len(size) == 3:
        return F.interpolate(maps[:, None], size, mode="trilinear")[:, 0]
    if maps.ndim == 4:
        return F.interpolate(maps, size, mode="bilinear")
    return F.interpolate(maps[:, None], size, mode="bilinear")[:, 0]
