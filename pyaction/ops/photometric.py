"""How well a flow explains two frames: the losses by which flow is learned without ground truth."""

import math
from typing import Any, Literal, NamedTuple

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

LEAST_WINDOW, LARGEST_WINDOW = 2, 16  # kLeastPatch and kLargestPatch in csrc/photometric/photometric.h


class PhotometricLoss(NamedTuple):
    """Three scalars; the loss of paper 002, equation 5, is a weighted sum of them."""

    pixel: Tensor
    smoothness: Tensor
    ssim: Tensor


def photometric_loss(
    frame0: Tensor,
    frame1: Tensor,
    flow: Tensor,
    *,
    pixel_alpha: float = 0.4,
    pixel_scale: float = 255.0,
    smoothness_alpha: float = 0.3,
    smoothness_scale: float = 1.0,
    epsilon: float = 1e-3,
    border: float = 0.1,
    window: int = 8,
    c1: float = 1e-4,
    c2: float = 1e-3,
    padding: Literal["zeros", "border"] = "zeros",
) -> PhotometricLoss:
    r"""Warps frame 1 back by the flow and compares it with frame 0: paper 002, equations 1 to 4.

    .. math::
        L_{\text{pixel}} &= \text{mean}\; \rho(\text{frame0} - \text{warped}) \\
        L_{\text{smooth}} &= \text{mean}\; \rho(\partial_x u) + \rho(\partial_y u)
                             + \rho(\partial_x v) + \rho(\partial_y v) \\
        L_{\text{ssim}} &= \text{mean}\; 1 - \text{ssim}(\text{frame0}, \text{warped}) \\
        \rho(x) &= ((s x)^2 + \epsilon^2)^\alpha

    The same as `warp`, `ssim` and the penalties one after the other, in one pass over memory: the warped frame is
    never stored, in the gradient neither. Differentiable in the flow and, at more expense, in both frames. The
    defaults are those of the paper's released code, for frames in [0, 1]; each mean is over the whole batch (the
    release divides the first by the batch once more, and sums the third over patches and channels).

    Args:
        frame0: ``(N, C, H, W)``, float32 or float64, on CUDA also float16 or bfloat16.
        frame1: ``(N, C, H, W)``, same dtype and device.
        flow: ``(N, 2, H, W)``, same dtype and device, in pixels of this resolution, from frame 0 to frame 1;
            channel 0 = x (right), channel 1 = y (down).
        pixel_alpha: :math:`\alpha` of the pixel term. Positive.
        pixel_scale: :math:`s` of the pixel term: 255 measures frames in [0, 1] in grey levels. Positive.
        smoothness_alpha: :math:`\alpha` of the smoothness term. Positive.
        smoothness_scale: :math:`s` of the smoothness term, for slopes in pixels per pixel. Positive.
        epsilon: :math:`\epsilon` of both. Positive.
        border: Share of the smaller side that pixel and smoothness term leave out on each side, since what is there
            may have left the frame; rounded to pixels. In [0, 0.5).
        window: Side of the patches that ssim compares, 2 to 16 pixels. They lie side by side, and where the frame
            cuts them off they are compared by the pixels that they have.
        c1: As in `ssim`.
        c2: As in `ssim`.
        padding: What a sample outside frame 1 sees, as in `warp`.

    Returns:
        The three terms, unweighted, each a scalar of the frames' dtype, in half precision float32.
        Zero, with zero gradients, for an empty batch.

    Raises:
        ValueError: An argument has the wrong rank, shape, dtype, device or value.

    Example:
        >>> frame0 = torch.rand(2, 3, 32, 32)
        >>> frame1 = frame0.roll(1, dims=3)
        >>> right = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(2, 2, 32, 32)
        >>> still = photometric_loss(frame0, frame1, 0 * right)
        >>> moved = photometric_loss(frame0, frame1, right)
        >>> moved.pixel < still.pixel, moved.ssim < still.ssim
        (tensor(True), tensor(True))
    """
    op = "photometric_loss"
    frame0, frame1, flow = cast_for_autocast(frame0, frame1, flow)
    check_tensor(op, "frame0", frame0, "[N, C, H, W]", floating_of(frame0))
    check_tensor(op, "frame1", frame1, "[N, C, H, W]", floating_of(frame1))
    check_tensor(op, "flow", flow, "[N, 2, H, W]", floating_of(flow))
    check_shape(op, "frame1", frame1, frame0.shape, "[N, C, H, W] of frame0")
    n, _, h, w = frame0.shape
    check_shape(op, "flow", flow, (n, 2, h, w), "[N, 2, H, W] of the frames")
    check_alike(op, "frame1", frame1, "frame0", frame0)
    check_alike(op, "flow", flow, "frame0", frame0)
    check_choice(op, "padding", padding, ("zeros", "border"))
    if not isinstance(window, int) or not LEAST_WINDOW <= window <= LARGEST_WINDOW:
        raise ValueError(f"{op}: window must be an integer from {LEAST_WINDOW} to {LARGEST_WINDOW}; got {window!r}")
    if not 0 <= border < 0.5:
        raise ValueError(f"{op}: border must be in [0, 0.5); got {border!r}")
    positive = {
        "pixel_alpha": pixel_alpha,
        "pixel_scale": pixel_scale,
        "smoothness_alpha": smoothness_alpha,
        "smoothness_scale": smoothness_scale,
        "epsilon": epsilon,
        "c1": c1,
        "c2": c2,
    }
    for name, value in positive.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{op}: {name} must be a positive number; got {value!r}")
    # In the order of PhotometricOption in csrc/photometric/photometric_entry.h.
    options = [pixel_alpha, pixel_scale, smoothness_alpha, smoothness_scale, epsilon, border, c1, c2]
    losses = torch.ops.pyaction.photometric_loss(
        frame0, frame1, flow, [float(option) for option in options], window, padding == "border"
    )
    return PhotometricLoss(*losses.unbind())


@register_fake("photometric_loss")
def _(frame0: Tensor, frame1: Tensor, flow: Tensor, *_: object) -> Tensor:
    return frame0.new_empty(3, dtype=_loss_dtype(frame0))


@register_fake("photometric_grad")
def _(
    grad: Tensor,
    frame0: Tensor,
    frame1: Tensor,
    flow: Tensor,
    options: list[float],
    window: int,
    pad_border: bool,
    of_frames: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    shape = frame0.shape if of_frames else (0,)
    return flow.new_empty(flow.shape), frame0.new_empty(shape), frame0.new_empty(shape)


def _loss_dtype(frame: Tensor) -> torch.dtype:
    return torch.float64 if frame.dtype == torch.float64 else torch.float32


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    frame0, frame1, flow, *ctx.options = inputs
    ctx.save_for_backward(frame0, frame1, flow)


def _grad(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    frame0, frame1, flow = ctx.saved_tensors
    needs_frame0, needs_frame1, needs_flow = ctx.needs_input_grad[:3]
    grad_flow, grad_frame0, grad_warped = torch.ops.pyaction.photometric_grad(
        grad, frame0, frame1, flow, *ctx.options, needs_frame0 or needs_frame1
    )
    *_, pad_border = ctx.options
    return (
        grad_frame0 if needs_frame0 else None,
        torch.ops.pyaction.warp_grad_image(grad_warped, flow, pad_border) if needs_frame1 else None,
        grad_flow if needs_flow else None,
        *(None for _ in ctx.options),
    )


torch.library.register_autograd("pyaction::photometric_loss", _grad, setup_context=_setup_context)
register_blocker("photometric_grad", "cannot be differentiated twice")
