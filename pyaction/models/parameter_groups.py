"""Learning rates and weight decay for each kind of parameter, as two-stream networks are trained."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pyaction.models.first_convolution import first_convolution


def parameter_groups(
    network: nn.Module, *, learning_rate: float, weight_decay: float, first_convolution_rate: float = 1.0
) -> list[dict[str, Any]]:
    """Sorts all parameters of a network into groups for an optimizer of torch.

    | group | learning rate × | weight decay |
    |---|---|---|
    | first convolution, weight | `first_convolution_rate` | yes |
    | first convolution, bias | 2 `first_convolution_rate` | no |
    | other weights | 1 | yes |
    | other biases | 2 | no |
    | batch normalisation | 1 | no |

    Frozen parameters are in their groups too: optimizers pass by what has no gradient.

    Args:
        network: Any network; the first convolution is the one it defines first.
        learning_rate: The basic one.
        weight_decay: Where there is one.
        first_convolution_rate: 5 for a network over flow that starts from weights of RGB, so that its first layer
            finds its way soon.

    Returns:
        Dicts of "name" (as in the table, with underscores), "params", "lr" and "weight_decay"; groups without a
        parameter are left out.

    Raises:
        ValueError: The network has no convolution.

    Source: Wang et al., "Temporal Segment Networks", ECCV 2016, section 4.1, in the multiples of its authors'
    release.

    Example:
        >>> import torch
        >>> from pyaction import models
        >>> network = models.TSN(models.BNInception(classes=None, in_channels=10), classes=7)
        >>> groups = parameter_groups(network, learning_rate=0.001, weight_decay=5e-4, first_convolution_rate=5)
        >>> [(group["name"], group["lr"]) for group in groups[:2]]
        [('first_convolution_weight', 0.005), ('first_convolution_bias', 0.01)]
        >>> optimizer = torch.optim.SGD(groups, momentum=0.9)
    """
    first = first_convolution(network)
    settings = {  # rate, decay
        "first_convolution_weight": (first_convolution_rate, 1),
        "first_convolution_bias": (2 * first_convolution_rate, 0),
        "weight": (1, 1),
        "bias": (2, 0),
        "batch_normalization": (1, 0),
    }
    groups: dict[str, dict[str, Any]] = {
        name: {"name": name, "params": [], "lr": rate * learning_rate, "weight_decay": decay * weight_decay}
        for name, (rate, decay) in settings.items()
    }
    seen: set[nn.Parameter] = set()
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter in seen:  # shared by two layers
                continue
            seen.add(parameter)
            kind = "bias" if name == "bias" else "weight"
            if isinstance(module, _BatchNorm):
                kind = "batch_normalization"
            elif module is first:
                kind = f"first_convolution_{kind}"
            groups[kind]["params"].append(parameter)
    return [group for group in groups.values() if group["params"]]
