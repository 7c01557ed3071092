"""What the ops share in registering their gradients."""

from collections.abc import Callable

import torch


def register_blocker(op: str, reason: str) -> None:
    """Makes a gradient through `op` an error that gives the reason.

    Without a formula, torch would return no gradient and only warn.
    """

    def blocked(ctx: object, *grads: object) -> None:
        raise RuntimeError(f"pyaction.{op} {reason}")

    torch.library.register_autograd(f"pyaction::{op}", blocked)


def register_fake(op: str) -> Callable[[Callable], Callable]:
    """Decorates the function that gives the shapes of the results of `op` for torch.compile."""
    return torch.library.register_fake(f"pyaction::{op}")
