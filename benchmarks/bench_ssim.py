"""ssim beside average poolings and the libraries: python benchmarks/bench_ssim.py --json"""

import sys
from collections.abc import Iterator

import torch
from op_benchmark import Case, main, with_grad
from peers.similarity import library_ssims, pooled_ssim
from torch import Tensor

from pyaction.ops import ssim

CPU_SHAPES = [(10, 3, 224, 224), (40, 3, 112, 112)]
# The last is that of fused-ssim's own benchmark: 2.49 ms forward and 2.68 ms gradient on an RTX 4090, it says.
CUDA_SHAPES = [(10, 3, 224, 224), (5, 5, 1080, 1920)]


def cases(device: str, quick: bool) -> Iterator[Case]:
    shapes = CUDA_SHAPES if device == "cuda" else CPU_SHAPES
    for shape in shapes[-1:] if quick else shapes:
        image0 = torch.rand(shape, device=device)
        image1 = (image0 + 0.1 * torch.randn(shape, device=device)).clamp(0, 1)
        yield from _cases_of(image0, image1)


def _cases_of(image0: Tensor, image1: Tensor) -> Iterator[Case]:
    name, elements = " × ".join(map(str, image0.shape)), image0.numel()
    leaf, other = image1.clone().requires_grad_(), image0.clone().requires_grad_()
    patches = {
        "pyaction": lambda *images: ssim(*images).mean(),
        "five avg_pool2d": lambda *images: pooled_ssim(*images, 8).mean(),
    }
    gaussian = {"pyaction": lambda *images: ssim(*images, window=11, stride=1, weighting="gaussian", c2=9e-4).mean()}
    for what, methods in (("8 × 8 patches", patches), ("gaussian 11 × 11", gaussian | library_ssims())):
        yield Case(
            f"{name}, {what}, forward",
            {method: (lambda f=function: [f(image0, image1)]) for method, function in methods.items()},
            1e-3,
            4 * elements * 2,
        )
        yield Case(
            f"{name}, {what}, forward and one gradient",
            {method: with_grad(function, [image0, leaf]) for method, function in methods.items()},
            1e-3,
            4 * elements * 5,
        )
        yield Case(
            f"{name}, {what}, forward and both gradients",
            {method: with_grad(function, [other, leaf]) for method, function in methods.items()},
            1e-3,
            4 * elements * 6,
        )


if __name__ == "__main__":
    sys.exit(main("ssim", lambda device, quick: list(cases(device, quick))))
