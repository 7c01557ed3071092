"""The steps of TV-L1 as OpenCV 5's DualTVL1OpticalFlow rounds them, and the resampling that tvl1_own.py shares.

With its defaults OpenCV's class stops by a sum that is compared with a threshold, and at occlusions the solution is
chaotic, so every operation is rounded to float32 where OpenCV rounds it. Numba neither reorders nor fuses operations;
fma() does where OpenCV does.
"""

import math
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]  # (H, W)
F = np.float32
ZERO, HALF, ONE, TWO, THREE = F(0), F(0.5), F(1), F(2), F(3)
CUBIC = F(-0.75)  # the free parameter of cubic convolution
FLAT = np.finfo(np.float32).eps  # squared gradients up to this carry no data term
compiled = numba.njit(cache=True)


class DataTerm(NamedTuple):
    """Frame 1 seen through the flow u0 of a warp; rho(u) = constant + wx u1 + wy u2 is the linearised residual."""

    wx: Image
    wy: Image
    constant: Image
    norm: Image  # wx^2 + wy^2


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
def data_term(frame0, frame1, u1, u2):
    """Samples frame 1 and its gradient where the flow points."""
    height, width = frame0.shape
    gradient_x, gradient_y = centred_gradient(frame1)
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
def primal_step(u1, u2, term, p, limit, theta):
    """Equations 12 and 15: towards a small residual, then towards smoothness. Also the sum of squared updates."""
    div1, div2 = divergence(p[0], p[1]), divergence(p[2], p[3])
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
def dual_step(p, u1, u2, ratio):
    """The dual variables p11, p12 of u1 and p21, p22 of u2: each component has a norm of its own."""
    return step_of_one(p[0], p[1], u1, ratio) + step_of_one(p[2], p[3], u2, ratio)


@compiled
def step_of_one(px, py, u, ratio):
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
