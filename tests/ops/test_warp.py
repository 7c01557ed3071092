"""pyaction.ops.warp: see tests/reference/warp.py for the reference."""

import math
from collections.abc import Callable

import pytest
import torch
from reference.warp import warp as reference_warp
from torch import Tensor

from pyaction.ops import warp

PADDINGS = ["zeros", "border"]
# Odd sizes, batch 1, one pixel, one row, wider than one chunk of the CPU kernel.
SHAPES = [(2, 3, 17, 23), (1, 1, 1, 1), (1, 2, 1, 9), (3, 1, 7, 1), (1, 2, 5, 300), (1, 2, 1, 40), (2, 2, 40, 1)]
SMOOTH_SHAPES = [(2, 3, 37, 75), (1, 1, 4, 32), (1, 2, 3, 64), (1, 2, 64, 31)]  # around what two registers hold
TOLERANCE = {torch.float32: {"rtol": 1e-4, "atol": 1e-4}, torch.float64: {"rtol": 1e-11, "atol": 1e-11}}


def sample(shape: tuple[int, ...], dtype: torch.dtype, device: str, smooth: bool = False) -> tuple[Tensor, Tensor]:
    """An image, and a flow that leaves it on every side but stays off the pixel grid, where slopes jump.

    A smooth flow samples next to where the neighbouring pixel does: the CPU kernels then load what they share.
    """
    n, c, h, w = shape
    if smooth:
        coarse = torch.randn(n, 2, h // 16 + 2, w // 16 + 2, dtype=torch.float64)
        flow = torch.nn.functional.interpolate(coarse * 5, size=(h, w), mode="bilinear")
    else:
        flow = torch.randn(n, 2, h, w, dtype=torch.float64) * 0.3 * max(h, w)
    flow = flow.floor() + 0.1 + 0.8 * torch.rand_like(flow)
    return torch.rand(shape, dtype=dtype).to(device), flow.to(dtype).to(device)


def test_known_value(device: str) -> None:
    image = torch.tensor([[[[10.0, 20.0, 40.0], [50.0, 60.0, 80.0]]]], device=device)
    flow = torch.tensor([0.25, 0.5], device=device).view(1, 2, 1, 1).expand(1, 2, 2, 3)
    # Top left: a quarter of the way from 10 to 20 is 12.5, from 50 to 60 is 52.5; half way between: 32.5.
    border = torch.tensor([[[[32.5, 45.0, 60.0], [52.5, 65.0, 80.0]]]], device=device)
    zeros = torch.tensor([[[[32.5, 45.0, 45.0], [26.25, 32.5, 30.0]]]], device=device)
    torch.testing.assert_close(warp(image, flow, padding="border"), border)
    torch.testing.assert_close(warp(image, flow), zeros)


def test_moving_square(device: str) -> None:
    """Frame t+1 warped by the flow from t to t+1 is frame t."""
    frame0 = torch.zeros(1, 1, 20, 24, device=device)
    frame0[..., 5:9, 6:12] = 0.7
    frame1 = frame0.roll((2, 3), dims=(2, 3))
    flow = torch.tensor([3.0, 2.0], device=device).view(1, 2, 1, 1).expand(1, 2, 20, 24)
    torch.testing.assert_close(warp(frame1, flow), frame0)


def with_grads(
    image: Tensor, flow: Tensor, padding: str, function: Callable[..., Tensor] = warp
) -> tuple[Tensor, Tensor, Tensor]:
    """The output, and the gradients of image and flow for a certain gradient of the output."""
    leaves = image.detach().requires_grad_(), flow.detach().requires_grad_()
    output = function(*leaves, padding=padding)
    weights = (torch.arange(output.numel(), device=output.device) % 13 - 4) / 8  # of any dtype, to the last bit
    return output.detach(), *torch.autograd.grad(
        output, leaves, torch.empty_like(output).copy_(weights.view_as(output))
    )


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES + SMOOTH_SHAPES)
def test_matches_reference(shape: tuple[int, ...], dtype: torch.dtype, padding: str, device: str) -> None:
    image, flow = sample(shape, dtype, device, smooth=shape in SMOOTH_SHAPES)
    ours = with_grads(image, flow, padding)
    reference = with_grads(image, flow, padding, reference_warp)
    for mine, theirs in zip(ours, reference, strict=True):
        torch.testing.assert_close(mine, theirs, **TOLERANCE[dtype])


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize(("channels", "width", "smooth"), [(3, 37, False), (20, 37, True), (2, 11, False)])
def test_channels_last(channels: int, width: int, smooth: bool, padding: str, device: str) -> None:
    image, flow = sample((2, channels, 19, width), torch.float32, device, smooth)
    interleaved = image.contiguous(memory_format=torch.channels_last)
    results = with_grads(interleaved, flow, padding)
    for result, expected in zip(results, with_grads(image, flow, padding), strict=True):
        torch.testing.assert_close(result, expected, **TOLERANCE[torch.float32])
    for result in results[:2]:
        assert result.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 1e-3), (torch.bfloat16, 8e-3)])
def test_half_precision(dtype: torch.dtype, tolerance: float, layout: torch.memory_format, cuda_device: str) -> None:
    """What goes in and out is rounded, and nothing in between."""

    def op(image: Tensor, flow: Tensor, padding: str) -> Tensor:
        return torch.ops.pyaction.warp(image, flow, padding == "border")

    image, flow = (value.to(dtype) for value in sample((2, 3, 9, 41), torch.float32, cuda_device, smooth=True))
    halves = with_grads(image.contiguous(memory_format=layout), flow, "zeros", op)
    for half, exact in zip(halves, with_grads(image.float(), flow.float(), "zeros", op), strict=True):
        assert half.dtype == dtype
        torch.testing.assert_close(half.float(), exact, rtol=tolerance, atol=tolerance * exact.abs().mean().item())


def test_autocast() -> None:
    image, flow = sample((1, 2, 6, 9), torch.float32, "cpu")
    with torch.autocast("cpu", torch.bfloat16):
        output = warp(image, flow.bfloat16())
    torch.testing.assert_close(output, warp(image, flow.bfloat16().float()), rtol=0, atol=0)


@pytest.mark.parametrize("padding", PADDINGS)
def test_gradcheck(padding: str, device: str) -> None:
    image, flow = sample((2, 2, 4, 5), torch.float64, device)
    leaves = image.requires_grad_(), flow.requires_grad_()
    nondeterminism = 1e-12 if device == "cuda" else 0.0
    torch.autograd.gradcheck(lambda i, f: warp(i, f, padding=padding), leaves, nondet_tol=nondeterminism)


@pytest.mark.gpu
@pytest.mark.parametrize("padding", PADDINGS)
def test_cpu_matches_cuda(padding: str) -> None:
    image, flow = sample((2, 3, 33, 47), torch.float32, "cpu")
    results = [with_grads(image.to(device), flow.to(device), padding) for device in ("cpu", "cuda")]
    for cpu, cuda in zip(*results, strict=True):
        torch.testing.assert_close(cpu, cuda.cpu(), **TOLERANCE[torch.float32])


def test_view_input(device: str) -> None:
    """Any strides and storage offset; nothing outside the view is read."""
    image, flow = sample((2, 3, 9, 11), torch.float32, device)
    buffer = torch.full((2, 13, 15, 3), math.nan, device=device)
    buffer[:, 2:11, 3:14] = image.permute(0, 2, 3, 1)
    view = buffer[:, 2:11, 3:14].permute(0, 3, 1, 2)
    flow_view = torch.cat([flow, flow.new_full((2, 2, 9, 4), math.nan)], dim=3)[..., :11]
    torch.testing.assert_close(warp(view, flow_view), warp(image, flow))


@pytest.mark.parametrize("shape", [(0, 3, 5, 7), (2, 0, 5, 7), (2, 3, 0, 7)])
def test_empty_batch(shape: tuple[int, ...], device: str) -> None:
    image = torch.rand(shape, device=device, requires_grad=True)
    flow = torch.rand(shape[0], 2, *shape[2:], device=device, requires_grad=True)
    output = warp(image, flow)
    assert output.shape == shape
    output.sum().backward()
    assert image.grad is not None and image.grad.shape == shape
    assert flow.grad is not None and (flow.grad == 0).all()


@pytest.mark.parametrize("width", [3, 37])
def test_nan_flow_gives_nan_and_infinite_flow_leaves_the_image(width: int, device: str) -> None:
    image = torch.rand(1, 1, 6, width, device=device)
    flow = torch.zeros(1, 2, 6, width, device=device)
    flow[0, 0, 0, 0] = flow[0, 1, 4, width - 1] = math.nan
    flow[0, 1, 1, 2], flow[0, 0, 3, width - 2] = math.inf, -math.inf
    for padding in PADDINGS:
        output, grad_image, grad_flow = with_grads(image, flow, padding)
        assert output[0, 0, 0, 0].isnan() and output[0, 0, 4, width - 1].isnan()
        assert output.isnan().sum() == 2
        assert grad_image.isnan().sum() <= 8 and grad_flow.isnan().sum() <= 4
    output = warp(image, flow)
    assert output[0, 0, 1, 2] == 0 and output[0, 0, 3, width - 2] == 0


IMAGE, FLOW = torch.rand(2, 3, 5, 7), torch.rand(2, 2, 5, 7)
REJECTS = {
    "not a tensor": ((IMAGE.numpy(), FLOW), TypeError, r"warp: image must be a torch.Tensor \[.*\]; got ndarray"),
    "rank": (
        (IMAGE[0], FLOW),
        ValueError,
        r"warp: image must have 4 dimensions, \[N, ., H, W\]; got shape \[3, 5, 7\]",
    ),
    "dtype": ((IMAGE.int(), FLOW), ValueError, "warp: image must be float32 or float64; got int32"),
    "mixed": (
        (IMAGE, FLOW.double()),
        ValueError,
        "flow and image must have one dtype; got float64 and float32",
    ),
    "channels": ((IMAGE, IMAGE), ValueError, r"= \[2, 2, 5, 7\]; got \[2, 3, 5, 7\]"),
    "size": (
        (IMAGE, FLOW[..., :6]),
        ValueError,
        r"flow must be \[N, 2, H, W\] of the image = .*got \[2, 2, 5, 6\]",
    ),
    "device": ((IMAGE, FLOW.to("meta")), ValueError, "must be on one device; got meta and cpu"),
}


@pytest.mark.parametrize("case", REJECTS)
def test_rejects(case: str) -> None:
    arguments, error, message = REJECTS[case]
    with pytest.raises(error, match=message):
        warp(*arguments)


def test_rejects_padding() -> None:
    with pytest.raises(ValueError, match="padding must be one of 'zeros', 'border'; got 'reflection'"):
        warp(IMAGE, FLOW, padding="reflection")  # type: ignore[arg-type]


def test_kernels_refuse_what_would_read_out_of_bounds(device: str) -> None:
    """A direct call of the op skips the Python checks, not the kernel's own."""
    with pytest.raises(RuntimeError, match="warp: flow must have size 7 in dimension 3; got 6"):
        torch.ops.pyaction.warp(IMAGE.to(device), FLOW[..., :6].to(device), False)


def test_second_derivative_is_refused(device: str) -> None:
    image, flow = sample((1, 1, 4, 5), torch.float32, device)
    (grad,) = torch.autograd.grad(warp(image, flow.requires_grad_()).sum(), flow, create_graph=True)
    with pytest.raises(RuntimeError, match="warp_grad_flow cannot be differentiated twice"):
        grad.sum().backward()


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_opcheck(layout: torch.memory_format, padding: str, device: str) -> None:
    image, flow = sample((2, 3, 5, 7), torch.float32, device)
    image, border = image.contiguous(memory_format=layout), padding == "border"
    torch.library.opcheck(torch.ops.pyaction.warp, (image.requires_grad_(), flow.requires_grad_(), border))
    grad = torch.randn(2, 3, 5, 7, device=device).contiguous(memory_format=layout)
    torch.library.opcheck(torch.ops.pyaction.warp_grad_flow, (grad, image.detach(), flow.detach(), border))
    torch.library.opcheck(torch.ops.pyaction.warp_grad_image, (grad, flow.detach(), border))


def test_compile(device: str) -> None:
    def step(image: Tensor, flow: Tensor) -> Tensor:
        return warp(image * 2, flow, padding="border").square().mean()

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    for shape in [(2, 3, 5, 7), (2, 3, 6, 9)]:
        image, flow = sample(shape, torch.float32, device)
        flow.requires_grad_()
        (ours,) = torch.autograd.grad(compiled(image, flow), flow)
        (eager,) = torch.autograd.grad(step(image, flow), flow)
        torch.testing.assert_close(ours, eager)
