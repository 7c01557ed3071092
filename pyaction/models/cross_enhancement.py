"""Cross-enhancement: a trained stream of I3D teaches the other one through two bridges.

Cao, Xu and Zhang, "Cross-Enhancement Transform Two-Stream 3D ConvNets for Action Recognition", 2019 (paper 000),
section 3. Its loss is `losses.cross_enhancement_loss`.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyaction.models.i3d import I3D

if TYPE_CHECKING:
    from typing_extensions import Self

Bridge = Literal["a", "b", "c", "d", "e", "f", "g", "h", "i"]

_POSITIONS = {"Conv3d_2c_3x3": 192, "Mixed_4c": 512, "Mixed_5c": 1024}  # front, medium, rear; and channels
# (teacher's endpoint, student's endpoint): a = front to front, b = front to medium, ..., i = rear to rear.
BRIDGES: dict[str, tuple[str, str]] = dict(zip(get_args(Bridge), product(_POSITIONS, _POSITIONS), strict=True))


class FeaturePair(NamedTuple):
    """Two tensors of one shape.

    Attributes:
        student: has a gradient.
        teacher: has none.
    """

    student: Tensor
    teacher: Tensor


class CrossEnhancementOutput(NamedTuple):
    """What `losses.cross_enhancement_loss` takes.

    Attributes:
        logits: `(N, classes)` of the student.
        bridge: `(N, K, t, h, w)`, features at the teacher's end of the bridge.
        output: `(N, 1024)` pooled features, or `(N, classes)` logits.
    """

    logits: Tensor
    bridge: FeaturePair
    output: FeaturePair


class _WithFrozenStreams(nn.Module):
    """A module of which some streams are not trained, and keep their batch statistics in training."""

    _frozen: tuple[str, ...]

    def train(self, mode: bool = True) -> Self:
        """As of any module, but frozen streams stay in evaluation mode, and are frozen again if they were not."""
        super().train(mode)
        for name in self._frozen:
            self.get_submodule(name).requires_grad_(False).eval()
        return self


class CrossEnhancement(_WithFrozenStreams):
    """A student and its frozen teacher, with one bridge inside and one at the output: paper 000, section 3.

    Flow teaches RGB on UCF-101 and HMDB-51 (section 3.1), RGB teaches flow on Kinetics (section 3.2): whichever
    stream is the better one. Trained alone first, then given as the teacher; its parameters are frozen here, and stay
    so elsewhere until `requires_grad_(True)`. A student that is frozen whole, as a former teacher is, is thawed here.

    | bridge | to front | to medium | to rear |
    |---|---|---|---|
    | from front, `Conv3d_2c_3x3` | a | b | c |
    | from medium, `Mixed_4c` | d | e | f |
    | from rear, `Mixed_5c` | g | h | i |

    The paper draws nine bridges and chooses by experiment; it names no layers: these are ours. Between different
    positions, a 1 x 1 x 1 convolution and a trilinear resize bring the student's features to the teacher's shape.

    Args:
        teacher: of flow, or of RGB.
        student: of the other.
        bridge: one of `BRIDGES`.
        output: what the second bridge compares: `"features"`, pooled before the classifier, as MARS does (Crasto et
            al., CVPR 2019); or `"logits"`.

    Raises:
        TypeError: teacher or student is no I3D.
        ValueError: there is no such bridge or output, teacher and student are one network, or their logits are to be
            compared though they have other classes.

    Example:
        >>> network = CrossEnhancement(teacher=I3D(classes=7, in_channels=2), student=I3D(classes=7), bridge="d")
        >>> output = network(torch.rand(1, 16, 3, 64, 64), torch.rand(1, 16, 2, 64, 64))
        >>> output.logits.shape, output.bridge.student.shape
        (torch.Size([1, 7]), torch.Size([1, 512, 4, 4, 4]))
    """

    _frozen = ("teacher",)

    def __init__(
        self, *, teacher: I3D, student: I3D, bridge: Bridge, output: Literal["features", "logits"] = "features"
    ) -> None:
        super().__init__()
        name = "models.CrossEnhancement"
        _check_streams(name, teacher=teacher, student=student)
        if bridge not in BRIDGES:
            raise ValueError(f"{name}: bridge must be one of {', '.join(BRIDGES)}; got {bridge!r}")
        if output not in ("features", "logits"):
            raise ValueError(f"{name}: output must be 'features' or 'logits'; got {output!r}")
        if output == "logits" and teacher.classes != student.classes:
            raise ValueError(
                f"{name}: teacher and student must have the same classes, for their logits to be compared; "
                f"got {teacher.classes} and {student.classes}"
            )
        self.teacher = teacher
        self.student = student
        self.teacher_position, self.student_position = BRIDGES[bridge]
        self.output = output
        taught, told = _POSITIONS[self.student_position], _POSITIONS[self.teacher_position]
        self.adapter = nn.Identity() if taught == told else nn.Conv3d(taught, told, 1)
        if not any(parameter.requires_grad for parameter in student.parameters()):
            student.requires_grad_(True)  # but for what train() freezes again
        self.train()

    def forward(self, student_clip: Tensor, teacher_clip: Tensor) -> CrossEnhancementOutput:
        """What is to be compared.

        Args:
            student_clip: `(N, T, C, H, W)`, as `I3D.forward` takes it.
            teacher_clip: The same moments, of the teacher's modality.

        Returns:
            See `CrossEnhancementOutput`.

        Raises:
            TypeError: a clip is not a tensor.
            ValueError: a clip has another shape or is not floating point, or their numbers differ.
        """
        with torch.no_grad():
            told, told_output, _ = self._watch(self.teacher, teacher_clip, self.teacher_position)
        taught, taught_output, logits = self._watch(self.student, student_clip, self.student_position)
        if taught.shape[0] != told.shape[0]:
            raise ValueError(
                f"models.CrossEnhancement: student_clip and teacher_clip must be equally many; "
                f"got {taught.shape[0]} and {told.shape[0]}"
            )
        bridge = FeaturePair(self._adapted(taught, told.shape[2:]), told)
        return CrossEnhancementOutput(logits, bridge, FeaturePair(taught_output, told_output))

    def _watch(self, stream: I3D, clip: Tensor, position: str) -> tuple[Tensor, Tensor, Tensor]:
        """Features at the position, what the output bridge compares, and logits."""
        features = stream.features(clip, (position, "AvgPool3d", "Logits"))
        # (N, 1024, t, 1, 1): the classifier is linear, so its mean over time is that of the mean.
        output = features["AvgPool3d"].mean((2, 3, 4)) if self.output == "features" else features["Logits"]
        return features[position], output, features["Logits"]

    def _adapted(self, taught: Tensor, size: torch.Size) -> Tensor:
        """The student's features in the teacher's shape."""
        # Both orders give the same; the convolution comes where it is cheaper.
        if taught.shape[2:].numel() <= size.numel():
            return _resized(self.adapter(taught), size)
        return self.adapter(_resized(taught, size))


class CrossEnhancedTwoStream(_WithFrozenStreams):
    """Both frozen streams, their logits side by side, and one fully connected layer: paper 000, end of section 3.1.

    That layer alone is trained, by cross entropy. It starts as the mean of both streams' logits. The streams stay
    frozen elsewhere too, until their `requires_grad_(True)`.

    Args:
        spatial: of RGB, trained.
        temporal: of flow, trained, with the same classes.

    Raises:
        TypeError: a stream is no I3D.
        ValueError: the streams have different classes, or are one network.

    Example:
        >>> network = CrossEnhancedTwoStream(spatial=I3D(classes=7), temporal=I3D(classes=7, in_channels=2))
        >>> network(torch.rand(1, 16, 3, 64, 64), torch.rand(1, 16, 2, 64, 64)).shape
        torch.Size([1, 7])
    """

    _frozen = ("spatial", "temporal")

    def __init__(self, *, spatial: I3D, temporal: I3D) -> None:
        super().__init__()
        name = "models.CrossEnhancedTwoStream"
        _check_streams(name, spatial=spatial, temporal=temporal)
        classes = spatial.classes
        if classes != temporal.classes:
            raise ValueError(
                f"{name}: spatial and temporal must have the same classes; got {classes} and {temporal.classes}"
            )
        self.spatial = spatial
        self.temporal = temporal
        self.fc = nn.Linear(2 * classes, classes)
        with torch.no_grad():
            self.fc.weight.copy_(torch.eye(classes).repeat(1, 2) / 2)
            self.fc.bias.zero_()
        self.train()

    def forward(self, frames: Tensor, flow: Tensor) -> Tensor:
        """Classifies videos.

        Args:
            frames: `(N, T, C, H, W)`, as the spatial stream takes them.
            flow: As the temporal stream takes it.

        Returns:
            `(N, classes)`, logits.

        Raises:
            TypeError: an argument is not a tensor.
            ValueError: an argument has another shape or is not floating point, or their numbers differ.
        """
        with torch.no_grad():
            spatial, temporal = self.spatial(frames), self.temporal(flow)
        if spatial.shape[0] != temporal.shape[0]:
            raise ValueError(
                f"models.CrossEnhancedTwoStream: frames and flow must be equally many; "
                f"got {spatial.shape[0]} and {temporal.shape[0]}"
            )
        return self.fc(torch.cat([spatial, temporal], dim=1))


def _check_streams(caller: str, **streams: object) -> None:
    for name, stream in streams.items():
        if not isinstance(stream, I3D):
            raise TypeError(f"{caller}: {name} must be an I3D; got {type(stream).__name__}")
    if len(set(map(id, streams.values()))) == 1:
        raise ValueError(f"{caller}: {' and '.join(streams)} must be two networks; got one twice")


def _resized(x: Tensor, size: torch.Size) -> Tensor:
    return x if x.shape[2:] == size else F.interpolate(x, list(size), mode="trilinear")
