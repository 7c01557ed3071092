"""Frames with known flow, and clips: real ones where PYACTION_TEST_DATA names a folder of them, else made here."""

import os
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from pyaction import flow as flow_files
from pyaction import video

Image = NDArray[np.uint8]
MIDDLEBURY = ("RubberWhale", "Grove2", "Urban2", "Venus")
CLIP_START = 20  # many a video opens with a still or dark picture
MAX_CLIPS = 8


class Pairs(NamedTuple):
    """What an optical flow is asked for."""

    frames0: Image  # (N, H, W)
    frames1: Image


class Scene(NamedTuple):
    """A pair and its flow."""

    name: str
    pair: Pairs  # N = 1
    truth: NDArray[np.float32]  # (2, H, W)
    valid: NDArray[np.bool_]  # (H, W): where the truth is known


def data_folder() -> Path | None:
    folder = os.environ.get("PYACTION_TEST_DATA")
    return Path(folder) if folder else None


def load_scenes() -> list[Scene]:
    """Four pairs of the Middlebury training set, or four made ones."""
    folder = data_folder()
    if folder is None:
        return [layered_scene(480, 640, seed) for seed in range(4)]
    return [_middlebury(folder / "flow" / "middlebury" / name) for name in MIDDLEBURY]


def resized_pairs(scenes: list[Scene], width: int, height: int, count: int) -> Pairs:
    """`count` pairs of that size: the scenes in turn, each time around turned upside down."""
    pairs = []
    for i in range(count):
        frames = [frame[0] for frame in scenes[i % len(scenes)].pair]
        shrinks = frames[0].shape[1] > width
        how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        resized = [cv2.resize(frame, (width, height), interpolation=how) for frame in frames]
        pairs.append([frame[::-1] if i // len(scenes) % 2 else frame for frame in resized])
    return Pairs(*(np.ascontiguousarray(np.stack(frames)) for frames in zip(*pairs, strict=True)))


def load_clips(count: int, frames: int) -> dict[str, Image]:
    """Clips (T, H, W) by name: of UCF101, one for each class first, or made ones."""
    folder = data_folder()
    if folder is None:
        return {f"generated {seed}": layered_clip(240, 320, frames, seed)[0] for seed in range(count)}
    classes = sorted((folder / "videos" / "ucf101").iterdir())
    paths = [sorted(path.glob("*.avi")) for path in classes]
    in_turn = [clips[i] for i in range(max(map(len, paths))) for clips in paths if i < len(clips)]
    return {path.stem: _read_clip(path, frames) for path in in_turn[:count]}


def layered_scene(height: int, width: int, seed: int) -> Scene:
    frames, truth = layered_clip(height, width, 2, seed)
    pair = Pairs(frames[:1], frames[1:])
    return Scene(f"generated {seed}", pair, truth, np.ones((height, width), bool))


def layered_clip(height: int, width: int, frames: int, seed: int) -> tuple[Image, NDArray[np.float32]]:
    """Discs that move over a moving background and hide each other: frames (T, H, W), flow (2, H, W) of the first.

    Every texture is a sum of plane waves, so that it is known between the pixels too.
    """
    rng = np.random.default_rng(seed)
    unit = width / 100
    clip = np.empty((frames, height, width), np.float32)
    truth = np.empty((2, height, width), np.float32)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    for layer in range(5):
        waves = _waves(rng, width)
        motion = rng.uniform(-unit, unit, 2)
        centre, radius = rng.uniform([0.2, 0.2], [0.8, 0.8]) * (width, height), rng.uniform(0.12, 0.25) * height
        for t in range(frames):
            own_x, own_y = x - np.float32(t * motion[0]), y - np.float32(t * motion[1])
            inside = np.hypot(own_x - centre[0], own_y - centre[1]) < radius
            mask = inside if layer else np.ones_like(inside)  # the first layer is the background
            clip[t][mask] = _texture(own_x[mask], own_y[mask], waves)
            if t == 0:
                truth[:, mask] = motion[:, None]
    return (127 + 45 * clip).clip(0, 255).round().astype(np.uint8), truth


def _waves(rng: np.random.Generator, width: int) -> NDArray[np.float64]:
    """(wavelength, direction, phase) of each, 5 pixels to a third of the image long."""
    count = 24
    lengths = np.exp(rng.uniform(np.log(5), np.log(width / 3), count))
    return np.stack([lengths, *rng.uniform(0, 2 * np.pi, (2, count))], axis=1)


def _texture(x: NDArray[np.float32], y: NDArray[np.float32], waves: NDArray[np.float64]) -> NDArray[np.float32]:
    """Of variance 1."""
    total = np.zeros_like(x)
    for length, direction, phase in waves:
        along = x * np.float32(np.cos(direction)) + y * np.float32(np.sin(direction))
        total += np.sin(np.float32(2 * np.pi / length) * along + np.float32(phase))
    return total / np.float32(np.sqrt(len(waves) / 2))


def _middlebury(folder: Path) -> Scene:
    pair = Pairs(*(_read_grey(folder / f"frame{number}.png")[None] for number in (10, 11)))
    truth, valid = flow_files.read(folder / "flow10.flo")
    return Scene(folder.name, pair, truth.numpy(), valid.numpy())


def _read_grey(path: Path) -> Image:
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise FileNotFoundError(f"PYACTION_TEST_DATA has no picture {path}")
    return np.asarray(image, np.uint8)


def _read_clip(path: Path, frames: int) -> Image:
    with video.open(path) as reader:
        rgb = reader.frames(range(CLIP_START, CLIP_START + frames)).permute(0, 2, 3, 1).numpy()
    return np.stack([np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8) for frame in rgb])
