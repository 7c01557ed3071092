"""Frames with known motion."""

from collections.abc import Iterable
from pathlib import Path

import torch
import torch.nn.functional as F

from pyaction import video

MOTION = (2, 1)  # pixels per frame to the right and down


def moving_texture(frames: int, height: int = 48, width: int = 64) -> torch.Tensor:
    """(T, 3, H, W) uint8: smooth noise that moves by MOTION."""
    noise = torch.rand(1, 1, height + frames * MOTION[1] + 8, width + frames * MOTION[0] + 8)
    smooth = F.avg_pool2d(noise, 5, stride=1)[0, 0]
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min()) * 255
    views = []
    for t in range(frames):
        y, x = (frames - t) * MOTION[1], (frames - t) * MOTION[0]
        views.append(smooth[y : y + height, x : x + width])
    return torch.stack(views).round().byte()[:, None].repeat(1, 3, 1, 1)


def write_data_set(root: Path, lengths: Iterable[int], height: int, width: int) -> Path:
    """root/class0/00.avi, class1/01.avi, ...: videos of that many frames, in three classes. Gives root."""
    for number, frames in enumerate(lengths):
        path = root / f"class{number % 3}" / f"{number:02d}.avi"
        path.parent.mkdir(exist_ok=True)
        video.write(path, moving_texture(frames, height, width), fps=25)
    return root
