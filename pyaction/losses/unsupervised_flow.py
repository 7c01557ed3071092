"""The loss by which MotionNet learns flow without ground truth, at all its levels.

Zhu, Lan, Newsam and Hauptmann, "Hidden Two-Stream Convolutional Networks for Action Recognition", ACCV 2018 (paper
002), equations 1 to 6; weights and constants are those of the authors' released training definition.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from pyaction.ops import photometric_loss

Preset = Literal["release", "mean"]


@dataclass(frozen=True)
class UnsupervisedFlowWeights:
    """What each term of each level counts: paper 002's lambda of equation 5 times delta of equation 6.

    Tuples are for the levels, finest first: flow at 1/2, 1/4, 1/8, 1/16, 1/32 of the frames' resolution. A network
    with fewer levels uses the first of them.

    Attributes:
        pixel: of the pixel term of `ops.photometric_loss`, a mean.
        smoothness: of its smoothness term, a mean over pixels of a sum of four. The release divides each half of the
            sum, over x and over y, by the 30 channels of ten frames, instead of its own 20: one third of that mean.
        ssim: of its ssim term.
        ssim_reduction: `"sum"`: over the patches and channels of a clip, as in the release, which thus weighs large
            frames and long clips more; `"mean"`: over all.
    """

    pixel: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 1.0)
    smoothness: tuple[float, ...] = (1 / 3, 1 / 3, 1 / 3, 1 / 3, 1 / 3)
    ssim: tuple[float, ...] = (0.01, 0.02, 0.04, 0.08, 0.16)
    ssim_reduction: Literal["sum", "mean"] = "sum"

    def __post_init__(self) -> None:
        """Refuses weights that cannot be meant."""
        for field in fields(self)[:3]:
            weights = getattr(self, field.name)
            if not weights or not all(0 <= weight < float("inf") for weight in weights):
                raise ValueError(f"UnsupervisedFlowWeights: {field.name} must be weights >= 0; got {weights!r}")
        if not len(self.pixel) == len(self.smoothness) == len(self.ssim):
            lengths = f"{len(self.pixel)}, {len(self.smoothness)} and {len(self.ssim)}"
            raise ValueError(
                f"UnsupervisedFlowWeights: pixel, smoothness and ssim must be as many as levels; got {lengths}"
            )
        if self.ssim_reduction not in ("sum", "mean"):
            raise ValueError(
                f"UnsupervisedFlowWeights: ssim_reduction must be 'sum' or 'mean'; got {self.ssim_reduction!r}"
            )


# "release": pre-training as released (without its second division of means by the batch). Training end to end, the
# release divides its weights of ssim by 10. "mean": every term a mean over its elements; for 11 frames of 224 x 224
# the ssim terms of both are equal.
UNSUPERVISED_FLOW_PRESETS: dict[str, UnsupervisedFlowWeights] = {
    "release": UnsupervisedFlowWeights(),
    "mean": UnsupervisedFlowWeights(
        smoothness=(0.5, 0.5, 0.5, 0.5, 0.5), ssim=(58.8, 29.4, 19.2, 9.6, 4.8), ssim_reduction="mean"
    ),
}


class UnsupervisedFlowTerms(NamedTuple):
    """The loss, and what it is made of.

    Attributes:
        total: scalar, the weighted sum.
        pixel: `(levels,)`, unweighted means, finest level first.
        smoothness: likewise.
        ssim: likewise; 1 - similarity.
    """

    total: Tensor
    pixel: Tensor
    smoothness: Tensor
    ssim: Tensor


def unsupervised_flow_loss(
    flows: Sequence[Tensor], frames: Tensor, *, weights: UnsupervisedFlowWeights | Preset = "release"
) -> UnsupervisedFlowTerms:
    """How badly each frame is explained by the next one and the flow between them: paper 002, equation 6.

    Each level compares `photometric_images` of its own size by `ops.photometric_loss`, with that function's defaults:
    Charbonnier exponents 0.4 and 0.3, a border of a tenth left out, similarity of 8 x 8 patches. (The release weighs
    the pixels of a patch by a Gaussian; here, as in the paper, they count alike.)

    Args:
        flows: per level `(N, T - 1, 2, h, w)` in pixels of that level, finest first, as `models.MotionNet` returns;
            each level smaller than the one before, and none larger than the frames.
        frames: `(N, T, C, H, W)`, floating point, zero mean, 1 = white minus black, as `MotionNet.normalize` returns.
        weights: of the terms, or the name of a preset: `UNSUPERVISED_FLOW_PRESETS`.

    Returns:
        The loss and its terms, at least float32. Differentiable in the flows, not in the frames.

    Raises:
        TypeError: frames or a flow is not a tensor.
        ValueError: shapes do not fit, levels are not finest first, there are more of them than weights, or weights is
            neither.

    Example:
        >>> frames = torch.rand(1, 3, 3, 32, 32) - 0.5
        >>> flows = [torch.zeros(1, 2, 2, side, side) for side in (16, 8, 4)]
        >>> unsupervised_flow_loss(flows, frames).ssim.shape
        torch.Size([3])
    """
    weights = _named(weights)
    _check(flows, frames, len(weights.ssim))
    dtype = torch.promote_types(frames.dtype, torch.float32)
    total = frames.new_zeros((), dtype=dtype)
    levels = []
    # Autocast would take most digits from the frames, and the loss is of differences between them.
    with torch.autocast(frames.device.type, enabled=False):
        normalized = _normalized(frames.detach().to(dtype))
        for level, flow in enumerate(flows):
            height, width = flow.shape[3:]
            images = _downsampled(normalized, height, width)  # [N, T, C, h, w]
            terms = photometric_loss(
                images[:, :-1].flatten(0, 1), images[:, 1:].flatten(0, 1), flow.flatten(0, 1).to(dtype)
            )
            patches = -(-height // 8) * -(-width // 8) * flow.shape[1] * frames.shape[2]
            total = total + weights.pixel[level] * terms.pixel + weights.smoothness[level] * terms.smoothness
            total = total + weights.ssim[level] * (patches if weights.ssim_reduction == "sum" else 1) * terms.ssim
            levels.append(torch.stack(terms))
    return UnsupervisedFlowTerms(total, *torch.stack(levels, dim=1))


class UnsupervisedFlowLoss(nn.Module):
    """`unsupervised_flow_loss` with its weights.

    Args:
        weights: of the terms, or the name of a preset.
    """

    def __init__(self, *, weights: UnsupervisedFlowWeights | Preset = "release") -> None:
        super().__init__()
        self.weights = _named(weights)

    def forward(self, flows: Sequence[Tensor], frames: Tensor) -> UnsupervisedFlowTerms:
        """See `unsupervised_flow_loss`."""
        return unsupervised_flow_loss(flows, frames, weights=self.weights)


def photometric_images(frames: Tensor, height: int, width: int) -> Tensor:
    r"""The images that the loss compares: local contrast instead of brightness, in the size of a level.

    .. math:: y_c = x_c / (1 + \tfrac{1}{9} \sum_{c'} x_{c'}^2)^{0.7}

    and then the mean under a triangle as wide as two steps of the coarse grid, whose corners are the fine grid's.

    Args:
        frames: `(..., C, H, W)`, floating point, zero mean; float32 or float64 give images of the same.
        height: of the level.
        width: of the level.

    Returns:
        `(..., C, height, width)`.

    Source: the authors' release: local response normalisation (size 9, alpha 1, beta 0.7) and "Downsample".
    """
    return _downsampled(_normalized(frames), height, width)


def _normalized(frames: Tensor) -> Tensor:
    # The window of 9 channels holds all of C <= 5.
    return frames / (1 + frames.square().sum(dim=-3, keepdim=True) / 9) ** 0.7


def _downsampled(frames: Tensor, height: int, width: int) -> Tensor:
    rows = _triangles(frames.shape[-2], height, frames)
    columns = _triangles(frames.shape[-1], width, frames)
    return rows @ (frames @ columns.T)


def _triangles(size: int, out: int, like: Tensor) -> Tensor:
    """`(out, size)`: what each of `size` samples counts in each of `out`."""
    step = (size - 1) / (out - 1) if out > 1 else 1.0
    places = torch.arange(out, dtype=like.dtype, device=like.device) * step
    distances = (torch.arange(size, dtype=like.dtype, device=like.device) - places[:, None]).abs()
    weights = (1 - distances / max(step, 1.0)).clamp(min=0)
    return weights / weights.sum(dim=1, keepdim=True)


def _named(weights: UnsupervisedFlowWeights | str) -> UnsupervisedFlowWeights:
    if isinstance(weights, str) and weights in UNSUPERVISED_FLOW_PRESETS:
        return UNSUPERVISED_FLOW_PRESETS[weights]
    if not isinstance(weights, UnsupervisedFlowWeights):
        presets = ", ".join(map(repr, UNSUPERVISED_FLOW_PRESETS))
        raise ValueError(
            f"unsupervised_flow_loss: weights must be UnsupervisedFlowWeights or one of {presets}; got {weights!r}"
        )
    return weights


def _check(flows: Sequence[Tensor], frames: Tensor, levels: int) -> None:
    name = "unsupervised_flow_loss"
    if not isinstance(frames, Tensor):
        raise TypeError(f"{name}: frames must be a torch.Tensor [N, T, C, H, W]; got {type(frames).__name__}")
    shape = list(frames.shape)
    if frames.dim() != 5 or shape[1] < 2 or not 1 <= shape[2] <= 5:
        raise ValueError(f"{name}: frames must be [N, T, C, H, W] with T >= 2 and C from 1 to 5; got {shape}")
    if not frames.is_floating_point():
        raise ValueError(f"{name}: frames must be floating point, as MotionNet.normalize returns; got {frames.dtype}")
    if not 1 <= len(flows) <= levels:
        raise ValueError(f"{name}: flows must be 1 to {levels} levels, as many as there are weights; got {len(flows)}")
    for level, flow in enumerate(flows):
        if not isinstance(flow, Tensor):
            raise TypeError(f"{name}: flows[{level}] must be a torch.Tensor; got {type(flow).__name__}")
        if flow.dim() != 5 or list(flow.shape[:3]) != [shape[0], shape[1] - 1, 2] or 0 in flow.shape[3:]:
            raise ValueError(
                f"{name}: flows[{level}] must be [N, T - 1, 2, h, w] = {[shape[0], shape[1] - 1, 2]} and a size; "
                f"got {list(flow.shape)}"
            )
    sizes = [flow.shape[3:] for flow in flows]
    descending = all(h < above and w < left for (above, left), (h, w) in pairwise(sizes))
    if not descending or sizes[0][0] > shape[3] or sizes[0][1] > shape[4]:
        raise ValueError(
            f"{name}: flows must be finest first, each level smaller than the one before and none larger than the "
            f"frames' {shape[3]} x {shape[4]}; got {', '.join(f'{h} x {w}' for h, w in sizes)}"
        )
