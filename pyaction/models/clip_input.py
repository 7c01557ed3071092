"""The clips that networks take: `(N, T, C, H, W)`, checked with one sentence."""

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
