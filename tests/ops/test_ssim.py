"""pyaction.ops.ssim: see tests/reference/ssim.py for the reference."""

import math
from typing import Any

import pytest
import pytorch_msssim
import torch
import torch.nn.functional as F
from reference.ssim import sample
from reference.ssim import ssim as reference_ssim
from torch import Tensor

from pyaction.ops import ssim

# Shape, window, stride, weighting: the patches of paper 002, Wang's own window, windows of one pixel, odd, even,
# as large as allowed and as large as the image; overlapping, touching and with gaps; odd sizes, rows shorter than
# a SIMD register, planes that threads have to share.
CASES: dict[str, tuple[tuple[int, ...], int, int, str]] = {
    "patches": ((2, 3, 33, 47), 8, 8, "uniform"),
    "wang": ((2, 3, 41, 37), 11, 1, "gaussian"),
    "one pixel": ((2, 3, 5, 7), 1, 1, "uniform"),
    "one pixel, gaps": ((1, 2, 6, 41), 1, 3, "gaussian"),
    "even, overlapping": ((1, 2, 19, 300), 4, 3, "gaussian"),
    "odd, overlapping": ((3, 1, 31, 18), 7, 2, "uniform"),
    "gaps": ((2, 2, 23, 57), 3, 5, "gaussian"),
    "one row of windows": ((1, 1, 5, 200), 5, 1, "uniform"),
    "one window": ((4, 2, 9, 9), 9, 4, "gaussian"),
    "largest window": ((1, 1, 97, 130), 64, 3, "uniform"),
    "largest patches": ((1, 2, 70, 131), 64, 64, "uniform"),
    "patches of two halves, gaps": ((1, 1, 95, 140), 40, 51, "gaussian"),
    "patches of 13": ((2, 1, 28, 57), 13, 13, "gaussian"),
    "patches of 8, gaps": ((1, 2, 20, 65), 8, 11, "gaussian"),
    "patches of 8, narrow": ((3, 1, 25, 10), 8, 8, "gaussian"),
    "stride beyond the image": ((1, 2, 17, 23), 8, 1 << 40, "gaussian"),
}
TOLERANCE = {torch.float32: {"rtol": 1e-4, "atol": 1e-4}, torch.float64: {"rtol": 1e-10, "atol": 1e-10}}
CONSTANTS = {"c1": 3e-4, "c2": 2e-3}


def keywords(case: str) -> dict[str, Any]:
    _, window, stride, weighting = CASES[case]
    return {"window": window, "stride": stride, "weighting": weighting, **CONSTANTS}


def test_known_value(device: str) -> None:
    image0 = torch.tensor([[0.2, 0.4], [0.6, 0.8]], device=device).view(1, 1, 2, 2)
    image1 = torch.tensor([[0.4, 0.4], [0.8, 0.8]], device=device).view(1, 1, 2, 2)
    # Means 0.5 and 0.6, variances 0.05 and 0.04, covariance 0.04.
    expected = torch.tensor(0.62 * 0.11 / (0.63 * 0.12), device=device).view(1, 1, 1, 1)
    torch.testing.assert_close(ssim(image0, image1, window=2, stride=3, c1=0.02, c2=0.03), expected)


def test_known_value_gaussian(device: str) -> None:
    line = torch.tensor([0.0, 1.0, 0.0], device=device).expand(1, 1, 3, 3)
    # The line's middle weighs `middle`: means `middle` and 1 - middle, like variances, covariance their negative.
    middle = 1 / (1 + 2 * math.exp(-1 / (2 * 1.5**2)))
    variance = middle - middle**2
    luminance = (2 * variance + 0.02) / (middle**2 + (1 - middle) ** 2 + 0.02)
    expected = torch.tensor(luminance * (-2 * variance + 0.03) / (2 * variance + 0.03), device=device)
    ours = ssim(line, 1 - line, window=3, weighting="gaussian", c1=0.02, c2=0.03)
    torch.testing.assert_close(ours, expected.view(1, 1, 1, 1))


def test_defaults_are_the_papers(device: str) -> None:
    image0, image1 = sample((1, 3, 17, 24), torch.float64, device)
    expected = reference_ssim(image0, image1, window=8, stride=8, weighting="uniform", c1=1e-4, c2=1e-3)
    torch.testing.assert_close(ssim(image0, image1), expected)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("case", CASES)
def test_matches_reference(case: str, dtype: torch.dtype, device: str) -> None:
    image0, image1 = sample(CASES[case][0], dtype, device)
    expected = reference_ssim(image0.double(), image1.double(), **keywords(case)).to(dtype)
    torch.testing.assert_close(ssim(image0, image1, **keywords(case)), expected, **TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("case", CASES)
def test_grad_matches_reference(case: str, dtype: torch.dtype, device: str) -> None:
    image0, image1 = sample(CASES[case][0], dtype, device)
    leaves = image0.requires_grad_(), image1.requires_grad_()
    wide = [leaf.detach().double().requires_grad_() for leaf in leaves]
    expected = reference_ssim(*wide, **keywords(case))
    grad = torch.randn_like(expected)
    ours = torch.autograd.grad(ssim(*leaves, **keywords(case)), leaves, grad.to(dtype))
    tolerance = TOLERANCE[dtype]
    if CASES[case][1] == 1 and dtype == torch.float32:
        # Without variance, the terms of 1 / c2 = 500 have to cancel.
        tolerance = {"rtol": 1e-4, "atol": 1e-3}
    for mine, theirs in zip(ours, torch.autograd.grad(expected, wide, grad), strict=True):
        torch.testing.assert_close(mine, theirs.to(dtype), **tolerance)


@pytest.mark.parametrize("weighting", ["uniform", "gaussian"])
def test_gradcheck(weighting: str, device: str) -> None:
    image0, image1 = sample((2, 2, 6, 7), torch.float64, device)
    leaves = image0.requires_grad_(), image1.requires_grad_()
    torch.autograd.gradcheck(lambda i, j: ssim(i, j, window=3, stride=2, weighting=weighting, c1=0.02, c2=0.03), leaves)


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES)
def test_cpu_matches_cuda(case: str) -> None:
    results = []
    images = sample(CASES[case][0], torch.float32, "cpu")
    for device in ("cpu", "cuda"):
        leaves = [image.to(device).requires_grad_() for image in images]
        output = ssim(*leaves, **keywords(case))
        results.append([output, *torch.autograd.grad(output.square().mean(), leaves)])
    for cpu, cuda in zip(*results, strict=True):
        torch.testing.assert_close(cpu, cuda.cpu(), **TOLERANCE[torch.float32])


def test_matches_pytorch_msssim(device: str) -> None:
    image0, image1 = sample((2, 3, 40, 51), torch.float32, device)
    ours = ssim(image0, image1, window=11, stride=1, weighting="gaussian", c1=0.01**2, c2=0.03**2)
    theirs = pytorch_msssim.ssim(image0, image1, data_range=1.0, size_average=False)
    torch.testing.assert_close(ours.mean(dim=(1, 2, 3)), theirs, **TOLERANCE[torch.float32])


def test_matches_average_pooling(device: str) -> None:
    """The usual way to write the patches of paper 002 in PyTorch."""
    image0, image1 = sample((2, 3, 35, 52), torch.float64, device)
    mean0, mean1, square0, square1, product = (
        F.avg_pool2d(i, 8, 8) for i in (image0, image1, image0**2, image1**2, image0 * image1)
    )
    luminance = (2 * mean0 * mean1 + 3e-4) / (mean0**2 + mean1**2 + 3e-4)
    structure = (2 * (product - mean0 * mean1) + 2e-3) / (square0 - mean0**2 + square1 - mean1**2 + 2e-3)
    torch.testing.assert_close(ssim(image0, image1, **CONSTANTS), luminance * structure)


@pytest.mark.parametrize("case", ["patches", "wang"])
def test_small_variance_beside_large_mean(case: str, device: str) -> None:
    """E[x^2] - E[x]^2 in float32 would be wrong in the second digit."""
    image0, image1 = (100 + 0.1 * i for i in sample(CASES[case][0], torch.float32, device))
    expected = reference_ssim(image0.double(), image1.double(), **keywords(case))
    torch.testing.assert_close(ssim(image0, image1, **keywords(case)), expected.float(), **TOLERANCE[torch.float32])


@pytest.mark.parametrize("case", ["patches", "wang", "even, overlapping", "gaps"])
def test_threads_agree(case: str) -> None:
    """Where the rows are cut into shares does not show, not even in the last bit."""
    shape, *_ = CASES[case]
    leaves = [image.requires_grad_() for image in sample((3, *shape[1:]), torch.float32, "cpu")]
    results, threads = [], torch.get_num_threads()
    try:
        for count in (1, 7):
            torch.set_num_threads(count)
            output = ssim(*leaves, **keywords(case))
            results.append([output, *torch.autograd.grad(output.square().sum(), leaves)])
    finally:
        torch.set_num_threads(threads)
    for one, seven in zip(*results, strict=True):
        assert torch.equal(one, seven)


def test_view_input(device: str) -> None:
    """Any strides and storage offset; nothing outside the view is read."""
    image0, image1 = sample((2, 3, 9, 11), torch.float32, device)
    buffer = torch.full((2, 13, 15, 3), math.nan, device=device)
    buffer[:, 2:11, 3:14] = image0.permute(0, 2, 3, 1)
    view = buffer[:, 2:11, 3:14].permute(0, 3, 1, 2)
    wide = torch.cat([image1, image1.new_full((2, 3, 9, 4), math.nan)], dim=3)[..., :11]
    for window in (4, 9):
        torch.testing.assert_close(ssim(view, wide, window=window), ssim(image0, image1, window=window))


@pytest.mark.parametrize("shape", [(0, 3, 9, 17), (2, 0, 9, 17)])
def test_empty_batch(shape: tuple[int, ...], device: str) -> None:
    image0 = torch.rand(shape, device=device, requires_grad=True)
    image1 = torch.rand(shape, device=device, requires_grad=True)
    output = ssim(image0, image1)
    assert output.shape == (*shape[:2], 1, 2)
    output.sum().backward()
    for image in (image0, image1):
        assert image.grad is not None and image.grad.shape == shape


@pytest.mark.parametrize("weighting", ["uniform", "gaussian"])
def test_nan_stays_in_its_windows(weighting: str, device: str) -> None:
    image0, image1 = sample((1, 1, 20, 40), torch.float32, device)
    image0[0, 0, 9, 12] = math.nan
    output = ssim(image0, image1.requires_grad_(), window=5, stride=3, weighting=weighting)
    expected = torch.zeros_like(output, dtype=torch.bool)
    expected[:, :, 2:4, 3:5] = True  # rows 6 to 10 and 9 to 13, columns 9 to 13 and 12 to 16
    assert torch.equal(output.isnan(), expected)
    output.sum().backward()
    expected = torch.zeros_like(image1, dtype=torch.bool)
    expected[:, :, 6:14, 9:17] = True
    assert image1.grad is not None and torch.equal(image1.grad.isnan(), expected)


def test_pixels_without_a_window_do_not_matter(device: str) -> None:
    image0, image1 = sample((1, 2, 12, 26), torch.float32, device)
    for image in (image0, image1):
        image[:, :, 3::5] = math.nan
        image[..., 24:] = math.inf
    leaves = image0.requires_grad_(), image1.requires_grad_()
    output = ssim(*leaves, window=3, stride=5)
    assert output.shape == (1, 2, 2, 5) and output.isfinite().all()
    for grad in torch.autograd.grad(output.sum(), leaves):
        assert grad.isfinite().all() and (grad[:, :, 3::5] == 0).all() and (grad[..., 24:] == 0).all()


def test_second_derivative_is_refused(device: str) -> None:
    image0, image1 = sample((1, 1, 9, 11), torch.float32, device)
    (grad,) = torch.autograd.grad(ssim(image0.requires_grad_(), image1).sum(), image0, create_graph=True)
    with pytest.raises(RuntimeError, match="ssim_grad cannot be differentiated twice"):
        grad.sum().backward()


@pytest.mark.parametrize("gaussian", [False, True])
def test_opcheck(gaussian: bool, device: str) -> None:
    image0, image1 = sample((2, 3, 9, 11), torch.float32, device)
    options = (4, 3, gaussian, 0.02, 0.03)
    images = image0.requires_grad_(), image1.requires_grad_()
    torch.library.opcheck(torch.ops.pyaction.ssim, (*images, *options))
    grad = torch.randn(2, 3, 2, 3, device=device)
    torch.library.opcheck(torch.ops.pyaction.ssim_grad, (grad, image0.detach(), image1.detach(), *options, True, False))
    torch.library.opcheck(torch.ops.pyaction.ssim_grad, (grad, image0.detach(), image1.detach(), *options, True, True))


def test_compile(device: str) -> None:
    def step(image0: Tensor, image1: Tensor) -> Tensor:
        return 1 - ssim(image0 * 0.5, image1, window=5, stride=2, weighting="gaussian").mean()

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    for shape in [(2, 3, 15, 17), (2, 3, 16, 19)]:
        image0, image1 = sample(shape, torch.float32, device)
        image0.requires_grad_()
        (ours,) = torch.autograd.grad(compiled(image0, image1), image0)
        (eager,) = torch.autograd.grad(step(image0, image1), image0)
        torch.testing.assert_close(ours, eager)
