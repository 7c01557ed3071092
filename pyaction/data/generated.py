"""Videos of actions that are made here: real files with labels, splits and exact optical flow.

An actor, a textured shape, moves over a textured background seen by a moving camera. A class is an appearance with a
motion, and every appearance has several motions and the other way round: neither frames nor flow alone can tell all
classes. "Drink" and "Eat" are alike in both and differ a little in both, as the pair of paper 001's introduction.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from pyaction import video
from pyaction.data.transforms.draws import generator_of

_PERIOD = 256  # pixels after which a texture repeats
_OVERSAMPLING = 2
_MARGIN = 2  # what a bicubic sample reads around its pixel
_EDGE = 1.5  # pixels over which an actor's edge fades


@dataclass(frozen=True)
class Action:
    """One class."""

    name: str
    shape: str
    color: tuple[float, float, float]
    motion: str


_RED, _GREEN, _BLUE = (0.75, 0.35, 0.3), (0.35, 0.65, 0.35), (0.3, 0.4, 0.75)
ACTIONS = (
    *(Action(f"Ball{motion}", "disc", _RED, motion.lower()) for motion in ("Slide", "Bounce", "Spin")),
    *(Action(f"Box{motion}", "square", _GREEN, motion.lower()) for motion in ("Slide", "Bounce", "Spin")),
    *(Action(f"Kite{motion}", "triangle", _BLUE, motion.lower()) for motion in ("Slide", "Bounce", "Spin")),
    Action("Drink", "ellipse", (0.7, 0.65, 0.35), "sip"),
    Action("Eat", "lens", (0.7, 0.6, 0.4), "bite"),
)


@dataclass(frozen=True)
class _Pose:
    """Where something is in one frame: a point q of it is seen at position + scale * rotation(angle) q."""

    x: float
    y: float
    angle: float = 0.0
    scale: float = 1.0

    def to_own(self, points: Tensor) -> Tensor:
        """Pixels (2, H, W) to points of the thing."""
        x, y = (points[0] - self.x) / self.scale, (points[1] - self.y) / self.scale
        cosine, sine = math.cos(self.angle), math.sin(self.angle)
        return torch.stack([cosine * x + sine * y, cosine * y - sine * x])

    def to_image(self, own: Tensor) -> Tensor:
        """The inverse of `to_own`."""
        cosine, sine = math.cos(self.angle), math.sin(self.angle)
        x, y = cosine * own[0] - sine * own[1], sine * own[0] + cosine * own[1]
        return torch.stack([self.x + self.scale * x, self.y + self.scale * y])


class ActionScene:
    """One video of an action. The same arguments give the same pixels.

    Args:
        action: One of `ACTIONS`.
        group: Videos of a group share background, camera and the look of their actor, as in UCF101.
        clip: Number of the video in its group.
        size: (height, width) in pixels.
        frames: How many.
        seed: Of everything that is random.
    """

    def __init__(
        self,
        action: Action,
        *,
        group: int,
        clip: int,
        size: tuple[int, int] = (120, 160),
        frames: int = 40,
        seed: int = 0,
    ) -> None:
        if frames < 1 or min(size) < 16:
            raise ValueError(f"ActionScene: at least 1 frame of 16 x 16 pixels; got {frames} of {size[0]} x {size[1]}")
        self.action, self.size, self.length = action, size, frames
        kind = ACTIONS.index(action)
        # The scene does not depend on the class: a background must not give it away.
        scene = generator_of(seed, group)
        self._background = _texture(scene, torch.rand(3, generator=scene) * 0.3 + 0.35, contrast=0.13)
        self._camera = (torch.rand(4, generator=scene) * 2 - 1).tolist()
        self._actor = _texture(generator_of(seed, group, kind), torch.tensor(action.color), contrast=0.1)
        self._own = torch.rand(5, generator=generator_of(seed, group, kind, clip)).tolist()

    def frames(self) -> Tensor:
        """(T, 3, H, W) uint8."""
        return torch.stack([self._frame(t) for t in range(self.length)])

    def flow(self) -> tuple[Tensor, Tensor]:
        """The true optical flow from each frame to the next, and where it can be checked.

        Returns:
            Flow (T - 1, 2, H, W), float32, in pixels; and (T - 1, H, W), bool: true where what is seen in a frame is
            seen in the next one too, away from the actor's edge.
        """
        pairs = [self._pair(t) for t in range(self.length - 1)]
        height, width = self.size
        if not pairs:
            return torch.zeros(0, 2, height, width), torch.zeros(0, height, width, dtype=torch.bool)
        flows, visible = zip(*pairs, strict=True)
        return torch.stack(flows), torch.stack(visible)

    @cached_property
    def _pixels(self) -> Tensor:
        height, width = self.size
        y, x = torch.meshgrid(torch.arange(height * 1.0), torch.arange(width * 1.0), indexing="ij")
        return torch.stack([x, y])

    def _frame(self, t: int) -> Tensor:
        camera, actor = self._camera_pose(t), self._actor_pose(t)
        background = _sample(self._background, camera.to_own(self._pixels))
        own = actor.to_own(self._pixels)
        cover = (self._depth(own, actor) / _EDGE).clamp(0, 1)
        frame = background + cover * (_sample(self._actor, own) - background)
        return (255 * frame).round().clamp(0, 255).to(torch.uint8)

    def _pair(self, t: int) -> tuple[Tensor, Tensor]:
        height, width = self.size
        actor, next_actor = self._actor_pose(t), self._actor_pose(t + 1)
        own = actor.to_own(self._pixels)
        depth = self._depth(own, actor)
        on_actor = depth > _EDGE / 2
        next_background = self._camera_pose(t + 1).to_image(self._camera_pose(t).to_own(self._pixels))
        target = torch.where(on_actor, next_actor.to_image(own), next_background)
        # The other layer must not touch the pixels between which a sample there is interpolated.
        next_depth = self._depth(next_actor.to_own(target), next_actor)
        on_both = torch.minimum(depth, next_depth) > _EDGE + 2
        on_neither = torch.maximum(depth, next_depth) < -2
        x, y = target
        is_inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
        return target - self._pixels, torch.where(on_actor, on_both, on_neither) & is_inside

    def _depth(self, own: Tensor, pose: _Pose) -> Tensor:
        """About how many pixels each point is inside the actor; negative outside."""
        return _distance_inside(self.action.shape, own / self._radius) * self._radius * pose.scale

    @property
    def _radius(self) -> float:
        return (0.17 + 0.05 * self._own[0]) * min(self.size)

    def _camera_pose(self, t: int) -> _Pose:
        """Pans, and shakes slowly."""
        pan_x, pan_y, phase, zoom = self._camera
        unit = min(self.size) / 120
        shake = math.sin(0.15 * t + 3 * phase)
        return _Pose(unit * (0.5 * pan_x * t + shake), unit * (0.25 * pan_y * t + shake), 0.0, 1 + 0.001 * zoom * t)

    def _actor_pose(self, t: int) -> _Pose:
        """To and fro across, up and down, turning on the spot, or up to a mouth and back."""
        height, width = self.size
        _, start_x, start_y, pace, phase = self._own
        x, y = width * (0.4 + 0.2 * start_x), height * (0.45 + 0.15 * start_y)
        turn = (0.22 + 0.06 * pace) * t + 2 * math.pi * phase
        if self.action.motion == "slide":
            return _Pose(x + 0.16 * width * math.sin(turn), y)
        if self.action.motion == "bounce":
            return _Pose(x, y - 0.16 * height * math.cos(turn))
        if self.action.motion == "spin":
            return _Pose(x, y, 0.5 * turn)
        # A cup tips as it rises, bread does not; and a bite is shorter than a sip.
        lift = 0.5 - 0.5 * math.cos(turn if self.action.motion == "sip" else 1.3 * turn)
        tip = 0.5 * lift if self.action.motion == "sip" else 0.0
        return _Pose(x, y - 0.25 * height * lift, tip)


def write_actions(
    root: str | os.PathLike[str],
    *,
    groups: int = 9,
    clips: int = 2,
    size: tuple[int, int] = (120, 160),
    frames: int = 40,
    fps: float = 25,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Writes a data set of `ACTIONS` in the shape of UCF101.

    ``root/videos/<class>/v_<class>_g<group>_c<clip>.mp4`` and, in ``root/annotations``, ``classInd.txt`` and
    ``trainlist01.txt``, ``testlist01.txt`` to ``03``: each split tests on another third of the groups, whose
    backgrounds its training videos never show. Videos that are there already are left alone: begun again after an
    interruption, it goes on; with other arguments it refuses.

    Args:
        root: Where; made if need be.
        groups: Of videos that share a scene, at least 3.
        clips: Videos of each class in each group, at least 1.
        size: (height, width) in pixels, both even.
        frames: Of each video.
        fps: Frames per second.
        seed: Of everything that is random.
        say: Called with a line of text for each class.

    Raises:
        ValueError: An argument is too small, or root holds what was made with others.
    """
    if groups < 3 or clips < 1:
        raise ValueError(f"write_actions: at least 3 groups of 1 clip; got {groups} of {clips}")
    root = Path(root)
    _settle(root, {"groups": groups, "clips": clips, "size": list(size), "frames": frames, "fps": fps, "seed": seed})
    names: dict[int, list[str]] = {group: [] for group in range(groups)}
    for action in ACTIONS:
        folder = root / "videos" / action.name
        folder.mkdir(parents=True, exist_ok=True)
        say(f"{action.name}: {groups * clips} videos")
        for group in range(groups):
            for clip in range(clips):
                name = f"v_{action.name}_g{group + 1:02d}_c{clip + 1:02d}.mp4"
                names[group].append(f"{action.name}/{name}")
                if not (folder / name).exists():
                    scene = ActionScene(action, group=group, clip=clip, size=size, frames=frames, seed=seed)
                    video.write(folder / name, scene.frames(), fps)
    _write_annotations(root / "annotations", names)


def _settle(root: Path, settings: dict[str, object]) -> None:
    """Notes what the videos are made with, or checks that it is what was noted."""
    note = root / "generated.json"
    root.mkdir(parents=True, exist_ok=True)
    if not note.exists():
        _write(note, json.dumps(settings))
    elif note.read_text() != json.dumps(settings):
        raise ValueError(
            f"{root} holds actions made with {note.read_text()}; got {json.dumps(settings)}: choose another folder"
        )


def _write_annotations(folder: Path, names: dict[int, list[str]]) -> None:
    folder.mkdir(exist_ok=True)
    numbers = {action.name: number for number, action in enumerate(ACTIONS, 1)}
    _write(folder / "classInd.txt", "".join(f"{number} {name}\n" for name, number in numbers.items()))
    for split in range(3):
        train = [name for group, own in names.items() if group % 3 != split for name in own]
        test = [name for group, own in names.items() if group % 3 == split for name in own]
        lines = (f"{name} {numbers[name.split('/')[0]]}\n" for name in sorted(train))
        _write(folder / f"trainlist{split + 1:02d}.txt", "".join(lines))
        _write(folder / f"testlist{split + 1:02d}.txt", "".join(f"{name}\n" for name in sorted(test)))


def _write(path: Path, text: str) -> None:
    """At once: another process may be reading."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(text)
    os.replace(partial, path)


def _texture(generator: torch.Generator, color: Tensor, contrast: float) -> Tensor:
    """Noise without details that a pixel could not show, which repeats after `_PERIOD` pixels.

    (3, side, side), with a margin on all sides, `_OVERSAMPLING` times as fine as the pixels.
    """
    side = _PERIOD * _OVERSAMPLING
    noise = torch.randn(side, side, generator=generator, dtype=torch.float64)
    frequency = torch.fft.fftfreq(side, 1 / side, dtype=torch.float64)
    cycles = torch.hypot(frequency[:, None], frequency[: side // 2 + 1].abs()) / _PERIOD  # per pixel
    band = cycles.clamp_min(1 / _PERIOD) ** -1 * torch.exp(-((cycles / 0.065) ** 2)) * (cycles > 1 / 100)
    smooth = torch.fft.irfft2(torch.fft.rfft2(noise) * band, s=(side, side))
    shades = torch.tensor([1.0, 0.9, 1.1], dtype=torch.float64)[:, None, None]
    texture = (color[:, None, None] + contrast * shades * smooth / smooth.std()).clamp(0, 1).float()
    return F.pad(texture[None], (_MARGIN,) * 4, mode="circular")[0]


def _sample(texture: Tensor, points: Tensor) -> Tensor:
    """A texture at points (2, H, W), in pixels: (3, H, W)."""
    places = (points * _OVERSAMPLING) % (_PERIOD * _OVERSAMPLING) + _MARGIN
    grid = (places * (2 / (texture.shape[-1] - 1)) - 1).permute(1, 2, 0)
    return F.grid_sample(texture[None], grid[None], mode="bicubic", align_corners=True)[0]


def _distance_inside(shape: str, points: Tensor) -> Tensor:
    """About how far points (2, H, W) are inside a shape of radius 1; negative outside."""
    x, y = points
    if shape == "disc":
        return 1 - torch.hypot(x, y)
    if shape == "square":
        return 0.85 - torch.maximum(x.abs(), y.abs())
    if shape == "triangle":
        return torch.minimum(0.6 - y, 0.5 * (y + 1.0) - 0.87 * x.abs())
    if shape == "ellipse":
        return 1 - torch.hypot(1.25 * x, y)
    return 1.3 - torch.hypot(x.abs() + 0.3, y)  # a lens: what two discs share
