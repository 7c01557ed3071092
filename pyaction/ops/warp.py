"""Bilinear warping by an optical flow."""

from typing import Any, Literal

import torch
from torch import Tensor

from pyaction import _native  # noqa: F401  (registers torch.ops.pyaction)
from pyaction.ops._autograd import register_blocker, register_fake
from pyaction.ops._checks import (
    cast_for_autocast,
    check_alike,
    check_choice,
    check_shape,
    check_tensor,
    floating_of,
)


def warp(image: Tensor, flow: Tensor, *, padding: Literal["zeros", "border"] = "zeros") -> Tensor:
    r"""Samples an image where a flow points: the inverse warp of paper 002, equation 1.

    .. math:: \text{output}(x, y) = \text{image}(x + u(x, y),\; y + v(x, y))

    with bilinear interpolation. Warping frame t+1 by the flow from t to t+1 gives an estimate of frame t.
    Differentiable in both arguments; on CUDA the image's gradient is summed with atomics, so its last bits
    vary from run to run.

    Args:
        image: ``(N, C, H, W)``, float32 or float64, on CUDA also float16 or bfloat16, any range. ``channels_last``
            stays so.
        flow: ``(N, 2, H, W)``, same dtype and device, in pixels; channel 0 = x (right), channel 1 = y (down). Half
            precision knows a flow of 20 pixels only to 1/128 (float16) or 1/16 of a pixel (bfloat16).
        padding: What a sample outside the image sees. ``"zeros"``: zero, blended in over the last pixel.
            ``"border"``: the nearest edge pixel; the flow then gets no gradient.

    Returns:
        ``(N, C, H, W)``, the image's dtype; half precision under autocast gives float32. A flow that is NaN gives NaN,
            and an edge pixel that is NaN or infinite also spoils the samples beside it, outside the image.

    Raises:
        ValueError: An argument has the wrong rank, shape, dtype or device.

    Example:
        >>> image = torch.arange(4.0).view(1, 1, 1, 4)
        >>> flow = torch.tensor([0.5, 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 4)
        >>> warp(image, flow, padding="border")
        tensor([[[[0.5000, 1.5000, 2.5000, 3.0000]]]])
    """
    image, flow = cast_for_autocast(image, flow)
    check_tensor("warp", "image", image, "[N, C, H, W]", floating_of(image))
    check_tensor("warp", "flow", flow, "[N, 2, H, W]", floating_of(flow))
    n, _, h, w = image.shape
    check_shape("warp", "flow", flow, (n, 2, h, w), "[N, 2, H, W] of the image")
    check_alike("warp", "flow", flow, "image", image)
    check_choice("warp", "padding", padding, ("zeros", "border"))
    return torch.ops.pyaction.warp(image, flow, padding == "border")


def _empty_like(image: Tensor) -> Tensor:
    """In the layout that kernels give their results: channels_last where that is the image's, else planes."""
    is_interleaved = image.is_contiguous(memory_format=torch.channels_last) and not image.is_contiguous()
    return torch.empty_like(image, memory_format=torch.channels_last if is_interleaved else torch.contiguous_format)


@register_fake("warp")
def _(image: Tensor, flow: Tensor, border: bool) -> Tensor:
    return _empty_like(image)


@register_fake("warp_grad_flow")
def _(grad: Tensor, image: Tensor, flow: Tensor, border: bool) -> Tensor:
    return flow.new_empty(flow.shape)


@register_fake("warp_grad_image")
def _(grad: Tensor, flow: Tensor, border: bool) -> Tensor:
    return _empty_like(grad)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, bool], output: Tensor) -> None:
    image, flow, ctx.border = inputs
    # The image is needed for the flow's gradient only.
    ctx.save_for_backward(image if ctx.needs_input_grad[1] else None, flow)


def _grad(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    image, flow = ctx.saved_tensors
    grad_image = grad_flow = None
    if ctx.needs_input_grad[0]:
        grad_image = torch.ops.pyaction.warp_grad_image(grad, flow, ctx.border)
    if ctx.needs_input_grad[1]:
        grad_flow = torch.ops.pyaction.warp_grad_flow(grad, image, flow, ctx.border)
    return grad_image, grad_flow, None


torch.library.register_autograd("pyaction::warp", _grad, setup_context=_setup_context)
register_blocker("warp_grad_flow", "cannot be differentiated twice")
register_blocker("warp_grad_image", "cannot be differentiated twice")
