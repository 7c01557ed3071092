"""The fast path of inference."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

_MOST_COMPILED = 128


def for_inference(network: nn.Module) -> Callable[..., Any]:
    """Compiles a network, as it is now, into a function that computes the same faster.

    Batch normalisation is folded into the convolutions, activations are fused with them, and weights are kept in the
    order in which the convolutions read them, which for most is channels-last. That is possible because they are
    constants of the function: what is loaded into the network or trained later does not reach it.

    Each new shape of the inputs is compiled when it first comes, which takes some seconds to a minute and needs a C++
    compiler on the machine. Called under `torch.autocast("cpu", torch.bfloat16)` (or `"cuda"`) it is compiled for that:
    less exact, and faster still on processors that compute in bfloat16 (AVX-512 BF16 or AMX); on others much slower.

    Args:
        network: Any network of `pyaction.models`; it is copied, and may be in training mode.

    Returns:
        What takes the network's inputs and returns its outputs in evaluation mode, without gradients; it refuses what
        the network refuses.

    Example:
        >>> from pyaction import models
        >>> network = models.FuseNet(classes=7).eval()
        >>> fuse = for_inference(network)
        >>> scores = torch.rand(2, 7), torch.rand(2, 7)
        >>> bool(torch.allclose(fuse(*scores), network(*scores), atol=1e-6))
        True
    """
    import torch._dynamo.config as dynamo  # takes a second, which `import pyaction` should not
    import torch._inductor.config as inductor
    from torch._dynamo.exc import Unsupported

    network = copy.deepcopy(network).eval().requires_grad_(False)
    # Weights can be packed for sizes that are known alone. With fullgraph, wrong inputs leave no broken graphs behind.
    compiled = torch.compile(network, dynamic=False, fullgraph=True)

    def fast(*inputs: Any, **named: Any) -> Any:
        # Dynamo reads `freezing` itself, so that options={"freezing": True} would come too late. All networks of a
        # class, with all their shapes, share the limit, beyond which nothing is compiled.
        with torch.no_grad(), inductor.patch(freezing=True), dynamo.patch(recompile_limit=_MOST_COMPILED):
            try:
                return compiled(*inputs, **named)
            except Unsupported:
                network(*inputs, **named)  # says what is wrong with the inputs
                raise

    return fast
