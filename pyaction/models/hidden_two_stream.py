"""Temporal streams that compute their own flow: from frames to action scores, trained end to end.

Zhu, Lan, Newsam and Hauptmann, "Hidden Two-Stream Convolutional Networks for Action Recognition", ACCV 2018 (paper
002), section 3.2.
"""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from pyaction.models.backbone import Backbone
from pyaction.models.i3d import I3D
from pyaction.models.motionnet import FlowNetwork
from pyaction.models.tsn import TSN

_STACKED = "models.StackedTemporalStream"


class TemporalStreamOutput(NamedTuple):
    """What a temporal stream says, and the flow that it has seen: for the losses of both.

    Attributes:
        logits: `(N, classes)`.
        flows: as `FlowNetwork.forward` returns them, of the stream's `windows`. The loss of both:
            `losses.unsupervised_flow_loss(output.flows, stream.windows(clip))`.
    """

    logits: Tensor
    flows: list[Tensor]


def normalize_flow(flow: Tensor, *, bound: float = 20.0) -> Tensor:
    r"""The layer between flow network and classifier: what `flow.encode` does, without rounding, and minus 128.

    .. math:: 255 \cdot (\text{clip}(v, \pm b) + b) / 2b - 128

    enlarged twofold between the two steps. Beyond the bound the gradient is zero. (At the frame's border the
    release's fixed deconvolution mixes in zeros; here the border's own values count.)

    Args:
        flow: `(N, T, 2, h, w)`, in the pixels of frames of 2h x 2w.
        bound: b, the displacement in pixels that saturates; > 0.

    Returns:
        `(N, 2T, 2h, 2w)` in [-128, 127]: x and y of the first flow, x and y of the second, ...

    Raises:
        TypeError: flow is not a tensor.
        ValueError: flow is not `(N, T, 2, h, w)`, or bound is not positive.

    Source: paper 002, section 3.2, "normalization layer"; order and constants from the authors' release.

    Example:
        >>> import torch
        >>> motion = torch.tensor([-30.0, 10.0]).view(1, 1, 2, 1, 1)  # to the left, down
        >>> normalize_flow(motion).mean(dim=(2, 3))
        tensor([[-128.0000,   63.2500]])
    """
    if not isinstance(flow, Tensor):
        raise TypeError(f"models.normalize_flow: flow must be a torch.Tensor; got {type(flow).__name__}")
    if flow.dim() != 5 or flow.shape[2] != 2:
        raise ValueError(f"models.normalize_flow: flow must be [N, T, 2, h, w]; got {list(flow.shape)}")
    _check_bound("models.normalize_flow", bound)
    # The formula above without the sum v + b, in which half precision would lose the small motion.
    return 127.5 * _saturated(flow, bound) - 0.5


class StackedTemporalStream(nn.Module):
    """A flow network, its flow normalised, and a temporal network on top: paper 002's choice.

    The flow network sees windows of T = `motionnet.frames` frames. What clips are, and what the temporal network gets:

    * A `TSN`: clips `(N, S, T, 3, H, W)`, S snippets, a window each. It gets `normalize_flow` of each,
      `(N, S, 2(T - 1), H, W)`.
    * An `I3D`: clips `(N, M(T - 1) + 1, 3, H, W)`, cut into M windows that share their border frames. It gets
      `(N, M(T - 1), 2, H, W)` in [-1, 1]: the flow of the whole clip, clipped to the bound, / bound.
    * Any other, such as `VGG16`, is over images: clips `(N, T, 3, H, W)`, a window each. It gets `normalize_flow`,
      `(N, 2(T - 1), H, W)`. Not one for normalised or rounded values.

    The settings (a) to (c) of section 3.2 are training matters: (a) `motionnet.requires_grad_(False)`, (b) a loss of
    the logits alone, (c) the flows' unsupervised loss added to it.

    Args:
        motionnet: from frames to flow.
        temporal: from flow to `(N, classes)`; with 11 frames it has 20 input channels, an I3D always 2.
        bound: the displacement in pixels that saturates.

    Raises:
        ValueError: temporal has another number of channels, or bound is not positive.

    Source: paper 002, section 3.2 and table 4.

    Example:
        >>> import torch
        >>> from pyaction.models import TinyMotionNet
        >>> classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(20, 101))
        >>> stream = StackedTemporalStream(motionnet=TinyMotionNet(), temporal=classifier)
        >>> stream(torch.rand(2, 11, 3, 32, 32)).logits.shape
        torch.Size([2, 101])
        >>> stream = StackedTemporalStream(motionnet=TinyMotionNet(frames=5), temporal=I3D(in_channels=2))
        >>> clip = torch.rand(1, 17, 3, 32, 32)
        >>> stream(clip).logits.shape, stream.windows(clip).shape
        (torch.Size([1, 400]), torch.Size([4, 5, 3, 32, 32]))
    """

    def __init__(self, *, motionnet: FlowNetwork, temporal: nn.Module, bound: float = 20.0) -> None:
        super().__init__()
        _check_bound(_STACKED, bound)
        channels = 2 if isinstance(temporal, I3D) else 2 * (motionnet.frames - 1)
        if isinstance(temporal, Backbone | TSN | I3D) and temporal.in_channels != channels:
            raise ValueError(
                f"{_STACKED}: temporal, {type(temporal).__name__}, must have in_channels = {channels} over a flow "
                f"network of {motionnet.frames} frames; got {temporal.in_channels}"
            )
        self.motionnet = motionnet
        self.temporal = temporal
        self.bound = bound

    def forward(self, clip: Tensor) -> TemporalStreamOutput:
        """Scores of clips, and the flows of all windows.

        Args:
            clip: of a shape as above; values, H and W as `FlowNetwork.forward` takes them.

        Raises:
            TypeError: clip is not a tensor.
            ValueError: wrong dtype or shape.
        """
        flows = self.motionnet(self._cut(clip))
        flow = 2 * flows[0]  # it is in pixels of half the resolution
        if isinstance(self.temporal, I3D):
            fields = _saturated(flow, self.bound)  # [N M, 2(T - 1), H, W]
            seen = fields.reshape(clip.shape[0], clip.shape[1] - 1, 2, *fields.shape[2:])
        else:
            seen = normalize_flow(flow, bound=self.bound)
            if isinstance(self.temporal, TSN):
                seen = seen.unflatten(0, clip.shape[:2])
        return TemporalStreamOutput(self.temporal(seen), flows)

    def windows(self, clip: Tensor) -> Tensor:
        """The frames between which the flows of `forward` are, as `losses.unsupervised_flow_loss` wants them.

        Args:
            clip: as for `forward`.

        Returns:
            `(windows, T, 3, H, W)` of `FlowNetwork.normalize`; the windows of the first clip, of the second, ...
        """
        return self.motionnet.normalize(self._cut(clip))

    def _cut(self, clip: Tensor) -> Tensor:
        """Clips -> their windows, `(windows, T, 3, H, W)`."""
        if not isinstance(clip, Tensor):
            raise TypeError(f"{_STACKED}: clip must be a torch.Tensor; got {type(clip).__name__}")
        frames, shape = self.motionnet.frames, list(clip.shape)
        if isinstance(self.temporal, TSN):
            if len(shape) != 6:
                raise ValueError(f"{_STACKED}: clip must be [N, S, {frames}, 3, H, W] for a TSN; got {shape}")
            return clip.flatten(0, 1)
        if isinstance(self.temporal, I3D):
            pairs = frames - 1
            if len(shape) != 5 or shape[1] < frames or (shape[1] - 1) % pairs:
                raise ValueError(
                    f"{_STACKED}: clip must be [N, {pairs} M + 1, 3, H, W] with M >= 1 for an I3D; got {shape}"
                )
            return clip.unfold(1, frames, pairs).movedim(-1, 2).flatten(0, 1)
        return clip


class BranchedTemporalStream(nn.Module):
    """One contracting network for two tasks: flow, by the expanding part, and actions, by a classifier.

    Faster than stacking, and less accurate (paper 002, section 3.2). The paper gives no layers; the branch is here
    where the contracting part ends.

    Args:
        motionnet: from frames to features and flow.
        classifier: any network from `(N, motionnet.feature_channels, h, w)`, h = H / `motionnet.coarsest`, to
            `(N, classes)`. A head, say a pool and fully connected layers: the features that MotionNet has of 224 x
            224 pixels are 7 x 7, too few for a whole `VGG16`.

    Example:
        >>> import torch
        >>> from pyaction.models import TinyMotionNet
        >>> classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 101))
        >>> stream = BranchedTemporalStream(motionnet=TinyMotionNet(), classifier=classifier)
        >>> stream(torch.rand(2, 11, 3, 32, 32)).logits.shape
        torch.Size([2, 101])
    """

    def __init__(self, *, motionnet: FlowNetwork, classifier: nn.Module) -> None:
        super().__init__()
        self.motionnet = motionnet
        self.classifier = classifier

    def forward(self, clip: Tensor) -> TemporalStreamOutput:
        """Scores and flows of clips.

        Args:
            clip: `(N, T, 3, H, W)`, as `FlowNetwork.forward` takes it.
        """
        flows, features = self.motionnet.flows_and_features(clip)
        return TemporalStreamOutput(self.classifier(features), flows)

    def windows(self, clip: Tensor) -> Tensor:
        """As `StackedTemporalStream.windows`: here the clips, normalised.

        Args:
            clip: as for `forward`.
        """
        return self.motionnet.normalize(clip)


def _saturated(flow: Tensor, bound: float) -> Tensor:
    """`(N, T, 2, h, w)` in pixels -> `(N, 2T, 2h, 2w)` in [-1, 1], 1 = the bound and beyond."""
    return F.interpolate(flow.flatten(1, 2).clamp(-bound, bound) / bound, scale_factor=2, mode="bilinear")


def _check_bound(caller: str, bound: float) -> None:
    if not 0 < bound < float("inf"):
        raise ValueError(f"{caller}: bound must be a number of pixels > 0; got {bound}")
