"""What networks take, checked with one sentence."""

from torch import Tensor


def check_clip(network: str, clip: Tensor, channels: int) -> None:
    """Refuses what is not a tensor `(N, T, C, H, W)` with N, T, H, W >= 1 and C = `channels`.

    Args:
        network: its name, for the message.
        clip: what the user passed.
        channels: C.

    Raises:
        TypeError: not a tensor.
        ValueError: wrong shape.
    """
    if not isinstance(clip, Tensor):
        raise TypeError(f"{network}: clip must be a torch.Tensor [N, T, C, H, W]; got {type(clip).__name__}")
    shape = list(clip.shape)
    if clip.dim() != 5 or shape[2] != channels or 0 in shape[1:]:
        raise ValueError(f"{network}: clip must be [N, T, {channels}, H, W] with T, H, W >= 1; got {shape}")


def check_floating(caller: str, name: str, value: object, layout: tuple[str | int, ...]) -> None:
    """Refuses all but a floating-point tensor whose sizes are those numbers of `layout`, such as ("N", 3, "H", "W")."""
    expected = f"[{', '.join(map(str, layout))}]"
    if not isinstance(value, Tensor):
        raise TypeError(f"{caller}: {name} must be a torch.Tensor {expected}; got {type(value).__name__}")
    fits = value.ndim == len(layout) and all(
        isinstance(size, str) or size == value.shape[axis] for axis, size in enumerate(layout)
    )
    if not fits:
        raise ValueError(f"{caller}: {name} must be {expected}; got shape {list(value.shape)}")
    if not value.is_floating_point():
        dtype = str(value.dtype).removeprefix("torch.")
        raise ValueError(f"{caller}: {name} must be floating point; got {dtype}")
