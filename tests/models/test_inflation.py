"""I3D from weights of images: torchvision's GoogLeNet, inflated."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from pyaction import models
from pyaction.data import transforms

# Both networks see the same places at 16 k - 1 pixels.
HEIGHT, WIDTH = 31, 47
FRAMES = 128  # of which 107 are seen by the two steps in the middle
CLASSIFIER = ("logits.conv3d.weight", "logits.conv3d.bias")


def googlenet(*, classes: int = 6, aux_logits: bool = False, transform_input: bool = False) -> nn.Module:
    """With weights that keep the size of values, and statistics and scales unlike those of a new network."""
    torch.manual_seed(31)
    network = torchvision.models.GoogLeNet(
        num_classes=classes, aux_logits=aux_logits, transform_input=transform_input, init_weights=False
    ).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm2d):
                for value in (module.running_var, module.weight):
                    nn.init.uniform_(value, 0.6, 1.4)
                for value in (module.running_mean, module.bias):
                    nn.init.uniform_(value, -0.3, 0.3)
    return network


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """Deleted at once, for pytest keeps folders."""
    path = tmp_path / "googlenet.pth"
    yield path
    path.unlink(missing_ok=True)


def constant(frame: Tensor) -> Tensor:
    return frame[:, None].expand(-1, FRAMES, -1, -1, -1)


@torch.no_grad()
@pytest.mark.parametrize("fixed_gamma", [True, False])
def test_answers_as_googlenet(file: Path, fixed_gamma: bool) -> None:
    peer = googlenet()
    torch.save(peer.state_dict(), file)
    network = models.I3D(classes=6, fixed_gamma=fixed_gamma).eval()
    report = models.load_weights(network, file)
    assert (report.format, report.matched) == ("torchvision", len(network.state_dict()))
    assert (report.skipped, report.missing) == ({}, ())
    seen: list[Tensor] = []
    layers = {
        "Conv3d_1a_7x7": "conv1",
        "Conv3d_2c_3x3": "conv3",
        "Mixed_3c": "inception3b",
        "Mixed_4b": "inception4a",
        "Mixed_4f": "inception4e",
        "Mixed_5c": "inception5b",
    }
    for layer in layers.values():
        peer.get_submodule(layer).register_forward_hook(lambda _, __, output: seen.append(output))
    frame = torch.empty(2, 3, HEIGHT, WIDTH).uniform_(-1, 1)
    logits = peer(frame)
    features = network.features(constant(frame), layers)
    for (name, feature), theirs in zip(features.items(), seen, strict=True):
        middle = feature[:, :, feature.shape[2] // 2]
        torch.testing.assert_close(middle, theirs, rtol=0, atol=1e-4 * theirs.abs().max().item(), msg=name)
    vectors = network.to_vectors(features["Mixed_5c"])
    middle = network.classify(vectors[:, 7:8])
    torch.testing.assert_close(middle, logits, rtol=0, atol=1e-4 * logits.abs().max().item())
    assert (logits[0] - logits[1]).abs().max() > 0.01


@torch.no_grad()
def test_expects_what_i3d_expects(file: Path) -> None:
    """The weights of ImageNet go with `transform_input`, which undoes the mean and deviation of torchvision."""
    peer = googlenet(transform_input=True)
    torch.save(peer.state_dict(), file)
    network = models.I3D(classes=6).eval()
    models.load_weights(network, file)
    frame = torch.randint(0, 256, (1, 3, HEIGHT, WIDTH), dtype=torch.uint8)
    theirs = peer(transforms.TORCHVISION_RGB(frame, "frames"))
    features = network.feature_map(constant(transforms.I3D_RGB(frame, "frames")))
    ours = network.classify(network.to_vectors(features)[:, 7:8])
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4 * theirs.abs().max().item())


def test_file_of_imagenet(file: Path) -> None:
    """1000 classes, and the heads that help in training; into a network for flow."""
    peer = googlenet(classes=1000, aux_logits=True).state_dict()
    torch.save(peer, file)
    network = models.I3D(classes=7, in_channels=2)
    report = models.load_weights(network, file, cross_modality=True)
    heads = dict.fromkeys((name for name in peer if "aux" in name), "auxiliary classifier, for training alone")
    assert len(heads) == 20
    assert report.skipped == heads | {
        "fc.weight": "classifier of another size: [1000, 1024, 1, 1, 1], the model's is [7, 1024, 1, 1, 1]",
        "fc.bias": "classifier of another size: [1000], the model's is [7]",
    }
    assert report.missing == CLASSIFIER
    assert report.averaged == ("Conv3d_1a_7x7.conv3d.weight",)
    assert_inflated(network, peer)
    same_classes = models.I3D(classes=1000)
    assert models.load_weights(same_classes, file, "torchvision").missing == ()
    assert torch.equal(same_classes.logits.conv3d.weight.flatten(1), peer["fc.weight"])
    assert torch.equal(same_classes.logits.conv3d.bias, peer["fc.bias"])


def assert_inflated(network: models.I3D, peer: dict[str, Tensor]) -> None:
    """Of two channels, from three."""
    first = peer["conv1.conv.weight"].mean(1) / 7
    for channel, step in ((0, 6), (1, 2)):
        torch.testing.assert_close(network.Conv3d_1a_7x7.conv3d.weight[:, channel, step].detach(), first)
    inner = network.Mixed_5b.b2b
    for step in range(3):
        expected = peer["inception5a.branch3.1.conv.weight"] / 3
        torch.testing.assert_close(inner.conv3d.weight[:, :, step].detach(), expected)
    for entry in ("weight", "bias", "running_mean", "running_var"):
        assert torch.equal(getattr(inner.bn, entry), peer[f"inception5a.branch3.1.bn.{entry}"]), entry


def test_download(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = googlenet(classes=1000, aux_logits=True).state_dict()
    asked = []

    def download(url: str, *_: Any, **__: Any) -> dict[str, Tensor]:
        asked.append(url)
        return peer

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    network = models.I3D(classes=1000, in_channels=2, weights="DEFAULT")
    assert len(asked) == 1 and "googlenet" in asked[0]
    assert_inflated(network, peer)
    assert not torch.equal(network.logits.conv3d.weight.flatten(1), peer["fc.weight"])
    assert not network.Mixed_5b.b2b.bn.weight.requires_grad
    rgb = models.I3D(classes=5, weights="IMAGENET1K_V1")
    torch.testing.assert_close(rgb.Conv3d_1a_7x7.conv3d.weight.sum(2).detach(), peer["conv1.conv.weight"])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, "models.inflate: names must be the same in weights and network; bias is not in weights"),
        ({"weight": torch.rand(8, 3, 3, 3), "bias": torch.rand(8), "old": torch.rand(1)},
         "models.inflate: names must be the same in weights and network; old is not in network"),
        ({"weight": torch.rand(8, 3, 2, 3), "bias": torch.rand(8)},
         "models.inflate: weight must fit [8, 3, 5, 3, 3], with or without time; got [8, 3, 2, 3]"),
    ],
)  # fmt: skip
def test_inflate_rejects(weights: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        models.inflate(weights, nn.Conv3d(3, 8, (5, 3, 3)))
    assert str(caught.value) == message
