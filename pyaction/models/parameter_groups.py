"""Learning rates and weight decay for each kind of parameter, as two-stream networks are trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pyaction.models.backbone import Backbone
from pyaction.models.first_convolution import first_convolution
from pyaction.models.i3d import I3D
from pyaction.models.motionnet import FlowNetwork

_SETTINGS = {  # learning rate, weight decay
    "first_convolution_weight": (1, 1),
    "first_convolution_bias": (2, 0),
    "weight": (1, 1),
    "bias": (2, 0),
    "batch_normalization": (1, 0),
    "transposed_convolution_weight": (1, 0),
}


def parameter_groups(
    network: nn.Module,
    *,
    learning_rate: float,
    weight_decay: float,
    first_convolution_rate: float | Mapping[str, float] = 1.0,
    rates: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Sorts all parameters of a network into groups for an optimizer of torch.

    | group | learning rate × | weight decay |
    |---|---|---|
    | first convolution, weight | `first_convolution_rate` | yes |
    | first convolution, bias | 2 `first_convolution_rate` | no |
    | other weights | 1 | yes |
    | other biases | 2 | no |
    | batch normalization | 1 | no |
    | transposed convolution, weight (flow networks) | 1 | no |

    Frozen parameters are in their groups too: optimizers pass by what has no gradient.

    Args:
        network: Any network.
        learning_rate: The basic one.
        weight_decay: Where there is one.
        first_convolution_rate: 5 for a network over flow that starts from weights of RGB, so that its first layer
            finds its way soon. A number is for each `Backbone`, `I3D` and `FlowNetwork` in the network, or where
            there is none for the convolution that is defined first; a dict such as `{"temporal": 5}` is for the
            first convolutions of the submodules of these names alone.
        rates: By the name of a submodule: what all learning rates in it are multiplied by. Of two submodules, one
            within the other, the inner one's rate holds.

    Returns:
        Dicts of "name" (as in the table, with underscores; behind the submodule's name and a dot, if one of the dicts
        names it), "params", "lr" and "weight_decay"; groups without a parameter are left out.

    Raises:
        ValueError: The network has no submodule of that name, or it has no convolution to be the first.

    Source: Wang et al., "Temporal Segment Networks", ECCV 2016, section 4.1, in the multiples of its authors'
    release. Transposed convolutions, and the rates of a temporal stream that is trained together with MotionNet
    (`rates={"temporal": 1000}`): the release of paper 002 (Zhu et al., 2018).

    Example:
        >>> import torch
        >>> from pyaction import models
        >>> network = models.TSN(models.BNInception(classes=None, in_channels=10), classes=7)
        >>> groups = parameter_groups(network, learning_rate=0.001, weight_decay=5e-4, first_convolution_rate=5)
        >>> [(group["name"], group["lr"]) for group in groups[:2]]
        [('first_convolution_weight', 0.005), ('first_convolution_bias', 0.01)]
        >>> optimizer = torch.optim.SGD(groups, momentum=0.9)
    """
    rates = rates or {}
    for name in rates:
        _submodule(network, name)
    firsts = _first_convolutions(network, first_convolution_rate)
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    seen: set[nn.Parameter] = set()
    for path, module in network.named_modules():
        inner = max((name for name in rates if _is_within(path, name)), key=len, default="")
        rate = learning_rate * rates.get(inner, 1)
        for name, parameter in module.named_parameters(recurse=False):
            if parameter in seen:  # shared by two layers
                continue
            seen.add(parameter)
            kind = _kind(module, name, is_first=module in firsts)
            label, first_rate = firsts.get(module, (None, 1.0))
            multiple, decay = _SETTINGS[kind]
            key = (inner if label is None else label, kind)
            empty = {"params": [], "lr": first_rate * multiple * rate, "weight_decay": decay * weight_decay}
            groups.setdefault(key, {"name": ".".join(filter(None, key)), **empty})["params"].append(parameter)
    return [groups[key] for key in sorted(groups, key=lambda key: list(_SETTINGS).index(key[1]))]


def _kind(module: nn.Module, name: str, *, is_first: bool) -> str:
    """In which of `_SETTINGS` a parameter of a module is."""
    if isinstance(module, _BatchNorm):
        return "batch_normalization"
    kind = "bias" if name == "bias" else "weight"
    if is_first:
        return f"first_convolution_{kind}"
    if isinstance(module, nn.ConvTranspose2d) and kind == "weight":
        return "transposed_convolution_weight"
    return kind


def _first_convolutions(
    network: nn.Module, rate: float | Mapping[str, float]
) -> dict[nn.Module, tuple[str | None, float]]:
    """First convolutions, under which name their rate was given, and the rate."""
    if isinstance(rate, Mapping):  # inner names last, so that theirs hold
        names = sorted(rate, key=len)
        return {first_convolution(_submodule(network, name)): (name, rate[name]) for name in names}
    streams = list(_streams(network)) or [network]
    return {
        first_convolution(stream): (None, rate)
        for stream in streams
        if any(isinstance(module, (nn.Conv2d, nn.Conv3d)) for module in stream.modules())
    }


def _streams(network: nn.Module) -> Iterator[nn.Module]:
    """The networks in it that see images, clips or frames."""
    if isinstance(network, (Backbone, I3D, FlowNetwork)):
        yield network
    else:
        for child in network.children():
            yield from _streams(child)


def _submodule(network: nn.Module, name: str) -> nn.Module:
    try:
        return network.get_submodule(name)
    except AttributeError as error:
        raise ValueError(
            f"models.parameter_groups: names must be of submodules; {type(network).__name__} has no {name!r}"
        ) from error


def _is_within(path: str, name: str) -> bool:
    """Whether the module at the path is the one of that name, or in it."""
    return not name or path == name or path.startswith(f"{name}.")
