"""Weights of networks over images, over segments, and of MotionNet, by the names of their releases."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pyaction import models
from pyaction.data import transforms


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """Deleted at once, for pytest keeps folders, and these files are large."""
    path = tmp_path / "weights.pth"
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(11)


# Of each block: input channels; 1x1; 3x3 behind a 1x1; two 3x3 behind a 1x1; 1x1 behind the pooling. Zero: none.
BLOCKS = {
    "3a": (192, 64, 64, 64, 64, 96, 32),
    "3b": (256, 64, 64, 96, 64, 96, 64),
    "3c": (320, 0, 128, 160, 64, 96, 0),
    "4a": (576, 224, 64, 96, 96, 128, 128),
    "4b": (576, 192, 96, 128, 96, 128, 128),
    "4c": (576, 160, 128, 160, 128, 160, 128),
    "4d": (608, 96, 128, 192, 160, 192, 128),
    "4e": (608, 0, 128, 192, 192, 256, 0),
    "5a": (1056, 352, 192, 320, 160, 224, 128),
    "5b": (1024, 352, 192, 320, 192, 224, 128),
}


def bn_inception_convolutions(channels: int) -> Iterator[tuple[str, int, int, int]]:
    """Name, output channels, input channels, size."""
    yield "conv1_7x7_s2", 64, channels, 7
    yield "conv2_3x3_reduce", 64, 64, 1
    yield "conv2_3x3", 192, 64, 3
    for block, (source, single, reduce1, out1, reduce2, out2, projection) in BLOCKS.items():
        if single:
            yield f"inception_{block}_1x1", single, source, 1
        yield f"inception_{block}_3x3_reduce", reduce1, source, 1
        yield f"inception_{block}_3x3", out1, reduce1, 3
        yield f"inception_{block}_double_3x3_reduce", reduce2, source, 1
        yield f"inception_{block}_double_3x3_1", out2, reduce2, 3
        yield f"inception_{block}_double_3x3_2", out2, out2, 3
        if projection:
            yield f"inception_{block}_pool_proj", projection, source, 1


def bn_inception(generator: torch.Generator, *, channels: int = 3, row: bool = False) -> dict[str, Tensor]:
    """All but the last layer; `row`: normalisation as (1, C), as in the files of 2017."""
    entries = {}
    for name, out, source, size in bn_inception_convolutions(channels):
        kernel = torch.randn(out, source, size, size, generator=generator)
        entries[f"{name}.weight"] = kernel * (2 / (source * size * size)) ** 0.5
        entries[f"{name}.bias"] = torch.rand(out, generator=generator) / 8
        for entry in ("weight", "bias", "running_mean", "running_var"):
            value = torch.rand(out, generator=generator) + (0 if "mean" in entry else 0.5)
            entries[f"{name}_bn.{entry}"] = value[None] if row else value
    return entries


def linear(generator: torch.Generator, name: str, out: int, source: int) -> dict[str, Tensor]:
    weight, bias = torch.randn(out, source, generator=generator) / 32, torch.rand(out, generator=generator)
    return {f"{name}.weight": weight, f"{name}.bias": bias}


def assert_arrived(network: nn.Module, expected: dict[str, Tensor]) -> None:
    state = network.state_dict()
    for name, value in expected.items():
        assert torch.equal(state[name], value.squeeze(0) if "_bn." in name else value), name


@pytest.mark.parametrize("last", ["fc", "last_linear"])
@pytest.mark.parametrize("row", [True, False])
def test_bn_inception(file: Path, generator: torch.Generator, last: str, row: bool) -> None:
    entries, classifier = bn_inception(generator, row=row), linear(generator, last, 6, 1024)
    torch.save(entries | classifier, file)
    network = models.BNInception(classes=6)
    report = models.load_weights(network, file)
    assert (report.format, report.matched) == ("bn-inception", len(entries) + 2)
    assert (report.skipped, report.missing) == ({}, ())
    assert_arrived(
        network, entries | {"fc.weight": classifier[f"{last}.weight"], "fc.bias": classifier[f"{last}.bias"]}
    )


@pytest.mark.parametrize("classes", [1000, 1001])
def test_bn_inception_of_imagenet(file: Path, generator: torch.Generator, classes: int) -> None:
    """Into a network for actions, over flow."""
    entries = bn_inception(generator, row=True)
    torch.save(entries | linear(generator, "last_linear", classes, 1024), file)
    network = models.BNInception(classes=6, in_channels=10)
    report = models.load_weights(network, file, cross_modality=True)
    assert report.skipped == {
        "last_linear.weight": f"classifier of another size: [{classes}, 1024], the model's is [6, 1024]",
        "last_linear.bias": f"classifier of another size: [{classes}], the model's is [6]",
    }
    assert report.missing == ("fc.weight", "fc.bias")
    kernel = entries.pop("conv1_7x7_s2.weight").mean(1, keepdim=True)
    torch.testing.assert_close(network.conv1_7x7_s2.weight.detach(), kernel.repeat(1, 10, 1, 1))
    assert_arrived(network, entries)
    without = models.BNInception(classes=None)
    assert models.load_weights(without, file).skipped["last_linear.bias"] == "BNInception has no such entry"


def with_prefix(prefix: str, entries: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in entries.items()}


def test_tsn(file: Path, generator: torch.Generator) -> None:
    backbone, last = bn_inception(generator, channels=10), linear(generator, "new_fc", 6, 1024)
    content = with_prefix("module.base_model.", backbone) | with_prefix("module.", last)
    torch.save({"epoch": 80, "arch": "BNInception", "state_dict": content, "best_prec1": torch.tensor(0.7)}, file)
    network = models.TSN(models.BNInception(classes=None, in_channels=10), classes=6).eval()
    report = models.load_weights(network, file)
    assert (report.format, report.matched) == ("tsn-pytorch", len(backbone) + 2)
    assert (report.skipped, report.missing) == ({}, ())
    assert report.note is None  # of flow
    assert_arrived(network.backbone, backbone)
    by_hand = models.BNInception(classes=6, in_channels=10).eval()
    by_hand.load_state_dict(
        backbone | {"fc.weight": last["new_fc.weight"], "fc.bias": last["new_fc.bias"]}, strict=False
    )
    clips = torch.randn(1, 2, 10, 64, 64, generator=generator)
    with torch.no_grad():
        expected = by_hand(clips[0]).mean(0, keepdim=True)
        torch.testing.assert_close(network(clips), expected, rtol=1e-4, atol=1e-4)
    assert expected.abs().max() > 0.1


def test_mean_of_tsn_pytorch(file: Path, generator: torch.Generator) -> None:
    """BN-Inception over RGB was trained with a slip in the mean."""
    content = with_prefix("base_model.", bn_inception(generator)) | linear(generator, "new_fc", 6, 1024)
    torch.save(content, file)
    report = models.load_weights(models.TSN(models.BNInception(classes=None), classes=6), file)
    note = "Trained with the mean 104, 117, 128 (blue, green, red): normalize by transforms.TSN_PYTORCH_RGB"
    assert report.note == note
    assert str(report).endswith(f" {note}.")
    assert transforms.TSN_PYTORCH_RGB.mean == (104, 117, 128)
    flow = models.TSN(models.BNInception(classes=None, in_channels=10), classes=6)
    assert models.load_weights(flow, file, cross_modality=True).averaged == ("backbone.conv1_7x7_s2.weight",)


def test_tsn_of_resnet_without_dropout(file: Path, generator: torch.Generator) -> None:
    """The backbone's own last layer classifies then; and it has another size here."""
    backbone = models.ResNet(classes=None, depth=18).state_dict()
    content = with_prefix("base_model.", backbone) | linear(generator, "base_model.fc", 9, 512)
    torch.save({"state_dict": content}, file)
    network = models.TSN(models.ResNet(classes=None, depth=18), classes=6)
    report = models.load_weights(network, file)
    assert (report.format, report.note) == ("tsn-pytorch", None)
    assert set(report.skipped) == {"base_model.fc.weight", "base_model.fc.bias"}
    assert report.missing == ("fc.weight", "fc.bias")
    assert_arrived(network.backbone, backbone)


def test_trn_over_a_tsn(file: Path) -> None:
    """The reduction and the relations are the network's own."""
    tsn = models.TSN(models.ResNet(classes=None, depth=18), classes=6)
    torch.save(tsn.state_dict(), file)
    network = models.TRN(models.ResNet(classes=None, depth=18), classes=6, segments=3)
    with pytest.raises(ValueError, match="lacks 6 of the weights of TRN, first reduction.weight; to load a part give"):
        models.load_weights(network, file)
    report = models.load_weights(network, file, partial=True)
    assert set(report.skipped) == {"fc.weight", "fc.bias"}
    assert len(report.missing) == 10
    assert_arrived(network.backbone, tsn.backbone.state_dict())


def two_streams(spatial: int, temporal: int, *, connection: bool) -> models.CooperativeCrossStream:
    rgb, flow = (
        models.TSN(models.ResNet(classes=None, depth=18, in_channels=channels), classes=6)
        for channels in (spatial, temporal)
    )
    return models.CooperativeCrossStream(spatial=rgb, temporal=flow, connection=connection)


def test_two_streams(file: Path) -> None:
    """From RGB to other channels in each of them, and with a block that the file has not."""
    values = two_streams(3, 3, connection=False).state_dict()
    torch.save(values, file)
    for channels, name in (((3, 10), "temporal"), ((4, 3), "spatial")):
        with pytest.raises(
            ValueError, match=rf"^models.load_weights: {name}.backbone.conv1.* give cross_modality=True"
        ):
            models.load_weights(two_streams(*channels, connection=False), file)
    network = two_streams(4, 10, connection=True)
    with pytest.raises(
        ValueError, match="lacks 4 of the weights of CooperativeCrossStream, first connection.phi.weight"
    ):
        models.load_weights(network, file, cross_modality=True)
    report = models.load_weights(network, file, cross_modality=True, partial=True)
    assert report.averaged == ("spatial.backbone.conv1.weight", "temporal.backbone.conv1.weight")
    assert {name.split(".")[0] for name in report.missing} == {"connection"}
    for name in report.averaged:
        kernel = values.pop(name).mean(1)
        torch.testing.assert_close(network.get_parameter(name)[:, 3].detach(), kernel)
    assert_arrived(network, values)


@pytest.mark.parametrize("scales", ["multi", "single"])
def test_trn(file: Path, generator: torch.Generator, scales: str) -> None:
    backbone, last = bn_inception(generator), linear(generator, "new_fc", 256, 1024)
    expected = {"reduction.weight": last["new_fc.weight"], "reduction.bias": last["new_fc.bias"]}
    consensus: dict[str, Tensor] = {}
    for place, scale in enumerate((4, 3, 2) if scales == "multi" else (4,)):
        theirs = f"consensus.fc_fusion_scales.{place}" if scales == "multi" else "consensus.classifier"
        hidden = 256 if scales == "multi" else 512
        for layer, sizes in ((1, (hidden, scale * 256)), (3, (6, hidden))):
            values = linear(generator, f"{theirs}.{layer}", *sizes)
            consensus |= values
            expected |= {name.replace(theirs, f"relations.{place}"): value for name, value in values.items()}
    content = with_prefix("module.", with_prefix("base_model.", backbone) | last | consensus)
    torch.save({"state_dict": content}, file)

    def trn(classes: int) -> models.TRN:
        backbone = models.BNInception(classes=None)
        return models.TRN(backbone, classes=classes, segments=4, scales=scales, seed=3)  # type: ignore[arg-type]

    network = trn(6)
    tuples = {name: value.clone() for name, value in network.state_dict().items() if "tuples" in name}
    report = models.load_weights(network, file)
    assert (report.format, report.matched) == ("trn-pytorch", len(content))
    assert report.note is not None
    assert (report.skipped, report.missing) == ({}, ())
    assert_arrived(network.backbone, backbone)
    assert_arrived(network, expected | tuples)
    # For other classes only the second layers of the relations are new.
    report = models.load_weights(trn(5), file)
    assert report.missing == tuple(name for name in expected if ".3." in name)
    assert len(report.skipped) == len(report.missing) == 2 * len(network.scales)


# Name, output channels, input channels; those of 4 x 4 kernels (deconvolutions) the other way round, as in Caffe.
MOTIONNET = (
    ("conv1", 64, 6),
    ("conv1_1", 64, 64),
    ("conv2", 128, 64),
    ("conv2_1", 128, 128),
    ("conv3", 256, 128),
    ("conv3_1", 256, 256),
    ("conv4", 512, 256),
    ("conv4_1", 512, 512),
    ("conv5", 512, 512),
    ("conv5_1", 512, 512),
    ("conv6", 1024, 512),
    ("conv6_1", 1024, 1024),
    ("conv_pr6", 2, 1024),
    ("deconv5", 1024, 512),
    ("upsample_flow6to5", 2, 2),
    ("smooth_conv5", 512, 1026),
    ("conv_pr5", 2, 512),
    ("deconv4", 512, 256),
    ("upsample_flow5to4", 2, 2),
    ("smooth_conv4", 256, 770),
    ("conv_pr4", 2, 256),
    ("deconv3", 256, 128),
    ("upsample_flow4to3", 2, 2),
    ("smooth_conv3", 128, 386),
    ("conv_pr3", 2, 128),
    ("deconv2", 128, 64),
    ("upsample_flow3to2", 2, 2),
    ("smooth_conv2", 64, 194),
    ("conv_pr2", 2, 64),
)


def caffe_motionnet(generator: torch.Generator) -> dict[str, Tensor]:
    entries = {}
    for name, first, second in MOTIONNET:
        upward = name.startswith(("deconv", "upsample"))
        size = 4 if upward else 3
        entries[f"{name}.weight"] = torch.randn(first, second, size, size, generator=generator) / (9 * second) ** 0.5
        out = second if upward else first
        entries[f"{name}.bias"] = torch.zeros(out) if upward else torch.rand(out, generator=generator)
    return entries


def test_motionnet(file: Path, generator: torch.Generator) -> None:
    entries = caffe_motionnet(generator)
    torch.save(entries, file)
    network = models.MotionNet(frames=2)
    report = models.load_weights(network, file)
    assert (report.format, report.missing) == ("caffe-motionnet", ())
    assert report.matched == 2 * 29 - 8 == len(network.state_dict())
    zeros = {f"{name}.bias" for name, *_ in MOTIONNET if name.startswith(("deconv", "upsample"))}
    assert report.skipped == dict.fromkeys(zeros, "zero, for which MotionNet needs no bias")
    expected = {
        f"{name}.{entry}": entries[f"{name}.{entry}"] for name, *_ in MOTIONNET[:12] for entry in ("weight", "bias")
    }
    for entry in ("weight", "bias"):
        expected[f"flow6.{entry}"] = entries[f"conv_pr6.{entry}"]
        for level in (2, 3, 4, 5):
            expected[f"expand{level}.flow.{entry}"] = entries[f"conv_pr{level}.{entry}"]
            expected[f"expand{level}.xconv.{entry}"] = entries[f"smooth_conv{level}.{entry}"]
    for level in (2, 3, 4, 5):
        expected[f"expand{level}.deconv.weight"] = entries[f"deconv{level}.weight"]
        expected[f"expand{level}.upflow.weight"] = entries[f"upsample_flow{level + 1}to{level}.weight"]
    assert len(expected) == report.matched
    assert_arrived(network, expected)


def test_motionnet_with_a_bias_that_it_cannot_have(file: Path) -> None:
    torch.save({"smooth_conv2.weight": torch.rand(64, 194, 3, 3), "deconv3.bias": torch.full((128,), 0.25)}, file)
    with pytest.raises(ValueError, match="deconv3.bias must be zero, for MotionNet's deconvolutions have no bias"):
        models.load_weights(models.MotionNet(frames=2), file)


def test_torchvision_resnet(file: Path, generator: torch.Generator) -> None:
    entries = {
        name: torch.rand(value.shape, generator=generator) if value.is_floating_point() else torch.tensor(8)
        for name, value in models.ResNet(classes=None, depth=18).state_dict().items()
    }
    assert {"conv1.weight", "bn1.running_var", "layer1.0.conv1.weight", "layer4.1.bn2.bias"} < set(entries)
    torch.save(entries | linear(generator, "fc", 1000, 512), file)
    network = models.ResNet(classes=6, depth=18)
    report = models.load_weights(network, file)
    assert report.format == "torchvision"
    assert report.skipped == dict.fromkeys(("fc.weight", "fc.bias"), "ResNet has no such entry")
    assert report.missing == ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")
    assert_arrived(network, entries)
    with pytest.raises(
        ValueError, match=r"layer1.0.conv1.weight of .* must have shape \[64, 64, 1, 1\]; got \[64, 64, 3"
    ):
        models.load_weights(models.ResNet(classes=6, depth=50), file)


def vgg16(classes: int) -> dict[str, Tensor]:
    """Each tensor one number, repeated without memory."""
    places = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    widths = (64,) * 2 + (128,) * 2 + (256,) * 3 + (512,) * 6
    shapes, source = {}, 3
    for place, width in zip(places, widths, strict=True):
        shapes[f"features.{place}"], source = (width, source, 3, 3), width
    shapes |= {"classifier.0": (4096, 25088), "classifier.3": (4096, 4096), "classifier.6": (classes, 4096)}
    entries = {}
    for number, (name, shape) in enumerate(shapes.items()):
        entries[f"{name}.weight"] = torch.tensor(number + 0.25).expand(shape)
        entries[f"{name}.bias"] = torch.tensor(number + 0.75).expand(shape[0])
    return entries


def test_torchvision_vgg16(file: Path) -> None:
    """The network's own weights are never filled before."""
    entries = vgg16(1000)
    torch.save(entries, file)
    with torch.device("meta"):
        network = models.VGG16(classes=6)
    network.to_empty(device="cpu")
    report = models.load_weights(network, file)
    assert report.format == "pyaction"  # the same names
    assert set(report.skipped) == set(report.missing) == {"classifier.6.weight", "classifier.6.bias"}
    del entries["classifier.6.weight"], entries["classifier.6.bias"]
    assert_arrived(network, entries)


def test_tsn_of_vgg16_without_dropout(file: Path) -> None:
    """The backbone's own last layer classifies then."""
    entries = vgg16(6)
    torch.save({"state_dict": with_prefix("module.base_model.", entries)}, file)
    with torch.device("meta"):
        network = models.TSN(models.VGG16(classes=None), classes=6)
    network.to_empty(device="cpu")
    report = models.load_weights(network, file)
    assert (report.format, report.skipped, report.missing) == ("tsn-pytorch", {}, ())
    assert_arrived(network, {f"fc.{entry}": entries.pop(f"classifier.6.{entry}") for entry in ("weight", "bias")})
    assert_arrived(network.backbone, entries)
