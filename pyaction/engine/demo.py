"""The main job on a video that is made here, so that its true motion is known."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from pyaction import flow, video
from pyaction.engine.jobs import Job
from pyaction.engine.result_folder import ResultFolder
from pyaction.engine.video_results import write_results

HEIGHT, WIDTH, FRAMES, FPS = 240, 320, 24, 25
_BACKGROUND_MOTION = (1, 0)  # pixels per frame: right, down
_BOX_MOTION = (-3, 2)
_BOX = (40, 200, 110, 90)  # top, left, height, width in the first frame


@dataclass(frozen=True)
class DemoResult:
    """What the demo found."""

    endpoint_error: float
    """Mean distance between computed and true motion, in pixels."""
    still_error: float
    """The same for the answer "nothing moves"."""
    picture: Path
    """The flow in colours, a video."""


def run_demo(folder: Path, say: Callable[[str], None], device: str = "cpu") -> DemoResult:
    """Makes a video of a box moving over a moving background, computes its flow and compares it with the truth.

    Args:
        folder: Where the files go; made if need be.
        say: Called with a line of text before each step.
        device: Where to compute: "cpu" or "cuda".

    Returns:
        The errors, over all pixels of all pairs of frames, and where the pictures are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "moving_box.mp4"
    say(f"making {source}: {FRAMES} frames, {WIDTH} x {HEIGHT}, the background moves {_BACKGROUND_MOTION} pixels "
        f"per frame (right, down), a box moves {_BOX_MOTION}")  # fmt: skip
    frames, truth = _scene()
    video.write(source, frames, FPS)

    results = {}
    for form in ("flo", "video"):
        results[form] = folder / f"flow_{form}"
        say(f"computing its optical flow into {results[form]}")
        with ResultFolder(results[form], Job(format=form)) as flow_folder:
            start = time.perf_counter()
            made = write_results(source, flow_folder, Path(source.stem), device=device)
            seconds = time.perf_counter() - start
        if made is not None:  # it was not there already
            pairs = made.num_flows
            say(f"{pairs} pairs of frames in {seconds:.1f} s on {device}: {pairs / seconds:.1f} fps")

    files = sorted((results["flo"] / source.stem).glob("*.flo"))
    computed = torch.stack([flow.read(file).flow for file in files])
    error = float(flow.endpoint_error(computed, truth))
    still = float(flow.endpoint_error(torch.zeros_like(truth), truth))
    return DemoResult(error, still, results["video"] / f"{source.stem}.mp4")


def _texture(height: int, width: int, generator: torch.Generator) -> Tensor:
    """(3, H, W) in 0..255: coloured blotches of two sizes."""
    coarse = torch.rand(1, 3, height // 12 + 2, width // 12 + 2, generator=generator)
    fine = torch.rand(1, 3, height // 4 + 2, width // 4 + 2, generator=generator)
    parts = [F.interpolate(noise, (height, width), mode="bicubic")[0] for noise in (coarse, fine)]
    return (0.6 * parts[0] + 0.4 * parts[1]).clamp(0, 1) * 255


def _scene() -> tuple[Tensor, Tensor]:
    """Frames (T, 3, H, W) uint8 and their true flow (T-1, 2, H, W)."""
    generator = torch.Generator().manual_seed(1)
    margin = FRAMES * max(map(abs, _BACKGROUND_MOTION))
    background = _texture(HEIGHT + margin, WIDTH + margin, generator)
    top, left, height, width = _BOX
    box = _texture(height, width, generator)
    frames = torch.empty(FRAMES, 3, HEIGHT, WIDTH, dtype=torch.uint8)
    truth = torch.tensor(_BACKGROUND_MOTION, dtype=torch.float32).view(1, 2, 1, 1).repeat(FRAMES - 1, 1, HEIGHT, WIDTH)
    for t in range(FRAMES):
        y, x = margin - t * _BACKGROUND_MOTION[1], margin - t * _BACKGROUND_MOTION[0]
        frames[t] = background[:, y : y + HEIGHT, x : x + WIDTH].round()
        rows = slice(top + t * _BOX_MOTION[1], top + t * _BOX_MOTION[1] + height)
        columns = slice(left + t * _BOX_MOTION[0], left + t * _BOX_MOTION[0] + width)
        frames[t, :, rows, columns] = box.round().byte()
        if t < FRAMES - 1:
            truth[t, :, rows, columns] = torch.tensor(_BOX_MOTION, dtype=torch.float32).view(2, 1, 1)
    return frames, truth
