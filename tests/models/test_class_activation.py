"""pyaction.models: class activation maps and Grad-CAM, against the sums that define them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyaction import models


def resnet(channels: int = 3) -> models.ResNet:
    return models.ResNet(classes=None, depth=18, in_channels=channels)


def ccs(**options: Any) -> models.CooperativeCrossStream:
    network = models.CooperativeCrossStream(
        spatial=models.TSN(resnet(), classes=5), temporal=models.TSN(resnet(10), classes=5), **options
    )
    for name, parameter in network.named_parameters():
        if name.startswith(("connection", "shared")):
            nn.init.normal_(parameter, std=0.05)
    return network


SEGMENTS = (3, 3, 32, 64)
# Network, and the shape of its input.
LINEAR: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "bn_inception": (lambda: models.BNInception(classes=5), (3, 64, 96)),
    "tsn": (lambda: models.TSN(resnet(), classes=5), (3, 3, 64, 96)),
    "concatenation": (lambda: models.TSN(resnet(), classes=5, consensus="concatenation"), (3, 3, 64, 96)),
    "i3d": (lambda: models.I3D(classes=5), (16, 3, 64, 96)),
}


def made(make: Callable[[], nn.Module]) -> Any:
    """With weights that are not all but equal, and signals that do not fade out."""
    network = make().eval()
    with torch.no_grad():
        for name, value in network.named_buffers():
            if name.endswith("running_var"):
                value.uniform_(0.1, 0.3)
        for module in network.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight)
    return network


def by_hand(name: str, network: Any, clips: Tensor, label: int) -> Tensor:
    """The sum over the channels, one by one; small."""
    feature_map = network.feature_map(clips)
    weight = network.logits.conv3d.weight[:, :, 0, 0, 0] if name == "i3d" else network.fc.weight
    if name in ("bn_inception", "i3d"):
        return sum(weight[label, k] * feature_map[:, k] for k in range(feature_map.shape[1]))
    segments = []
    for s in range(feature_map.shape[1]):
        w = weight[label, 512 * s : 512 * (s + 1)] if name == "concatenation" else weight[label]
        segments.append(sum(w[k] * feature_map[:, s, k] for k in range(512)))
    return torch.stack(segments, dim=1)


def enlarged(name: str, maps: Tensor, clips: Tensor) -> Tensor:
    if name == "i3d":
        return F.interpolate(maps[:, None], (clips.shape[1], *clips.shape[3:]), mode="trilinear")[:, 0]
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    return F.interpolate(flat, clips.shape[-2:], mode="bilinear").view(*maps.shape[:-2], *clips.shape[-2:])


@pytest.mark.parametrize("name", LINEAR)
def test_match_definition(name: str) -> None:
    """The map is the sum that defines it; Grad-CAM is its positive part over the number of places."""
    make, shape = LINEAR[name]
    network = made(make)
    clips = torch.randn(2, *shape)
    with torch.no_grad():
        small = by_hand(name, network, clips, 3)
    cam = models.class_activation_map(network, clips, classes=3)
    gradient = models.grad_cam(network, clips, classes=3)
    assert cam.maps.shape == gradient.maps.shape == (*clips.shape[:-3], *clips.shape[-2:])
    assert cam.classes.tolist() == gradient.classes.tolist() == [3, 3]
    torch.testing.assert_close(cam.maps, enlarged(name, small, clips), rtol=1e-4, atol=1e-4 * float(small.abs().max()))
    places = small[0].numel() if name != "concatenation" else small[0, 0].numel()
    expected = enlarged(name, small.relu(), clips) / places
    assert expected.max() > 0
    torch.testing.assert_close(gradient.maps, expected, rtol=1e-4, atol=1e-4 * float(expected.max()))


@torch.no_grad()
def test_the_mean_is_the_score() -> None:
    """But for the bias: maps of segments and clips say how much each place adds."""
    network = made(LINEAR["tsn"][0])
    clips = torch.randn(2, 3, 3, 32, 32)  # one place each
    cam = models.class_activation_map(network, clips, classes=torch.tensor([4, 1]))
    scores = network(clips) - network.fc.bias
    torch.testing.assert_close(cam.maps.mean((1, 2, 3)), scores[[0, 1], [4, 1]], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: models.ResNet(classes=5, depth=18, hidden=7), (3, 64, 32)),
        (lambda: models.TSN(resnet(), classes=5, consensus="multiplication"), (2, 3, 32, 64)),
    ],
    ids=["resnet", "multiplication"],
)
def test_grad_cam_follows_the_score(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    """Of any network: along the weighted feature map, the score rises as fast as the map says."""
    network = made(make).double()
    clips = torch.randn(1, *shape, dtype=torch.float64)
    of_segments = isinstance(network, models.TSN)

    def score(feature_map: Tensor) -> Tensor:
        return network.classify((network.to_vectors if of_segments else network.to_vector)(feature_map))[0, 2]

    with torch.no_grad():
        feature_map = network.feature_map(clips)  # (1, [S,] K, h, w)
        weights = torch.zeros(feature_map.shape[1:-2], dtype=torch.float64)
        for channel in torch.ones_like(weights).nonzero():
            step = torch.zeros_like(feature_map)
            step[0][tuple(channel)] = 1e-6  # at all places at once: the sum of the slopes
            places = step[0, ..., :, :][tuple(channel)].numel()
            weights[tuple(channel)] = (score(feature_map + step) - score(feature_map - step)) / 2e-6 / places
        small = (feature_map * weights[None, ..., None, None]).sum(-3).relu()
    expected = enlarged("backbone", small, clips)
    assert expected.max() > 0
    actual = models.grad_cam(network, clips, classes=2).maps
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4 * float(expected.max()))


@pytest.mark.parametrize("stream", ["spatial", "temporal"])
@pytest.mark.parametrize("options", [{}, {"shared": False}, {"connection": False}], ids=str)
def test_of_cooperating_streams(stream: Any, options: dict[str, bool]) -> None:
    """Behind the connection, through the shared block."""
    network = made(lambda: ccs(**options))
    inputs = torch.randn(2, 3, 3, 32, 64), torch.randn(2, 3, 10, 32, 64)
    which = ["spatial", "temporal"].index(stream)
    cam = models.class_activation_map(network, *inputs, stream=stream)
    gradient = models.grad_cam(network, *inputs, stream=stream)
    with torch.no_grad():
        scores = network(*inputs)[which]
        feature_map = network.feature_maps(*inputs)[which]
    assert cam.classes.tolist() == gradient.classes.tolist() == scores.argmax(1).tolist()
    fc = network.get_submodule(stream).fc.weight
    weight = fc if network.shared is None else fc @ network.shared.projection.weight
    small = torch.einsum("nskhw,nk->nshw", feature_map, weight.detach()[cam.classes])
    clips = inputs[which]
    torch.testing.assert_close(cam.maps, enlarged("tsn", small, clips), rtol=1e-4, atol=1e-4 * float(small.abs().max()))
    expected = enlarged("tsn", small.relu(), clips) / small[0].numel()
    torch.testing.assert_close(gradient.maps, expected, rtol=1e-4, atol=1e-4 * float(expected.max()))


def test_clips_do_not_see_each_other() -> None:
    network = made(lambda: models.TSN(resnet(), classes=5))
    clips = torch.randn(3, *SEGMENTS)
    for of in (models.class_activation_map, models.grad_cam):
        together = of(network, clips)
        for n in range(3):
            alone = of(network, clips[n : n + 1])
            assert alone.classes[0] == together.classes[n]
            torch.testing.assert_close(alone.maps[0], together.maps[n], rtol=1e-3, atol=1e-4)


def test_leaves_no_trace() -> None:
    """No gradient in the network, none in the maps; and under no_grad all the same."""
    network = made(lambda: models.TSN(resnet(), classes=5))
    clips = torch.randn(1, *SEGMENTS)
    maps = models.grad_cam(network, clips).maps
    assert not maps.requires_grad
    assert not models.class_activation_map(network, clips).maps.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())
    with torch.no_grad():
        assert torch.equal(models.grad_cam(network, clips).maps, maps)


def on_meta(make: Callable[..., nn.Module], **options: Any) -> nn.Module:
    with torch.device("meta"):
        return make(**options).eval()


TSN = models.TSN(resnet(), classes=5).eval()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": nn.Identity()}, "network must be a Backbone, TSN, I3D or CooperativeCrossStream; got Identity"),
        ({"classes": 5}, r"classes must be from 0 to 4; got \[5, 5\]"),
        ({"classes": torch.tensor([1])}, r"classes must be \[2\], int64; got \[1\], int64"),
        ({"classes": torch.tensor([1.0, 2.0])}, r"classes must be \[2\], int64; got \[2\], float32"),
        ({"stream": "motion"}, r"stream must be one of \('spatial', 'temporal'\); got 'motion'"),
        ({"inputs": []}, "inputs of TSN must be 1; got 0"),
        ({"network": on_meta(models.CNNM2048, classes=(5, 3))}, r"network must have one classifier; got .*\(5, 3\)"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("of", [models.class_activation_map, models.grad_cam])
def test_rejects(of: Callable[..., Any], change: dict[str, Any], message: str) -> None:
    arguments = {"network": TSN, "inputs": [torch.rand(2, *SEGMENTS)], **change}
    inputs = [arguments.pop("network"), *arguments.pop("inputs")]
    with pytest.raises((TypeError, ValueError), match=rf"^{of.__name__}: {message}$"):
        of(*inputs, **arguments)


def test_rejects_networks() -> None:
    clips = torch.rand(2, *SEGMENTS)

    def vgg() -> nn.Module:
        return models.TSN(models.VGG16(classes=None), classes=5)

    with pytest.raises(ValueError, match="^grad_cam: network must be in evaluation mode"):
        models.grad_cam(models.TSN(resnet(), classes=5), clips)
    message = "^class_activation_map: network must classify .* linearly, which {} does not; take grad_cam$"
    with pytest.raises(ValueError, match=message.format("VGG16")):
        models.class_activation_map(on_meta(vgg), clips)
    with pytest.raises(ValueError, match=message.format("ResNet")):
        models.class_activation_map(on_meta(models.ResNet, classes=5, depth=18), clips[:, 0])
