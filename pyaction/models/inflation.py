"""Filters of two dimensions for networks of three: how weights of images start networks over clips."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

# What torchvision's GoogLeNet calls the parts of I3D; its inception4a is Mixed_4b, and so on.
_LAYERS = {"conv1": "Conv3d_1a_7x7", "conv2": "Conv3d_2b_1x1", "conv3": "Conv3d_2c_3x3"}
_BRANCHES = {
    "branch1": "b0",
    "branch2.0": "b1a",
    "branch2.1": "b1b",
    "branch3.0": "b2a",
    "branch3.1": "b2b",
    "branch4.1": "b3b",
}
_GOOGLENET = re.compile(
    rf"(?:(?P<layer>{'|'.join(_LAYERS)})|inception(?P<stage>\d)(?P<block>[a-e])\.(?P<branch>branch\d(\.\d)?))"
    r"\.(?P<part>conv|bn)\.(?P<entry>\w+)"
)


def inflate(weights: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Turns the state dict of a 2-D network into one for its 3-D twin.

    Filters are repeated over time and divided by their length, so that on a video that repeats one frame the 3-D
    network answers as the 2-D network does on that frame (away from the video's ends, beyond which it sees zeros).
    For weights of ImageNet see `I3D` and `load_weights`, which inflate torchvision's GoogLeNet.

    Args:
        weights: state dict of a 2-D network; an entry of the 3-D network has the same name and shape, but for the
            time dimension of filters `(O, I, T, H, W)`.
        network: the 3-D network, an I3D say; it is not changed.

    Returns:
        For `network.load_state_dict`.

    Raises:
        ValueError: names or shapes do not fit.

    Source: Carreira and Zisserman, CVPR 2017, section 2.4, "Bootstrapping 3D filters from 2D filters".

    Example:
        >>> network = nn.Conv3d(3, 8, (5, 3, 3))
        >>> flat = nn.Conv2d(3, 8, 3)
        >>> inflated = inflate(flat.state_dict(), network)
        >>> (inflated["weight"].sum(dim=2) - flat.weight).abs().max() < 1e-6
        tensor(True)
    """
    expected = network.state_dict()
    for names, where in ((expected.keys() - weights.keys(), "weights"), (weights.keys() - expected.keys(), "network")):
        if names:
            raise ValueError(
                f"models.inflate: names must be the same in weights and network; {min(names)} is not in {where}"
            )
    inflated = {}
    for name, target in expected.items():
        weight = weights[name]
        if target.dim() == 5 and weight.dim() == 4:
            weight = inflate_kernel(weight, target.shape[2])
        if weight.shape != target.shape:
            raise ValueError(
                f"models.inflate: {name} must fit {list(target.shape)}, with or without time; "
                f"got {list(weights[name].shape)}"
            )
        inflated[name] = weight.clone()
    return inflated


def inflate_kernel(kernel: Tensor, length: int) -> Tensor:
    """`(O, I, H, W)` -> `(O, I, length, H, W)`, whose sum over time is the kernel."""
    return kernel.unsqueeze(2).expand(-1, -1, length, -1, -1) / length


def i3d_name(name: str) -> str | None:
    """The name in I3D of an entry of torchvision's GoogLeNet; None: of none of its layers up to the pooling."""
    match = _GOOGLENET.fullmatch(name)
    if match is None:
        return None
    part = "conv3d" if match["part"] == "conv" else "bn"
    if match["layer"]:
        return f"{_LAYERS[match['layer']]}.{part}.{match['entry']}"
    block = chr(ord(match["block"]) + 1)
    return f"Mixed_{match['stage']}{block}.{_BRANCHES[match['branch']]}.{part}.{match['entry']}"
