"""The main job on a video that is made here, so that its true motion is known."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from pyaction import flow, video
from pyaction.data.generated import ACTIONS, ActionScene
from pyaction.engine.jobs import Job
from pyaction.engine.result_folder import ResultFolder
from pyaction.engine.video_results import write_results

HEIGHT, WIDTH, FRAMES, FPS = 240, 320, 24, 25
ACTION = next(action for action in ACTIONS if action.name == "BoxSlide")


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
    """Makes a video of a box that slides to and fro before a moving camera, and compares its flow with the truth.

    Args:
        folder: Where the files go; made if need be.
        say: Called with a line of text before each step.
        device: Where to compute: "cpu" or "cuda".

    Returns:
        The errors, over the pixels of all pairs of frames that are seen in both, and where the pictures are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "moving_box.mp4"
    say(f"making {source}: {FRAMES} frames, {WIDTH} x {HEIGHT}, a box slides to and fro, the camera pans and shakes")
    scene = ActionScene(ACTION, group=1, clip=1, size=(HEIGHT, WIDTH), frames=FRAMES)
    truth, visible = scene.flow()
    video.write(source, scene.frames(), FPS)

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
    error = float(flow.endpoint_error(computed, truth, visible))
    still = float(flow.endpoint_error(torch.zeros_like(truth), truth, visible))
    return DemoResult(error, still, results["video"] / f"{source.stem}.mp4")
