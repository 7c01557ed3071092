"""Structural similarity of two images, window by window."""

import math
from typing import Any, Literal

import torch
from torch import Tensor

from pyaction import _native  # noqa: F401  (registers torch.ops.pyaction)
from pyaction.ops._autograd import register_blocker, register_fake
from pyaction.ops._checks import cast_for_autocast, check_alike, check_choice, check_shape, check_tensor, floating_of

MAX_WINDOW = 64  # kMaxSsimWindow in csrc/ssim/ssim.h


def ssim(
    image0: Tensor,
    image1: Tensor,
    *,
    window: int = 8,
    stride: int = 8,
    weighting: Literal["uniform", "gaussian"] = "uniform",
    c1: float = 1e-4,
    c2: float = 1e-3,
) -> Tensor:
    r"""Compares two images by the mean, contrast and structure of their windows: one similarity per window.

    .. math:: S = \frac{(2 \mu_0 \mu_1 + c_1)(2 \sigma_{01} + c_2)}
                       {(\mu_0^2 + \mu_1^2 + c_1)(\sigma_0^2 + \sigma_1^2 + c_2)}

    with the weighted means :math:`\mu`, biased variances :math:`\sigma^2` and covariance :math:`\sigma_{01}` of
    a window and its partner (Wang et al., "Image quality assessment: from error visibility to structural
    similarity", 2004). The defaults are the patches of paper 002, equation 3; its loss, equation 4, is
    ``(1 - ssim(frame, warped)).mean()``. Wang's own index is ``window=11, stride=1, weighting="gaussian",
    c1=0.01**2, c2=0.03**2``. Differentiable in both images.

    Args:
        image0: ``(N, C, H, W)``, float32 or float64; on CUDA also float16 or bfloat16, computed in float32. Half
            precision under autocast becomes float32. The constants are meant for values in [0, 1]; for another
            range multiply them by its square.
        image1: ``(N, C, H, W)``, same dtype and device.
        window: Height and width of a window, in pixels, 1 to 64.
        stride: From one window to the next, in pixels, at least 1. Beyond ``window`` it leaves gaps, whose
            pixels have gradient zero.
        weighting: How the pixels of a window weigh. ``"uniform"``: alike. ``"gaussian"``: by a gaussian of
            sigma 1.5 pixels about the window's centre, ``(window - 1) / 2``, so even windows are fine.
        c1: Keeps the comparison of the means steady where they are near zero. Positive.
        c2: Keeps the comparison of contrast and structure steady where both windows are flat. Positive.

    Returns:
        ``(N, C, h, w)``, the images' dtype, in [-1, 1], 1 where the windows are equal. Only whole windows count:
        ``h = (H - window) // stride + 1``, ``w`` likewise. A pixel that is NaN makes the windows over it NaN.

    Raises:
        ValueError: An argument has the wrong rank, shape, dtype, device or value, or the images are smaller than
            the window.

    Example:
        >>> image = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).view(1, 1, 2, 2)
        >>> ssim(image, 1 - image, window=2, c1=1e-4, c2=0.1)
        tensor([[[[-0.6667]]]])
    """
    image0, image1 = cast_for_autocast(image0, image1)
    check_tensor("ssim", "image0", image0, "[N, C, H, W]", floating_of(image0))
    check_tensor("ssim", "image1", image1, "[N, C, H, W]", floating_of(image1))
    check_shape("ssim", "image1", image1, image0.shape, "[N, C, H, W] of image0")
    check_alike("ssim", "image1", image1, "image0", image0)
    check_choice("ssim", "weighting", weighting, ("uniform", "gaussian"))
    if not isinstance(window, int) or not 1 <= window <= MAX_WINDOW:
        raise ValueError(f"ssim: window must be an integer from 1 to {MAX_WINDOW}; got {window!r}")
    if not isinstance(stride, int) or stride < 1:
        raise ValueError(f"ssim: stride must be an integer of at least 1; got {stride!r}")
    for name, value in (("c1", c1), ("c2", c2)):
        if not 0 < value < math.inf:
            raise ValueError(f"ssim: {name} must be a positive number; got {value!r}")
    h, w = image0.shape[2:]
    if h < window or w < window:
        raise ValueError(f"ssim: images of {h} x {w} pixels are smaller than the window of {window} x {window}")
    return torch.ops.pyaction.ssim(image0, image1, window, stride, weighting == "gaussian", c1, c2)


@register_fake("ssim")
def _(image0: Tensor, image1: Tensor, window: int, stride: int, *_: bool | float) -> Tensor:
    n, c, h, w = image0.shape
    return image0.new_empty((n, c, (h - window) // stride + 1, (w - window) // stride + 1))


@register_fake("ssim_grad")
def _(grad: Tensor, image0: Tensor, image1: Tensor, *options: Any) -> tuple[Tensor, Tensor]:
    need0, need1 = options[-2:]
    return image0.new_empty(image0.shape if need0 else (0,)), image1.new_empty(image1.shape if need1 else (0,))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    image0, image1, *ctx.options = inputs
    ctx.save_for_backward(image0, image1)  # either gradient needs both


def _grad(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    needed = ctx.needs_input_grad[:2]
    grads = torch.ops.pyaction.ssim_grad(grad, *ctx.saved_tensors, *ctx.options, *needed)
    return *(g if need else None for g, need in zip(grads, needed, strict=True)), None, None, None, None, None


torch.library.register_autograd("pyaction::ssim", _grad, setup_context=_setup_context)
register_blocker("ssim_grad", "cannot be differentiated twice")
