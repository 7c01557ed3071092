"""photometric_loss beside the best of torch's operations in a row: python benchmarks/bench_photometric.py --json"""

import sys
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from bench_warp import smooth_flow
from op_benchmark import Case, Method, main
from peers.similarity import pooled_ssim
from peers.warping import grid_sample_warp
from torch import Tensor

from pyaction.ops import photometric_loss

LEVELS = (112, 56, 28, 14, 7)  # of MotionNet for frames of 224 × 224 pixels
PAIRS = 4 * 10  # four clips of ten flows
WEIGHTS = (1.0, 0.5, 2.0)
Level = tuple[Tensor, Tensor, Tensor]


def composed_loss(frame0: Tensor, frame1: Tensor, flow: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As photometric_loss with its defaults."""
    h, w = flow.shape[-2:]
    warped = grid_sample_warp(frame1, flow)
    margin = int(0.1 * min(h, w) + 0.5)
    rows, columns = slice(margin, h - margin), slice(margin, w - margin)
    difference = (frame0 - warped)[..., rows, columns]
    inner = flow[..., rows, columns]
    right = flow[..., rows, margin + 1 : w - margin + 1] - inner
    below = flow[..., margin + 1 : h - margin + 1, columns] - inner

    def penalty(x: Tensor, scale: float, alpha: float) -> Tensor:
        return ((x * scale).square() + 1e-6).pow(alpha)

    smoothness = (penalty(right, 1.0, 0.3) + penalty(below, 1.0, 0.3)).sum(dim=1).mean()
    return penalty(difference, 255.0, 0.4).mean(), smoothness, 1 - pooled_ssim(frame0, warped, 8).mean()


def level_of(size: int, device: str, pairs: int = PAIRS) -> Level:
    """Two frames and a flow.

    The frames are kept apart: near zero the penalty bends so sharply that its slope cannot be compared in float32.
    """
    frames = F.interpolate(torch.rand(2 * pairs, 3, 28, 28, device=device), size=size, mode="bilinear")
    flow = smooth_flow(pairs, size, size, device)
    return frames[:pairs] + 1, frames[pairs:].contiguous(), flow.requires_grad_()


def losses(function: Callable, levels: Sequence[Level]) -> Method:
    @torch.no_grad()
    def run() -> Sequence[Tensor]:
        return [torch.stack(list(function(*level))) for level in levels]

    return run


def losses_and_grads(function: Callable, levels: Sequence[Level]) -> Method:
    """As a training step takes them."""

    def run() -> Sequence[Tensor]:
        total = sum(weight * term for level in levels for weight, term in zip(WEIGHTS, function(*level), strict=True))
        assert isinstance(total, Tensor)
        return total.detach(), *torch.autograd.grad(total, [flow for *_, flow in levels])

    return run


def cases(device: str, quick: bool) -> Iterator[Case]:
    methods = {"pyaction": photometric_loss, "torch's operations": composed_loss}
    levels = [level_of(size, device) for size in LEVELS]
    pixels = PAIRS * sum(size * size for size in LEVELS)
    name = f"five levels of MotionNet, {PAIRS} pairs"
    read = 4 * pixels * (2 * 3 + 2)
    yield Case(
        f"{name}, forward", {method: losses(function, levels) for method, function in methods.items()}, 1e-3, read
    )
    yield Case(
        f"{name}, forward and gradient of the flow",
        {method: losses_and_grads(function, levels) for method, function in methods.items()},
        1e-3,
        2 * read + 4 * pixels * 2,
        compare_memory=True,
    )
    if device == "cuda" and not quick:
        large = [level_of(448, device, 256)]  # 51 million pixels
        yield Case(
            "256 × 3 × 448 × 448, forward and gradient of the flow",
            {method: losses_and_grads(function, large) for method, function in methods.items()},
            1e-3,
            4 * 256 * 448 * 448 * (2 * 8 + 2),
            compare_memory=True,
        )


if __name__ == "__main__":
    sys.exit(main("photometric", lambda device, quick: list(cases(device, quick))))
