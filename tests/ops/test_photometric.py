"""pyaction.ops.photometric_loss: see tests/reference/photometric.py for the reference."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from reference.photometric import photometric_loss as reference_loss
from torch import Tensor

from pyaction.ops import photometric_loss, ssim, warp

# Levels of MotionNet, patches that the frame cuts off, frames smaller than a patch, one pixel, a row, a column; wider
# than a register, than what two registers hold, and than a tile of the CUDA kernel.
SHAPES = [(2, 3, 28, 28), (1, 3, 7, 7), (2, 1, 9, 41), (1, 2, 19, 75), (1, 1, 1, 1), (1, 2, 1, 11), (2, 1, 10, 1)]
OPTIONS: list[dict[str, Any]] = [
    {},
    {
        "pixel_alpha": 0.45,
        "pixel_scale": 30.0,
        "smoothness_alpha": 0.7,
        "smoothness_scale": 2.5,
        "epsilon": 0.02,
        "border": 0.0,
        "window": 5,
        "c1": 3e-4,
        "c2": 2e-3,
        "padding": "border",
    },
    {"border": 0.4, "window": 16},
]
WEIGHTS = (0.7, 1.3, 2.5)  # of the terms


def sample(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Two frames, and a flow that is smooth but off the pixel grid, where slopes jump; some of it leaves the frame.

    The frames are not alike: near zero the penalty bends so sharply that its slope has few digits in float32.
    """
    n, _, h, w = shape
    coarse = torch.randn(n, 2, h // 12 + 2, w // 12 + 2, dtype=torch.float64) * 4
    flow = torch.nn.functional.interpolate(coarse, size=(h, w), mode="bilinear")
    flow = flow.floor() + 0.1 + 0.8 * torch.rand_like(flow)
    frames = torch.rand(2, *shape, dtype=torch.float64)
    frames[0] += 1
    return tuple(value.to(dtype).to(device) for value in (*frames, flow))  # type: ignore[return-value]


def with_grads(
    values: tuple[Tensor, Tensor, Tensor], function: Callable = photometric_loss, **options: object
) -> list[Tensor]:
    """The terms, and the gradients of both frames and the flow for a weighted sum of them."""
    leaves = [value.detach().requires_grad_() for value in values]
    terms = function(*leaves, **options)
    total = sum(weight * term for weight, term in zip(WEIGHTS, terms, strict=True))
    return [*(term.detach() for term in terms), *torch.autograd.grad(total, leaves)]


def assert_near(ours: list[Tensor], theirs: list[Tensor], tolerance: float) -> None:
    """Up to so much of the largest element, tensor by tensor."""
    for mine, expected in zip(ours, theirs, strict=True):
        assert mine.shape == expected.shape
        largest = expected.abs().max().item()
        torch.testing.assert_close(mine.to(expected), expected, rtol=0, atol=tolerance * (largest + 1e-3))


def test_known_value(device: str) -> None:
    """A flow of one pixel to the right per row, of frames that differ by 0.1 after it."""
    frame1 = torch.full((1, 1, 4, 4), 0.6, device=device)
    flow = torch.zeros(1, 2, 4, 4, device=device)
    flow[:, 0] = torch.arange(4.0, device=device).view(4, 1)
    loss = photometric_loss(
        frame1 - 0.1, frame1, flow, pixel_alpha=0.5, smoothness_alpha=0.5, epsilon=1e-6, border=0.25, padding="border"
    )
    # In the middle 2 x 2 pixels: 255 * 0.1; the slope of u downwards is 1, three others are 0.
    torch.testing.assert_close(loss.pixel, torch.tensor(25.5, device=device))
    torch.testing.assert_close(loss.smoothness, torch.tensor(1.0, device=device), rtol=1e-4, atol=1e-4)
    # Both flat: the means alone count.
    similarity = (2 * 0.5 * 0.6 + 1e-4) / (0.5**2 + 0.6**2 + 1e-4)
    torch.testing.assert_close(loss.ssim, torch.tensor(1 - similarity, device=device), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("options", OPTIONS, ids=["default", "all", "wide"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-4), (torch.float64, 1e-10)])
@pytest.mark.parametrize("shape", SHAPES)
def test_matches_reference(
    shape: tuple[int, ...], dtype: torch.dtype, tolerance: float, options: dict[str, Any], device: str
) -> None:
    values = sample(shape, dtype, device)
    exact = tuple(value.double() for value in values)
    assert_near(with_grads(values, **options), with_grads(exact, reference_loss, **options), tolerance)


def test_is_warp_and_ssim(device: str) -> None:
    """Of whole patches."""
    frame0, frame1, flow = sample((2, 3, 24, 40), torch.float32, device)
    similarity = ssim(frame0, warp(frame1, flow))
    torch.testing.assert_close(photometric_loss(frame0, frame1, flow).ssim, 1 - similarity.mean())


@pytest.mark.parametrize("needed", [(True, False, False), (False, True, False), (False, False, True)])
def test_one_gradient(needed: tuple[bool, ...], device: str) -> None:
    values = sample((2, 2, 17, 23), torch.float32, device)
    _, _, _, *expected = with_grads(values)
    leaves = [value.detach().requires_grad_(need) for value, need in zip(values, needed, strict=True)]
    sum(weight * term for weight, term in zip(WEIGHTS, photometric_loss(*leaves), strict=True)).backward()  # type: ignore[union-attr]
    for leaf, grad, need in zip(leaves, expected, needed, strict=True):
        assert (leaf.grad is not None) == need
        if leaf.grad is not None:
            torch.testing.assert_close(leaf.grad, grad)


def test_gradcheck(device: str) -> None:
    leaves = [value.requires_grad_() for value in sample((2, 2, 9, 6), torch.float64, device)]

    def function(*values: Tensor) -> tuple[Tensor, ...]:
        return tuple(photometric_loss(*values, pixel_scale=3.0, epsilon=0.1, border=0.2, window=4))

    torch.autograd.gradcheck(function, leaves, nondet_tol=1e-12 if device == "cuda" else 0.0)


@pytest.mark.gpu
@pytest.mark.parametrize("options", OPTIONS, ids=["default", "all", "wide"])
def test_cpu_matches_cuda(options: dict[str, Any]) -> None:
    values = sample((3, 3, 56, 56), torch.float32, "cpu")
    on_cuda = with_grads(tuple(value.cuda() for value in values), **options)  # type: ignore[arg-type]
    assert_near([value.cpu() for value in on_cuda], with_grads(values, **options), 2e-4)


def test_does_not_depend_on_threads() -> None:
    values = sample((1, 3, 75, 40), torch.float32, "cpu")
    threads = torch.get_num_threads()
    results = []
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        results.append(with_grads(values))
    torch.set_num_threads(threads)
    for result in results[1:]:
        assert all(torch.equal(one, other) for one, other in zip(results[0], result, strict=True))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 2e-3), (torch.bfloat16, 1e-2)])
def test_half_precision(dtype: torch.dtype, tolerance: float, cuda_device: str) -> None:
    """What goes in and out is rounded, and nothing in between."""
    values = tuple(value.to(dtype) for value in sample((2, 3, 17, 41), torch.float32, cuda_device))

    def op(*leaves: Tensor) -> list[Tensor]:
        options = [0.4, 255.0, 0.3, 1.0, 1e-3, 0.1, 1e-4, 1e-3]
        return torch.ops.pyaction.photometric_loss(*leaves, options, 8, False).unbind()

    halves = with_grads(values, op)  # type: ignore[arg-type]
    assert [value.dtype for value in halves] == 3 * [torch.float32] + 3 * [dtype]
    exact = with_grads(tuple(value.float() for value in values), op)  # type: ignore[arg-type]
    assert_near(halves[:3], exact[:3], 1e-6)
    assert_near(halves[3:], exact[3:], tolerance)


def test_autocast() -> None:
    frame0, frame1, flow = sample((1, 2, 16, 9), torch.float32, "cpu")
    with torch.autocast("cpu", torch.bfloat16):
        loss = photometric_loss(frame0, frame1, flow.bfloat16())
    torch.testing.assert_close(loss, photometric_loss(frame0, frame1, flow.bfloat16().float()), rtol=0, atol=0)


def test_view_input(device: str) -> None:
    """Any strides and storage offset; nothing outside the view is read."""
    values = sample((2, 3, 9, 11), torch.float32, device)
    views = []
    for value in values:
        buffer = value.new_full((2, 13, 15, value.shape[1]), math.nan)
        buffer[:, 2:11, 3:14] = value.permute(0, 2, 3, 1)
        views.append(buffer[:, 2:11, 3:14].permute(0, 3, 1, 2))
    torch.testing.assert_close(with_grads(tuple(views)), with_grads(values))  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(0, 3, 5, 7), (2, 0, 5, 7)])
def test_empty_batch(shape: tuple[int, ...], device: str) -> None:
    n, _, h, w = shape
    leaves = [torch.rand(size, device=device, requires_grad=True) for size in (shape, shape, (n, 2, h, w))]
    terms = photometric_loss(*leaves)
    assert [term.item() for term in terms] == [0, 0, 0]
    sum(terms).backward()  # type: ignore[union-attr]
    for leaf in leaves:
        assert leaf.grad is not None and (leaf.grad == 0).all()


@pytest.mark.parametrize("where", ["frame0", "frame1", "flow"])
def test_nan_gives_nan(where: str, device: str) -> None:
    values = dict(zip(("frame0", "frame1", "flow"), sample((1, 1, 17, 33), torch.float32, device), strict=True))
    values["flow"] *= 0
    values[where][0, 0, 8, 9] = math.nan
    loss = photometric_loss(**values)
    assert loss.pixel.isnan() and loss.ssim.isnan()
    assert loss.smoothness.isnan() == (where == "flow")


@pytest.mark.parametrize("width", [3, 40])
def test_overflow_is_infinite(width: int, device: str) -> None:
    frame = torch.ones(1, 1, 4, width, device=device)
    flow = torch.zeros(1, 2, 4, width, device=device)
    assert photometric_loss(frame, 0 * frame, flow, pixel_alpha=9.0).pixel == math.inf


FRAME, FLOW = torch.rand(2, 3, 5, 7), torch.rand(2, 2, 5, 7)
REJECTS = {
    "not a tensor": ((FRAME.numpy(), FRAME, FLOW), {}, TypeError, "frame0 must be a torch.Tensor .*; got ndarray"),
    "rank": ((FRAME, FRAME, FLOW[0]), {}, ValueError, r"flow must have 4 dimensions, \[N, 2, H, W\]; got shape"),
    "dtype": ((FRAME.half(), FRAME, FLOW), {}, ValueError, "frame0 must be float32 or float64; got float16"),
    "mixed": ((FRAME, FRAME, FLOW.double()), {}, ValueError, "flow and frame0 must have one dtype"),
    "frames": ((FRAME, FRAME[:1], FLOW), {}, ValueError, r"frame1 must be .* of frame0 = .*; got \[1, 3, 5, 7\]"),
    "flow": ((FRAME, FRAME, FRAME), {}, ValueError, r"flow must be .* of the frames = .*; got \[2, 3, 5, 7\]"),
    "device": (
        (FRAME, FRAME, FLOW.to("meta")),
        {},
        ValueError,
        "flow and frame0 must be on one device; got meta and cpu",
    ),
    "window": ((FRAME, FRAME, FLOW), {"window": 17}, ValueError, "window must be an integer from 2 to 16; got 17"),
    "border": ((FRAME, FRAME, FLOW), {"border": 0.5}, ValueError, r"border must be in \[0, 0.5\); got 0.5"),
    "alpha": ((FRAME, FRAME, FLOW), {"pixel_alpha": -0.2}, ValueError, "pixel_alpha must be a positive number"),
    "epsilon": ((FRAME, FRAME, FLOW), {"epsilon": math.nan}, ValueError, "epsilon must be a positive number; got nan"),
    "padding": ((FRAME, FRAME, FLOW), {"padding": "edge"}, ValueError, "padding must be one of 'zeros', 'border'"),
}


@pytest.mark.parametrize("case", REJECTS)
def test_rejects(case: str) -> None:
    arguments, options, error, message = REJECTS[case]
    with pytest.raises(error, match=f"photometric_loss: {message}"):
        photometric_loss(*arguments, **options)


def test_kernels_refuse_what_would_read_out_of_bounds(device: str) -> None:
    """A direct call of the op skips the Python checks, not the kernel's own."""
    options = [0.4, 255.0, 0.3, 1.0, 1e-3, 0.1, 1e-4, 1e-3]
    frame, flow = FRAME.to(device), FLOW.to(device)
    op = torch.ops.pyaction.photometric_loss
    for arguments, message in [
        ((frame, frame, flow[..., :6], options, 8, False), "flow must have size 7 in dimension 3; got 6"),
        ((frame, frame, flow, options, 17, False), "window must be 2 to 16; got 17"),
        ((frame, frame, flow, options[1:], 8, False), "8 options; got 7"),
        ((frame, frame, flow, [*options[:5], 0.5, *options[6:]], 8, False), "border must be in"),
    ]:
        with pytest.raises(RuntimeError, match=message):
            op(*arguments)


def test_second_derivative_is_refused(device: str) -> None:
    frame0, frame1, flow = sample((1, 1, 4, 5), torch.float32, device)
    loss = photometric_loss(frame0, frame1, flow.requires_grad_()).pixel
    (grad,) = torch.autograd.grad(loss, flow, create_graph=True)
    with pytest.raises(RuntimeError, match="photometric_grad cannot be differentiated twice"):
        grad.sum().backward()


def test_opcheck(device: str) -> None:
    leaves = [value.requires_grad_() for value in sample((2, 3, 9, 10), torch.float32, device)]
    options = [0.4, 255.0, 0.3, 1.0, 1e-3, 0.1, 1e-4, 1e-3]
    torch.library.opcheck(torch.ops.pyaction.photometric_loss, (*leaves, options, 8, False))
    values = [leaf.detach() for leaf in leaves]
    grad = torch.tensor(WEIGHTS, device=device)
    for of_frames in (True, False):
        torch.library.opcheck(torch.ops.pyaction.photometric_grad, (grad, *values, options, 8, False, of_frames))


def test_compile(device: str) -> None:
    def step(frame0: Tensor, frame1: Tensor, flow: Tensor) -> Tensor:
        loss = photometric_loss(frame0 * 0.5, frame1, flow)
        return loss.pixel + 0.5 * loss.smoothness + 2 * loss.ssim

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    for shape in [(2, 3, 9, 7), (2, 3, 10, 9)]:
        frame0, frame1, flow = sample(shape, torch.float32, device)
        flow.requires_grad_()
        (ours,) = torch.autograd.grad(compiled(frame0, frame1, flow), flow)
        (eager,) = torch.autograd.grad(step(frame0, frame1, flow), flow)
        torch.testing.assert_close(ours, eager)
