from fractions import Fraction

import cv2
import numpy as np
import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st

from pyaction import flow as pf

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
# Pixels -> bytes at bound 20, by hand: 255 · (v + 20) / 40 = 6.375 · (v + 20).
KNOWN = {  # v: (exact level, half_even, floor)
    -float("inf"): (0, 0, 0),
    -20.5: (0, 0, 0),
    -20: (0, 0, 0),
    -16: (25.5, 26, 25),
    -8: (76.5, 76, 76),
    -0.125: (126.703125, 127, 126),
    0: (127.5, 128, 127),
    0.125: (128.296875, 128, 128),
    4: (153, 153, 153),
    8: (178.5, 178, 178),
    16: (229.5, 230, 229),
    19.875: (254.203125, 254, 254),
    20: (255, 255, 255),
    300: (255, 255, 255),
    float("inf"): (255, 255, 255),
}


@pytest.mark.parametrize("dtype", DTYPES)
def test_encode_known_value(dtype, device):
    flow = torch.tensor(list(KNOWN), dtype=dtype, device=device)
    assert pf.encode(flow).dtype == torch.uint8
    assert pf.encode(flow).tolist() == [nearest for _, nearest, _ in KNOWN.values()]
    assert pf.encode(flow, rounding="floor").tolist() == [below for _, _, below in KNOWN.values()]


@given(value=st.floats(-60, 60, width=32), bound=st.sampled_from([15.0, 20.0, 32.0, 0.7]) | st.floats(0.01, 50))
@example(value=0.0, bound=1.1)
def test_encode_matches_exact_arithmetic(value, bound):
    v, b = Fraction(value), Fraction(bound)
    level = 255 * (min(max(v, -b), b) + b) / (2 * b)
    from_tie = abs(level % 1 - Fraction(1, 2))
    assume(from_tie == 0 or from_tie > Fraction(1, 10**9))
    assert pf.encode(torch.tensor([value]), bound).item() == round(level)  # Python's round: ties to even


def test_every_tie_goes_to_even(device):
    # At bound 255, v = 2k - 254 lies half-way between k and k + 1.
    levels = torch.arange(255)
    encoded = pf.encode((2.0 * levels - 254).to(device), bound=255)
    assert torch.equal(encoded.cpu().long(), levels + levels % 2)


@given(value=st.integers(-64 * 20, 64 * 20), bound=st.sampled_from([4, 8, 16, 20, 32]))
def test_floor_matches_whole_numbers(value, bound):
    # v = value/64 px: 255 · (value/64 + b) / (2b) in integers.
    level = max(0, min(255 * (value + 64 * bound) // (128 * bound), 255))
    assert pf.encode(torch.tensor(value / 64), bound, rounding="floor").item() == level


@pytest.mark.parametrize("rounding", ["half_even", "floor"])
def test_bound_saturates_for_every_bound(rounding, device):
    for bound in torch.rand(500, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).mul(50).tolist():
        flow = torch.tensor([-bound, bound], dtype=torch.float64, device=device)
        assert pf.encode(flow, bound, rounding=rounding).tolist() == [0, 255]


def test_decode_known_value():
    encoded = torch.tensor([0, 51, 127, 128, 255], dtype=torch.uint8)
    decoded = pf.decode(encoded, bound=15)
    assert decoded.dtype == torch.float32
    torch.testing.assert_close(decoded, torch.tensor([-15, -9, -15 / 255, 15 / 255, 15]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("bound", [0.3, 15, 20.0, 32, 1000])
def test_every_byte_survives(bound, device):
    encoded = torch.arange(256, dtype=torch.uint8, device=device)
    decoded = pf.decode(encoded, bound)
    assert torch.equal(pf.encode(decoded, bound), encoded)
    assert decoded[0].item() == -np.float32(bound) and decoded[-1].item() == np.float32(bound)


def test_error_is_half_a_step():
    flow = torch.rand(5, 2, 30, 40, generator=torch.Generator().manual_seed(1)) * 40 - 20
    error = pf.decode(pf.encode(flow)) - flow
    assert 0.07 < error.abs().max() <= 20 / 255 + 1e-6
    shifted = pf.decode(pf.encode(flow, rounding="floor")) - flow
    assert -40 / 255 - 1e-5 <= shifted.min() and shifted.max() < 1e-5


@pytest.mark.parametrize("shape", [(), (0,), (0, 2, 4, 5), (2, 3, 5), (3, 4, 2, 3, 5)])
def test_any_shape(shape):
    flow = torch.full(shape, 4.0)
    encoded = pf.encode(flow)
    assert encoded.shape == shape and (encoded == 153).all()
    assert pf.decode(encoded).shape == shape


def test_view_input():
    whole = torch.full((3, 2, 6, 8), 9.0)
    view = whole[1:, :, ::2, 1:].transpose(-1, -2)
    view.copy_(torch.rand(view.shape, generator=torch.Generator().manual_seed(2)) * 40 - 20)
    before = whole.clone()
    assert torch.equal(pf.encode(view), pf.encode(view.contiguous()))
    assert torch.equal(pf.encode(torch.tensor(3.0).expand(4, 5)), torch.full((4, 5), 147, dtype=torch.uint8))
    assert torch.equal(whole, before)
    encoded = pf.encode(whole)
    kept = encoded.clone()
    assert torch.equal(pf.decode(encoded[:, :, 1::2]), pf.decode(encoded)[:, :, 1::2])
    assert torch.equal(encoded, kept)


@pytest.mark.gpu
@pytest.mark.parametrize("bound", [15, 20.0, 49, 13.37])
@pytest.mark.parametrize("rounding", ["half_even", "floor"])
def test_cpu_matches_cuda(bound, rounding):
    flow = torch.arange(-64 * 50, 64 * 50 + 1) / 64  # every tie of a whole bound is among them
    encoded = pf.encode(flow, bound, rounding)
    assert torch.equal(pf.encode(flow.cuda(), bound, rounding).cpu(), encoded)
    torch.testing.assert_close(pf.decode(encoded.cuda(), bound).cpu(), pf.decode(encoded, bound), rtol=1e-6, atol=0)


def test_float64_input_is_not_changed():
    flow = torch.tensor([30.0, -1.0], dtype=torch.float64)
    pf.encode(flow)
    assert flow.tolist() == [30, -1]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: pf.encode([1.0]), TypeError, r"flow\.encode: flow must be a torch\.Tensor; got list"),
        (
            lambda: pf.encode(torch.zeros(2, dtype=torch.uint8)),
            ValueError,
            r"floating point.*got torch\.uint8",
        ),
        (lambda: pf.encode(torch.tensor([1, float("nan")])), ValueError, r"free of NaN.*got 1 NaN values"),
        (lambda: pf.encode(torch.zeros(2), 0), ValueError, r"encode: bound must be .* > 0; got 0"),
        (lambda: pf.encode(torch.zeros(2), float("inf")), ValueError, r"bound must be a finite.*; got inf"),
        (lambda: pf.encode(torch.zeros(2), 7, "up"), ValueError, r"'half_even' or 'floor'; got 'up'"),
        (
            lambda: pf.decode(np.zeros(2)),
            TypeError,
            r"flow\.decode: encoded must be a torch\.Tensor; got ndarray",
        ),
        (lambda: pf.decode(torch.zeros(2)), ValueError, r"encoded must be torch\.uint8; got torch\.float32"),
        (lambda: pf.decode(torch.zeros(2).byte(), -3), ValueError, r"decode: bound must be .* > 0; got -3"),
        (lambda: pf.decode(torch.zeros(2).byte(), float("nan")), ValueError, r"bound must be .*; got nan"),
    ],
)
def test_rejects(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_extracted_pictures(real_data):
    # A still moment, extracted at bound 20 and stored as jpg: 127 and 128, and less than a pixel of noise.
    for name in ("x_00002.jpg", "y_00002.jpg"):
        picture = cv2.imread(str(real_data / "mmaction2_rawframes" / name), cv2.IMREAD_UNCHANGED)
        motion = pf.decode(torch.from_numpy(picture))
        assert motion.abs().median() == pytest.approx(20 / 255, abs=1e-6)
        assert motion.abs().max() < 1
        assert np.array_equal(pf.encode(motion).numpy(), picture)
