"""The steps of TV-L1 where pyaction departs from OpenCV (params.as_opencv = False); csrc/tvl1/tvl1.h says why.

fma() rounds as the kernels do where the processor has it, so that what differs is found by single bits.
"""

import math

import numpy as np

from reference.tvl1_opencv import CUBIC, FLAT, HALF, ONE, THREE, TWO, ZERO, DataTerm, F, compiled, cubic_weights, fma

REFERENCE_SHARE = F(0.4)  # of frame 0's gradient in the data term's
OUTSIDE_DISTANCE = F(1e-4)  # squared; nearer, a pixel has not left the image
LARGEST_RESIDUAL = F(30)  # grey levels
WINDOW_RADIUS = 2  # of the pixels that two flows are compared on


@compiled
def clamp(value, lowest, highest):
    return min(max(value, lowest), highest)


@compiled
def pixel(image, y, x):
    """Outside the image the nearest edge pixel repeats."""
    return image[clamp(y, 0, image.shape[0] - 1), clamp(x, 0, image.shape[1] - 1)]


@compiled
def target_of(image, y, x, u1, u2):
    """Where the flow of a pixel points to, moved to the nearest place in the image, and whether it was there."""
    to_y, to_x = np.float32(y) + u2[y, x], np.float32(x) + u1[y, x]
    in_y = clamp(to_y, ZERO, np.float32(image.shape[0] - 1))
    in_x = clamp(to_x, ZERO, np.float32(image.shape[1] - 1))
    distance = (in_x - to_x) * (in_x - to_x) + (in_y - to_y) * (in_y - to_y)
    return in_y, in_x, distance <= OUTSIDE_DISTANCE


@compiled
def cubic_slopes(x):
    """The derivatives of cubic_weights(); like those of any weights that add up to one, they add up to zero."""
    y = ONE - x
    d0 = (CUBIC * y) * fma(-THREE, x, ONE)
    d1 = x * fma(THREE * (CUBIC + TWO), x, -TWO * (CUBIC + THREE))
    d3 = (CUBIC * x) * fma(-THREE, x, TWO)
    return d0, d1, -d0 - d1 - d3, d3


@compiled
def weighted(weights, values):
    total = weights[0] * values[0]
    for i in range(1, 4):
        total = fma(weights[i], values[i], total)
    return total


@compiled
def bicubic_surface(image, y, x):
    """Height and slopes along x and y of the surface that cubic convolution lays through the pixels."""
    base_y, base_x = int(y), int(x)
    y_weights, y_slopes = cubic_weights(y - np.float32(base_y)), cubic_slopes(y - np.float32(base_y))
    x_weights, x_slopes = cubic_weights(x - np.float32(base_x)), cubic_slopes(x - np.float32(base_x))
    values, slopes = np.empty(4, np.float32), np.empty(4, np.float32)
    taps = np.empty(4, np.float32)
    for j in range(4):
        for i in range(4):
            taps[i] = pixel(image, base_y + j - 1, base_x + i - 1)
        values[j], slopes[j] = weighted(x_weights, taps), weighted(x_slopes, taps)
    return weighted(y_weights, values), weighted(y_weights, slopes), weighted(y_slopes, values)


@compiled
def data_term(frame0, frame1, u1, u2):
    """As OpenCV's, but `norm` is 1 / (wx^2 + wy^2), or 0 where that is flat. No gradient outside the image."""
    wx, wy = np.zeros_like(frame0), np.zeros_like(frame0)
    constant, norm = np.empty_like(frame0), np.zeros_like(frame0)
    for y in range(frame0.shape[0]):
        for x in range(frame0.shape[1]):
            to_y, to_x, inside = target_of(frame1, y, x, u1, u2)
            warped, slope_x, slope_y = bicubic_surface(frame1, to_y, to_x)
            if inside:
                centred_x = HALF * REFERENCE_SHARE * (pixel(frame0, y, x + 1) - pixel(frame0, y, x - 1))
                centred_y = HALF * REFERENCE_SHARE * (pixel(frame0, y + 1, x) - pixel(frame0, y - 1, x))
                wx[y, x] = fma(ONE - REFERENCE_SHARE, slope_x, centred_x)
                wy[y, x] = fma(ONE - REFERENCE_SHARE, slope_y, centred_y)
            square = fma(wx[y, x], wx[y, x], wy[y, x] * wy[y, x])
            if square > FLAT:
                norm[y, x] = ONE / square
            constant[y, x] = warped - frame0[y, x] - fma(wx[y, x], u1[y, x], wy[y, x] * u2[y, x])
    return DataTerm(wx, wy, constant, norm)


@compiled
def divergence(px, py, y, x):
    """Backward differences at one pixel; left of the first column px is zero, above the first row py is."""
    left = px[y, x - 1] if x > 0 else ZERO
    above = py[y - 1, x] if y > 0 else ZERO
    return (px[y, x] - left) + (py[y, x] - above)


@compiled
def primal_step(u1, u2, term, p, limit, theta):
    """Down the residual to its zero, at most `limit` times the gradient; then towards smoothness."""
    new1, new2 = np.empty_like(u1), np.empty_like(u2)
    error = ZERO
    for y in range(u1.shape[0]):
        for x in range(u1.shape[1]):
            wx, wy = term.wx[y, x], term.wy[y, x]
            rho = fma(wx, u1[y, x], fma(wy, u2[y, x], term.constant[y, x]))
            step = clamp(-rho * term.norm[y, x], -limit, limit)
            new1[y, x] = fma(theta, divergence(p[0], p[1], y, x), fma(step, wx, u1[y, x]))
            new2[y, x] = fma(theta, divergence(p[2], p[3], y, x), fma(step, wy, u2[y, x]))
            change1, change2 = new1[y, x] - u1[y, x], new2[y, x] - u2[y, x]
            error += change1 * change1 + change2 * change2
    return new1, new2, error


@compiled
def dual_step(p, u1, u2, ratio):
    """The total variation of the vector (u1, u2) has one norm, that of all four derivatives."""
    height, width = u1.shape
    new = np.empty_like(u1), np.empty_like(u1), np.empty_like(u1), np.empty_like(u1)
    for y in range(height):
        for x in range(width):
            u1x = pixel(u1, y, x + 1) - u1[y, x]
            u1y = pixel(u1, y + 1, x) - u1[y, x]
            u2x = pixel(u2, y, x + 1) - u2[y, x]
            u2y = pixel(u2, y + 1, x) - u2[y, x]
            length = np.float32(math.sqrt(fma(u1x, u1x, u1y * u1y) + fma(u2x, u2x, u2y * u2y)))
            scale = ONE / fma(ratio, length, ONE)
            new[0][y, x] = fma(ratio, u1x, p[0][y, x]) * scale
            new[1][y, x] = fma(ratio, u1y, p[1][y, x]) * scale
            new[2][y, x] = fma(ratio, u2x, p[2][y, x]) * scale
            new[3][y, x] = fma(ratio, u2y, p[3][y, x]) * scale
    return new


@compiled
def residual(frame0, frame1, y, x, u1, u2):
    """What the flow leaves unexplained of a pixel, sampled bilinearly."""
    to_y, to_x, _ = target_of(frame1, y, x, u1, u2)
    top, left = int(to_y), int(to_x)
    right, down = to_x - np.float32(left), to_y - np.float32(top)
    rows = np.empty(2, np.float32)
    for j in range(2):
        here, beside = pixel(frame1, top + j, left), pixel(frame1, top + j, left + 1)
        rows[j] = fma(right, beside - here, here)
    return min(abs(fma(down, rows[1] - rows[0], rows[0]) - frame0[y, x]), LARGEST_RESIDUAL)


@compiled
def better_flow(frame0, frame1, u1, u2, kept1, kept2):
    """`kept` where its residuals in a window around the pixel add up to less than those of u, which is u elsewhere."""
    height, width = frame0.shape
    advantage = np.empty_like(frame0)
    for y in range(height):
        for x in range(width):
            of_kept = residual(frame0, frame1, y, x, kept1, kept2)
            advantage[y, x] = residual(frame0, frame1, y, x, u1, u2) - of_kept
    better1, better2 = u1.copy(), u2.copy()
    for y in range(height):
        for x in range(width):
            total = ZERO
            for from_y in range(max(y - WINDOW_RADIUS, 0), min(y + WINDOW_RADIUS + 1, height)):
                for from_x in range(max(x - WINDOW_RADIUS, 0), min(x + WINDOW_RADIUS + 1, width)):
                    total += advantage[from_y, from_x]
            if total > 0:
                better1[y, x], better2[y, x] = kept1[y, x], kept2[y, x]
    return better1, better2
