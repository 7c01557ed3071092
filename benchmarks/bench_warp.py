"""warp beside torch's grid_sample, the making of its grid included: python benchmarks/bench_warp.py --json"""

import sys
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from op_benchmark import Case, main, with_grad
from peers.warping import grid_sample_warp
from torch import Tensor

from pyaction.ops import warp

# [N, C, H, W]. The largest for a GPU: 53 million values.
CPU_SHAPES = [(1, 3, 224, 224), (10, 3, 224, 224), (10, 64, 56, 56)]
CUDA_SHAPES = [(1, 3, 224, 224), (64, 3, 224, 224), (350, 3, 224, 224)]


def cases(device: str, quick: bool) -> Iterator[Case]:
    shapes = CUDA_SHAPES if device == "cuda" else CPU_SHAPES
    for shape in shapes[:1] if quick else shapes:
        yield from _cases_of(shape, device)


def _cases_of(shape: tuple[int, int, int, int], device: str) -> Iterator[Case]:
    n, c, h, w = shape
    image = torch.rand(shape, device=device)
    flow = smooth_flow(n, h, w, device)
    name = f"{n} × {c} × {h} × {w}"
    pixels = n * h * w
    methods = {"pyaction": warp, "torch grid_sample": grid_sample_warp}

    yield Case(
        f"{name}, forward",
        {method: (lambda f=function: [f(image, flow)]) for method, function in methods.items()},
        1e-3,
        4 * pixels * (2 + 2 * c),
    )
    leaf = flow.clone().requires_grad_()
    yield Case(
        f"{name}, forward and gradient of the flow",
        {method: with_grad(function, [image, leaf]) for method, function in methods.items()},
        1e-3,
        4 * pixels * (2 + 2 * c + 2 + 2 * c + 2),
    )
    leaves = [image.clone().requires_grad_(), leaf]
    yield Case(
        f"{name}, forward and both gradients",
        {method: with_grad(function, leaves) for method, function in methods.items()},
        1e-3,
        4 * pixels * (2 + 2 * c + 2 + 3 * c + 2),
    )
    noise = torch.randn(n, 2, h, w, device=device) * 8
    yield Case(
        f"{name}, forward, a flow of noise",
        {method: (lambda f=function: [f(image, noise)]) for method, function in methods.items()},
        1e-3,
        4 * pixels * (2 + 2 * c),
    )


def smooth_flow(n: int, h: int, w: int, device: str) -> Tensor:
    """Of some pixels, that changes over some tens of pixels.

    Kept off whole numbers: at them rounding decides from which side a slope is taken, and results cannot be compared.
    """
    coarse = torch.randn(n, 2, h // 16 + 1, w // 16 + 1, device=device) * 3
    flow = F.interpolate(coarse, size=(h, w), mode="bicubic")
    return torch.where((flow - flow.round()).abs() < 0.01, flow + 0.02, flow)


if __name__ == "__main__":
    sys.exit(main("warp", lambda device, quick: list(cases(device, quick))))
