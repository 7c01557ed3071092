"""pyaction.ops.tvl1_flow and its reference against OpenCV, and both on real frames."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from reference.tvl1 import PARAMS, moving_texture
from reference.tvl1 import tvl1_flow as reference_tvl1_flow
from reference.tvl1_opencv import resize, sample
from torch import Tensor

from pyaction import flow as flow_files
from pyaction._native import simd_level
from pyaction.flow import endpoint_error
from pyaction.ops import TVL1_PRESETS, TVL1Params, tvl1_flow

DEFAULT = TVL1Params()
SETTINGS = {
    "default": DEFAULT,
    "no stopping rule, no median": replace(DEFAULT, epsilon=0.0, outer_iterations=1, median_size=1),
    "median 3, deep": replace(DEFAULT, median_size=3, scales=9, scale_step=0.5, outer_iterations=2),
    # At a scale_step of 0.6 OpenCV's positions would be 1e-14 pixels away from others'.
    "different": replace(PARAMS, as_opencv=True),
}
SIZES = [(2, 2), (24, 40), (61, 131), (96, 128)]
INPUTS = ["uint8", "float32", "initial flow"]
# Without fused multiply-add the op does not round as OpenCV does with it, and TV-L1 is chaotic where pixels have no
# partner: one bit becomes another flow there.
OP_FUSES = simd_level() != "baseline"
UNFUSED_ERROR = 0.03  # mean, pixels


@cache
def opencv_rounds_as_expected() -> bool:
    """OpenCV's resize and remap have code of their own for many CPUs. Elsewhere equal bits cannot be asked for."""
    image = (torch.rand(33, 47, generator=torch.Generator().manual_seed(1)) * 255).numpy()
    shrunk = cv2.resize(image, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_LINEAR)
    enlarged = cv2.resize(image, (61, 43), interpolation=cv2.INTER_LINEAR)
    y, x = (np.float32(axis) for axis in np.mgrid[0:33, 0:47])
    x, y = x + np.float32(0.3) * y, y - np.float32(0.2) * x
    warped = cv2.remap(image, x, y, cv2.INTER_CUBIC)
    expected = np.array([[sample(image, x[i, j], y[i, j]) for j in range(47)] for i in range(33)])
    return (
        np.array_equal(shrunk, resize(image, *shrunk.shape, 1 / 0.8, 1 / 0.8))
        and np.array_equal(enlarged, resize(image, 43, 61, 33 / 43, 47 / 61))
        and np.array_equal(warped, expected)
    )


def opencv_flow(frame0: Tensor, frame1: Tensor, params: TVL1Params, initial_flow: Tensor | None = None) -> Tensor:
    """(1, 2, H, W) of grey frames (1, 1, H, W). A new object each time: OpenCV keeps the levels of a small image."""
    solver = cv2.optflow.DualTVL1OpticalFlow_create(
        tau=params.tau,
        lambda_=params.attachment,
        theta=params.theta,
        nscales=params.scales,
        warps=params.warps,
        epsilon=params.epsilon,
        innnerIterations=params.inner_iterations,  # three n
        outerIterations=params.outer_iterations,
        scaleStep=params.scale_step,
        medianFiltering=params.median_size,
        useInitialFlow=initial_flow is not None,
    )
    start = None if initial_flow is None else initial_flow[0].permute(1, 2, 0).contiguous().numpy()
    return torch.from_numpy(solver.calc(frame0[0, 0].numpy(), frame1[0, 0].numpy(), start)).permute(2, 0, 1)[None]


@cache
def example(setting: str, size: tuple[int, int], given: str) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Frames, initial flow, and what OpenCV makes of them."""
    height, width = size
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    truth = torch.stack([1 + 1.5 * torch.sin(y / 25), 1.2 * torch.cos(x / 20)])[None]
    frame0, frame1 = moving_texture(truth)
    if given == "uint8":
        frame0, frame1 = ((255 * frame).round().byte() for frame in (frame0, frame1))
    initial_flow = 0.7 * truth.flip(2) + 0.3 if given == "initial flow" else None
    return frame0, frame1, initial_flow, opencv_flow(frame0, frame1, SETTINGS[setting], initial_flow)


@pytest.mark.parametrize("given", INPUTS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("setting", SETTINGS)
def test_reference_matches_opencv(setting: str, size: tuple[int, int], given: str) -> None:
    frame0, frame1, initial_flow, expected = example(setting, size, given)
    flow = reference_tvl1_flow(frame0, frame1, SETTINGS[setting], initial_flow)
    assert torch.equal(flow, expected) or not opencv_rounds_as_expected()
    assert endpoint_error(flow, expected) < UNFUSED_ERROR


@pytest.mark.parametrize("given", INPUTS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("setting", SETTINGS)
def test_matches_opencv(setting: str, size: tuple[int, int], given: str) -> None:
    frame0, frame1, initial_flow, expected = example(setting, size, given)
    flow = tvl1_flow(frame0, frame1, initial_flow=initial_flow, params=SETTINGS[setting])
    assert torch.equal(flow, expected) or not (opencv_rounds_as_expected() and OP_FUSES)
    assert endpoint_error(flow, expected) < UNFUSED_ERROR


def read_grey(path: Path) -> Tensor:
    """(1, 1, H, W), uint8."""
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert image is not None, path
    return torch.from_numpy(image)[None, None]


def middlebury(real_data: Path, name: str) -> tuple[Tensor, Tensor]:
    folder = real_data / "flow" / "middlebury" / name
    return read_grey(folder / "frame10.png"), read_grey(folder / "frame11.png")


def share_within(distance: float, flow: Tensor, expected: Tensor) -> float:
    """The share of pixels whose end-point error is below `distance`."""
    return float(((flow - expected).norm(dim=-3) < distance).double().mean())


@pytest.mark.parametrize("name", ["RubberWhale", "Venus"])
def test_opencv_preset_on_real_frames(name: str, real_data: Path) -> None:
    frame0, frame1 = middlebury(real_data, name)
    flow, expected = tvl1_flow(frame0, frame1, params="opencv"), opencv_flow(frame0, frame1, DEFAULT)
    assert torch.equal(flow, expected) or not (opencv_rounds_as_expected() and OP_FUSES)
    assert endpoint_error(flow, expected) <= (0.005 if OP_FUSES else UNFUSED_ERROR)
    assert share_within(0.1, flow, expected) >= 0.995


def test_opencv_preset_matches_opencv_own_test_data(real_data: Path) -> None:
    """The flow that OpenCV's test suite expects, from OpenCV 3, which sampled at multiples of 1/32 pixel."""
    folder = real_data / "flow" / "opencv_tvl1"
    flow = tvl1_flow(read_grey(folder / "RubberWhale1.png"), read_grey(folder / "RubberWhale2.png"), params="opencv")
    expected, valid = flow_files.read(folder / "tvl1_flow_opencv3plus.flo")
    assert valid.all()
    assert share_within(0.1, flow[0], expected) >= 0.98


def test_fast_preset_on_real_frames(real_data: Path) -> None:
    """Beside it OpenCV's defaults: 1.05 on these four pairs, at many times the work."""
    errors = []
    for name in ("RubberWhale", "Grove2", "Urban2", "Venus"):
        truth, valid = flow_files.read(real_data / "flow" / "middlebury" / name / "flow10.flo")
        flow = tvl1_flow(*middlebury(real_data, name), params=TVL1_PRESETS["fast"])
        errors.append(float(endpoint_error(flow[0], truth, valid)))
    assert np.mean(errors) <= 0.31, errors
