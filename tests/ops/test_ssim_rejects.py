"""What pyaction.ops.ssim refuses, and the words it refuses it with."""

import math
from typing import Any

import pytest
import torch

from pyaction.ops import ssim

IMAGE = torch.rand(2, 3, 9, 11)
REJECTS: dict[str, tuple[tuple[Any, Any], dict[str, Any], type[Exception], str]] = {
    "not a tensor": ((IMAGE, IMAGE.numpy()), {}, TypeError, r"ssim: image1 must be a torch.Tensor \[.*\]; got ndarray"),
    "rank": (
        (IMAGE[0], IMAGE),
        {},
        ValueError,
        r"image0 must have 4 dimensions, \[N, ., H, W\]; got shape \[3, 9, 11\]",
    ),
    "dtype": ((IMAGE.half(), IMAGE), {}, ValueError, "image0 must be float32 or float64; got float16"),
    "mixed": ((IMAGE, IMAGE.double()), {}, ValueError, "image1 and image0 must have one dtype; got float64 and"),
    "shape": ((IMAGE, IMAGE[:1]), {}, ValueError, r"of image0 = \[2, 3, 9, 11\]; got \[1, 3, 9, 11\]"),
    "device": ((IMAGE, IMAGE.to("meta")), {}, ValueError, "must be on one device; got meta and cpu"),
    "weighting": ((IMAGE, IMAGE), {"weighting": "box"}, ValueError, "one of 'uniform', 'gaussian'; got 'box'"),
    "window 0": ((IMAGE, IMAGE), {"window": 0}, ValueError, "window must be an integer from 1 to 64; got 0"),
    "window 65": ((IMAGE, IMAGE), {"window": 65}, ValueError, "window must be an integer from 1 to 64; got 65"),
    "window 8.5": ((IMAGE, IMAGE), {"window": 8.5}, ValueError, "must be an integer from 1 to 64; got 8.5"),
    "stride": ((IMAGE, IMAGE), {"stride": 0}, ValueError, "stride must be an integer of at least 1; got 0"),
    "c1": ((IMAGE, IMAGE), {"c1": 0.0}, ValueError, "c1 must be a positive number; got 0.0"),
    "c2": ((IMAGE, IMAGE), {"c2": math.nan}, ValueError, "c2 must be a positive number; got nan"),
    "small": (
        (IMAGE, IMAGE),
        {"window": 10},
        ValueError,
        "ssim: images of 9 x 11 pixels are smaller than the window of 10 x 10",
    ),
}


@pytest.mark.parametrize("case", REJECTS)
def test_rejects(case: str) -> None:
    images, options, error, message = REJECTS[case]
    with pytest.raises(error, match=message):
        ssim(*images, **options)


def test_kernels_refuse_what_would_read_out_of_bounds(device: str) -> None:
    """A direct call of the op skips the Python checks, not the kernel's own."""
    image = IMAGE.to(device)
    for other, window, stride, message in [
        (image[..., :10], 8, 8, "ssim: image1 must have size 11 in dimension 3; got 10"),
        (image, 0, 8, "window must be 1 to 64; got 0"),
        (image, 65, 8, "window must be 1 to 64; got 65"),
        (image, 8, 0, "stride must be at least 1; got 0"),
        (image, 10, 8, "ssim: images of 9 x 11 are smaller than the window of 10 x 10"),
    ]:
        with pytest.raises(RuntimeError, match=message):
            torch.ops.pyaction.ssim(image, other, window, stride, False, 1e-4, 1e-3)
    with pytest.raises(RuntimeError, match="ssim_grad: grad must have size 2 in dimension 3; got 1"):
        torch.ops.pyaction.ssim_grad(image[..., :1, :1], image, image, 8, 3, False, 1e-4, 1e-3, True, True)
    with pytest.raises(RuntimeError, match="ssim_grad: grad must have the dtype and device of the first argument"):
        torch.ops.pyaction.ssim_grad(image[..., :1, :2].double(), image, image, 8, 3, False, 1e-4, 1e-3, True, True)
