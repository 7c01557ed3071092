"""TV-L1 optical flow in plain loops: what OpenCV 5's DualTVL1OpticalFlow computes, rounding for rounding.

Zach, Pock and Bischof, "A Duality Based Approach for Realtime TV-L1 Optical Flow", 2007. With its defaults OpenCV's
class stops by a sum that is compared with a threshold, and at occlusions the solution is chaotic, so every operation
is rounded to float32 where OpenCV rounds it. Numba neither reorders nor fuses operations; fma() does where OpenCV does.
"""

import math
from typing import NamedTuple, Protocol

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Image = NDArray[np.float32]  # (H, W)
F = np.float32
ZERO, HALF, ONE, TWO, THREE = F(0), F(0.5), F(1), F(2), F(3)
CUBIC = F(-0.75)  # the free parameter of cubic convolution
FLAT = np.finfo(np.float32).eps  # squared gradients up to this carry no data term
MIN_LEVEL_SIZE = 16
compiled = numba.njit(cache=True)


class Params(Protocol):
    """The fields of pyaction.ops.TVL1Params that change what is computed."""

    tau: float
    attachment: float
    theta: float
    scales: int
    scale_step: float
    warps: int
    outer_iterations: int
    inner_iterations: int
    epsilon: float
    median_size: int


class DataTerm(NamedTuple):
    """Frame 1 seen through the flow u0 of a warp; rho(u) = constant + wx u1 + wy u2 is the linearised residual."""

    wx: Image
    wy: Image
    constant: Image
    norm: Image  # wx^2 + wy^2


def tvl1_flow(frame0: Tensor, frame1: Tensor, params: Params, initial_flow: Tensor | None = None) -> Tensor:
    """As pyaction.ops.tvl1_flow, one pair after the other. Whatever params.opencv_rounding says, it is on."""
    n, _, h, w = frame0.shape
    flow = np.empty((n, 2, h, w), np.float32)
    for i in range(n):
        start = None if initial_flow is None else initial_flow[i].numpy(force=True).copy()
        flow[i] = solve(grey_levels(frame0[i]), grey_levels(frame1[i]), params, start)
    return torch.from_numpy(flow).to(frame0.device)


def grey_levels(frame: Tensor) -> Image:
    """A frame (1 or 3, H, W) as grey levels 0..255; RGB by ITU-R BT.601."""
    pixels = frame.numpy(force=True).astype(np.float32)
    grey = pixels[0] if len(pixels) == 1 else F(0.299) * pixels[0] + F(0.587) * pixels[1] + F(0.114) * pixels[2]
    return np.ascontiguousarray(F(255) * grey if frame.is_floating_point() else grey)


def solve(frame0: Image, frame1: Image, params: Params, initial_flow: NDArray[np.float32] | None) -> NDArray:
    """The flow (2, H, W) of one pair, from the coarsest level of the pyramid to the finest."""
    pyramid0, pyramid1 = make_pyramid(frame0, params), make_pyramid(frame1, params)
    if initial_flow is None:
        flow = [np.zeros_like(pyramid0[-1]) for _ in range(2)]
    else:
        flow = list(initial_flow)
        for level in pyramid0[1:]:  # a pixel of a coarser level is wider: the vectors become shorter
            flow = [multiply(params.scale_step, resize(u, *level.shape, *shrink_ratio(params))) for u in flow]
    for level0, level1 in zip(reversed(pyramid0), reversed(pyramid1), strict=True):
        (h, w), (coarse_h, coarse_w) = level0.shape, flow[0].shape
        if (h, w) != (coarse_h, coarse_w):
            flow = [multiply(1 / params.scale_step, resize(u, h, w, coarse_h / h, coarse_w / w)) for u in flow]
        flow = solve_level(level0, level1, flow, params)
    return np.stack(flow)


def make_pyramid(frame: Image, params: Params) -> list[Image]:
    """Finest level first. It ends before a level with a side shorter than 16 pixels."""
    pyramid = [frame]
    while len(pyramid) < params.scales:
        h, w = (round(size * params.scale_step) for size in pyramid[-1].shape)  # half to even
        if min(h, w) < MIN_LEVEL_SIZE:
            break
        pyramid.append(resize(pyramid[-1], h, w, *shrink_ratio(params)))
    return pyramid


def shrink_ratio(params: Params) -> tuple[float, float]:
    """Source pixels per target pixel along y and x, not quite the quotient of the rounded sizes."""
    return 1 / params.scale_step, 1 / params.scale_step


def multiply(factor: float, u: Image) -> Image:
    """In float64: a factor such as 0.8 is not rounded to float32 first."""
    return (factor * u.astype(np.float64)).astype(np.float32)


def solve_level(frame0: Image, frame1: Image, flow: list[Image], params: Params) -> list[Image]:
    """Warps and iterations on one level, from the flow that the coarser level has found."""
    u1, u2 = flow
    p11, p12, p21, p22 = (np.zeros_like(u1) for _ in range(4))  # kept from warp to warp
    limit, ratio = F(params.attachment * params.theta), F(params.tau / params.theta)
    threshold = F(params.epsilon * params.epsilon * u1.shape[1] * u1.shape[0])
    gradient_x, gradient_y = centred_gradient(frame1)
    for _ in range(params.warps):
        term = data_term(frame0, frame1, gradient_x, gradient_y, u1, u2)
        error = np.inf
        for _ in range(params.outer_iterations):
            if not error > threshold:
                break
            u1, u2 = median_filter(u1, params.median_size), median_filter(u2, params.median_size)
            for _ in range(params.inner_iterations):
                if not error > threshold:
                    break
                div1, div2 = divergence(p11, p12), divergence(p21, p22)
                u1, u2, error = primal_step(u1, u2, term, div1, div2, limit, F(params.theta))
                p11, p12 = dual_step(p11, p12, u1, ratio)
                p21, p22 = dual_step(p21, p22, u2, ratio)
    return [u1, u2]


@compiled
def fma(a, b, c):
    """Rounds a b + c once. The product of two float32 is exact in float64; that the sum is rounded there too counts
    only where it then lies half way between two float32."""
    return np.float32(np.float64(a) * np.float64(b) + np.float64(c))


@compiled
def linear_tap(target, ratio, size):
    """The source pixel before a target pixel, pixel centres at half integers, and how far beyond it that one lies.

    Beyond the last source pixel its value holds. OpenCV (Intel IPP in it) reaches that value from the last but one
    when an image shrinks, which rounds differently.
    """
    position = (target + 0.5) * ratio - 0.5
    index = math.floor(position)
    if index < 0:
        return 0, ZERO
    if index < size - 1:
        return index, np.float32(position - index)
    if ratio > 1:
        return size - 2, ONE
    return size - 1, ZERO


@compiled
def resize(source, height, width, y_ratio, x_ratio):
    """Bilinear; the ratios are source pixels per target pixel. Not smoothed beforehand, though it may shrink."""
    source_height, source_width = source.shape
    target = np.empty((height, width), np.float32)
    for y in range(height):
        top, fraction_y = linear_tap(y, y_ratio, source_height)
        bottom = min(top + 1, source_height - 1)
        for x in range(width):
            left, fraction_x = linear_tap(x, x_ratio, source_width)
            right = min(left + 1, source_width - 1)
            above = fma(fraction_x, source[top, right] - source[top, left], source[top, left])
            below = fma(fraction_x, source[bottom, right] - source[bottom, left], source[bottom, left])
            target[y, x] = fma(fraction_y, below - above, above)
    return target


@compiled
def centred_gradient(image):
    """Half the difference of the neighbours on both sides; an edge pixel is its own neighbour."""
    height, width = image.shape
    gradient_x, gradient_y = np.empty_like(image), np.empty_like(image)
    for y in range(height):
        for x in range(width):
            left, right = image[y, max(x - 1, 0)], image[y, min(x + 1, width - 1)]
            above, below = image[max(y - 1, 0), x], image[min(y + 1, height - 1), x]
            gradient_x[y, x] = HALF * (right - left)
            gradient_y[y, x] = HALF * (below - above)
    return gradient_x, gradient_y


@compiled
def cubic_weights(x):
    """Of the four taps around a place that lies x behind the second one."""
    y = ONE - x
    w0 = CUBIC * (x * (y * y))
    w1 = fma(fma(CUBIC + TWO, x, -(CUBIC + THREE)), x * x, ONE)
    w3 = CUBIC * ((x * x) * y)
    w2 = ((ONE - w0) - w1) - w3
    return w0, w1, w2, w3


@compiled
def sample(image, x, y):
    """Bicubic; each tap outside the image is zero."""
    height, width = image.shape
    base_x, base_y = np.floor(x), np.floor(y)
    if not (-2 <= base_x <= width and -2 <= base_y <= height):
        return ZERO
    x_weights, y_weights = cubic_weights(x - base_x), cubic_weights(y - base_y)
    total = ZERO
    for j in range(4):
        row = ZERO
        for i in range(4):
            tap_x, tap_y = int(base_x) - 1 + i, int(base_y) - 1 + j
            inside = 0 <= tap_x < width and 0 <= tap_y < height
            row = fma(x_weights[i], image[tap_y, tap_x] if inside else ZERO, row)
        total = fma(y_weights[j], row, total)
    return total


@compiled
def data_term(frame0, frame1, gradient_x, gradient_y, u1, u2):
    """Samples frame 1 and its gradient where the flow points."""
    height, width = frame0.shape
    wx, wy = np.empty_like(frame0), np.empty_like(frame0)
    constant, norm = np.empty_like(frame0), np.empty_like(frame0)
    for y in range(height):
        for x in range(width):
            to_x, to_y = np.float32(x) + u1[y, x], np.float32(y) + u2[y, x]
            gx, gy = sample(gradient_x, to_x, to_y), sample(gradient_y, to_x, to_y)
            warped = sample(frame1, to_x, to_y)
            wx[y, x], wy[y, x] = gx, gy
            constant[y, x] = warped - gx * u1[y, x] - gy * u2[y, x] - frame0[y, x]
            norm[y, x] = gx * gx + gy * gy
    return DataTerm(wx, wy, constant, norm)


@compiled
def median_filter(u, size):
    """Median over size x size pixels; outside the image the nearest edge pixel repeats."""
    height, width = u.shape
    radius = size // 2
    window = np.empty(size * size, np.float32)
    filtered = np.empty_like(u)
    for y in range(height):
        for x in range(width):
            for j in range(size):
                for i in range(size):
                    from_y = min(max(y + j - radius, 0), height - 1)
                    from_x = min(max(x + i - radius, 0), width - 1)
                    window[j * size + i] = u[from_y, from_x]
            filtered[y, x] = np.median(window)
    return filtered


@compiled
def divergence(px, py):
    """Backward differences; left of the first column px is zero, above the first row py is."""
    result = np.empty_like(px)
    for y in range(px.shape[0]):
        for x in range(px.shape[1]):
            above = py[y - 1, x] if y > 0 else ZERO
            if x > 0:
                result[y, x] = (px[y, x] - px[y, x - 1]) + (py[y, x] - above)
            else:
                result[y, x] = (px[y, x] + py[y, x]) - above
    return result


@compiled
def primal_step(u1, u2, term, div1, div2, limit, theta):
    """Equations 12 and 15: towards a small residual, then towards smoothness. Also the sum of squared updates."""
    new1, new2 = np.empty_like(u1), np.empty_like(u2)
    error = ZERO
    for y in range(u1.shape[0]):
        for x in range(u1.shape[1]):
            wx, wy, norm = term.wx[y, x], term.wy[y, x], term.norm[y, x]
            rho = term.constant[y, x] + (wx * u1[y, x] + wy * u2[y, x])
            if rho < -limit * norm:
                step = limit
            elif rho > limit * norm:
                step = -limit
            elif norm > FLAT:
                step = -rho / norm
            else:
                step = ZERO
            new1[y, x] = (u1[y, x] + step * wx) + theta * div1[y, x]
            new2[y, x] = (u2[y, x] + step * wy) + theta * div2[y, x]
            change1, change2 = new1[y, x] - u1[y, x], new2[y, x] - u2[y, x]
            error += change1 * change1 + change2 * change2
    return new1, new2, error


@compiled
def dual_step(px, py, u, ratio):
    """Equation 13. The forward gradient of u is zero across the last column and the last row."""
    height, width = u.shape
    new_x, new_y = np.empty_like(px), np.empty_like(py)
    for y in range(height):
        for x in range(width):
            ux = u[y, x + 1] - u[y, x] if x < width - 1 else ZERO
            uy = u[y + 1, x] - u[y, x] if y < height - 1 else ZERO
            length = np.float32(math.sqrt(np.float64(ux) * np.float64(ux) + np.float64(uy) * np.float64(uy)))
            norm = ONE + ratio * length
            new_x[y, x] = (px[y, x] + ratio * ux) / norm
            new_y[y, x] = (py[y, x] + ratio * uy) / norm
    return new_x, new_y


def moving_texture(flow: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Frames (N, 1, H, W), float32 in [0, 1], of which `flow` (N, 2, H, W) is the flow, also between the pixels.

    Frame 1 is a sum of plane waves, 7 to 50 pixels long; frame 0 is the same sum at x + u.
    """
    generator = np.random.default_rng(seed)
    n, _, h, w = flow.shape
    y, x = np.mgrid[:h, :w].astype(np.float64)
    u, v = flow.numpy(force=True).astype(np.float64).swapaxes(0, 1)
    frames = np.zeros((2, n, 1, h, w))
    waves = 24
    for _ in range(waves):
        frequency, direction, phase = generator.uniform([0.12, 0, 0], [0.9, 2 * math.pi, 2 * math.pi])
        for frame, to_x, to_y in ((frames[0], x + u, y + v), (frames[1], x, y)):
            along = to_x * math.cos(direction) + to_y * math.sin(direction)
            frame[:, 0] += np.sin(frequency * along + phase)
    frames = (0.5 + 0.2 * frames / math.sqrt(waves / 2)).clip(0, 1).astype(np.float32)
    return torch.from_numpy(frames[0]), torch.from_numpy(frames[1])
