"""TV-L1 optical flow in plain loops: the way from level to level, which both variants share, and sequences.

Zach, Pock and Bischof, "A Duality Based Approach for Realtime TV-L1 Optical Flow", 2007. The steps on one level are
those of tvl1_opencv.py or of tvl1_own.py.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyaction.ops import TVL1Params
from reference import tvl1_opencv, tvl1_own
from reference.tvl1_opencv import F, Image, median_filter, resize

Planes = tuple[Image, ...]  # the flow u1, u2; or its dual variables p11, p12 of u1 and p21, p22 of u2
MIN_LEVEL_SIZE = 16

# No field has its default, 0 or 1.
PARAMS = TVL1Params(
    tau=0.2,
    attachment=0.08,
    theta=0.4,
    scales=3,
    scale_step=0.7,
    warps=3,
    outer_iterations=4,
    inner_iterations=11,
    epsilon=0.02,
    median_size=3,
    as_opencv=False,
)


def tvl1_flow(frame0: Tensor, frame1: Tensor, params: TVL1Params, initial_flow: Tensor | None = None) -> Tensor:
    """As pyaction.ops.tvl1_flow, one pair after the other."""
    n, _, h, w = frame0.shape
    flow = np.empty((n, 2, h, w), np.float32)
    for i in range(n):
        pyramids = [make_pyramid(grey_levels(frame[i]), params) for frame in (frame0, frame1)]
        start = None if initial_flow is None else tuple(initial_flow[i].numpy(force=True).copy())
        flow[i] = solve(*pyramids, params, initial_flow=start)[0]
    return torch.from_numpy(flow).to(frame0.device)


def tvl1_flow_clip(clip: Tensor, params: TVL1Params) -> Tensor:
    """As pyaction.ops.tvl1_flow_clip: each pair begins with what the pair before has found at every level."""
    n, t, _, h, w = clip.shape
    flow = np.empty((n, t - 1, 2, h, w), np.float32)
    for i in range(n):
        pyramids = [make_pyramid(grey_levels(frame), params) for frame in clip[i]]
        kept = None
        for pair in range(t - 1):
            levels = solve(pyramids[pair], pyramids[pair + 1], params, kept=kept)
            flow[i, pair] = levels[0]
            kept = None if params.as_opencv else levels
    return torch.from_numpy(flow).to(clip.device)


def grey_levels(frame: Tensor) -> Image:
    """A frame (1 or 3, H, W) as grey levels 0..255; RGB by ITU-R BT.601."""
    pixels = frame.numpy(force=True).astype(np.float32)
    grey = pixels[0] if len(pixels) == 1 else F(0.299) * pixels[0] + F(0.587) * pixels[1] + F(0.114) * pixels[2]
    return np.ascontiguousarray(F(255) * grey if frame.is_floating_point() else grey)


def make_pyramid(frame: Image, params: TVL1Params) -> list[Image]:
    """Finest level first. It ends before a level with a side shorter than 16 pixels."""
    pyramid = [frame]
    while len(pyramid) < params.scales:
        h, w = (round(size * params.scale_step) for size in pyramid[-1].shape)  # half to even
        if min(h, w) < MIN_LEVEL_SIZE:
            break
        pyramid.append(resize(pyramid[-1], h, w, *size_ratio(pyramid[-1].shape, (h, w), params)))
    return pyramid


def size_ratio(source: tuple[int, ...], target: tuple[int, ...], params: TVL1Params) -> tuple[float, float]:
    """Source pixels per target pixel along y and x. OpenCV takes the nominal step where it shrinks."""
    if params.as_opencv and target < source:
        return 1 / params.scale_step, 1 / params.scale_step
    return source[0] / target[0], source[1] / target[1]


def carry_flow(u: Planes, target: tuple[int, ...], params: TVL1Params) -> Planes:
    """To a level of another size. A pixel of a coarser level is wider: the vectors become shorter."""
    source = u[0].shape
    y_ratio, x_ratio = size_ratio(source, target, params)
    if params.as_opencv:
        x_factor = y_factor = params.scale_step if target < source else 1 / params.scale_step
    else:
        x_factor, y_factor = 1 / x_ratio, 1 / y_ratio
    u1, u2 = (resize(component, *target, y_ratio, x_ratio) for component in u)
    return multiply(x_factor, u1), multiply(y_factor, u2)


def multiply(factor: float, u: Image) -> Image:
    """In float64: a factor such as 0.8 is not rounded to float32 first."""
    return (factor * u.astype(np.float64)).astype(np.float32)


def carry_duals(p: Planes, target: tuple[int, ...], params: TVL1Params) -> Planes:
    """To a finer level. Where the forward gradient ends, at the right or lower edge, its dual variable stays zero."""
    p11, p12, p21, p22 = (resize(dual, *target, *size_ratio(dual.shape, target, params)) for dual in p)
    assert not (p11[:, -1].any() or p21[:, -1].any() or p12[-1].any() or p22[-1].any())
    return p11, p12, p21, p22


def no_duals(size: tuple[int, ...]) -> Planes:
    return tuple(np.zeros(size, np.float32) for _ in range(4))


def solve(
    pyramid0: list[Image],
    pyramid1: list[Image],
    params: TVL1Params,
    *,
    initial_flow: Planes | None = None,
    kept: list[Planes] | None = None,
) -> list[Planes]:
    """The flow of one pair on every level, finest first, found coarse to fine. `kept`: that of the pair before."""
    u = initial_flow or tuple(np.zeros_like(pyramid0[-1]) for _ in range(2))
    for level in pyramid0[1:] if initial_flow else ():
        u = carry_flow(u, level.shape, params)
    p = no_duals(pyramid0[-1].shape)
    found: list[Planes] = []
    for i in reversed(range(len(pyramid0))):
        frame0, frame1 = pyramid0[i], pyramid1[i]
        if found:
            u = carry_flow(u, frame0.shape, params)
            p = no_duals(frame0.shape) if params.as_opencv else carry_duals(p, frame0.shape, params)
        if kept:
            u = tvl1_own.better_flow(frame0, frame1, *u, *kept[i])
        u, p = solve_level(frame0, frame1, u, p, params)
        found.insert(0, u)
    return found


def solve_level(frame0: Image, frame1: Image, u: Planes, p: Planes, params: TVL1Params) -> tuple[Planes, Planes]:
    """Warps and iterations on one level, from the flow and the dual variables that the coarser level has found."""
    steps = tvl1_opencv if params.as_opencv else tvl1_own
    u1, u2 = u
    limit, ratio = F(params.attachment * params.theta), F(params.tau / params.theta)
    threshold = F(params.epsilon * params.epsilon * u1.shape[1] * u1.shape[0])
    if params.epsilon == 0:  # no stop, not even where nothing has moved yet because all data terms are zero
        threshold = F(-1)
    for _ in range(params.warps):
        term = steps.data_term(frame0, frame1, u1, u2)
        error = np.inf
        for _ in range(params.outer_iterations):
            if not error > threshold:
                break
            u1, u2 = median_filter(u1, params.median_size), median_filter(u2, params.median_size)
            for _ in range(params.inner_iterations):
                if not error > threshold:
                    break
                u1, u2, error = steps.primal_step(u1, u2, term, p, limit, F(params.theta))
                p = steps.dual_step(p, u1, u2, ratio)
    return (u1, u2), p


def texture(y: NDArray[np.float64], x: NDArray[np.float64], seed: int) -> Tensor:
    """A sum of plane waves, 7 to 50 pixels long, float32 in [0, 1], at places that need not be pixels."""
    generator = np.random.default_rng(seed)
    total = np.zeros(np.broadcast_shapes(y.shape, x.shape))
    waves = 24
    for _ in range(waves):
        frequency, direction, phase = generator.uniform([0.12, 0, 0], [0.9, 2 * math.pi, 2 * math.pi])
        total += np.sin(frequency * (x * math.cos(direction) + y * math.sin(direction)) + phase)
    return torch.from_numpy((0.5 + 0.2 * total / math.sqrt(waves / 2)).clip(0, 1).astype(np.float32))


def moving_clip(flow: Tensor, frames: int, seed: int = 0) -> Tensor:
    """Clips (N, T, 1, H, W) whose last frame is the texture, and each before it that texture one `flow` (N, 2, H, W)
    further on: the flow between neighbouring frames where it is the same everywhere, and that of the last pair.
    """
    n, _, h, w = flow.shape
    y, x = np.mgrid[:h, :w].astype(np.float64)
    u, v = flow.numpy(force=True).astype(np.float64).swapaxes(0, 1)
    steps = range(frames - 1, -1, -1)
    return torch.stack([texture(y + step * v, x + step * u, seed) for step in steps], dim=1)[:, :, None]


def moving_texture(flow: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Frames (N, 1, H, W), float32 in [0, 1], of which `flow` (N, 2, H, W) is the flow, also between the pixels."""
    clip = moving_clip(flow, 2, seed)
    return clip[:, 0].clone(), clip[:, 1].clone()


def wavy_clip(n: int, frames: int, height: int, width: int, device: str = "cpu") -> Tensor:
    """Clips (N, T, 1, H, W) that move by about a pixel per frame, another way in each."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    clip = torch.arange(n).view(n, 1, 1)
    components = torch.broadcast_tensors(0.5 + 0.6 * torch.sin(y / 25 + clip), 0.7 * torch.cos(x / 20 + 2 * clip))
    return moving_clip(torch.stack(components, dim=1), frames).to(device)
