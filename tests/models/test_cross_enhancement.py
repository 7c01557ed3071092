"""pyaction.models.CrossEnhancement: bridges, the frozen teacher, and the network made of both streams."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyaction import models
from pyaction.losses import cross_enhancement_loss

# Channels, time, height and width at 16 frames of 64 x 64.
SHAPES = {"Conv3d_2c_3x3": (192, 8, 16, 16), "Mixed_4c": (512, 4, 4, 4), "Mixed_5c": (1024, 2, 2, 2)}
FRONT, MEDIUM, REAR = SHAPES
TABLE = {
    "a": (FRONT, FRONT), "b": (FRONT, MEDIUM), "c": (FRONT, REAR),
    "d": (MEDIUM, FRONT), "e": (MEDIUM, MEDIUM), "f": (MEDIUM, REAR),
    "g": (REAR, FRONT), "h": (REAR, MEDIUM), "i": (REAR, REAR),
}  # fmt: skip


@pytest.fixture(scope="module")
def streams() -> Iterator[dict[str, models.I3D]]:
    torch.manual_seed(20)
    networks = {"teacher": models.I3D(classes=5, in_channels=2), "student": models.I3D(classes=5, in_channels=3)}
    for network in networks.values():
        for name, value in network.named_buffers():
            if name.endswith("running_var"):  # so that signals do not fade out over the layers
                value.uniform_(0.05, 0.2)
    yield networks


def clips(batch: int = 1, frames: int = 16, side: int = 64) -> tuple[Tensor, Tensor]:
    """The student's and the teacher's."""
    return torch.randn(batch, frames, 3, side, side), torch.randn(batch, frames, 2, side, side)


@torch.no_grad()
@pytest.mark.parametrize("bridge", TABLE)
def test_bridges(streams: dict[str, models.I3D], bridge: Any) -> None:
    """Positions, shapes, and what is where: the teacher's features as they are, the student's brought to them."""
    network = models.CrossEnhancement(**streams, bridge=bridge).eval()
    frames, flow = clips()
    output = network(frames, flow)
    teacher_position, student_position = TABLE[bridge]
    assert models.BRIDGES[bridge] == TABLE[bridge]
    told = streams["teacher"].features(flow, [teacher_position, "AvgPool3d"])
    taught = streams["student"].features(frames, [student_position, "AvgPool3d"])
    assert output.bridge.teacher.shape == output.bridge.student.shape == (1, *SHAPES[teacher_position])
    assert torch.equal(output.bridge.teacher, told[teacher_position])
    if teacher_position == student_position:
        assert not list(network.adapter.parameters())
        assert torch.equal(output.bridge.student, taught[student_position])
    else:  # by the other order of convolution and resize
        channels = (SHAPES[student_position][0], SHAPES[teacher_position][0])
        assert (network.adapter.in_channels, network.adapter.out_channels) == channels
        x = nn.functional.interpolate(taught[student_position], SHAPES[teacher_position][1:], mode="trilinear")
        torch.testing.assert_close(output.bridge.student, network.adapter(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(output.output.teacher, told["AvgPool3d"].mean(2).flatten(1))
    torch.testing.assert_close(output.output.student, taught["AvgPool3d"].mean(2).flatten(1))
    torch.testing.assert_close(output.logits, streams["student"](frames))


@torch.no_grad()
def test_output_bridge_of_logits(streams: dict[str, models.I3D]) -> None:
    network = models.CrossEnhancement(**streams, bridge="i", output="logits").eval()
    frames, flow = clips(side=32)
    output = network(frames, flow)
    assert torch.equal(output.output.student, output.logits)
    torch.testing.assert_close(output.output.teacher, streams["teacher"](flow))


@torch.no_grad()
def test_pooled_features_are_what_the_classifier_sees(streams: dict[str, models.I3D]) -> None:
    network = models.CrossEnhancement(**streams, bridge="e").eval()
    output = network(*clips(frames=24, side=32))
    classifier = streams["student"].logits.conv3d
    expected = output.output.student @ classifier.weight.flatten(1).T + classifier.bias
    torch.testing.assert_close(output.logits, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_teacher_may_see_another_resolution(streams: dict[str, models.I3D]) -> None:
    network = models.CrossEnhancement(**streams, bridge="e").eval()
    frames, _ = clips()
    output = network(frames, clips(side=32)[1])
    assert output.bridge.student.shape == output.bridge.teacher.shape == (1, 512, 4, 2, 2)


def test_the_teacher_stays_as_it_is() -> None:
    """No gradient, no change of statistics, no dropout; while the student and the bridge learn."""
    streams = {"teacher": models.I3D(classes=5, in_channels=2), "student": models.I3D(classes=5)}
    network = models.CrossEnhancement(**streams, bridge="d").train()
    assert network.training
    assert network.student.training
    assert not any(module.training for module in network.teacher.modules())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    clip = clips(batch=2, side=32)
    output = network(*clip)
    assert not output.bridge.teacher.requires_grad
    assert not output.output.teacher.requires_grad
    labels = torch.tensor([3, 1])
    loss = cross_enhancement_loss(*output[:1], labels, *output[1:], alpha=0.7, beta=31, gamma=1.9).total
    loss.backward()
    torch.optim.SGD(network.parameters(), lr=0.01).step()
    again = network(*clip)
    assert torch.equal(again.bridge.teacher, output.bridge.teacher)
    assert torch.equal(again.output.teacher, output.output.teacher)
    still = {name for name, value in network.state_dict().items() if torch.equal(value, before[name])}
    assert {name for name in before if name.startswith("teacher.")} <= still
    moved = set(before) - still
    assert {"adapter.weight", "student.logits.conv3d.weight", "student.Mixed_5c.b0.bn.running_mean"} <= moved
    assert "student.Conv3d_1a_7x7.conv3d.weight" in moved
    assert all(parameter.grad is None for parameter in network.teacher.parameters())


def learning(network: nn.Module) -> set[str]:
    return {name for name, parameter in network.named_parameters() if parameter.requires_grad}


def test_the_student_of_one_network_is_the_teacher_of_the_next() -> None:
    """Who was frozen as a teacher, or in the final network, learns again as a student; but not its fixed gammas."""
    flow, rgb = meta(in_channels=2), meta()
    unfrozen = learning(rgb)
    assert not any(name.endswith("bn.weight") for name in unfrozen)
    models.CrossEnhancement(teacher=flow, student=rgb, bridge="a")
    assert (learning(flow), learning(rgb)) == (set(), unfrozen)
    models.CrossEnhancement(teacher=rgb, student=flow, bridge="a")
    assert (learning(flow), learning(rgb)) == (unfrozen, set())
    both(rgb, flow)
    models.CrossEnhancement(teacher=flow, student=rgb, bridge="a")
    assert (learning(flow), learning(rgb)) == (set(), unfrozen)


def test_a_partly_frozen_student_stays_so() -> None:
    student = meta().requires_grad_(False)
    student.logits.requires_grad_(True)
    enhancement(student=student)
    assert learning(student) == {"logits.conv3d.weight", "logits.conv3d.bias"}


def test_frozen_streams_are_frozen_again() -> None:
    """By train(), after all was thawed; and fixed gammas of the student."""
    network = enhancement()
    expected = learning(network)
    network.requires_grad_(True)
    network.train()
    assert learning(network) == expected


@torch.no_grad()
def test_final_layer(streams: dict[str, models.I3D]) -> None:
    """The mean of both logits at first; then, any linear function of them."""
    network = models.CrossEnhancedTwoStream(spatial=streams["student"], temporal=streams["teacher"]).eval()
    inputs = clips(batch=2, side=32)
    logits = streams["student"](inputs[0]), streams["teacher"](inputs[1])
    torch.testing.assert_close(network(*inputs), (logits[0] + logits[1]) / 2)
    nn.init.normal_(network.fc.weight)
    nn.init.normal_(network.fc.bias)
    left, right = network.fc.weight.split(5, dim=1)
    torch.testing.assert_close(network(*inputs), logits[0] @ left.T + logits[1] @ right.T + network.fc.bias)


def test_final_layer_learns_alone() -> None:
    streams = {"spatial": models.I3D(classes=5), "temporal": models.I3D(classes=5, in_channels=2)}
    network = models.CrossEnhancedTwoStream(**streams)
    network.train()
    assert not any(
        module.training for name in ("spatial", "temporal") for module in network.get_submodule(name).modules()
    )
    before = {name: value.clone() for name, value in network.named_buffers()}
    network(*clips(batch=2, side=32)).square().sum().backward()
    learns = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert learns == {"fc.weight", "fc.bias"}
    assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())


def meta(classes: int = 5, in_channels: int = 3) -> models.I3D:
    with torch.device("meta"):
        return models.I3D(classes=classes, in_channels=in_channels)


def enhancement(**options: Any) -> nn.Module:
    return models.CrossEnhancement(**{"teacher": meta(in_channels=2), "student": meta(), "bridge": "a", **options})


def both(spatial: Any, temporal: Any) -> nn.Module:
    return models.CrossEnhancedTwoStream(spatial=spatial, temporal=temporal)


ONE = meta()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: enhancement(bridge="j"), ValueError,
         "CrossEnhancement: bridge must be one of a, b, c, d, e, f, g, h, i; got 'j'"),
        (lambda: enhancement(output="scores"), ValueError,
         "CrossEnhancement: output must be 'features' or 'logits'; got 'scores'"),
        (lambda: enhancement(student=meta(classes=6), output="logits"), ValueError,
         "CrossEnhancement: teacher and student must have the same classes, .*; got 5 and 6"),
        (lambda: enhancement(teacher=nn.Identity()), TypeError,
         "CrossEnhancement: teacher must be an I3D; got Identity"),
        (lambda: enhancement(teacher=ONE, student=ONE), ValueError,
         "CrossEnhancement: teacher and student must be two networks; got one twice"),
        (lambda: both(meta(), None), TypeError, "CrossEnhancedTwoStream: temporal must be an I3D; got NoneType"),
        (lambda: both(meta(), meta(classes=6)), ValueError,
         "CrossEnhancedTwoStream: spatial and temporal must have the same classes; got 5 and 6"),
    ],
)  # fmt: skip
def test_rejects_arguments(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=rf"^models\.{message}$"):
        make()


def test_rejects_clips(streams: dict[str, models.I3D]) -> None:
    network = models.CrossEnhancement(**streams, bridge="i").eval()
    frames, flow = clips(side=32)
    with pytest.raises(ValueError, match="student_clip and teacher_clip must be equally many; got 2 and 1$"):
        network(torch.cat([frames, frames]), flow)
    with pytest.raises(ValueError, match=r"^models.I3D: clip must be \[N, T, 2, H, W\]"):
        network(frames, frames)
    fused = models.CrossEnhancedTwoStream(spatial=streams["student"], temporal=streams["teacher"])
    with pytest.raises(ValueError, match="frames and flow must be equally many; got 1 and 2$"):
        fused(frames, torch.cat([flow, flow]))
