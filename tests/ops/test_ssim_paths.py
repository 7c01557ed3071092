"""pyaction.ops.ssim where its kernels part ways: by window and stride, tile, needed gradient and dtype."""

from typing import Any

import pytest
import torch
from reference.ssim import sample
from reference.ssim import ssim as reference_ssim
from torch import Tensor

from pyaction.ops import ssim

CONSTANTS = {"c1": 3e-4, "c2": 2e-3}
TOLERANCE = {torch.float32: {"rtol": 1e-4, "atol": 1e-4}, torch.float64: {"rtol": 1e-10, "atol": 1e-10}}


def map_and_grads(images: tuple[Tensor, Tensor], step: int, **options: Any) -> list[Tensor]:
    """Every `step`-th window's similarity, and the gradients of a weighted sum of them."""
    leaves = [image.clone().requires_grad_() for image in images]
    output = ssim(*leaves, **options, **CONSTANTS)[..., ::step, ::step]
    weights = torch.linspace(0.5, 1.5, output.numel(), dtype=output.dtype, device=output.device).view_as(output)
    return [output.detach(), *torch.autograd.grad((weights * output).sum(), leaves)]


@pytest.mark.parametrize("weighting", ["uniform", "gaussian"])
@pytest.mark.parametrize(
    ("window", "size"), [(8, (35, 52)), (8, (8, 23)), (5, (14, 33)), (13, (40, 31)), (64, (65, 135))]
)
def test_patches_are_every_nth_window(window: int, size: tuple[int, int], weighting: str, device: str) -> None:
    images = sample((2, 2, *size), torch.float32, device)
    patches = map_and_grads(images, 1, window=window, stride=window, weighting=weighting)
    overlapping = map_and_grads(images, window, window=window, stride=1, weighting=weighting)
    for ours, theirs in zip(patches, overlapping, strict=True):
        torch.testing.assert_close(ours, theirs, **TOLERANCE[torch.float32])


# A CUDA tile has 116 windows of 11 pixels in a row, or (128 - window) // stride + 1 of another size; and eight rows of
# them in float32, four in float64.
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("window", "stride", "sizes"),
    [
        (11, 1, [(17, 125), (18, 126), (19, 127), (27, 243), (11, 11)]),
        (5, 2, [(17, 125), (19, 127), (21, 129), (23, 253), (5, 248)]),
        (64, 63, [(127, 127), (190, 254)]),
    ],
)
def test_edges_of_tiles(
    window: int, stride: int, sizes: list[tuple[int, int]], dtype: torch.dtype, device: str
) -> None:
    for size in sizes:
        images = sample((1, 1, *size), dtype, device)
        ours = map_and_grads(images, 1, window=window, stride=stride, weighting="gaussian")
        leaves = [image.double().requires_grad_() for image in images]
        expected = reference_ssim(*leaves, window=window, stride=stride, weighting="gaussian", **CONSTANTS)
        weights = torch.linspace(0.5, 1.5, expected.numel(), dtype=torch.float64, device=device).view_as(expected)
        theirs = [expected, *torch.autograd.grad((weights * expected).sum(), leaves)]
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, other.detach().to(dtype), **TOLERANCE[dtype])


SHAPES = [(8, 8, False), (5, 7, True), (40, 40, False), (11, 1, True), (4, 3, True)]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("window", "stride", "gaussian"), SHAPES)
def test_one_gradient_is_that_of_both(
    window: int, stride: int, gaussian: bool, dtype: torch.dtype, device: str
) -> None:
    images = sample((2, 1, 49, 63), dtype, device)
    options = (window, stride, gaussian, 3e-4, 2e-3)
    grad = torch.randn_like(torch.ops.pyaction.ssim(*images, *options))
    both = torch.ops.pyaction.ssim_grad(grad, *images, *options, True, True)
    none, second = torch.ops.pyaction.ssim_grad(grad, *images, *options, False, True)
    first, none_either = torch.ops.pyaction.ssim_grad(grad, *images, *options, True, False)
    assert torch.equal(first, both[0]) and torch.equal(second, both[1])
    assert none.numel() == none_either.numel() == 0


def test_grad_of_one_image(device: str) -> None:
    image0, image1 = sample((1, 2, 17, 23), torch.float32, device)
    both = torch.autograd.grad(ssim(image0.requires_grad_(), image1.requires_grad_()).sum(), (image0, image1))
    for i in range(2):
        images = [image0.detach(), image1.detach()]
        images[i].requires_grad_()
        ssim(*images).sum().backward()
        assert torch.equal(images[i].grad, both[i]) and images[1 - i].grad is None


# Half a unit in the last place of the result; all else is computed in float32.
ROUNDING = {torch.float16: 2**-11, torch.bfloat16: 2**-8}


@pytest.mark.parametrize(
    "device",
    [pytest.param("simt", marks=pytest.mark.simt), pytest.param("cuda", marks=pytest.mark.gpu)],
    indirect=True,
)
@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize(("window", "stride", "gaussian"), SHAPES)
def test_half_precision(window: int, stride: int, gaussian: bool, dtype: torch.dtype, device: str) -> None:
    images = sample((2, 1, 49, 133), dtype, device)
    options = (window, stride, gaussian, 3e-4, 2e-3)
    leaves = [image.double().requires_grad_() for image in images]
    weighting = "gaussian" if gaussian else "uniform"
    expected = reference_ssim(*leaves, window=window, stride=stride, weighting=weighting, **CONSTANTS)
    grad = torch.randn_like(expected).to(dtype)
    tolerance = {"rtol": ROUNDING[dtype] + 1e-4, "atol": 1e-4}
    output = torch.ops.pyaction.ssim(*images, *options)
    assert output.dtype == dtype
    torch.testing.assert_close(output.double(), expected, **tolerance)
    grads = torch.ops.pyaction.ssim_grad(grad, *images, *options, True, True)
    for ours, theirs in zip(grads, torch.autograd.grad(expected, leaves, grad.double()), strict=True):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours.double(), theirs, **tolerance)


def test_autocast() -> None:
    """Half precision becomes float32, as in torch's own losses; the gradients come back in half precision."""
    image0, image1 = sample((1, 2, 17, 23), torch.bfloat16, "cpu")
    expected = ssim(image0.float(), image1.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = ssim(image0.requires_grad_(), image1)
        assert torch.equal(ssim(image0.detach(), image1.float()), expected)
    assert output.dtype == torch.float32 and torch.equal(output, expected)
    (grad,) = torch.autograd.grad(output.sum(), image0)
    assert grad.dtype == torch.bfloat16 and grad.abs().sum() > 0
