"""NVIDIA Optical Flow: everything around the engine, with a stand-in for it; the engine itself on a GPU."""

import os
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pyaction import flow, ops
from pyaction.flow.hardware import flow_by


def moving_clip(frames: int, height: int, width: int) -> Tensor:
    """(1, T, 3, H, W) uint8, which moves (3, -2) pixels in the first step and not at all in the next ones."""
    noise = torch.rand(1, 3, height // 4 + 9, width // 4 + 9)
    texture = F.interpolate(noise, scale_factor=4, mode="bicubic").clamp(0, 1).mul(255).byte()[0]
    first = texture[:, 16 : 16 + height, 16 : 16 + width]
    moved = texture[:, 18 : 18 + height, 13 : 13 + width]
    return torch.stack([first] + [moved] * (frames - 1))[None]


def stand_in(frames: Tensor, grid: int) -> Tensor:
    """What DALI's optical_flow does: for every cell in frame i, where it was in frame i - 1; uint8 RGB, FHWC."""
    n, t, height, width, channels = frames.shape
    assert frames.dtype == torch.uint8 and channels == 3 and frames.is_contiguous()
    pixels = frames.movedim(-1, -3)
    back = ops.tvl1_flow(pixels[:, 1:].flatten(0, 1), pixels[:, :-1].flatten(0, 1), params="accurate")
    padded = F.pad(back, (0, -width % grid, 0, -height % grid), mode="replicate")
    return F.avg_pool2d(padded, grid).movedim(1, -1).unflatten(0, (n, t - 1)).contiguous()


@pytest.mark.parametrize("grid", [1, 2, 4])
@pytest.mark.parametrize("kind", ["uint8", "float", "grey"])
def test_direction_and_order(grid: int, kind: str) -> None:
    clip = moving_clip(4, 61, 74)
    if kind == "float":
        clip = clip / 255
    elif kind == "grey":
        clip = clip[:, :, :1]
    motion = flow_by(lambda frames: stand_in(frames, grid), clip, grid)
    assert motion.shape == (1, 3, 2, 61, 74) and motion.dtype == torch.float32
    inside = motion[0, :, :, 14:-14, 14:-14].mean((2, 3))
    torch.testing.assert_close(inside, torch.tensor([[3.0, -2.0], [0.0, 0.0], [0.0, 0.0]]), atol=0.1, rtol=0)


def test_float_frames_keep_their_grey_levels() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 1, 16, 16).repeat(1, 2, 3, 1, 1)
    seen = []

    def run(frames: Tensor) -> Tensor:
        seen.append(frames)
        return torch.zeros(1, 1, 16, 16, 2)

    for clip in (levels, levels / 255, (levels / 255).half(), levels / 255 + 0.001):
        flow_by(run, clip, 1)
    assert all(torch.equal(frames, seen[0]) for frames in seen)


@pytest.mark.parametrize("grid", [2, 4])
def test_vectors_belong_to_the_centres_of_cells(grid: int) -> None:
    """A flow that grows linearly stays so, but for half a cell at the border."""
    height, width = 6 * grid - 1, 7 * grid + 1  # the last cells are cut

    def linear(y: Tensor, x: Tensor) -> Tensor:
        y, x = torch.meshgrid(y, x, indexing="ij")
        return torch.stack([0.5 * x - y, 0.25 * y + 3])

    centres = [torch.arange(0, side, grid) + (grid - 1) / 2 for side in (height, width)]
    vectors = linear(*centres).movedim(0, -1)[None, None]
    motion = flow_by(lambda frames: vectors, torch.zeros(1, 2, 3, height, width, dtype=torch.uint8), grid)[0, 0]
    expected = linear(torch.arange(height * 1.0), torch.arange(width * 1.0))
    inside = (slice(None), slice(grid // 2, height - grid // 2), slice(grid // 2, width - grid // 2))
    torch.testing.assert_close(motion[inside], expected[inside])


def test_several_clips() -> None:
    numbers = torch.arange(2 * 3 * 2 * 5.0).view(2, 3, 2, 5, 1).expand(-1, -1, -1, -1, 2)
    motion = flow_by(lambda frames: numbers, torch.zeros(2, 4, 3, 2, 5, dtype=torch.uint8), 1)
    torch.testing.assert_close(motion, numbers.flip(1).movedim(-1, 2))


def test_rejects(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="grid must be 1, 2 or 4; got 3"):
        flow.Hardware(grid=3)
    with pytest.raises(ValueError, match="preset must be one of 'slow', 'medium', 'fast'; got 0.5"):
        flow.Hardware(preset=0.5)
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    with pytest.raises(ImportError, match=r"needs NVIDIA DALI: pip install 'pyaction\[cuda13\]'"):
        flow.estimate(torch.rand(1, 2, 3, 40, 40), "hardware")


def test_refuses_the_cpu() -> None:
    pytest.importorskip("nvidia.dali")
    with pytest.raises(ValueError, match="clip must be on an NVIDIA GPU; got cpu"):
        flow.estimate(torch.rand(1, 2, 3, 40, 40), "hardware")


def test_dali_knows_the_arguments() -> None:
    """It looks at them when a pipeline is described, which needs no GPU yet."""
    pytest.importorskip("nvidia.dali")
    assert flow.Hardware(grid=2, preset="fast")._pipeline(0, 3).max_batch_size == 3


@pytest.mark.gpu
@pytest.mark.parametrize("grid", [1, 4])
def test_engine(grid: int) -> None:
    pytest.importorskip("nvidia.dali")
    estimator = flow.Hardware(grid=grid)
    try:
        for n in (1, 3, 2):  # one more than there was room for, and then fewer
            clip = moving_clip(4, 184, 250).repeat(n, 1, 1, 1, 1).cuda()
            motion = estimator(clip)
            assert motion.shape == (n, 3, 2, 184, 250) and motion.is_cuda
            inside = motion[..., 30:-30, 30:-30].mean((3, 4)).cpu()
            torch.testing.assert_close(
                inside, torch.tensor([[3.0, -2.0], [0, 0], [0, 0]]).expand(n, -1, -1), atol=0.3, rtol=0
            )
    except RuntimeError as error:
        if os.environ.get("PYACTION_REQUIRE_GPU") == "1":
            raise
        pytest.skip(str(error))
