"""What networks draw at random: in training, dropout; at the start, their weights."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pyaction import models


class Case(NamedTuple):
    """A network, not all of whose probabilities are the default.

    Attributes:
        make: Makes it.
        shape: Of its input, without the batch.
        dropouts: Each dropout, the layer that sees what it leaves, and its probability.
    """

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    dropouts: tuple[tuple[str, str, float], ...]


def resnet() -> models.ResNet:
    return models.ResNet(classes=None, depth=18)


CASES: dict[str, Case] = {
    "cnn_m": Case(
        lambda: models.CNNM2048(classes=(5, 3), dropout=(0.3, 0.6)), (3, 224, 224),
        (("dropout6", "fc7", 0.3), ("dropout7", "fc8", 0.6)),
    ),
    "vgg": Case(
        lambda: models.VGG16(classes=5, dropout=(0.3, 0.6)), (3, 32, 32),
        (("classifier.2", "classifier.3", 0.3), ("classifier.5", "classifier.6", 0.6)),
    ),
    "resnet": Case(
        lambda: models.ResNet(classes=5, depth=18, dropout=0.3), (3, 32, 32), (("dropout", "fc2", 0.3),)
    ),
    "bn_inception": Case(lambda: models.BNInception(classes=5), (3, 32, 32), (("dropout", "fc", 0.8),)),
    "tsn": Case(lambda: models.TSN(resnet(), classes=5, dropout=0.7), (3, 3, 32, 32), (("dropout", "fc", 0.7),)),
    "trn": Case(
        lambda: models.TRN(resnet(), classes=5, segments=3, scales="single", dropout=0.6), (3, 3, 32, 32),
        (("dropout", "reduction", 0.6),),
    ),
    "i3d": Case(lambda: models.I3D(classes=5), (16, 3, 32, 32), (("dropout", "logits", 0.5),)),
}  # fmt: skip


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[str, nn.Module]:
    torch.manual_seed(20)
    return request.param, CASES[request.param].make()


def scores_and_input(network: nn.Module, layer: str, images: Tensor) -> tuple[Tensor, Tensor]:
    """Scores, and what the layer has seen for them."""
    seen: list[Tensor] = []
    with network.get_submodule(layer).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])):
        scores = network(images)
    return scores[0] if isinstance(scores, tuple) else scores, seen[0]


@torch.no_grad()
def test_dropout(case: tuple[str, nn.Module]) -> None:
    """Anew in each step of training, of that share, and made up for; none in evaluation."""
    name, network = case
    images = torch.randn(2, *CASES[name].shape)
    for dropout, layer, share in CASES[name].dropouts:
        network.train()
        for label, module in network.named_modules():  # so that nothing else draws or learns
            if isinstance(module, _BatchNorm) or isinstance(module, nn.Dropout) and label != dropout:
                module.eval()
        first, dropped = scores_and_input(network, layer, images)
        second, _ = scores_and_input(network, layer, images)
        assert not torch.equal(first, second)
        network.eval()
        exact, whole = scores_and_input(network, layer, images)
        again, _ = scores_and_input(network, layer, images)
        assert torch.equal(exact, again)
        alive = whole != 0
        gone = (dropped[alive] == 0).float().mean().item()
        assert gone == pytest.approx(share, abs=4 * (share * (1 - share) / int(alive.sum())) ** 0.5), dropout
        kept = dropped != 0
        torch.testing.assert_close(dropped[kept], whole[kept] / (1 - share), rtol=1e-4, atol=1e-6)


def of_he(network: nn.Module) -> dict[str, float]:
    """Of all layers: He et al., 2015, by fan-in."""
    layers = {name: module for name, module in network.named_modules() if hasattr(module, "weight")}
    return {name: (2 / layer.weight[0].numel()) ** 0.5 for name, layer in layers.items()}


# Standard deviations of the weights that docstrings tell; the biases beside them are zero.
DEVIATIONS: dict[str, Callable[[nn.Module], dict[str, float]]] = {
    "cnn_m": of_he,
    "vgg": lambda _: {"classifier.6": 0.001},
    "bn_inception": lambda _: {"fc": 0.001},
    "tsn": lambda _: {"fc": 0.001},
    "trn": lambda _: {"reduction": 0.001},
}


def assert_drawn(network: nn.Module, deviations: dict[str, float]) -> None:
    for name, deviation in deviations.items():
        layer = network.get_submodule(name)
        count = layer.weight.numel()
        assert layer.weight.std().item() == pytest.approx(deviation, rel=4 / (2 * count) ** 0.5), name
        assert abs(layer.weight.mean().item()) < 4 * deviation / count**0.5, name
        assert layer.bias is None or not layer.bias.any(), name


@pytest.mark.parametrize("case", DEVIATIONS, indirect=True)
def test_weights(case: tuple[str, nn.Module]) -> None:
    name, network = case
    deviations = DEVIATIONS[name](network)
    assert deviations
    assert_drawn(network, deviations)


def test_weights_of_flow_networks() -> None:
    network = models.MotionNet(frames=2)
    assert_drawn(network, of_he(network))
