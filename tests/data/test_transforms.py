from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyaction import flow as pf
from pyaction import ops
from pyaction.data import transforms as tr

BATCHED = (2, 3)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clip_of(content: tr.Content, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    if content == "flow":
        return torch.randn(shape, generator=seeded(seed)) * 9
    if content == "encoded_flow":
        return torch.randint(256, shape, generator=seeded(seed), dtype=torch.uint8)
    return torch.rand(shape, generator=seeded(seed))


CONTENTS = st.sampled_from([("frames", 3), ("frames", 1), ("flow", 2), ("flow", 20), ("encoded_flow", 6)])

# ---- flips


def test_flip_known_value():
    x, y = [[1.0, -2.5, 0], [4, 5, 6]], [[7.0, 8, 9], [-10, 11, 12]]
    mirrored_x, mirrored_y = [[0, 2.5, -1.0], [-6, -5, -4]], [[9, 8, 7], [12, 11, -10]]
    flip = tr.HorizontalFlip()
    assert flip(torch.tensor([x, y]), "flow").tolist() == [mirrored_x, mirrored_y]
    stack = torch.tensor([[x, y, y, x]])  # two fields, stacked; a batch of one
    minus_y = [[-9, -8, -7], [-12, -11, 10]]
    assert flip(stack, "flow").tolist() == [[mirrored_x, mirrored_y, minus_y, [[0, -2.5, 1], [6, 5, 4]]]]
    assert flip(torch.tensor([x, y, x]), "frames").tolist() == [[r[::-1] for r in c] for c in (x, y, x)]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_flip_of_encoded_flow_known_value(dtype):
    encoded = torch.tensor([[[0, 128, 191]], [[255, 128, 3]]], dtype=dtype)
    flipped = tr.HorizontalFlip()(encoded, "encoded_flow")
    assert flipped.dtype == dtype
    assert flipped.tolist() == [[[64, 127, 255]], [[3, 128, 255]]]


@given(content=CONTENTS, height=st.integers(1, 6), width=st.integers(1, 6), seed=st.integers(0, 99))
def test_flip_twice_is_identity(content, height, width, seed):
    kind, channels = content
    clip = clip_of(kind, (*BATCHED, channels, height, width), seed)
    before = clip.clone()
    flip = tr.HorizontalFlip()
    once = flip(clip, kind)
    assert torch.equal(clip, before)
    assert torch.equal(flip(once, kind), clip)
    assert tr.HorizontalFlip(False)(clip, kind) is clip


def test_mirrored_flow_is_the_flow_of_mirrored_frames():
    frame, flow = clip_of("frames", (1, 3, 9, 14)), clip_of("flow", (1, 2, 9, 14))
    flip = tr.HorizontalFlip()
    mirrored = flip(ops.warp(frame, flow), "frames")
    torch.testing.assert_close(ops.warp(flip(frame, "frames"), flip(flow, "flow")), mirrored, rtol=0, atol=1e-5)


def test_random_flip_keeps_to_its_probability():
    generator = seeded(5)
    flips = [tr.random_flip(generator, probability=0.3).flipped for _ in range(2000)]
    assert sum(flips) == pytest.approx(600, abs=80)
    assert not any(tr.random_flip(generator, probability=0).flipped for _ in range(50))
    assert all(tr.random_flip(generator, probability=1).flipped for _ in range(50))


# ---- crops


def drawn(frame_size, count=3000, **options):
    generator = seeded(2)
    return [tr.multi_scale_crop(frame_size, generator, **options) for _ in range(count)]


def test_crop_sizes_known_value():
    crops = drawn((256, 340))
    pairs = Counter((crop.height, crop.width) for crop in crops)
    assert set(pairs) == {
        *[(256, 256), (224, 224), (192, 192), (168, 168)],
        *[(256, 224), (224, 256), (224, 192), (192, 224), (192, 168), (168, 192)],
    }
    assert min(pairs.values()) > 200  # 300 each, if they are equally probable
    assert {(crop.height, crop.width) for crop in drawn((340, 256), scales=tr.FLOW_SCALES, max_distort=0)} == {
        *[(256, 256), (224, 224), (192, 192)]
    }
    assert len({(crop.height, crop.width) for crop in drawn((256, 340), max_distort=2)}) == 14


# Short side 226: 226, 197, 169, 149, of which 226 is near 224; and so on, by hand.
@pytest.mark.parametrize(
    ("short_side", "sides"),
    [
        (227, {227, 198, 170, 149}),
        (226, {224, 197, 169, 149}),
        (222, {222, 194, 166, 146}),  # 224 would be near, but does not fit
        (253, {253, 221, 189, 166}),
        (254, {254, 224, 190, 167}),  # 222.25
        (258, {258, 224, 193, 170}),  # 225.75
    ],
)
def test_sides_near_the_result_become_it(short_side, sides):
    assert {crop.height for crop in drawn((short_side, 400), count=300)} == sides


# All 13 places (x, y) of some windows in 256 × 340; quarters of the room are (340 - width) // 4, (256 - height) // 4.
PLACES = {
    (224, 192): [  # 37, 8
        *[(0, 0), (148, 0), (0, 32), (148, 32), (74, 16), (0, 16), (148, 16), (74, 32), (74, 0)],
        *[(37, 8), (111, 8), (37, 24), (111, 24)],
    ],
    (168, 168): [  # 43, 22
        *[(0, 0), (172, 0), (0, 88), (172, 88), (86, 44), (0, 44), (172, 44), (86, 88), (86, 0)],
        *[(43, 22), (129, 22), (43, 66), (129, 66)],
    ],
    (256, 256): [(0, 0), (84, 0), (42, 0), (21, 0), (63, 0)],  # 21, 0: there is no room above and below
}


def test_crop_offsets_known_value():
    crops = drawn((256, 340), count=6000)
    for (height, width), places in PLACES.items():
        found = {(crop.left, crop.top) for crop in crops if (crop.height, crop.width) == (height, width)}
        assert found == set(places)


def test_crops_anywhere():
    crops = drawn((8, 9), size=16, scales=(0.5,), fixed_offsets=False, count=1000)
    assert {(crop.top, crop.left) for crop in crops} == {(y, x) for y in range(5) for x in range(6)}
    generator = seeded(3)
    whole = [tr.random_crop((5, 7), generator, size=4) for _ in range(300)]
    assert {(crop.top, crop.left) for crop in whole} == {(y, x) for y in range(2) for x in range(4)}
    assert {(crop.height, crop.width, crop.size) for crop in whole} == {(4, 4, 4)}


@given(
    content=CONTENTS,
    frame_size=st.tuples(st.integers(2, 40), st.integers(2, 40)),
    size=st.integers(1, 30),
    max_distort=st.integers(0, 3),
    fixed_offsets=st.booleans(),
    seed=st.integers(0, 2**30),
)
@settings(deadline=None)
def test_multi_scale_crop_has_its_size(content, frame_size, size, max_distort, fixed_offsets, seed):
    kind, channels = content
    crops = [
        tr.multi_scale_crop(frame_size, seeded(seed), size=size, max_distort=max_distort, fixed_offsets=fixed_offsets)
        for _ in range(2)
    ]
    assert crops[0] == crops[1]  # the generator decides, nothing else
    clip = clip_of(kind, (*BATCHED, channels, *frame_size))
    cropped = crops[0](clip, kind)
    assert cropped.shape == (*BATCHED, channels, size, size) and cropped.dtype == clip.dtype
    assert torch.equal(crops[1](clip, kind), cropped)


@given(frame_size=st.tuples(st.integers(3, 30), st.integers(3, 30)), seed=st.integers(0, 2**30), data=st.data())
def test_random_crop_is_a_window(frame_size, seed, data):
    size = data.draw(st.integers(1, min(frame_size)))
    crop = tr.random_crop(frame_size, seeded(seed), size=size)
    assert crop == tr.random_crop(frame_size, seeded(seed), size=size)
    place = torch.stack(torch.meshgrid(*(torch.arange(side) / 1.0 for side in frame_size), indexing="ij"))
    window = crop(place, "flow")  # a window is not resized: its flow keeps its values
    assert torch.equal(window, place[:, crop.top : crop.top + size, crop.left : crop.left + size])
    assert window.data_ptr() == place[:, crop.top, crop.left :].data_ptr()


def test_draws_go_on():
    generator = seeded(4)
    crops = [tr.multi_scale_crop((256, 340), generator) for _ in range(20)]
    jitters = [tr.random_color_jitter(generator, contrast=0.4) for _ in range(20)]
    assert len(set(crops)) > 10 and len({jitter.contrast for jitter in jitters}) == 20
    assert len({jitter.order for jitter in jitters}) > 5


def test_resized_flow_is_in_new_pixels():
    crop = tr.Crop((256, 340), top=8, left=37, height=224, width=192, size=112)
    flow = torch.tensor([6.0, -4.0, 3.0, 1.0]).view(4, 1, 1).expand(2, 4, 256, 340)
    cropped = crop(flow, "flow")
    assert cropped.shape == (2, 4, 112, 112)
    expected = torch.tensor([6 * 112 / 192, -2, 3 * 112 / 192, 0.5]).view(4, 1, 1).expand(2, 4, 112, 112)
    torch.testing.assert_close(cropped, expected)
    encoded = torch.tensor([200, 100], dtype=torch.uint8).view(2, 1, 1).expand(2, 256, 340)
    assert torch.equal(crop(encoded, "encoded_flow"), encoded[:, :112, :112])  # keeps its values


def test_resize_keeps_frame_equal_to_warped_frame():
    # frame0(x, y) = frame1(x + u, y + v) for a slope of brightness: 0.01 x + 0.02 y, moved by (3, 2).
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(32.0), indexing="ij")
    frame1 = (0.01 * x + 0.02 * y)[None, None]
    frame0 = frame1 + 0.01 * 3 + 0.02 * 2
    flow = torch.tensor([3.0, 2.0]).view(1, 2, 1, 1).expand(1, 2, 24, 32)
    frame0, frame1 = (tr.resize(frame, (48, 40), "frames") for frame in (frame0, frame1))
    warped = ops.warp(frame1, tr.resize(flow, (48, 40), "flow"))
    inside = (..., slice(8, 32), slice(8, 28))
    torch.testing.assert_close(warped[inside], frame0[inside], rtol=0, atol=1e-5)


def test_resize_by_the_short_side():
    assert tr.resize(torch.rand(2, 3, 24, 32), 12, "frames").shape == (2, 3, 12, 16)
    flow = tr.resize(torch.ones(2, 64, 48), 12, "flow")
    assert flow.shape == (2, 16, 12)
    torch.testing.assert_close(flow, torch.full((2, 16, 12), 0.25))
    clip = torch.rand(3, 4, 5)
    assert tr.resize(clip, (4, 5), "frames") is clip
    assert tr.resize(torch.zeros(0, 4, 2, 6, 6), 3, "flow").shape == (0, 4, 2, 3, 3)


def test_ten_crop_known_value():
    x = torch.arange(12.0).view(1, 3, 4)
    clip = torch.stack([torch.cat([x, x + 20]), torch.cat([x + 40, x + 60])])  # (T, 2, 3, 4)
    corners = [[[0, 1], [4, 5]], [[2, 3], [6, 7]], [[4, 5], [8, 9]], [[6, 7], [10, 11]], [[1, 2], [5, 6]]]
    five = tr.five_crop(clip, 2, "flow")
    assert five.shape == (5, 2, 2, 2, 2)
    assert five[:, 0, 0].tolist() == corners
    assert torch.equal(five[:, 1, 1], five[:, 0, 0] + 60)
    ten = tr.ten_crop(clip, 2, "flow")
    assert torch.equal(ten[:5], five)
    assert ten[5:, 0, 0].tolist() == [[[-row[1], -row[0]] for row in corner] for corner in corners]
    assert torch.equal(ten[5:, :, 1], five[:, :, 1].flip(-1))
    assert torch.equal(tr.center_crop(clip, 2, "flow"), five[4])


def test_ten_crop_of_the_papers():
    # 340 × 256: corners at x = 0 and 116, y = 0 and 32, centre (58, 16).
    place = torch.stack([torch.arange(340).expand(256, 340), torch.arange(256)[:, None].expand(256, 340)]).float()
    ten = tr.ten_crop(place, 224, "flow")
    assert ten[:5, :, 0, 0].tolist() == [[0, 0], [116, 0], [0, 32], [116, 32], [58, 16]]
    assert ten[5:, :, 0, -1].tolist() == [[0, 0], [-116, 0], [0, 32], [-116, 32], [-58, 16]]


@given(content=CONTENTS, size=st.integers(1, 7), height=st.integers(7, 12), width=st.integers(7, 12))
def test_crops_for_testing_have_their_size(content, size, height, width):
    kind, channels = content
    clip = clip_of(kind, (*BATCHED, channels, height, width))
    shape = (*BATCHED, channels, size, size)
    assert tr.center_crop(clip, size, kind).shape == shape
    assert tr.five_crop(clip, size, kind).shape == (5, *shape)
    assert tr.ten_crop(clip, size, kind).shape == (10, *shape)
    assert tr.ten_crop(clip[:0], size, kind).shape == (10, 0, *shape[1:])


# ---- colours


def test_color_jitter_known_value():
    frames = torch.tensor([0.2, 0.4, 0.6]).view(3, 1, 1).expand(4, 3, 2, 2)
    assert tr.ColorJitter()(frames) is frames
    brighter = tr.ColorJitter(brightness=1.5)(frames)[3, :, 1, 1]
    torch.testing.assert_close(brighter, torch.tensor([0.3, 0.6, 0.9]))
    grey = 0.299 * 0.2 + 0.587 * 0.4 + 0.114 * 0.6
    torch.testing.assert_close(tr.ColorJitter(saturation=0)(frames), torch.full((4, 3, 2, 2), grey), rtol=0, atol=1e-3)
    turned = tr.ColorJitter(hue=1 / 3)(frames)[0, :, 0, 0]  # a third of the circle: red's value goes to green
    torch.testing.assert_close(turned, torch.tensor([0.6, 0.2, 0.4]), rtol=0, atol=1e-5)


def test_color_jitter_order():
    frames = torch.tensor([0.0, 0.4, 1.0]).view(3, 1, 1).expand(3, 2, 2)
    bright_first = tr.ColorJitter(brightness=2, saturation=0.5, order=("brightness", "saturation"))(frames)
    bright_last = tr.ColorJitter(brightness=2, saturation=0.5, order=("saturation", "brightness"))(frames)
    assert (bright_first - bright_last).abs().max() > 0.1  # 2 × 1.0 is clipped before or after


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_color_jitter_is_one_for_all_frames(dtype):
    frame = torch.randint(256, (3, 6, 7), generator=seeded(6), dtype=torch.uint8)
    frame = frame if dtype == torch.uint8 else frame / 255
    jitter = tr.random_color_jitter(seeded(7), brightness=0.4, contrast=0.4, saturation=0.4, hue=0.2)
    assert jitter == tr.random_color_jitter(seeded(7), brightness=0.4, contrast=0.4, saturation=0.4, hue=0.2)
    clip = jitter(frame.expand(2, 5, 3, 6, 7))
    assert clip.dtype == dtype and clip.shape == (2, 5, 3, 6, 7)
    assert torch.equal(clip, clip[:1, :1].expand_as(clip)) and not torch.equal(clip[0, 0], frame)
    assert torch.equal(clip[1, 3], jitter(frame))


def test_color_jitter_keeps_to_its_strengths():
    generator = seeded(8)
    jitters = [tr.random_color_jitter(generator, brightness=0.3, contrast=1.5, hue=0.1) for _ in range(500)]
    for name, low, high in [("brightness", 0.7, 1.3), ("contrast", 0, 2.5), ("hue", -0.1, 0.1)]:
        values = np.array([getattr(jitter, name) for jitter in jitters])
        margin = (high - low) / 50
        assert low <= values.min() < low + margin and high - margin < values.max() <= high
    assert {jitter.saturation for jitter in jitters} == {1}
    alone, together = (tr.random_color_jitter(seeded(9), hue=0.1, contrast=c).hue for c in (0, 0.4))
    assert alone == together


# ---- normalisation

PIXELS = torch.tensor([-30.0, -20.0, 0.0, 5.0, 20.0, 31.0]).view(2, 3, 1)


@pytest.mark.parametrize(
    ("normalization", "expected"),
    [
        (tr.I3D_FLOW, [-1, -1, 0, 0.25, 1, 1]),
        (tr.BN_INCEPTION_FLOW, [-128, -128, -0.5, 31.375, 127, 127]),
        (tr.HIDDEN_TWO_STREAM_FLOW, [-128, -128, -0.5, 31.375, 127, 127]),
        (tr.TORCHVISION_FLOW, [-0.5 / 0.226, -0.5 / 0.226, 0, 0.125 / 0.226, 0.5 / 0.226, 0.5 / 0.226]),
    ],
)
def test_normalization_of_flow_known_value(normalization, expected):
    expected = torch.tensor(expected)
    torch.testing.assert_close(normalization(PIXELS, "flow").flatten(), expected, rtol=1e-6, atol=1e-6)
    # Encoded, the same up to the rounding of a byte.
    encoded = normalization(pf.encode(PIXELS), "encoded_flow")
    half_a_byte = 0.5001 * normalization.scale / 255 / normalization.std[0]
    assert encoded.dtype == torch.float32
    torch.testing.assert_close(encoded.flatten(), expected, rtol=0, atol=half_a_byte)
    assert torch.equal(normalization(pf.encode(PIXELS).float(), "encoded_flow"), encoded)


def test_no_motion_is_byte_128():
    assert tr.BN_INCEPTION_FLOW(pf.encode(torch.zeros(2, 1, 1)), "encoded_flow").tolist() == [[[0]], [[0]]]
    assert tr.I3D_FLOW(torch.zeros(2, 1, 1), "flow").tolist() == [[[0]], [[0]]]


RED, GREEN, BLUE = 51, 102, 204  # 0.2, 0.4, 0.8


@pytest.mark.parametrize(
    ("normalization", "expected"),
    [
        (tr.TORCHVISION_RGB, [(0.2 - 0.485) / 0.229, (0.4 - 0.456) / 0.224, (0.8 - 0.406) / 0.225]),
        (tr.BN_INCEPTION_RGB, [204.0 - 104, 102.0 - 117, 51.0 - 123]),
        (tr.TSN_PYTORCH_RGB, [204.0 - 104, 102.0 - 117, 51.0 - 128]),
        (tr.I3D_RGB, [-0.6, -0.2, 0.6]),
    ],
)
def test_normalization_of_frames_known_value(normalization, expected):
    frames = torch.tensor([RED, GREEN, BLUE], dtype=torch.uint8).view(3, 1, 1).expand(2, 4, 3, 5, 6)
    result = normalization(frames, "frames")
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, torch.tensor(expected).view(3, 1, 1).expand(2, 4, 3, 5, 6))
    floating = frames.double() / 255
    kept = floating.clone()
    torch.testing.assert_close(normalization(floating, "frames"), result.double(), rtol=1e-5, atol=1e-5)
    assert torch.equal(floating, kept)


def test_none_for_motionnet():
    """It normalises its frames itself: done twice, its flow would be wrong, without an error."""
    assert not [name for name in dir(tr) if "MOTIONNET" in name]


def test_normalization_gradcheck():
    flow = torch.tensor([-21.0, -19, 3, 25], dtype=torch.float64).view(2, 2, 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda flow: tr.HIDDEN_TWO_STREAM_FLOW(flow, "flow"), flow)
    tr.HIDDEN_TWO_STREAM_FLOW(flow, "flow").sum().backward()
    assert flow.grad.flatten().tolist() == [0, 6.375, 6.375, 0]
