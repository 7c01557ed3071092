"""The CUDA kernels on the CPU: the order of the threads' turns does not show in the results, the CPU kernels agree.

What the kernels compute is tested with all else in tests/ops, where "simt" is one of the devices.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pyaction._native import simd_level
from pyaction.ops import (
    TVL1_PRESETS,
    TVL1Params,
    TVL1Stream,
    mine_triplets,
    photometric_loss,
    ssim,
    triplet_loss,
    tvl1_flow,
    tvl1_flow_clip,
    warp,
)
from simt.harness import ORDERS, cuda_kernels_on_cpu, kernels_in_sources, kernels_that_ran

pytestmark = [pytest.mark.simt, pytest.mark.usefixtures("cuda_kernels")]

TOLERANCE = {torch.float32: {"rtol": 1e-4, "atol": 1e-4}, torch.float64: {"rtol": 1e-11, "atol": 1e-11}}
RAN: dict[str, set[str]] = {order: set() for order in ORDERS}  # the kernels that `check` has run


def check(results: Callable[[], list[Tensor]], tolerance: dict[str, float], any_order: tuple[int, ...] = ()) -> None:
    """`any_order`: the results that are summed with atomics, where the last bits are chance."""
    cpu = results()
    runs = []
    for order in ORDERS:
        with cuda_kernels_on_cpu(order):
            runs.append(results())
            RAN[order] |= kernels_that_ran()
    for i, expected in enumerate(cpu):
        for run in runs:
            torch.testing.assert_close(run[i], expected, **tolerance)
            assert i in any_order or torch.equal(run[i], runs[0][i])


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_warp(dtype: torch.dtype, padding: Any) -> None:
    image, flow = torch.rand(2, 3, 33, 47, dtype=dtype), torch.randn(2, 2, 33, 47, dtype=dtype) * 9
    grad = torch.randn_like(image)

    def results() -> list[Tensor]:
        leaves = image.clone().requires_grad_(), flow.clone().requires_grad_()
        output = warp(*leaves, padding=padding)
        return [output, *torch.autograd.grad(output, leaves, grad)]

    check(results, TOLERANCE[dtype], any_order=(1,))


@pytest.mark.parametrize("window", [8, 3])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_photometric_loss(dtype: torch.dtype, window: int) -> None:
    frame0, frame1 = torch.rand(2, 2, 3, 27, 50, dtype=dtype)
    flow = torch.randn(2, 2, 27, 50, dtype=dtype) * 2

    def results() -> list[Tensor]:
        leaves = [value.clone().requires_grad_() for value in (frame0 + 1, frame1, flow)]
        loss = photometric_loss(*leaves, window=window, pixel_scale=3.0)
        total = loss.pixel + 2 * loss.smoothness + 3 * loss.ssim
        return [*(term.detach() for term in loss), *torch.autograd.grad(total, leaves)]

    check(results, TOLERANCE[dtype], any_order=(4,))  # frame1's


# Patches, in registers and read again, and overlapping windows; more than one tile of them.
@pytest.mark.parametrize(
    ("window", "stride", "weighting"),
    [(8, 8, "uniform"), (13, 15, "gaussian"), (11, 1, "gaussian"), (4, 3, "gaussian")],
)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_ssim(dtype: torch.dtype, window: int, stride: int, weighting: Any) -> None:
    image0, image1 = torch.rand(2, 2, 2, 33, 131, dtype=dtype)

    def results() -> list[Tensor]:
        leaves = image0.clone().requires_grad_(), image1.clone().requires_grad_()
        output = ssim(*leaves, window=window, stride=stride, weighting=weighting, c1=3e-4, c2=2e-3)
        loss = output.square().sum()
        both = torch.autograd.grad(loss, leaves, retain_graph=True)
        return [output, *both, *(torch.autograd.grad(loss, leaf, retain_graph=True)[0] for leaf in leaves)]

    check(results, TOLERANCE[dtype])


# The second has more references than are sorted in shared memory.
@pytest.mark.parametrize("size", [(65, None, 5, 7), (6, 2500, 8, 5)])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("mining", ["batch_hard", "hard_negative", "semihard", "semihard_closest", "all"])
def test_triplets(mining: Any, dtype: torch.dtype, size: tuple[int, int | None, int, int]) -> None:
    n, m, dimensions, classes = size
    # On a grid: distances are exact, and often equal.
    anchors = (torch.randint(-3, 4, (n, dimensions)) / 4).to(dtype)
    references = None if m is None else (torch.randint(-3, 4, (m, dimensions)) / 4).to(dtype)
    labels = torch.randint(0, classes, (n,)), None if m is None else torch.randint(0, classes, (m,))

    def results() -> list[Tensor]:
        leaf = anchors.clone().requires_grad_()
        loss = triplet_loss(leaf, references, *labels, mining=mining, margin=0.75)
        mined = mine_triplets(anchors, references, *labels, mining=mining, margin=0.75)
        return [loss.detach(), *torch.autograd.grad(loss, leaf), *mined]

    check(results, TOLERANCE[dtype])


def test_hardest_pairs_of_more_tiles_than_blocks() -> None:
    embeddings, labels = torch.randint(-3, 4, (2100, 3)) / 4, torch.randint(0, 5, (2100,))
    check(
        lambda: [torch.ops.pyaction.hardest_pairs(embeddings, embeddings, labels, labels, True)], {"rtol": 0, "atol": 0}
    )


def moving_clip(n: int, t: int, height: int, width: int) -> Tensor:
    """Frames [n, t, 1, height, width] of something smooth that moves two pixels to the left and one up."""
    whole = (height + t + 1, width + 2 * t)
    smooth = torch.nn.functional.interpolate(torch.rand(n, 1, 9, 15), size=whole, mode="bicubic").clamp(0, 1)
    return torch.stack([smooth[..., i : i + height, 2 * i : 2 * i + width] for i in range(t)], dim=1)


def pushed(clip: Tensor, params: TVL1Params) -> Tensor:
    """`tvl1_flow_clip` frame by frame."""
    stream = TVL1Stream(params)
    return torch.stack([flow for frame in clip.unbind(1) if (flow := stream.push(frame)) is not None], dim=1)


@pytest.mark.parametrize("preset", ["fast", "accurate", "opencv"])
@pytest.mark.parametrize("epsilon", [0.0, 0.02])
def test_tvl1(epsilon: float, preset: str) -> None:
    clip, start = moving_clip(3, 4, 43, 72), torch.randn(3, 2, 43, 72)
    params = replace(TVL1_PRESETS[preset], outer_iterations=3, inner_iterations=7, warps=2, epsilon=epsilon)

    def results() -> list[Tensor]:
        flow = tvl1_flow(clip[:, 0], clip[:, 1], initial_flow=start, params=params)
        return [flow, tvl1_flow_clip(clip, params=params), pushed(clip, params)]

    # The stopping rule sums in tiles. All else is rounded alike, where the processor can (common/elementary.h).
    same_bits = epsilon == 0 and simd_level() != "baseline"
    check(results, {"rtol": 0, "atol": 0} if same_bits else {"rtol": 1e-3, "atol": 1e-3})


def test_tvl1_of_more_sequences_than_fit_into_a_launch() -> None:
    clip = torch.rand(1027, 3, 1, 3, 4)
    params = replace(TVL1_PRESETS["video"], inner_iterations=5)

    def results() -> list[Tensor]:
        return [tvl1_flow_clip(clip, params=params), pushed(clip, params)]

    check(results, {"rtol": 1e-4, "atol": 1e-4})


def test_every_kernel_ran_in_every_order(request: pytest.FixtureRequest) -> None:
    """In the tests above: they must have been chosen."""
    here = {name for name in globals() if name.startswith("test_")}
    chosen = {getattr(item, "originalname", "") for item in request.session.items if item.path == Path(__file__)}
    if here - chosen:
        pytest.skip(f"not chosen: {sorted(here - chosen)}")
    kernels = kernels_in_sources()
    assert kernels
    for order in ORDERS:
        assert kernels - RAN[order] == set(), order
