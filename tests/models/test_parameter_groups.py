import pytest
import torch
from torch import nn

from pyaction import models


@pytest.mark.parametrize("name", ["tsn", "trn", "cnn_m", "vgg", "resnet"])
def test_every_parameter_once(name: str) -> None:
    with torch.device("meta"):
        network: nn.Module = {
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
    groups = models.parameter_groups(network, learning_rate=0.3, weight_decay=0.02, first_convolution_rate=5)
    of = {id(parameter): group for group in groups for parameter in group["params"]}
    for name, parameter in network.named_parameters():
        group = of[id(parameter)]
        if name == "backbone.conv1_7x7_s2.weight":
            expected = ("first_convolution_weight", 1.5, 0.02)
        elif name == "backbone.conv1_7x7_s2.bias":
            expected = ("first_convolution_bias", 3.0, 0)
        elif "_bn." in name:
            expected = ("batch_normalization", 0.3, 0)
        elif name.endswith("weight"):
            expected = ("weight", 0.3, 0.02)
        else:
            expected = ("bias", 0.6, 0)
        assert (group["name"], pytest.approx(group["lr"]), group["weight_decay"]) == expected, name


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
