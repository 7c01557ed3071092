import math

import numpy as np
import pytest
import torch

from pyaction import flow as pf

NAN = float("nan")
METRICS = [pf.endpoint_error, pf.outlier_rate, pf.angular_error]


def field(*vectors):
    """One image, one pixel per (u, v)."""
    return torch.tensor(vectors, dtype=torch.float32).T.unsqueeze(1)  # [2, 1, W]


def random_pair(*shape, seed=4):
    generator = torch.Generator().manual_seed(seed)
    target = torch.randn(*shape, generator=generator, dtype=torch.float64) * 20
    flow = target + torch.randn(*shape, generator=generator, dtype=torch.float64) * 4
    valid = torch.rand(*shape[:-3], *shape[-2:], generator=generator) > 0.3
    return flow, target, valid


def reference_maps(flow, target):
    """The formulas of the papers, in float64, one pixel after the other."""
    u, v, tu, tv = (
        x.numpy() for x in (flow[..., 0, :, :], flow[..., 1, :, :], target[..., 0, :, :], target[..., 1, :, :])
    )
    maps = {metric: np.zeros(u.shape) for metric in METRICS}
    for i in np.ndindex(u.shape):
        error = math.sqrt((u[i] - tu[i]) ** 2 + (v[i] - tv[i]) ** 2)
        length = math.sqrt(tu[i] ** 2 + tv[i] ** 2)
        cosine = (1 + u[i] * tu[i] + v[i] * tv[i]) / (math.sqrt(1 + u[i] ** 2 + v[i] ** 2) * math.sqrt(1 + length**2))
        maps[pf.endpoint_error][i] = error
        maps[pf.outlier_rate][i] = error > 3 and (length == 0 or error / length > 0.05)
        maps[pf.angular_error][i] = math.degrees(math.acos(min(1, max(-1, cosine))))
    return maps


def test_endpoint_error_known_value():
    flow, target = field((1, 2), (3, 4), (-2, 7)), field((4, 6), (3, 4), (-2, 0.5))
    assert pf.endpoint_error(flow, target).item() == pytest.approx((5 + 0 + 6.5) / 3)


@pytest.mark.parametrize(
    ("flow", "target", "outlier"),
    [
        ((3, 0), (0, 0), 0),  # exactly 3 px is right
        ((3.01, 0), (0, 0), 1),  # any share of nothing
        ((0, 104), (0, 100), 0),  # 4 px, 4 %
        ((0, 105), (0, 100), 0),  # exactly 5 % is right
        ((0, 105.1), (0, 100), 1),  # 5.1 px, 5.1 % of the true length, less of the estimated one
        ((12, 0), (10, 0), 0),  # 2 px, 20 %
        ((14, 0), (10, 0), 1),  # 4 px, 40 %
        ((60, -83), (60, -80), 0),
        ((96, -80), (100, -80), 0),  # 4 px of 128: the share is of the length, not of a component
        ((NAN, 1), (1, 1), 1),
    ],
)
def test_outlier_rate_known_value(flow, target, outlier):
    assert pf.outlier_rate(field(flow), field(target)).item() == outlier


def test_outlier_rate_thresholds():
    flow, target = field((2, 0), (0, 4), (6, 0), (100.5, 0)), field((0, 0), (0, 0), (0, 0), (100, 0))
    assert pf.outlier_rate(flow, target, pixels=1, share=0).item() == 0.75
    assert pf.outlier_rate(flow, target, pixels=5, share=0).item() == 0.25
    assert pf.outlier_rate(flow, target, pixels=0.25, share=0).item() == 1
    assert pf.outlier_rate(flow, target, pixels=0.25, share=0.01).item() == 0.75


@pytest.mark.parametrize(
    ("flow", "target", "degrees"),
    [
        ((0, 0), (0, 0), 0),
        ((1, 0), (0, 0), 45),
        ((1, 0), (0, 1), 60),
        ((1, 0), (-1, 0), 90),
        ((0, math.sqrt(3)), (0, -math.sqrt(3)), 120),
        ((1e5, 0), (-1e5, 0), 180),
    ],
)
def test_angular_error_known_value(flow, target, degrees):
    assert pf.angular_error(field(flow), field(target)).item() == pytest.approx(degrees, abs=2e-3)


def test_angular_error_sees_small_angles_in_float32():
    flow = field((1e-5, 0))
    assert pf.angular_error(flow, torch.zeros_like(flow)).item() == pytest.approx(math.degrees(1e-5), rel=1e-4)
    flow = field((31.7, -12.9))
    assert pf.angular_error(flow, flow).item() == 0


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("shape", [(2, 7, 5), (1, 2, 1, 1), (4, 2, 9, 11), (2, 3, 2, 5, 6)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("masked", [False, True])
def test_matches_reference(metric, shape, dtype, masked):
    flow, target, valid = random_pair(*shape)
    flow, target = flow.to(dtype), target.to(dtype)
    valid[..., 0, 0] = True
    if not masked:
        valid = torch.ones_like(valid)
    errors, mask = reference_maps(flow.double(), target.double())[metric], valid.numpy()
    given = valid if masked else None
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-9}[dtype]

    pooled = metric(flow, target, given)
    assert pooled.shape == () and pooled.dtype == dtype
    assert pooled.item() == pytest.approx(errors[mask].mean(), rel=tolerance)

    per_image = metric(flow, target, given, reduction="per_image")
    assert per_image.shape == shape[:-3] and per_image.dtype == dtype
    expected = (errors * mask).sum((-2, -1)) / mask.sum((-2, -1))
    np.testing.assert_allclose(per_image.numpy(), expected, rtol=tolerance)


def test_pooled_and_per_image_differ():
    flow = torch.zeros(2, 2, 1, 4)
    target = torch.zeros(2, 2, 1, 4)
    target[0, 0], target[1, 1] = 10, 40
    valid = torch.tensor([[[True, True, True, True]], [[True, False, False, False]]])
    assert pf.endpoint_error(flow, target, valid).item() == (4 * 10 + 40) / 5
    per_image = pf.endpoint_error(flow, target, valid, reduction="per_image")
    assert per_image.tolist() == [10, 40]


@pytest.mark.parametrize("metric", METRICS)
def test_invalid_pixels_play_no_part(metric):
    flow, target, valid = random_pair(3, 2, 6, 7)
    expected = metric(flow, target, valid)
    assert expected > 0
    for junk in (NAN, float("inf"), 1e10):
        spoiled = target.masked_fill(~valid.unsqueeze(1), junk)
        assert metric(flow, spoiled, valid) == expected
        assert metric(flow.masked_fill(~valid.unsqueeze(1), junk), target, valid) == expected


@pytest.mark.parametrize("metric", METRICS)
def test_nothing_valid(metric):
    flow, target, valid = random_pair(2, 2, 3, 4)
    valid[1] = False
    assert metric(flow, target, torch.zeros_like(valid)).isnan()
    assert metric(flow, target, valid, reduction="per_image").isnan().tolist() == [False, True]
    assert not metric(flow, target, valid).isnan()


@pytest.mark.parametrize("metric", METRICS)
def test_empty_batch(metric):
    empty = torch.zeros(0, 2, 3, 4)
    assert metric(empty, empty).isnan()
    assert metric(empty, empty, reduction="per_image").shape == (0,)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_measured_in_float32(metric, dtype):
    flow, target, valid = random_pair(2, 2, 40, 50)
    flow, target = flow.to(dtype), target.to(dtype)
    result = metric(flow, target, valid)
    assert result.dtype == torch.float32
    assert result == metric(flow.float(), target.float(), valid)


@pytest.mark.gpu
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("reduction", ["pooled", "per_image"])
def test_cpu_matches_cuda(metric, reduction):
    flow, target, valid = random_pair(3, 2, 30, 41)
    result = metric(flow.cuda(), target.cuda(), valid.cuda(), reduction)
    torch.testing.assert_close(result.cpu(), metric(flow, target, valid, reduction))


@pytest.mark.parametrize("metric", METRICS)
def test_view_input(metric):
    flow, target, valid = random_pair(4, 2, 8, 9)
    for view in (slice(1, None, 2), slice(2, 3)):
        a, b, c = flow[view, :, ::2], target[view, :, ::2], valid[view, ::2]
        assert metric(a, b, c) == metric(a.clone(), b.clone(), c.clone())


ZEROS = torch.zeros(2, 3, 4)
BATCH = torch.zeros(5, 2, 3, 4)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1], ZEROS), TypeError, r"flow must be a torch\.Tensor; got list"),
        ((ZEROS, None), TypeError, r"target must be .*; got NoneType"),
        ((ZEROS[0], ZEROS[0]), ValueError, r"flow must be \[\.\.\., 2, H, W\].*; got \[3, 4\]"),
        ((torch.zeros(5, 3, 3, 4), BATCH), ValueError, r"flow must be .*; got \[5, 3, 3, 4\]"),
        ((ZEROS, ZEROS.long()), ValueError, r"target must be floating point.*; got torch\.int64"),
        ((BATCH[:1], ZEROS), ValueError, r"one shape; got \[1, 2, 3, 4\] and \[2, 3, 4\]"),
        ((BATCH, BATCH, BATCH[:, :1] == 0), ValueError, r"valid must be \[5, 3, 4\].*; got \[5, 1, 3, 4\]"),
        ((ZEROS, ZEROS, ZEROS[0]), ValueError, r"valid must be torch\.bool.*; got torch\.float32"),
        ((ZEROS, ZEROS, None, "sum"), ValueError, r"'pooled' or 'per_image'; got 'sum'"),
    ],
)
def test_rejects(metric, arguments, error, message):
    with pytest.raises(error, match=rf"flow\.{metric.__name__}: .*{message}"):
        metric(*arguments)


@pytest.mark.parametrize("thresholds", [{"pixels": -1}, {"share": -0.1}, {"pixels": NAN}])
def test_outlier_rate_rejects_thresholds(thresholds):
    with pytest.raises(ValueError, match=r"pixels and share must be >= 0; got"):
        pf.outlier_rate(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4), **thresholds)


def test_published_flow_against_middlebury(real_data):
    # OpenCV's own TV-L1 result for RubberWhale, measured against the ground truth.
    flow = pf.read(real_data / "flow/opencv_tvl1/tvl1_flow_opencv3plus.flo").flow
    target, valid = pf.read(real_data / "flow/middlebury/RubberWhale/flow10.flo")
    errors = {name: values[valid.numpy()] for name, values in reference_maps(flow.double(), target.double()).items()}
    for metric in METRICS:
        assert metric(flow, target, valid).item() == pytest.approx(errors[metric].mean(), rel=1e-4)
    assert 0.1 < pf.endpoint_error(flow, target, valid) < 0.3
    assert 3 < pf.angular_error(flow, target, valid) < 8
