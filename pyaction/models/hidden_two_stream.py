"""Temporal streams that compute their own flow: from frames to action scores, trained end to end.

Zhu, Lan, Newsam and Hauptmann, "Hidden Two-Stream Convolutional Networks for Action Recognition", ACCV 2018 (paper
002), section 3.2.
"""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from pyaction.models.motionnet import FlowNetwork


class TemporalStreamOutput(NamedTuple):
    """What a temporal stream says, and the flow that it has seen: for the losses of both.

    Attributes:
        logits: `(N, classes)`.
        flows: as `FlowNetwork.forward` returns them: for `losses.unsupervised_flow_loss`.
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
        ValueError: flow is not `(N, T, 2, h, w)`, or bound is not positive.

    Source: paper 002, section 3.2, "normalization layer"; order and constants from the authors' release.

    Example:
        >>> import torch
        >>> motion = torch.tensor([-30.0, 10.0]).view(1, 1, 2, 1, 1)  # to the left, down
        >>> normalize_flow(motion).mean(dim=(2, 3))
        tensor([[-128.0000,   63.2500]])
    """
    if flow.dim() != 5 or flow.shape[2] != 2:
        raise ValueError(f"models.normalize_flow: flow must be [N, T, 2, h, w]; got {list(flow.shape)}")
    if not bound > 0:
        raise ValueError(f"models.normalize_flow: bound must be a number of pixels > 0; got {bound}")
    levels = (flow.flatten(1, 2).clamp(-bound, bound) + bound) * (255 / (2 * bound))  # [N, 2T, h, w]
    return F.interpolate(levels, scale_factor=2, mode="bilinear") - 128


class StackedTemporalStream(nn.Module):
    """A flow network, its flow normalised, and a temporal network on top: paper 002's choice.

    Its settings (a) to (c) of section 3.2 are training matters: (a) `motionnet.requires_grad_(False)`, (b) a loss of
    the logits alone, (c) the flows' unsupervised loss added to it.

    Args:
        motionnet: from frames to flow.
        temporal: any network from `(N, 2(T - 1), H, W)`, values in [-128, 127], to `(N, classes)`; 20 channels for
            11 frames. Not one for normalised or rounded values.
        bound: the displacement in pixels that saturates.

    Example:
        >>> import torch
        >>> from pyaction.models import TinyMotionNet
        >>> classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(20, 101))
        >>> stream = StackedTemporalStream(motionnet=TinyMotionNet(), temporal=classifier)
        >>> stream(torch.rand(2, 11, 3, 32, 32)).logits.shape
        torch.Size([2, 101])
    """

    def __init__(self, *, motionnet: FlowNetwork, temporal: nn.Module, bound: float = 20.0) -> None:
        super().__init__()
        self.motionnet = motionnet
        self.temporal = temporal
        self.bound = bound

    def forward(self, clip: Tensor) -> TemporalStreamOutput:
        """Scores and flows of clips.

        Args:
            clip: `(N, T, 3, H, W)`, as `FlowNetwork.forward` takes it.
        """
        flows = self.motionnet(clip)
        # The finest flow is in pixels of half the resolution.
        return TemporalStreamOutput(self.temporal(normalize_flow(2 * flows[0], bound=self.bound)), flows)


class BranchedTemporalStream(nn.Module):
    """One contracting network for two tasks: flow, by the expanding part, and actions, by a classifier.

    Faster than stacking, and less accurate (paper 002, section 3.2). The paper gives no layers; the branch is here
    where the contracting part ends.

    Args:
        motionnet: from frames to features and flow.
        classifier: any network from `(N, motionnet.feature_channels, h, w)`, h = H / `motionnet.coarsest`, to
            `(N, classes)`.

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
