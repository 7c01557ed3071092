"""Optical flow by the fixed-function engine of NVIDIA GPUs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pyaction.flow.estimation import Estimator

if TYPE_CHECKING:
    from nvidia.dali import Pipeline

_PRESETS = {"slow": 0.0, "medium": 0.5, "fast": 1.0}
_TURING = (7, 5)


@dataclass(frozen=True)
class Hardware(Estimator):
    """NVIDIA Optical Flow, by DALI's `fn.optical_flow`: of clips on a GPU from Turing on that has the engine.

    The engine gives one vector, in steps of 1/32 pixel, per cell of a grid; between the cells' centres the flow is
    bilinear. Neither a pair's predecessors nor other clips have a say in it. A call waits for the GPU, and calls from
    several threads for each other.

    Args:
        grid: Side of a cell in pixels: 4, or from Ampere on also 2 and 1.
        preset: `"slow"` is the best, `"fast"` the worst.

    Raises:
        ValueError: An argument is none of the above; or the clip is not on a GPU.
        ImportError: DALI is not installed.
        RuntimeError: The GPU has no such engine, or not with that grid, or not for frames of that size.

    Source: NVIDIA Optical Flow SDK, NVOFA Programming Guide.

    Example:
        >>> Hardware(grid=4)
        Hardware(grid=4, preset='slow')
    """

    grid: Literal[1, 2, 4] = 4
    preset: Literal["slow", "medium", "fast"] = "slow"
    _pipelines: dict[int, Pipeline] = field(default_factory=dict, init=False, repr=False, compare=False)
    _lock: Lock = field(default_factory=Lock, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuses values that DALI would stumble over later."""
        if self.grid not in (1, 2, 4):
            raise ValueError(f"flow.Hardware: grid must be 1, 2 or 4; got {self.grid!r}")
        if self.preset not in _PRESETS:
            presets = ", ".join(map(repr, _PRESETS))
            raise ValueError(f"flow.Hardware: preset must be one of {presets}; got {self.preset!r}")

    def compute(self, clip: Tensor) -> Tensor:
        """See `Estimator.compute`."""
        try:
            import nvidia.dali  # noqa: F401
        except ImportError as error:
            raise ImportError(
                "flow.Hardware needs NVIDIA DALI: pip install 'pyaction[cuda13]' (or 'pyaction[cuda12]')"
            ) from error
        if not clip.is_cuda:
            raise ValueError(f"flow.Hardware: clip must be on an NVIDIA GPU; got {clip.device}")
        name, capability = torch.cuda.get_device_name(clip.device), torch.cuda.get_device_capability(clip.device)
        if capability < _TURING:
            raise RuntimeError(f"flow.Hardware: NVIDIA Optical Flow needs a GPU from Turing on; got {name}")
        try:
            with self._lock, torch.cuda.device(clip.device):
                return flow_by(self._run, clip, self.grid)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._pipelines.pop(clip.device.index, None)  # another clip begins with a new one
            height, width = clip.shape[-2:]
            raise RuntimeError(
                f"flow.Hardware: NVIDIA Optical Flow with grid {self.grid} does not work for {width} x {height} pixels "
                f"on {name}, for the reason that DALI gives above. (In a container, the driver's "
                "libnvidia-opticalflow.so.1 needs NVIDIA_DRIVER_CAPABILITIES=compute,utility,video.)"
            ) from error

    def _run(self, frames: Tensor) -> Tensor:
        device = frames.device.index
        pipeline = self._pipelines.get(device)
        if pipeline is None or pipeline.max_batch_size < len(frames):
            pipeline = self._pipelines[device] = self._pipeline(device, len(frames))
        (vectors,) = pipeline.run(clip=frames)
        copy = torch.from_dlpack(vectors.as_tensor()).clone()
        torch.cuda.current_stream().synchronize()  # DALI may now have its memory back
        return copy

    def _pipeline(self, device: int, batch_size: int) -> Pipeline:
        from nvidia.dali import Pipeline, fn

        pipeline = Pipeline(batch_size=batch_size, num_threads=1, device_id=device, prefetch_queue_depth=1)
        with pipeline:
            clip = fn.external_source(name="clip", device="gpu", layout="FHWC")
            vectors = fn.optical_flow(clip, device="gpu", output_grid=self.grid, preset=_PRESETS[self.preset])
            pipeline.set_outputs(vectors)
        return pipeline


def flow_by(run: Callable[[Tensor], Tensor], clip: Tensor, grid: int) -> Tensor:
    """The flow of a clip by an engine.

    Args:
        run: the engine. It takes RGB sequences `(N, T, H, W, 3)`, uint8, and gives `(N, T - 1, h, w, 2)`, float32, in
            pixels of the frames: for a cell of the grid in frame t + 1, where it was in frame t.
        clip: `(N, T, C, H, W)`, as `flow.estimate` takes it.
        grid: side of a cell in pixels; h and w count the cells that are begun.

    Returns:
        `(N, T - 1, 2, H, W)`, float32, in pixels, from frame t to frame t + 1.
    """
    n, t, _, height, width = clip.shape
    if clip.dtype != torch.uint8:
        clip = clip.float().mul(255).round().clamp(0, 255).byte()
    # The engine looks back in time: with the film run the other way, that is forward. And RGB for grey too, since
    # DALI copies grey frames into four-channel buffers as they are.
    frames = clip.flip(1).expand(-1, -1, 3, -1, -1).permute(0, 1, 3, 4, 2).contiguous()  # [N, T, H, W, 3]
    vectors = run(frames).flip(1).permute(0, 1, 4, 2, 3).flatten(0, 1)  # [N(T-1), 2, h, w]
    if grid > 1:
        vectors = F.interpolate(vectors, scale_factor=grid, mode="bilinear", align_corners=False)
    return vectors[..., :height, :width].unflatten(0, (n, t - 1)).contiguous()
