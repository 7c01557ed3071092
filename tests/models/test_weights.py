from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pyaction import models


class Small(nn.Module):
    """A convolution, normalisation, and a classifier by the name that it has in pyaction's networks."""

    def __init__(self, *, channels: int = 3, classes: int = 5) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 6, 3)
        self.bn = nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, classes)


def filled(network: nn.Module, seed: int = 7) -> dict[str, Tensor]:
    """A state dict with other values."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(value.shape, generator=generator) + 0.25 if value.is_floating_point() else value + 3
        for name, value in network.state_dict().items()
    }


def copy_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def assert_same(got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "weights.pt"


PREFIXES = [
    "",
    "model.",
    "module.",
    "model.module.",
    "network.",
    "_orig_mod.",
    "module._orig_mod.",
    "_orig_mod.module.",
]


@pytest.mark.parametrize("prefix", [*PREFIXES, "network._orig_mod.model."])
@pytest.mark.parametrize("nested", [False, True])
def test_own_files(file: Path, prefix: str, nested: bool) -> None:
    values = filled(Small())
    content: dict[str, object] = {prefix + name: value for name, value in values.items()}
    torch.save({"state_dict": content, "epoch": 4} if nested else content, file)
    network = Small()
    report = models.load_weights(network, file)
    assert report == models.LoadReport("pyaction", 9, {}, (), ())
    assert_same(network.state_dict(), values)


def test_compiled_part(file: Path) -> None:
    """torch.compile of a module inside puts its prefix inside."""
    values = filled(nn.ModuleDict({"stream": Small()}))
    compiled = {name.replace("stream.", "module.stream._orig_mod."): value for name, value in values.items()}
    torch.save(compiled, file)
    network = nn.ModuleDict({"stream": Small()})
    assert models.load_weights(network, file).matched == 9
    assert_same(network.state_dict(), values)


def test_lightning_file(file: Path) -> None:
    """Beside the network, there are other modules and counters in it."""
    values = filled(Small())
    content = {f"model.{name}": value for name, value in values.items()} | {"loss.scale": torch.tensor(2.5), "step": 4}
    torch.save({"state_dict": content, "epoch": 4, "lr_schedulers": [{"gamma": 0.3}]}, file)
    network = Small()
    report = models.load_weights(network, str(file))
    assert report.format == "pyaction"
    assert report.skipped == {"loss.scale": "Small has no such entry", "step": "not a tensor"}
    assert_same(network.state_dict(), values)


def test_more_than_the_model(file: Path) -> None:
    """A deeper network's file would load, and mean nothing."""
    deeper = models.ResNet(classes=4, depth=34)
    torch.save(deeper.state_dict(), file)
    network = models.ResNet(classes=4, depth=18)
    before = network.conv1.weight.clone()
    with pytest.raises(ValueError, match="has 80 weights for which ResNet has no place, first layer1.2.conv1.weight"):
        models.load_weights(network, file)
    assert torch.equal(network.conv1.weight, before)
    report = models.load_weights(network, file, partial=True)
    assert report.missing == () and "layer1.2.conv1.weight" in report.skipped
    assert torch.equal(network.conv1.weight, deeper.conv1.weight)


def test_infinite_in_half_precision(file: Path) -> None:
    torch.save({name: value + 1e6 for name, value in filled(Small()).items()}, file)
    with pytest.raises(ValueError, match="must be finite"):
        models.load_weights(Small().half(), file)


def test_network_with_a_module_called_model(file: Path) -> None:
    for wrapper in ("", "module.", "_orig_mod.model."):
        network, values = nn.ModuleDict({"model": Small()}), filled(nn.ModuleDict({"model": Small()}))
        torch.save({wrapper + name: value for name, value in values.items()}, file)
        models.load_weights(network, file)
        assert_same(network.state_dict(), values)


def test_other_dtype(file: Path) -> None:
    values = filled(Small())
    torch.save({name: value.half() if value.is_floating_point() else value for name, value in values.items()}, file)
    network = Small()
    models.load_weights(network, file)
    assert network.conv.weight.dtype == torch.float32
    torch.testing.assert_close(network.conv.weight.detach(), values["conv.weight"], rtol=1e-3, atol=0)


def test_classifier_of_another_size(file: Path) -> None:
    values = filled(Small(classes=4))
    torch.save(values, file)
    network = Small()
    before = copy_of(network)
    report = models.load_weights(network, file)
    assert report.skipped == {
        "fc.weight": "classifier of another size: [4, 6], the model's is [5, 6]",
        "fc.bias": "classifier of another size: [4], the model's is [5]",
    }
    assert report.missing == ("fc.weight", "fc.bias")
    assert report.matched == 7
    assert_same(network.state_dict(), values | {name: before[name] for name in report.missing})
    assert str(report) == (
        "Loaded 7 entries in the format pyaction. Skipped 2 of the file: fc.weight (classifier of another size: "
        "[4, 6], the model's is [5, 6]), fc.bias (classifier of another size: [4], the model's is [5]). "
        "Missing 2 of the model: fc.weight, fc.bias."
    )


def test_bias_without_its_kernel(file: Path) -> None:
    """Were the classifier's bias to fit alone, it is skipped with the kernel."""
    torch.save(filled(Small()) | {"fc.weight": torch.rand(5, 12)}, file)
    report = models.load_weights(Small(), file)
    assert set(report.skipped) == set(report.missing) == {"fc.weight", "fc.bias"}


def without(values: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    return {name: value for name, value in values.items() if not name.startswith(names)}


def test_counter_and_classifier_may_be_missing(file: Path) -> None:
    values = without(filled(Small()), "bn.num", "fc")
    torch.save(values, file)
    network = Small()
    report = models.load_weights(network, file)
    assert (report.skipped, report.missing) == ({}, ("fc.weight", "fc.bias"))
    assert network.bn.num_batches_tracked == 0


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["conv.bias"], "lacks 1 of the weights of Small, first conv.bias; to load a part give partial=True"),
        (["bn."], "lacks 2 of the statistics of batch normalisation, first bn.running_mean, without which"),
        (["bn.running_var"], "lacks 1 of the statistics of batch normalisation, first bn.running_var, without which"),
        (["conv", "bn"], "lacks 6 of the weights of Small, first conv.weight; to load a part"),
        (["fc.weight"], "lacks 1 of the weights of Small, first fc.weight; to load a part"),
    ],
)
def test_missing(file: Path, names: list[str], message: str) -> None:
    torch.save(without(filled(Small()), *names), file)
    network = Small()
    before = copy_of(network)
    with pytest.raises(ValueError, match=rf"models.load_weights: .*weights.pt, in the format pyaction, {message}"):
        models.load_weights(network, file)
    assert_same(network.state_dict(), before)


def test_partial(file: Path) -> None:
    values = filled(nn.ModuleDict({"spatial": Small()}))
    torch.save(values, file)
    network = nn.ModuleDict({"spatial": Small(), "temporal": Small()})
    before = copy_of(network)
    with pytest.raises(ValueError, match="lacks 6 of the weights of ModuleDict, first temporal.conv.weight; to load a"):
        models.load_weights(network, file)
    report = models.load_weights(network, file, partial=True)
    assert report.missing == tuple(name for name in before if "temporal" in name and "num_batches" not in name)
    assert_same(network.state_dict(), before | values)


def test_partial_has_bounds(file: Path) -> None:
    """Not without statistics, and not for nothing."""
    network = Small()
    before = copy_of(network)
    for values, message in (
        (
            without(filled(Small()), "bn.running_mean"),
            "lacks 1 of the statistics of batch normalisation, first bn.runn",
        ),
        (without(filled(Small()), "bn."), "lacks 2 of the statistics of batch normalisation"),
        (
            without(filled(Small(classes=4)), "bn.weight", "bn.bias", "bn.run", "conv"),
            "has none of the 8 weights of Sm",
        ),
        (filled(Small()) | {"conv.bias": torch.tensor([0.5, 2, 3, float("inf"), 5, 6])}, "conv.bias of .* finite"),
    ):
        torch.save(values, file)
        with pytest.raises(ValueError, match=message):
            models.load_weights(network, file, partial=True)
        assert_same(network.state_dict(), before)
    torch.save(without(filled(Small()), "bn.", "conv"), file)  # a classifier is a part
    assert models.load_weights(network, file, partial=True).matched == 2


def test_long_report() -> None:
    missing, averaged = ("a", "b", "c", "d", "e"), ("spatial.weight", "temporal.weight")
    report = models.LoadReport("torchvision", 34, {}, missing, averaged, note="Trained with another mean")
    assert str(report) == (
        "Loaded 34 entries in the format torchvision. Averaged spatial.weight, temporal.weight over the input channels."
        " Missing 5 of the model: a, b, c and 2 more. Trained with another mean."
    )


def test_cross_modality(file: Path) -> None:
    values = filled(Small())
    torch.save(values, file)
    flow = Small(channels=10)
    before = copy_of(flow)
    with pytest.raises(
        ValueError, match=r"conv.weight of .* \[6, 10, 3, 3\]; got \[6, 3, 3, 3\]; .* give cross_modality=True"
    ):
        models.load_weights(flow, file)
    assert_same(flow.state_dict(), before)
    report = models.load_weights(flow, file, cross_modality=True)
    assert report.averaged == ("conv.weight",)
    for channel in range(10):
        torch.testing.assert_close(flow.conv.weight[:, channel].detach(), values["conv.weight"].mean(1))
    torch.testing.assert_close(flow.conv.bias.detach(), values["conv.bias"], rtol=0, atol=0)


@pytest.mark.parametrize("names", [("spatial", "temporal"), ("teacher", "student"), ("motionnet", "temporal")])
def test_cross_modality_of_every_stream(file: Path, names: tuple[str, str]) -> None:
    """Both from a file whose streams saw RGB; a convolution inside is no first one."""

    def streams(*channels: int) -> nn.ModuleDict:
        modules = zip((*names, "shared"), channels, strict=True)
        return nn.ModuleDict({name: Small(channels=count) for name, count in modules})

    values = filled(streams(3, 3, 3))
    torch.save(values, file)
    for channels, name in (((4, 3, 3), names[0]), ((3, 10, 3), names[1])):
        with pytest.raises(ValueError, match=rf"{name}.conv.weight of .* must have shape .*; .* cross_modality=True"):
            models.load_weights(streams(*channels), file)
    network = streams(4, 10, 3)
    report = models.load_weights(network, file, cross_modality=True)
    assert report.averaged == tuple(f"{name}.conv.weight" for name in names)
    for name in report.averaged:
        torch.testing.assert_close(network.get_parameter(name)[:, 3].detach(), values[name].mean(1))
    with pytest.raises(ValueError, match=r"shared.conv.weight of .* got \[6, 3, 3, 3\]$"):
        models.load_weights(streams(4, 10, 2), file, cross_modality=True)


def test_cross_modality_changes_nothing_that_fits(file: Path) -> None:
    values = filled(Small())
    torch.save(values, file)
    network = Small()
    assert models.load_weights(network, file, cross_modality=True).averaged == ()
    assert_same(network.state_dict(), values)
    torch.save(filled(models.FuseNet(classes=3)), file)  # no convolution
    assert models.load_weights(models.FuseNet(classes=3), file, cross_modality=True).matched == 4


OTHER_SHAPE = filled(Small()) | {"bn.weight": torch.rand(1, 6)}
INTEGERS = filled(Small()) | {"bn.weight": torch.arange(6)}
SPARSE = filled(Small()) | {"bn.weight": torch.rand(6).to_sparse()}
META = filled(Small()) | {"bn.weight": torch.rand(6, device="meta")}
TWICE = filled(Small()) | {"model.bn.weight": torch.rand(6)}
NAN = filled(Small()) | {"bn.running_var": torch.tensor([0.5, 2, 3, float("nan"), 5, 6])}
FOREIGN = {f"encoder.layer.{i}.weight": torch.rand(3) for i in range(5)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (OTHER_SHAPE, r"bn.weight of .*weights.pt must have shape \[6\]; got \[1, 6\]$"),
        (INTEGERS, r"bn.weight of .* must be a dense tensor of floating point; got torch.int64, torch.strided"),
        (SPARSE, r"bn.weight of .* must be a dense tensor of floating point; got torch.float32, torch.sparse_coo"),
        (META, r"bn.weight of .* must be a dense tensor"),
        (TWICE, r"weights.pt has bn.weight twice, as bn.weight and as model.bn.weight"),
        (NAN, r"bn.running_var of .* must be finite; got NaN or infinity$"),
        (FOREIGN, r"no known format; its keys are encoder.layer.0.weight, .*, encoder.layer.2.weight and 2 more$"),
    ],
)
@pytest.mark.filterwarnings("ignore:Validating sparse tensor:UserWarning")
def test_refused_whole(file: Path, content: object, message: str) -> None:
    torch.save(content, file)
    network = Small()
    before = copy_of(network)
    with pytest.raises(ValueError, match=message):
        models.load_weights(network, file)
    assert_same(network.state_dict(), before)


def test_no_such_format(file: Path) -> None:
    torch.save(filled(Small()), file)
    with pytest.raises(ValueError, match="'auto' or one of tensorflow-i3d, .*, pyaction; got 'caffe'"):
        models.load_weights(Small(), file, "caffe")


def test_wrong_format(file: Path) -> None:
    torch.save(filled(Small()), file)
    with pytest.raises(ValueError, match="none of the 287 weights of I3D, first Conv3d_1a_7x7.* its keys are conv.wei"):
        models.load_weights(models.I3D(classes=2), file, "tensorflow-i3d")
