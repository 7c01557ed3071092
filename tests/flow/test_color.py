import math

import numpy as np
import pytest
import torch
from torchvision.utils import flow_to_image

from pyaction import flow as pf

NAN = float("nan")


def random_flow(*shape, seed=6):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 9


def wheel():
    """Baker's colour circle, written down segment by segment."""
    hues = []
    hues += [(255, 255 * i // 15, 0) for i in range(15)]
    hues += [(255 - 255 * i // 6, 255, 0) for i in range(6)]
    hues += [(0, 255, 255 * i // 4) for i in range(4)]
    hues += [(0, 255 - 255 * i // 11, 255) for i in range(11)]
    hues += [(255 * i // 13, 0, 255) for i in range(13)]
    hues += [(255, 0, 255 - 255 * i // 6) for i in range(6)]
    return hues


def scalar_color(u, v, max_radius):
    if not (abs(u) <= 1e9 and abs(v) <= 1e9):
        return [0, 0, 0]
    hues = wheel()
    radius = math.sqrt(u * u + v * v) / max_radius
    position = (math.atan2(-v, -u) / math.pi + 1) / 2 * 54
    k = int(position)
    f = position - k
    pixel = []
    for c in range(3):
        hue = hues[k][c] + f * (hues[(k + 1) % 55][c] - hues[k][c])
        pixel.append(math.floor(255 - radius * (255 - hue) if radius <= 1 else 0.75 * hue))
    return pixel


def assert_close_colors(image, expected):
    """Equal, but for a level where float32 falls on the other side of a whole number."""
    difference = (image.long() - torch.as_tensor(expected).long()).abs()
    assert difference.max() <= 1
    assert difference.double().mean() < 0.005


@pytest.mark.parametrize(
    ("u", "v", "rgb"),
    [
        (4, 0, [255, 0, 0]),  # right: the first hue
        (0, 4, [255, 229, 0]),  # down: half-way from hue 13 (green 221) to hue 14 (238)
        (-4, 0, [0, 209, 255]),  # left: hue 27, two of eleven steps from cyan to blue
        (0, -4, [88, 0, 255]),  # up: half-way from hue 40 (red 78) to 41 (98)
        (2, 0, [255, 127, 127]),  # half the radius, half-way to white
        (0, 0, [255, 255, 255]),
        (8, 0, [191, 0, 0]),  # beyond the radius: three quarters
        (-400, 0, [0, 156, 191]),
        (NAN, 0, [0, 0, 0]),
        (0, 1.1e9, [0, 0, 0]),
        (-float("inf"), 3, [0, 0, 0]),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_known_value(u, v, rgb, dtype):
    image = pf.to_image(torch.tensor([u, v], dtype=dtype).view(2, 1, 1), max_radius=4)
    assert image.dtype == torch.uint8 and image.shape == (3, 1, 1)
    assert image.flatten().tolist() == rgb


@pytest.mark.parametrize("shape", [(2, 1, 1), (2, 37, 53), (3, 2, 9, 11), (2, 3, 2, 5, 4)])
def test_matches_reference(shape):
    flow = random_flow(*shape)
    image = pf.to_image(flow, max_radius=7.5)
    assert image.shape == (*shape[:-3], 3, *shape[-2:]) and image.is_contiguous()
    expected = np.zeros(image.shape, np.int64)
    for i in np.ndindex(shape[:-3]):
        for y, x in np.ndindex(shape[-2:]):
            u, v = flow[i][:, y, x].tolist()
            expected[(*i, slice(None), y, x)] = scalar_color(u, v, 7.5)
    assert_close_colors(image, expected)


def test_every_direction_matches_reference():
    angles = torch.arange(720, dtype=torch.float64) * (2 * math.pi / 720) + 1e-3
    flow = torch.stack([angles.cos(), angles.sin()]).unsqueeze(1) * 3  # [2, 1, 720]
    expected = [scalar_color(u, v, 4) for u, v in flow[:, 0].T.tolist()]
    assert torch.equal(pf.to_image(flow, max_radius=4)[:, 0].T.long(), torch.tensor(expected))
    assert_close_colors(pf.to_image(flow.float(), max_radius=4)[:, 0].T, expected)


@pytest.mark.parametrize("size", [(1, 1), (41, 67)])
def test_as_torchvision(size):
    flow = random_flow(2, *size)
    assert_close_colors(pf.to_image(flow), flow_to_image(flow))


def test_radius_is_each_images_own():
    flow = random_flow(3, 2, 12, 10)
    flow[1] *= 0.01
    batch = pf.to_image(flow)
    for image, alone in zip(batch, flow, strict=True):
        assert torch.equal(image, pf.to_image(alone))
    assert torch.equal(pf.to_image(flow.view(3, 1, 2, 12, 10)), batch.view(3, 1, 3, 12, 10))
    # The same motion a hundred times slower is the same picture, until a common radius is given.
    assert_close_colors(pf.to_image(flow[0] * 0.01), batch[0])
    assert pf.to_image(flow, max_radius=30)[1].min() > 230


def test_unknown_pixels_do_not_dim_the_others():
    flow = random_flow(2, 8, 9)
    expected = pf.to_image(flow)
    unknown = torch.zeros(8, 9, dtype=torch.bool)
    unknown[flow.norm(dim=0) < flow.norm(dim=0).median()] = True  # the longest vector stays
    for component, mark in ((0, NAN), (1, 1e10), (0, float("inf"))):
        spoiled = flow.clone()
        spoiled[component][unknown] = mark
        image = pf.to_image(spoiled)
        assert torch.equal(image, expected.masked_fill(unknown, 0))
    assert (pf.to_image(torch.full((2, 3, 3), NAN)) == 0).all()


def test_still_image_is_white():
    assert (pf.to_image(torch.zeros(2, 3, 4)) == 255).all()
    assert (pf.to_image(torch.full((2, 3, 4), -0.0)) == 255).all()
    assert pf.to_image(torch.full((2, 3, 4), 1e-8)).min() >= 254


def test_longest_vector_is_never_beyond_its_own_radius():
    flow = random_flow(200, 2, 1, 1)
    assert (pf.to_image(flow).amax(dim=1) == 255).all()  # darkened colours stop at 191


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    flow = random_flow(2, 15, 16).to(dtype)
    flow[1, 3, 4] = float("inf")
    image = pf.to_image(flow, max_radius=11)
    assert torch.equal(image, pf.to_image(flow.float(), max_radius=11))
    assert image[:, 3, 4].tolist() == [0, 0, 0]


@pytest.mark.gpu
@pytest.mark.parametrize("max_radius", [None, 11])
def test_cpu_matches_cuda(max_radius):
    flow = random_flow(3, 2, 30, 41)
    flow[1, 0, 5, 6] = NAN
    assert_close_colors(pf.to_image(flow.cuda(), max_radius).cpu(), pf.to_image(flow, max_radius))


def test_view_input():
    flow = random_flow(3, 7, 12, 2).permute(0, 3, 1, 2)[1:, :, ::2, 1:]
    before = flow.clone()
    assert torch.equal(pf.to_image(flow), pf.to_image(flow.contiguous()))
    assert torch.equal(flow, before)


def test_empty_batch():
    assert pf.to_image(torch.zeros(0, 2, 5, 6)).shape == (0, 3, 5, 6)


@pytest.mark.parametrize(
    ("flow", "max_radius", "error", "message"),
    [
        (np.zeros((2, 3, 4)), None, TypeError, r"flow must be a torch\.Tensor; got ndarray"),
        (torch.zeros(2, 3, 4).byte(), None, ValueError, r"floating point, in pixels; got torch\.uint8"),
        (torch.zeros(3, 4, 2), None, ValueError, r"\[\.\.\., 2, H, W\] with H, W >= 1; got \[3, 4, 2\]"),
        (torch.zeros(2, 3, 0), None, ValueError, r"got \[2, 3, 0\]"),
        (torch.zeros(2, 3, 4), 0, ValueError, r"max_radius must be None or a finite number.*; got 0"),
        (torch.zeros(2, 3, 4), NAN, ValueError, r"max_radius must be None or a finite number.*; got nan"),
    ],
)
def test_rejects(flow, max_radius, error, message):
    with pytest.raises(error, match=r"flow\.to_image: " + ".*" + message):
        pf.to_image(flow, max_radius)


def test_middlebury_picture(real_data):
    flow, valid = pf.read(real_data / "flow/middlebury/RubberWhale/flow10.flo")
    assert_close_colors(pf.to_image(flow), flow_to_image(flow))
    image = pf.to_image(flow.masked_fill(~valid, NAN))
    assert (image[:, ~valid] == 0).all() and (image[:, valid].sum(0) > 0).all()
