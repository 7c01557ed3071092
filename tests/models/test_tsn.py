from collections.abc import Callable

import pytest
import torch
from models.bn_inception_table import trunk_parameters
from torch import Tensor, nn
from torch.nn import BatchNorm2d

from pyaction import models
from pyaction.models.segments import SegmentNetwork
from pyaction.models.tsn import Consensus


def small_backbone(channels: int = 3) -> models.ResNet:
    return models.ResNet(classes=None, depth=18, in_channels=channels)


def tsn(**options: object) -> models.TSN:
    return models.TSN(small_backbone(), classes=5, **options)  # type: ignore[arg-type]


def score_each(network: models.TSN, vectors: Tensor) -> Tensor:
    return vectors @ network.fc.weight.T + network.fc.bias


@torch.no_grad()
@pytest.mark.parametrize("consensus", ["average", "max", "multiplication", "concatenation"])
def test_consensus(consensus: Consensus) -> None:
    """Against loops over the segments, each alone in its batch."""
    network = tsn(consensus=consensus, segments=4).eval()
    network.fc.weight.normal_(std=0.1)
    network.fc.bias.normal_()
    clips = torch.randn(2, 4, 3, 32, 32)
    vectors = [network.backbone(clips[:, segment]) for segment in range(4)]
    if consensus == "concatenation":
        expected = score_each(network, torch.cat(vectors, dim=1))
    else:
        first, *others = (score_each(network, vector) for vector in vectors)
        expected = first.softmax(1) if consensus == "multiplication" else first
        for scores in others:
            if consensus == "average":
                expected = expected + scores
            elif consensus == "max":
                expected = torch.where(scores > expected, scores, expected)
            else:
                expected = expected * scores.softmax(1)
        if consensus == "average":
            expected /= 4
        if consensus == "multiplication":
            expected = expected.log()
    torch.testing.assert_close(network(clips), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_more_segments_than_in_training() -> None:
    network = tsn().eval()
    clips = torch.randn(1, 2, 3, 32, 32)
    torch.testing.assert_close(network(clips.repeat(1, 4, 1, 1, 1)), network(clips), rtol=1e-4, atol=1e-6)
    bound = tsn(consensus="concatenation", segments=3)
    with pytest.raises(ValueError, match=r"^models.TSN: clips must be \[N, 3, 3, H, W\]; got shape \[1, 2, 3, 32, 32"):
        bound(clips)


@torch.no_grad()
@pytest.mark.parametrize(
    ("make", "channels", "size"),
    [
        (lambda: models.BNInception(classes=None, in_channels=10), 10, 224),
        (lambda: models.VGG16(classes=None), 3, 64),
        (lambda: models.CNNM2048(classes=None, stream="temporal"), 20, 224),
        (lambda: small_backbone(6), 6, 224),
    ],
)
def test_backbones(make: Callable[[], models.Backbone], channels: int, size: int) -> None:
    """Whose input channels are those of the modality."""
    with torch.device("meta"):
        network = models.TSN(make(), classes=5)
        clips = torch.zeros(2, 3, channels, size, size)
    assert network.in_channels == channels
    assert network(clips).shape == (2, 5)
    models.adapt_first_convolution(network.backbone, channels + 2)
    assert network.in_channels == channels + 2


def test_parameter_count() -> None:
    with torch.device("meta"):
        network = models.TSN(models.BNInception(classes=None), classes=101, segments=7)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == trunk_parameters(3) + (1024 + 1) * 101 == 10_373_765
    assert (network.classes, network.segments, network.fixed_segments) == (101, 7, False)


def test_head() -> None:
    network = tsn(dropout=0.7)
    assert network.fc.weight.std().item() == pytest.approx(0.001, rel=0.1)
    assert network.fc.bias.abs().max() == 0
    assert network.dropout.p == 0.7 and tsn().dropout.p == 0.8


def make_tsn(partial: bool) -> SegmentNetwork:
    return tsn(partial_batch_norm=partial)


def make_trn(partial: bool) -> SegmentNetwork:
    return models.TRN(small_backbone(), classes=5, scales="single", segments=3, partial_batch_norm=partial)


@pytest.mark.parametrize("make", [make_tsn, make_trn])
@pytest.mark.parametrize("partial", [True, False])
def test_partial_batch_norm(make: Callable[[bool], SegmentNetwork], partial: bool) -> None:
    """Statistics and weights of all but the first stay, also after evaluation and train()."""
    network = make(partial)
    assert network.training
    network.eval()
    network.train()
    norms = {name: module for name, module in network.named_modules() if isinstance(module, BatchNorm2d)}
    before = {name: (norm.running_mean.clone(), norm.weight.detach().clone()) for name, norm in norms.items()}
    optimizer = torch.optim.SGD(models.parameter_groups(network, learning_rate=0.1, weight_decay=0.1))
    network(torch.randn(2, 3, 3, 64, 64)).square().sum().backward()
    optimizer.step()
    for place, (name, norm) in enumerate(norms.items()):
        frozen = partial and place > 0
        mean, weight = before[name]
        assert norm.training != frozen, name
        assert torch.equal(norm.running_mean, mean) == frozen, name
        assert (norm.weight.grad is None) == (norm.bias.grad is None) == frozen, name
        assert torch.equal(norm.weight, weight) == frozen, name
    assert network.backbone.conv1.weight.grad is not None


def frozen(network: nn.Module) -> set[str]:
    return {name for name, parameter in network.named_parameters() if not parameter.requires_grad}


@pytest.mark.parametrize("make", [make_tsn, make_trn])
def test_frozen_norms_are_frozen_again(make: Callable[[bool], SegmentNetwork]) -> None:
    """By train(), after all was thawed."""
    network = make(True)
    expected = frozen(network)
    assert len(expected) == 38  # of ResNet-18's 20 norms
    network.requires_grad_(True)
    assert not frozen(network)
    network.train()
    assert frozen(network) == expected


def test_another_network_over_the_same_backbone() -> None:
    """What partial batch normalisation has frozen thaws, what the user has does not; a refusal changes nothing."""
    backbone = small_backbone()
    with pytest.raises(ValueError, match="consensus must be"):
        models.TSN(backbone, classes=5, consensus="mean")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="classes must be"):
        models.TSN(backbone, classes=0)
    with pytest.raises(ValueError, match="hidden must be"):
        models.TRN(backbone, classes=5, hidden=0)
    assert not frozen(backbone)
    assert len(frozen(models.TSN(backbone, classes=5))) == 38
    assert not frozen(models.TSN(backbone, classes=5, partial_batch_norm=False))
    backbone.layer1.requires_grad_(False)
    expected = {f"backbone.{name}" for name in frozen(backbone)}
    network = models.TSN(backbone, classes=5, partial_batch_norm=False)
    network.train()
    assert frozen(network) == expected


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: models.TSN(models.ResNet(classes=5, depth=18), classes=5), "backbone must be .* with classes=None"),
        (lambda: models.TSN(nn.Conv2d(3, 4, 1), classes=5), "backbone must be a network of pyaction.models made with"),
        (lambda: tsn(consensus="mean"), r"consensus must be one of \('average', .*\); got 'mean'"),
        (lambda: tsn(segments=0), "segments must be at least 1; got 0"),
        (lambda: tsn()(torch.zeros(1, 0, 3, 32, 32)), "clips must have at least one segment; got shape"),
    ],
)
def test_rejects(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^models\.TSN: {message}"):
        make()
