"""The flow of L frames as the 2L input channels of a temporal stream: paper 004, section 6."""

import math

import torch
from torch import Tensor

from pyaction.data.transforms.content import check_clip
from pyaction.ops.warp import warp


def stack_flow(flow: Tensor) -> Tensor:
    """Optical-flow stacking: the motion at a fixed place, over time.

    Channels 2k and 2k + 1 (from 0) are x and y of field k, at (u, v) `d_{τ+k}(u, v)`.

    Args:
        flow: `(..., L, 2, H, W)`, L >= 1, in pixels or encoded, any dtype.

    Returns:
        `(..., 2L, H, W)`; a view where the memory allows it.

    Raises:
        TypeError: flow is not a tensor.
        ValueError: flow has another shape.

    Example:
        >>> stack_flow(torch.rand(8, 10, 2, 56, 56)).shape
        torch.Size([8, 20, 56, 56])
    """
    _check_fields("transforms.stack_flow", "flow", flow)
    return flow.flatten(-4, -3)


def stack_trajectories(flow: Tensor) -> Tensor:
    """Trajectory stacking: the motion of what was at a place in the first frame, along its way.

    Channels 2k and 2k + 1 (from 0) at (u, v) are `d_{τ+k}(p_k)`, sampled bilinearly, where `p_0 = (u, v)` and
    `p_k = p_{k-1} + d_{τ+k-1}(p_{k-1})`. A point that has left the frame moves on with the flow at the nearest edge.
    Differentiable.

    Args:
        flow: `(..., L, 2, H, W)`, float32 or float64, in pixels, L >= 1; field k points from frame k to frame k + 1.

    Returns:
        `(..., 2L, H, W)`, in pixels.

    Raises:
        TypeError: flow is not a tensor.
        ValueError: flow has another shape or dtype; encoded flow must be decoded first.

    Example:
        >>> flow = torch.tensor([[1.0, 1, 1], [7.0, 8, 9]]).view(2, 1, 1, 3)
        >>> flow = torch.cat([flow, torch.zeros_like(flow)], dim=1)  # (2, 2, 1, 3): nothing moves down
        >>> stack_trajectories(flow)[2]  # from x = 0 to 1, from 1 to 2, from 2 out of the frame
        tensor([[8., 9., 9.]])
    """
    _check_fields("transforms.stack_trajectories", "flow", flow)
    if flow.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"transforms.stack_trajectories: flow must be float32 or float64, in pixels; got {flow.dtype}")
    fields = flow.reshape(math.prod(flow.shape[:-4]), *flow.shape[-4:])  # (N, L, 2, H, W)
    way = torch.zeros_like(fields[:, 0])  # p_k - p_0
    steps = []
    for field in fields.unbind(1):
        steps.append(warp(field, way, padding="border"))
        way = way + steps[-1]
    return torch.stack(steps, dim=1).view(flow.shape).flatten(-4, -3)


def stack_bidirectional(forward: Tensor, reverse: Tensor) -> Tensor:
    """Bi-directional stacking: the motion after frame τ, then the motion before it, seen backwards in time.

    Both lead away from frame τ. Of a clip with τ in the middle: `forward = tvl1_flow_clip(clip[:, τ:])`,
    `reverse = tvl1_flow_clip(clip[:, : τ + 1].flip(1))`.

    Args:
        forward: `(..., L/2, 2, H, W)`; field k points from frame τ + k to frame τ + k + 1. In pixels or encoded.
        reverse: the same shape, dtype and device; field k points from frame τ - k to frame τ - k - 1.

    Returns:
        `(..., 2L, H, W)`: x and y of each forward field in turn, then those of each reverse field.

    Raises:
        TypeError: an argument is not a tensor.
        ValueError: an argument has another shape, or they differ.

    Example:
        >>> stack_bidirectional(torch.rand(5, 2, 56, 56), torch.rand(5, 2, 56, 56)).shape
        torch.Size([20, 56, 56])
    """
    caller = "transforms.stack_bidirectional"
    _check_fields(caller, "forward", forward)
    _check_fields(caller, "reverse", reverse)
    kinds = [f"{list(flow.shape)} {flow.dtype} on {flow.device}" for flow in (forward, reverse)]
    if kinds[0] != kinds[1]:
        raise ValueError(f"{caller}: forward and reverse must have one shape, dtype and device; got {kinds}")
    return torch.cat([stack_flow(forward), stack_flow(reverse)], dim=-3)


def subtract_mean_flow(flow: Tensor) -> Tensor:
    """Takes each field's mean vector off it: what is left of the motion when the camera's share is gone, roughly.

    Args:
        flow: `(..., 2, H, W)`, or `(..., 2L, H, W)` if stacked, floating point, in pixels, pixels in it.

    Returns:
        The same shape and dtype; x and y of each field have mean 0.

    Raises:
        TypeError: flow is not a tensor.
        ValueError: flow has another shape or dtype; encoded flow must be decoded first.
    """
    check_clip("transforms.subtract_mean_flow", flow, "flow")
    return flow - flow.mean((-2, -1), keepdim=True)


def _check_fields(caller: str, name: str, flow: object) -> None:
    if not isinstance(flow, Tensor):
        raise TypeError(f"{caller}: {name} must be a torch.Tensor; got {type(flow).__name__}")
    if flow.ndim < 4 or flow.shape[-3] != 2 or flow.shape[-4] == 0:
        raise ValueError(f"{caller}: {name} must be (..., L, 2, H, W) with L >= 1; got shape {list(flow.shape)}")
