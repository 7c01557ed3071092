"""The first convolution of a network that was trained on RGB, for inputs of other channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pyaction.models.backbone import Backbone
from pyaction.models.segments import SegmentNetwork

if TYPE_CHECKING:
    from pyaction.models.i3d import I3D  # which itself may start from an average


def average_over_channels(weight: Tensor, in_channels: int) -> Tensor:
    """Cross-modality initialisation: every channel gets the mean of the kernel over its input channels.

    The values are not rescaled for the number of channels.

    Args:
        weight: `(O, I, ...)`: the kernel of a 2-D or 3-D convolution, over RGB say.
        in_channels: C of the new input: 2L for L fields of flow.

    Returns:
        `(O, in_channels, ...)`, in memory of its own.

    Raises:
        ValueError: in_channels is not positive.

    Source: Wang et al., "Temporal Segment Networks", ECCV 2016, section 3.2.

    Example:
        >>> average_over_channels(torch.tensor([3.0, 6, 0]).view(1, 3, 1, 1), 2).flatten()
        tensor([3., 3.])
    """
    if in_channels < 1:
        raise ValueError(f"models.average_over_channels: in_channels must be at least 1; got {in_channels}")
    mean = weight.mean(dim=1, keepdim=True)
    return mean.repeat(1, in_channels, *[1] * (weight.ndim - 2))


def first_convolution(network: nn.Module) -> nn.Conv2d | nn.Conv3d:
    """The convolution that a network defines first, which in pyaction's networks sees the input.

    Raises:
        ValueError: the network has none.
    """
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            return module
    raise ValueError(f"models.first_convolution: {type(network).__name__} has no 2-D or 3-D convolution")


@torch.no_grad()
def adapt_first_convolution(
    network: Backbone | SegmentNetwork | I3D, in_channels: int, *, pretrained: bool = True
) -> None:
    """Turns a network for RGB into one for `in_channels` channels, in place.

    The bias stays. Load the weights of RGB before, and make the optimizer after: the kernel is a new parameter.

    Args:
        network: Any of the networks over images, `TSN` or `TRN` over one of them, or `I3D`.
        in_channels: C of the images, segments or clips from now on.
        pretrained: Its kernel is worth keeping: see `average_over_channels`. Else the kernel is drawn anew, as
            torchvision does it (He et al., 2015, by fan-out), for an average would be the same in all channels.

    Raises:
        TypeError: network is none of these.
        ValueError: in_channels is not positive.

    Example:
        >>> from pyaction import models
        >>> network = models.BNInception(classes=5)  # then load weights of ImageNet, say
        >>> adapt_first_convolution(network, 10)
        >>> network(torch.rand(2, 10, 64, 64)).shape
        torch.Size([2, 5])
    """
    owner = network.backbone if isinstance(network, SegmentNetwork) else network
    if not hasattr(owner, "in_channels"):
        raise TypeError(
            f"models.adapt_first_convolution: network must be a Backbone, TSN, TRN or I3D; got {type(network).__name__}"
        )
    convolution = first_convolution(owner)
    weight = average_over_channels(convolution.weight, in_channels)
    if not pretrained:
        nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")
    convolution.weight = nn.Parameter(weight, requires_grad=convolution.weight.requires_grad)
    convolution.in_channels = owner.in_channels = in_channels
