"""What training needs of a network."""

import math

from torch import nn


def assert_all_have_gradients(network: nn.Module) -> None:
    """Finite ones, not all zero, for every parameter that is not frozen; and no others."""
    for label, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, label
            assert math.isfinite(float(parameter.grad.sum())), label
            assert parameter.grad.abs().max() > 0, label
        else:
            assert parameter.grad is None, label
