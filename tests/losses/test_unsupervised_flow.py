"""pyaction.losses.unsupervised_flow_loss, against loops written from the authors' training definition."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from reference.warp import warp
from torch import Tensor

from pyaction.losses import (
    UNSUPERVISED_FLOW_PRESETS,
    UnsupervisedFlowLoss,
    UnsupervisedFlowWeights,
    photometric_images,
    unsupervised_flow_loss,
)
from pyaction.models import TinyMotionNet

RELEASE = UNSUPERVISED_FLOW_PRESETS["release"]
ODD = UnsupervisedFlowWeights(
    pixel=(0.7, 1.3, 0.2), smoothness=(0.4, 2.5, 0.9), ssim=(3.0, 0.5, 1.7), ssim_reduction="mean"
)


def sample(dtype: torch.dtype = torch.float64, sides: tuple[int, ...] = (24, 12, 6, 3)) -> tuple[list[Tensor], Tensor]:
    """Flows of 4 frames of 48 x 36, and the frames."""
    frames = torch.rand(2, 4, 3, 48, 36, dtype=dtype) - 0.4
    flows = [torch.randn(2, 3, 2, side, side * 3 // 4, dtype=dtype) * side / 8 for side in sides]
    return flows, frames


def image(frames: Tensor, height: int, width: int) -> Tensor:
    """Local response normalisation, then the tent-shaped mean: sample by sample."""
    frames = frames / (1 + (frames**2).sum(dim=2, keepdim=True) / 9) ** 0.7
    steps = [(size - 1) / (out - 1) for size, out in zip(frames.shape[3:], (height, width), strict=True)]
    result = frames.new_zeros(*frames.shape[:3], height, width)
    for i in range(height):
        for j in range(width):
            total = 0.0
            for y in range(frames.shape[3]):
                for x in range(frames.shape[4]):
                    tent = max(0, 1 - abs(y - i * steps[0]) / steps[0]) * max(0, 1 - abs(x - j * steps[1]) / steps[1])
                    if tent > 0:
                        result[..., i, j] += tent * frames[..., y, x]
                        total += tent
            result[..., i, j] /= total
    return result


def charbonnier(x: Tensor, beta: float, alpha: float) -> Tensor:
    return ((beta * x) ** 2 + 0.001**2) ** alpha


def similarity(patch0: Tensor, patch1: Tensor) -> Tensor:
    """Of patches (N, C, h, w) -> (N, C)."""
    mean0, mean1 = patch0.mean((2, 3)), patch1.mean((2, 3))
    variance0, variance1 = patch0.var((2, 3), correction=0), patch1.var((2, 3), correction=0)
    covariance = (patch0 * patch1).mean((2, 3)) - mean0 * mean1
    return ((2 * mean0 * mean1 + 1e-4) * (2 * covariance + 1e-3)) / (
        (mean0**2 + mean1**2 + 1e-4) * (variance0 + variance1 + 1e-3)
    )


def by_hand(flows: list[Tensor], frames: Tensor, ssim_weights: tuple[float, ...], summed: bool, over: int) -> Tensor:
    """The release's loss, pair by pair; `over`: the channels by which each half of the smoothness term is divided."""
    n, pairs = flows[0].shape[:2]
    loss = torch.zeros((), dtype=frames.dtype)
    for flow, ssim_weight in zip(flows, ssim_weights, strict=True):
        height, width = flow.shape[3:]
        images = image(frames, height, width)
        margin = math.floor(0.1 * min(height, width) + 0.5)
        inside = (..., slice(margin, height - margin), slice(margin, width - margin))
        pixel, smoothness, ssim, windows = 0.0, 0.0, 0.0, 0
        for pair in range(pairs):
            warped = warp(images[:, pair + 1], flow[:, pair], "zeros")
            pixel += charbonnier(images[:, pair] - warped, 255, 0.4)[inside].mean() / pairs
            for component in (flow[:, pair, 0], flow[:, pair, 1]):
                dx, dy = torch.zeros_like(component), torch.zeros_like(component)
                dx[..., :-1] = component[..., :-1] - component[..., 1:]
                dy[:, :-1] = component[:, :-1] - component[:, 1:]
                costs = charbonnier(dx, 1, 0.3) + charbonnier(dy, 1, 0.3)
                smoothness += costs[inside].mean() / (pairs * over)
            for y in range(0, height, 8):
                for x in range(0, width, 8):
                    patch = (..., slice(y, y + 8), slice(x, x + 8))
                    ssim += (1 - similarity(images[:, pair][patch], warped[patch])).sum() / n
                    windows += 3
        loss = loss + pixel + smoothness + ssim_weight * (ssim if summed else ssim / windows)
    return loss


# Each half of the smoothness term is divided by the 3 channels of the frames in the release, by its own 2 in "mean".
@pytest.mark.parametrize(
    ("preset", "ssim_weights", "summed", "over"),
    [("release", (0.01, 0.02, 0.04, 0.08), True, 3), ("mean", (58.8, 29.4, 19.2, 9.6), False, 2)],
)
def test_matches_loops(preset: Any, ssim_weights: tuple[float, ...], summed: bool, over: int) -> None:
    flows, frames = sample()
    flows = [flow.requires_grad_() for flow in flows]
    loss = unsupervised_flow_loss(flows, frames, weights=preset).total
    expected = by_hand(flows, frames, ssim_weights, summed, over)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss, flows), torch.autograd.grad(expected, flows))


def test_presets_agree_on_ssim_at_224() -> None:
    """Patches of 8 x 8, of ten pairs and three channels: how the second preset follows from the first."""
    mean = UNSUPERVISED_FLOW_PRESETS["mean"]
    for side, summed, averaged in zip((112, 56, 28, 14, 7), RELEASE.ssim, mean.ssim, strict=True):
        assert summed * math.ceil(side / 8) ** 2 * 30 == pytest.approx(averaged)


def test_terms_and_weights() -> None:
    flows, frames = sample(sides=(24, 12, 6))
    loss, *terms = unsupervised_flow_loss(flows, frames, weights=ODD)
    assert [list(term.shape) for term in terms] == [[3]] * 3
    weights = torch.tensor([ODD.pixel, ODD.smoothness, ODD.ssim], dtype=loss.dtype)
    torch.testing.assert_close(loss, (torch.stack(terms) * weights).sum())
    again = UnsupervisedFlowLoss(weights=ODD)(flows, frames)
    assert torch.equal(again.total, loss)
    no_ssim = unsupervised_flow_loss(flows, frames, weights=replace(ODD, ssim=(0.0, 0.0, 0.0))).total
    torch.testing.assert_close(loss - no_ssim, (terms[2] * weights[2]).sum())


@pytest.mark.parametrize("size", [(12, 9), (7, 36), (48, 36), (1, 2)])
def test_images(size: tuple[int, int]) -> None:
    frames = torch.rand(1, 2, 3, 48, 36, dtype=torch.float64) - 0.4
    images = photometric_images(frames, *size)
    assert images.shape == (1, 2, 3, *size)
    if 1 not in size:
        torch.testing.assert_close(images, image(frames, *size))


def test_flat_images_are_known() -> None:
    frame = torch.tensor([0.3, -0.2, 0.5]).view(3, 1, 1).expand(3, 20, 30)
    expected = torch.tensor([0.3, -0.2, 0.5]) / (1 + 0.38 / 9) ** 0.7
    torch.testing.assert_close(photometric_images(frame, 10, 15), expected.view(3, 1, 1).expand(3, 10, 15))


def test_float32_and_autocast() -> None:
    """Under autocast flows come in bfloat16; frames and loss keep their digits."""
    flows, frames = sample(torch.float32)
    flows = [flow.bfloat16().float() for flow in flows]
    exact = unsupervised_flow_loss([flow.double() for flow in flows], frames.double())
    torch.testing.assert_close(unsupervised_flow_loss(flows, frames).total, exact.total.float())
    with torch.autocast("cpu", torch.bfloat16):
        loss = unsupervised_flow_loss([flow.bfloat16() for flow in flows], frames)
    torch.testing.assert_close(loss.total, exact.total.float())


def test_empty_batch() -> None:
    flows, frames = sample()
    assert unsupervised_flow_loss([flow[:0] for flow in flows], frames[:0]).total == 0


def test_frames_have_no_gradient() -> None:
    flows, frames = sample()
    assert not unsupervised_flow_loss(flows, frames.requires_grad_()).total.requires_grad


def test_compile() -> None:
    flows, frames = sample(torch.float32)
    flows = [flow.requires_grad_() for flow in flows]
    compiled = torch.compile(unsupervised_flow_loss, fullgraph=True, backend="aot_eager")
    loss, expected = compiled(flows, frames).total, unsupervised_flow_loss(flows, frames).total
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss, flows), torch.autograd.grad(expected, flows))


def moving_texture() -> Tensor:
    """Three frames of 48 x 48 in [0, 1]; from one to the next, 1.5 pixels to the right and 1 up."""
    generator = torch.Generator().manual_seed(3)
    blobs = torch.rand(1, 3, 8, 8, generator=generator)
    texture = torch.nn.functional.interpolate(blobs, size=96, mode="bicubic").clamp(0, 1)
    # Drawn at twice the size, where half pixels are whole.
    views = [texture.roll((-2 * frame, 3 * frame), dims=(2, 3)) for frame in range(3)]
    return torch.stack([torch.nn.functional.avg_pool2d(view, 2) for view in views], dim=1)


def test_true_flow_explains_the_frames() -> None:
    """Better than none, and than the opposite; units and signs of all parts agree."""
    frames = TinyMotionNet(frames=3).normalize(moving_texture())
    losses = []
    for direction in (1, 0, -1):
        motion = direction * torch.tensor([1.5, -1.0]).view(1, 1, 2, 1, 1)  # of 48 pixels
        flows = [motion.expand(1, 2, 2, side, side) * side / 48 for side in (24, 12, 6)]
        losses.append(unsupervised_flow_loss(flows, frames, weights="mean").total.item())
    assert losses[0] < 0.7 * losses[1] < 0.7 * losses[2]


def test_training_lowers_the_loss() -> None:
    """To 0.6 of what it was, by 30 steps of Adam on one clip; measured: 0.48."""
    clip = moving_texture()
    network = TinyMotionNet(frames=3)
    frames = network.normalize(clip)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    losses = []
    for _ in range(31):
        loss = unsupervised_flow_loss(network(clip), frames, weights="mean").total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def levels(*sizes: tuple[int, int]) -> list[Tensor]:
    """Flows for a pair of frames."""
    return [torch.rand(1, 1, 2, *size) for size in sizes]


DISORDER = (
    "flows must be finest first, each level smaller than the one before and none larger than the frames' 8 x 8; got "
)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"frames": [1]}, TypeError, "frames must be a torch.Tensor [N, T, C, H, W]; got list"),
        ({"frames": torch.rand(1, 1, 3, 8, 8)}, ValueError,
         "frames must be [N, T, C, H, W] with T >= 2 and C from 1 to 5; got [1, 1, 3, 8, 8]"),
        ({"frames": torch.zeros(1, 2, 3, 8, 8, dtype=torch.uint8)}, ValueError,
         "frames must be floating point, as MotionNet.normalize returns; got torch.uint8"),
        ({"flows": []}, ValueError, "flows must be 1 to 5 levels, as many as there are weights; got 0"),
        ({"flows": [torch.rand(1, 2, 2, 4, 4)]}, ValueError,
         "flows[0] must be [N, T - 1, 2, h, w] = [1, 1, 2] and a size; got [1, 2, 2, 4, 4]"),
        ({"flows": [[0.5]]}, TypeError, "flows[0] must be a torch.Tensor; got list"),
        ({"flows": levels((2, 2), (4, 4))}, ValueError, DISORDER + "2 x 2, 4 x 4"),
        ({"flows": levels((4, 4), (2, 4))}, ValueError, DISORDER + "4 x 4, 2 x 4"),
        ({"flows": levels((4, 9))}, ValueError, DISORDER + "4 x 9"),
        ({"flows": levels((16, 8), (8, 4))}, ValueError, DISORDER + "16 x 8, 8 x 4"),
        ({"flows": levels((4, 4), (0, 2))}, ValueError,
         "flows[1] must be [N, T - 1, 2, h, w] = [1, 1, 2] and a size; got [1, 1, 2, 0, 2]"),
        ({"weights": "paper"}, ValueError,
         "weights must be UnsupervisedFlowWeights or one of 'release', 'mean'; got 'paper'"),
    ],
)  # fmt: skip
def test_rejects(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    good: dict[str, Any] = {"flows": [torch.rand(1, 1, 2, 4, 4)], "frames": torch.rand(1, 2, 3, 8, 8)}
    with pytest.raises(error) as caught:
        unsupervised_flow_loss(**{**good, **arguments})
    assert str(caught.value) == f"unsupervised_flow_loss: {message}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ssim": (0.1, -1.0)}, "ssim must be weights >= 0; got (0.1, -1.0)"),
        ({"pixel": (1.0, 2.0)}, "pixel, smoothness and ssim must be as many as levels; got 2, 5 and 5"),
        ({"ssim_reduction": "max"}, "ssim_reduction must be 'sum' or 'mean'; got 'max'"),
    ],
)
def test_rejects_weights(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        UnsupervisedFlowWeights(**arguments)
    assert str(caught.value) == f"UnsupervisedFlowWeights: {message}"
