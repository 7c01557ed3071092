"""pyaction.models: class activation maps and Grad-CAM, against the sums that define them."""

from collections.abc import Callable
from typing import Any, NamedTuple

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


class Part(NamedTuple):
    """A network that has others as its parts, or several classifiers."""

    make: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...]  # of its inputs, without the batch
    scores: Callable[..., Tensor]  # from the network and its inputs
    behind: str  # the module whose output the scores are made of; or, a classifier, whose input
    options: dict[str, Any] = {}


def i3d(channels: int = 3) -> models.I3D:
    return models.I3D(classes=5, in_channels=channels)


def ccs_i3d() -> nn.Module:
    network = models.CooperativeCrossStream(spatial=i3d(), temporal=i3d(2))
    nn.init.normal_(network.connection.temporal.weight, std=0.05)
    return network


def branched(*before: nn.Module) -> nn.Module:
    classifier = nn.Sequential(*before, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(128, 5))
    return models.BranchedTemporalStream(motionnet=models.TinyMotionNet(frames=3), classifier=classifier)


def enhanced() -> nn.Module:
    return models.CrossEnhancedTwoStream(spatial=i3d(), temporal=i3d(2)).requires_grad_(True)


def enhanced_scores(network: Any, frames: Tensor, flow: Tensor) -> Tensor:
    """Its `forward`, which has no gradient."""
    return network.fc(torch.cat([network.spatial(frames), network.temporal(flow)], dim=1))


CLIPS = (8, 3, 64, 96), (8, 2, 64, 96)
PARTS: dict[str, Part] = {
    "trn": Part(
        lambda: models.TRN(resnet(), classes=5, segments=3, features=12), ((3, 3, 64, 96),),
        lambda network, clips: network(clips), "backbone.layer4",
    ),
    "cnn_m": Part(
        lambda: models.CNNM2048(classes=(3, 5)), ((3, 224, 224),),
        lambda network, images: network(images)[1], "max_pool", {"head": 1},
    ),
    "stacked": Part(
        lambda: models.StackedTemporalStream(
            motionnet=models.TinyMotionNet(frames=3), temporal=models.ResNet(classes=5, depth=18, in_channels=4)
        ),
        ((3, 3, 64, 96),), lambda network, clip: network(clip).logits, "temporal.layer4",
    ),
    "branched": Part(
        lambda: branched(nn.Conv2d(128, 128, 3), nn.ReLU()), ((3, 3, 32, 48),),
        lambda network, clip: network(clip).logits, "classifier",
    ),
    "branched_linear": Part(branched, ((3, 3, 32, 48),), lambda network, clip: network(clip).logits, "classifier"),
    "ccs_i3d": Part(
        ccs_i3d, CLIPS, lambda network, *clips: network(*clips)[1], "connection", {"stream": "temporal"}
    ),
    "cross_enhancement": Part(
        lambda: models.CrossEnhancement(student=i3d(), teacher=i3d(2), bridge="e"), CLIPS,
        lambda network, *clips: network(*clips).logits, "student.Mixed_5c",
    ),
    "cross_enhanced": Part(enhanced, CLIPS, enhanced_scores, "temporal.Mixed_5c", {"stream": "temporal"}),
}  # fmt: skip


def scores_and_map(name: str, network: nn.Module, inputs: list[Tensor], erased: bool = False) -> tuple[Tensor, Tensor]:
    """Scores, and the feature map behind which they are; or of zeros in its place."""
    seen: list[Tensor] = []

    def see(_: nn.Module, *values: Any) -> Any:
        given = values[-1]
        seen.append(given[-1] if isinstance(given, tuple) else given)
        if not erased:
            if not seen[-1].requires_grad:  # of a stream that is frozen
                seen[-1].requires_grad_()
            return None
        nothing = torch.zeros_like(seen[-1])
        return (*given[:-1], nothing) if isinstance(given, tuple) else nothing

    behind = network.get_submodule(PARTS[name].behind)
    hook = behind.register_forward_pre_hook if PARTS[name].behind == "classifier" else behind.register_forward_hook
    with hook(see):
        scores = PARTS[name].scores(network, *inputs)
    return scores, seen[-1]


@pytest.mark.parametrize("name", PARTS)
def test_grad_cam_of_parts(name: str) -> None:
    """Against the gradient in the network itself, of what hooks see there."""
    part = PARTS[name]
    network = made(part.make)
    inputs = [torch.rand(2, *shape) for shape in part.shapes]
    scores, feature_map = scores_and_map(name, network, inputs)
    clips = inputs[1] if part.options.get("stream") == "temporal" else inputs[0]
    expected = []
    for label in range(5):
        (slope,) = torch.autograd.grad(scores[:, label].sum(), feature_map, retain_graph=True)
        small = (slope.mean(tuple(range(2, slope.ndim)), keepdim=True) * feature_map).sum(1).relu().detach()
        small = small.unflatten(0, (2, -1)) if name == "trn" else small
        expected.append(enlarged("i3d" if slope.ndim == 5 else "images", small, clips))
    label = max(range(5), key=lambda label: float(expected[label].std()))
    assert expected[label].std() > 0
    maps = models.grad_cam(network, *inputs, **part.options, classes=label).maps
    torch.testing.assert_close(maps, expected[label], rtol=1e-3, atol=1e-4 * float(expected[label].max()))
    assert models.grad_cam(network, *inputs, **part.options).classes.tolist() == scores.argmax(1).tolist()


@torch.no_grad()
@pytest.mark.parametrize("name", ["branched_linear", "ccs_i3d", "cross_enhancement", "cross_enhanced"])
def test_maps_of_parts_are_the_score(name: str) -> None:
    """Of one place: what the score loses when the feature map is erased."""
    part = PARTS[name]
    network = made(part.make)
    side = 8 if name == "branched_linear" else 32
    inputs = [torch.rand(2, *shape[:2], side, side) for shape in part.shapes]
    cam = models.class_activation_map(network, *inputs, **part.options)
    scores, _ = scores_and_map(name, network, inputs)
    without, _ = scores_and_map(name, network, inputs, erased=True)
    assert cam.classes.tolist() == scores.argmax(1).tolist()
    lost = (scores - without)[[0, 1], cam.classes]
    clips = inputs[1] if part.options.get("stream") == "temporal" else inputs[0]
    time = () if name == "branched_linear" else (clips.shape[1],)
    expected = lost.view(2, *[1] * len(time), 1, 1).expand(2, *time, side, side)
    torch.testing.assert_close(cam.maps, expected, rtol=1e-3, atol=1e-3)


def test_stacked_looks_at_its_flow() -> None:
    """As its temporal network does, whichever it is."""
    temporal = made(lambda: models.BNInception(classes=5, in_channels=4))
    network = models.StackedTemporalStream(motionnet=models.TinyMotionNet(frames=3), temporal=temporal).eval()
    clip = torch.rand(2, 3, 3, 64, 96)
    with torch.no_grad():
        images = models.normalize_flow(2 * network(clip).flows[0])
    for of in (models.class_activation_map, models.grad_cam):
        of_stream, of_temporal = of(network, clip, classes=3), of(temporal, images, classes=3)
        torch.testing.assert_close(of_stream, of_temporal)
        assert of_stream.maps.shape == (2, 64, 96)
    network.temporal = nn.Identity()
    with pytest.raises(TypeError, match="^grad_cam: temporal of the network must be a Backbone, .* or I3D; got Ident"):
        models.grad_cam(network, clip)


def test_in_inference_mode() -> None:
    """With inputs from there, and classes; a network from there cannot have gradients."""
    network = made(lambda: models.TSN(resnet(), classes=5))
    clips, classes = torch.randn(2, *SEGMENTS), torch.tensor([2, 4])
    expected = models.grad_cam(network, clips, classes=classes).maps
    with torch.inference_mode():
        assert torch.equal(models.grad_cam(network, clips.clone(), classes=classes.clone()).maps, expected)
        assert torch.is_inference_mode_enabled()
        other = made(lambda: models.BNInception(classes=5))
    with pytest.raises(ValueError, match="^grad_cam: network must be made outside of torch.inference_mode$"):
        models.grad_cam(other, clips[:, 0])


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
        ({"network": nn.Identity()}, "network must be a Backbone, TSN, .* or CrossEnhancedTwoStream; got Identity"),
        ({"network": on_meta(models.BNInception, classes=None)},
         "network must have a classifier; got BNInception with classes=None"),
        ({"network": models.TSN(resnet(), classes=5)}, r"network must be in evaluation mode; call its eval\(\)"),
        ({"classes": 5}, r"classes must be from 0 to 4; got \[5, 5\]"),
        ({"classes": torch.tensor([1])}, r"classes must be \[2\], int64; got \[1\], int64"),
        ({"classes": torch.tensor([1.0, 2.0])}, r"classes must be \[2\], int64; got \[2\], float32"),
        ({"stream": "motion"}, r"stream must be one of \('spatial', 'temporal'\); got 'motion'"),
        ({"inputs": []}, "inputs of TSN must be 1; got 0"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("of", [models.class_activation_map, models.grad_cam])
def test_rejects(of: Callable[..., Any], change: dict[str, Any], message: str) -> None:
    arguments = {"network": TSN, "inputs": [torch.rand(2, *SEGMENTS)], **change}
    inputs = [arguments.pop("network"), *arguments.pop("inputs")]
    with pytest.raises((TypeError, ValueError), match=rf"^{of.__name__}: {message}$"):
        of(*inputs, **arguments)


@pytest.mark.parametrize(
    ("name", "make", "shape"),
    [
        ("VGG16", lambda: models.TSN(models.VGG16(classes=None), classes=5), SEGMENTS),
        ("ResNet", lambda: models.ResNet(classes=5, depth=18), SEGMENTS[1:]),
        ("CNNM2048", lambda: models.CNNM2048(classes=(5, 3)), (3, 224, 224)),
        ("TRN", PARTS["trn"].make, SEGMENTS),
        ("BranchedTemporalStream", PARTS["branched"].make, (3, 3, 32, 32)),
    ],
)
def test_says_where_no_classifier_is_linear(name: str, make: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    message = f"^class_activation_map: network must classify .* linearly, which {name} does not; take grad_cam$"
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        models.class_activation_map(make().eval(), torch.zeros(2, *shape))  # type: ignore[arg-type]


@pytest.mark.parametrize("head", [None, 2, -1])
def test_rejects_heads(head: int | None) -> None:
    with torch.device("meta"):
        network, images = on_meta(models.CNNM2048, classes=(5, 3)), torch.zeros(2, 3, 224, 224)
    with pytest.raises(ValueError, match=f"^grad_cam: head must be from 0 to 1, one of the classifiers; got {head}$"):
        models.grad_cam(network, images, head=head)
    with pytest.raises(ValueError, match="^grad_cam: head must be None, for the network has one classifier; got 0$"):
        models.grad_cam(TSN, torch.rand(2, *SEGMENTS), head=0)


@torch.no_grad()
def test_rejects_unequal_streams() -> None:
    frames, flow = torch.rand(2, *CLIPS[0]), torch.rand(1, *CLIPS[1])
    with pytest.raises(ValueError, match="^grad_cam: frames and flow must be equally many; got 2 and 1$"):
        models.grad_cam(enhanced().eval(), frames, flow)
