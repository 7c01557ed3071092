from typing import Any

import pytest
import torch
from torch import nn

from pyaction import models


def ccs() -> models.CooperativeCrossStream:
    rgb, flow = (models.ResNet(classes=None, depth=18, in_channels=channels) for channels in (3, 10))
    return models.CooperativeCrossStream(spatial=models.TSN(rgb, classes=5), temporal=models.TSN(flow, classes=5))


def stacked() -> models.StackedTemporalStream:
    return models.StackedTemporalStream(
        motionnet=models.MotionNet(), temporal=models.BNInception(classes=5, in_channels=20)
    )


def settings(network: nn.Module, **options: Any) -> dict[str, tuple[str, float, float]]:
    """Of each parameter by its name: group, learning rate and weight decay."""
    groups = models.parameter_groups(network, learning_rate=0.3, weight_decay=0.02, **options)
    torch.optim.SGD(groups)
    assert len({group["name"] for group in groups}) == len(groups)  # as loggers of rates want it
    of = {id(parameter): group for group in groups for parameter in group["params"]}
    return {
        name: (of[id(parameter)]["name"], of[id(parameter)]["lr"], of[id(parameter)]["weight_decay"])
        for name, parameter in network.named_parameters()
    }


@pytest.mark.parametrize("name", ["tsn", "trn", "cnn_m", "vgg", "resnet", "fusenet", "ccs", "stacked"])
def test_every_parameter_once(name: str) -> None:
    with torch.device("meta"):
        network: nn.Module = {
            "fusenet": lambda: models.FuseNet(classes=5),
            "ccs": ccs,
            "stacked": stacked,
            "tsn": lambda: models.TSN(models.BNInception(classes=None), classes=5),
            "trn": lambda: models.TRN(models.ResNet(classes=None, depth=18), classes=5),
            "cnn_m": lambda: models.CNNM2048(classes=(5, 3)),
            "vgg": lambda: models.VGG16(classes=5),
            "resnet": lambda: models.ResNet(classes=5, depth=18),
        }[name]()
    groups = models.parameter_groups(network, learning_rate=0.3, weight_decay=0.02)
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(parameter) for parameter in network.parameters()}
    torch.optim.SGD(groups, momentum=0.9)  # which refuses what is given twice


def test_rates() -> None:
    """Of each parameter by its name."""
    with torch.device("meta"):
        network = models.TSN(models.BNInception(classes=None, in_channels=10), classes=5)
    found = settings(network, first_convolution_rate=5)
    for name, actual in found.items():
        if name == "backbone.conv1_7x7_s2.weight":
            expected = ("first_convolution_weight", pytest.approx(1.5), 0.02)
        elif name == "backbone.conv1_7x7_s2.bias":
            expected = ("first_convolution_bias", pytest.approx(3.0), 0)
        elif "_bn." in name:
            expected = ("batch_normalization", 0.3, 0)
        elif name.endswith("weight"):
            expected = ("weight", 0.3, 0.02)
        else:
            expected = ("bias", 0.6, 0)
        assert actual == expected, name


def test_each_stream_has_a_first_convolution() -> None:
    with torch.device("meta"):
        network = ccs()
    found = settings(network, first_convolution_rate=5)
    first = {name for name, (group, *_) in found.items() if group == "first_convolution_weight"}
    assert first == {"spatial.backbone.conv1.weight", "temporal.backbone.conv1.weight"}
    assert found["temporal.backbone.conv1.weight"][1:] == pytest.approx((1.5, 0.02))
    with torch.device("meta"):
        found = settings(stacked(), first_convolution_rate=5)
    first = {name for name, (group, *_) in found.items() if group.startswith("first_convolution")}
    assert first == {
        f"{layer}.{kind}" for layer in ("motionnet.conv1", "temporal.conv1_7x7_s2") for kind in ("weight", "bias")
    }


def test_first_convolution_of_flow_alone() -> None:
    """As the release of TSN has it: 5 for flow, 1 for RGB."""
    with torch.device("meta"):
        found = settings(ccs(), first_convolution_rate={"temporal": 5})
    assert found["temporal.backbone.conv1.weight"] == ("temporal.first_convolution_weight", pytest.approx(1.5), 0.02)
    assert found["spatial.backbone.conv1.weight"] == ("weight", 0.3, 0.02)
    assert found["temporal.backbone.layer1.0.conv1.weight"] == ("weight", 0.3, 0.02)


def test_motionnet() -> None:
    """As its release has it: transposed convolutions do not decay."""
    with torch.device("meta"):
        found = settings(models.MotionNet(), first_convolution_rate=7)
    for name, actual in found.items():
        if "deconv" in name or "upflow" in name:
            expected = ("transposed_convolution_weight", 0.3, 0)
        elif name == "conv1.weight":
            expected = ("first_convolution_weight", pytest.approx(2.1), 0.02)
        elif name == "conv1.bias":
            expected = ("first_convolution_bias", pytest.approx(4.2), 0)
        else:
            expected = ("bias", 0.6, 0) if name.endswith("bias") else ("weight", 0.3, 0.02)
        assert actual == expected, name
    assert sum(group == "transposed_convolution_weight" for group, *_ in found.values()) == 8


def test_rates_of_submodules() -> None:
    """The stacked stream of paper 002: its temporal part x 1000, x 2000 for biases. An inner rate holds."""
    with torch.device("meta"):
        network = stacked()
    found = settings(network, rates={"temporal": 1000, "temporal.fc": 70}, first_convolution_rate={"temporal": 3})
    expected = {
        "motionnet.conv1.weight": ("weight", 0.3, 0.02),
        "motionnet.expand5.deconv.weight": ("transposed_convolution_weight", 0.3, 0),
        "motionnet.flow6.bias": ("bias", 0.6, 0),
        "temporal.conv1_7x7_s2.weight": ("temporal.first_convolution_weight", 900, 0.02),
        "temporal.conv2_3x3.weight": ("temporal.weight", 300, 0.02),
        "temporal.conv2_3x3.bias": ("temporal.bias", 600, 0),
        "temporal.conv2_3x3_bn.weight": ("temporal.batch_normalization", 300, 0),
        "temporal.fc.weight": ("temporal.fc.weight", 21, 0.02),
        "temporal.fc.bias": ("temporal.fc.bias", 42, 0),
    }
    assert {name: found[name][0] for name in expected} == {name: group for name, (group, *_) in expected.items()}
    assert [found[name][1:] for name in expected] == [pytest.approx(value[1:]) for value in expected.values()]


def test_default_rates() -> None:
    """A convolution without bias, and a layer that appears twice."""
    shared = nn.Linear(3, 3)
    network = nn.Sequential(nn.Conv2d(2, 3, 1, bias=False), nn.BatchNorm2d(3), shared, nn.Sequential(shared))
    groups = models.parameter_groups(network, learning_rate=0.3, weight_decay=0.02)
    found = [(group["name"], group["lr"], group["weight_decay"], len(group["params"])) for group in groups]
    assert found == [
        ("first_convolution_weight", 0.3, 0.02, 1), ("weight", 0.3, 0.02, 1), ("bias", 0.6, 0, 1),
        ("batch_normalization", 0.3, 0, 2),
    ]  # fmt: skip


def test_shared_parameters() -> None:
    one, other = nn.Linear(3, 3), nn.Linear(3, 3)
    other.weight = one.weight
    network = nn.Sequential(nn.Conv2d(2, 3, 1), one, other)
    groups = models.parameter_groups(network, learning_rate=0.3, weight_decay=0.02)
    assert sum(len(group["params"]) for group in groups) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rates": {"temporel": 3}}, "parameter_groups: names must be of submodules; FuseNet has no 'temporel'"),
        ({"first_convolution_rate": {"conv1": 3}}, "parameter_groups: names must be .*; FuseNet has no 'conv1'"),
        ({"first_convolution_rate": {"fc": 3}}, "first_convolution: Linear has no 2-D or 3-D convolution"),
    ],
)
def test_rejects(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^models\.{message}$"):
        models.parameter_groups(models.FuseNet(classes=5), learning_rate=0.3, weight_decay=0.02, **options)
