"""ssim beside average poolings and the libraries: python benchmarks/bench_ssim.py --json"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from op_benchmark import Case, Method, main, with_grad
from peers.similarity import library_ssims, pooled_ssim
from torch import Tensor

from pyaction.ops import ssim

CPU_SHAPES = [(10, 3, 224, 224), (40, 3, 112, 112)]
FUSED_SSIM_SHAPE = (5, 5, 1080, 1920)  # of fused-ssim's own benchmark
CUDA_SHAPES = [(10, 3, 224, 224), FUSED_SSIM_SHAPE]
# Of its README, for the gaussian; its gradient is that of one image.
FUSED_SSIM = {"forward": 2.49e-3, "forward and one gradient": 2.49e-3 + 2.68e-3}


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
    gaussian |= library_ssims()
    has_published = tuple(image0.shape) == FUSED_SSIM_SHAPE
    for what, methods in (("8 × 8 patches", patches), ("gaussian 11 × 11", gaussian)):
        forward = {method: (lambda f=function: [f(image0, image1)]) for method, function in methods.items()}
        runs = {
            "forward": (forward, 2),
            "forward and one gradient": (_with_grads(methods, [image0, leaf]), 5),
            "forward and both gradients": (_with_grads(methods, [other, leaf]), 6),
        }
        for task, (run, moved) in runs.items():
            is_published = has_published and methods is gaussian and task in FUSED_SSIM
            published = {"fused-ssim, as published for an RTX 4090": FUSED_SSIM[task]} if is_published else {}
            yield Case(f"{name}, {what}, {task}", run, 1e-3, 4 * elements * moved, published=published)


def _with_grads(methods: Mapping[str, Callable[..., Tensor]], images: Sequence[Tensor]) -> dict[str, Method]:
    return {method: with_grad(function, images) for method, function in methods.items()}


if __name__ == "__main__":
    sys.exit(main("ssim", lambda device, quick: list(cases(device, quick))))
