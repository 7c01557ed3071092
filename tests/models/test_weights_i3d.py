"""I3D's weights in the three schemes of names, written down here once more, from the releases."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from pyaction import models

CLASSES = 4
CHANNELS = 2


class Unit(NamedTuple):
    """A convolution with normalisation: what three releases call it, and its sizes."""

    tensorflow: str
    hassony: str
    piergiaj: str
    source: int
    out: int
    size: int


# Input channels, and those of the six convolutions.
MIXED = {
    "3b": (192, 64, 96, 128, 16, 32, 32),
    "3c": (256, 128, 128, 192, 32, 96, 64),
    "4b": (480, 192, 96, 208, 16, 48, 64),
    "4c": (512, 160, 112, 224, 24, 64, 64),
    "4d": (512, 128, 128, 256, 24, 64, 64),
    "4e": (512, 112, 144, 288, 32, 64, 64),
    "4f": (528, 256, 160, 320, 32, 128, 128),
    "5b": (832, 256, 160, 320, 32, 128, 128),
    "5c": (832, 384, 192, 384, 48, 128, 128),
}


def units() -> Iterator[Unit]:
    yield Unit("Conv3d_1a_7x7", "conv3d_1a_7x7", "Conv3d_1a_7x7", CHANNELS, 64, 7)
    yield Unit("Conv3d_2b_1x1", "conv3d_2b_1x1", "Conv3d_2b_1x1", 64, 64, 1)
    yield Unit("Conv3d_2c_3x3", "conv3d_2c_3x3", "Conv3d_2c_3x3", 64, 192, 3)
    for block, (source, single, reduce1, out1, reduce2, out2, projection) in MIXED.items():
        second = "Conv3d_0a_3x3" if block == "5b" else "Conv3d_0b_3x3"  # as the authors have misnamed it
        rows = (
            ("Branch_0/Conv3d_0a_1x1", "branch_0", "b0", source, single, 1),
            ("Branch_1/Conv3d_0a_1x1", "branch_1.0", "b1a", source, reduce1, 1),
            ("Branch_1/Conv3d_0b_3x3", "branch_1.1", "b1b", reduce1, out1, 3),
            ("Branch_2/Conv3d_0a_1x1", "branch_2.0", "b2a", source, reduce2, 1),
            (f"Branch_2/{second}", "branch_2.1", "b2b", reduce2, out2, 3),
            ("Branch_3/Conv3d_0b_1x1", "branch_3.1", "b3b", source, projection, 1),
        )
        for tensorflow, hassony, piergiaj, *sizes in rows:
            yield Unit(f"Mixed_{block}/{tensorflow}", f"mixed_{block}.{hassony}", f"Mixed_{block}.{piergiaj}", *sizes)


class Values(NamedTuple):
    """Of one unit; the kernel as TensorFlow has it, [T, H, W, I, O]."""

    kernel: Tensor
    beta: Tensor
    mean: Tensor
    variance: Tensor


@pytest.fixture(scope="module")
def values() -> dict[Unit, Values]:
    generator = torch.Generator().manual_seed(5)
    drawn = {}
    for unit in units():
        shape = (unit.size,) * 3 + (unit.source, unit.out)
        statistics = torch.rand(3, unit.out, generator=generator) + 0.3
        drawn[unit] = Values(torch.rand(shape, generator=generator) - 0.5, *statistics)
    return drawn


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Emptied at once, for pytest keeps folders, and these files have 50 MB."""
    yield tmp_path
    for file in tmp_path.iterdir():
        file.unlink()


KERNEL = torch.rand(1, 1, 1, 1024, CLASSES, generator=torch.Generator().manual_seed(6))
BIAS = torch.tensor([0.5, -1.5, 2.5, 3.5])


def tensorflow(values: dict[Unit, Values], prefix: str) -> dict[str, Tensor]:
    names = ("conv_3d/w", "batch_norm/beta", "batch_norm/moving_mean", "batch_norm/moving_variance")
    entries = {f"{prefix}Logits/Conv3d_0c_1x1/conv_3d/w": KERNEL, f"{prefix}Logits/Conv3d_0c_1x1/conv_3d/b": BIAS}
    for unit, of_unit in values.items():
        for name, value in zip(names, of_unit, strict=True):
            entries[f"{prefix}{unit.tensorflow}/{name}"] = value if value.ndim == 5 else value.view(1, 1, 1, 1, -1)
    return entries


def ported(values: dict[Unit, Values], *, field: str, norm: str, logits: str, counters: bool) -> dict[str, Tensor]:
    def torch_order(kernel: Tensor) -> Tensor:
        return torch.einsum("thwio->oithw", kernel).contiguous()

    entries = {f"{logits}.conv3d.weight": torch_order(KERNEL), f"{logits}.conv3d.bias": BIAS}
    for unit, of_unit in values.items():
        name = getattr(unit, field)
        entries[f"{name}.conv3d.weight"] = torch_order(of_unit.kernel)
        entries[f"{name}.{norm}.weight"] = torch.full((unit.out,), 0.75)
        entries[f"{name}.{norm}.bias"] = of_unit.beta
        entries[f"{name}.{norm}.running_mean"] = of_unit.mean
        entries[f"{name}.{norm}.running_var"] = of_unit.variance
        if counters:
            entries[f"{name}.{norm}.num_batches_tracked"] = torch.tensor(9)
    return entries


def i3d(classes: int = CLASSES, channels: int = CHANNELS) -> models.I3D:
    network = models.I3D(classes=classes, in_channels=channels)
    for name, parameter in network.named_parameters():
        if name.endswith("bn.weight"):
            torch.nn.init.constant_(parameter, 0.6)
    return network


def assert_arrived(network: models.I3D, values: dict[Unit, Values], *, gamma: float) -> None:
    for unit, expected in values.items():
        layer = network.get_submodule(unit.piergiaj)
        kernel = layer.conv3d.weight.detach()
        torch.testing.assert_close(kernel.permute(2, 3, 4, 1, 0), expected.kernel, rtol=0, atol=0, msg=str(unit))
        assert (layer.bn.weight == gamma).all(), unit
        assert torch.equal(layer.bn.bias, expected.beta), unit
        assert torch.equal(layer.bn.running_mean, expected.mean), unit
        assert torch.equal(layer.bn.running_var, expected.variance), unit


def assert_classifier_arrived(network: models.I3D) -> None:
    assert torch.equal(network.logits.conv3d.bias, BIAS)
    assert network.logits.conv3d.weight[3, 700, 0, 0, 0] == KERNEL[0, 0, 0, 700, 3]
    assert torch.equal(network.logits.conv3d.weight[2].flatten(), KERNEL[..., 2].flatten())


@pytest.mark.parametrize("prefix", ["RGB/inception_i3d/", "Flow/inception_i3d/", ""])
def test_tensorflow(folder: Path, values: dict[Unit, Values], prefix: str) -> None:
    entries = tensorflow(values, prefix)
    assert f"{prefix}Mixed_5b/Branch_2/Conv3d_0a_3x3/conv_3d/w" in entries
    np.savez(folder / "i3d.npz", **{name: value.numpy() for name, value in entries.items()})
    network = i3d()
    report = models.load_weights(network, folder / "i3d.npz")
    assert (report.format, report.matched) == ("tensorflow-i3d", 57 * 5 + 2)
    assert (report.skipped, report.missing) == ({}, ())
    assert_arrived(network, values, gamma=1)
    assert_classifier_arrived(network)
    # One element by hand: time 1, row 2, column 5, input channel 1, output channel 30.
    assert (
        network.Conv3d_1a_7x7.conv3d.weight[30, 1, 1, 2, 5]
        == entries[f"{prefix}Conv3d_1a_7x7/conv_3d/w"][1, 2, 5, 1, 30]
    )


def test_tensorflow_state_dict(folder: Path, values: dict[Unit, Values]) -> None:
    """Names of variables with their output number; a counter and the optimizer's slots are skipped."""
    entries = {f"{name}:0": value for name, value in tensorflow(values, "RGB/inception_i3d/").items()}
    slot = "RGB/inception_i3d/Conv3d_1a_7x7/conv_3d/w/Momentum:0"
    torch.save(entries | {slot: torch.rand(3), "global_step": torch.tensor(7)}, folder / "i3d.pt")
    network = i3d(classes=7)
    before = network.logits.conv3d.weight.clone()
    report = models.load_weights(network, folder / "i3d.pt")
    logits = "RGB/inception_i3d/Logits/Conv3d_0c_1x1/conv_3d"
    assert report.skipped == {
        slot: "I3D has no such entry",
        "global_step": "I3D has no such entry",
        f"{logits}/w:0": "classifier of another size: [4, 1024, 1, 1, 1], the model's is [7, 1024, 1, 1, 1]",
        f"{logits}/b:0": "classifier of another size: [4], the model's is [7]",
    }
    assert report.missing == ("logits.conv3d.weight", "logits.conv3d.bias")
    assert_arrived(network, values, gamma=1)
    assert torch.equal(network.logits.conv3d.weight, before)


def test_tensorflow_kernel_of_wrong_shape(folder: Path) -> None:
    torch.save({"Conv3d_1a_7x7/conv_3d/w": torch.rand(7, 7, 2, 64)}, folder / "i3d.pt")
    with pytest.raises(ValueError, match=r"Conv3d_1a_7x7/conv_3d/w must be \[T, H, W, I, O\]; got shape \[7, 7, 2, 64"):
        models.load_weights(i3d(), folder / "i3d.pt")


@pytest.mark.parametrize("wrapper", ["", "module."])
@pytest.mark.parametrize("counters", [False, True])
@pytest.mark.parametrize(
    ("name", "field", "norm", "logits"),
    [("hassony2-i3d", "hassony", "batch3d", "conv3d_0c_1x1"), ("piergiaj-i3d", "piergiaj", "bn", "logits")],
)
def test_ports(
    folder: Path,
    values: dict[Unit, Values],
    name: str,
    field: str,
    norm: str,
    logits: str,
    counters: bool,
    wrapper: str,
) -> None:
    entries = ported(values, field=field, norm=norm, logits=logits, counters=counters)
    torch.save({wrapper + key: value for key, value in entries.items()}, folder / "i3d.pt")
    network = i3d()
    report = models.load_weights(network, folder / "i3d.pt")
    # With counters, piergiaj's names are exactly those of pyaction's I3D.
    assert report.format == ("pyaction" if counters and field == "piergiaj" else name)
    assert report.matched == len(entries) == 57 * (6 if counters else 5) + 2
    assert (report.skipped, report.missing) == ({}, ())
    assert_arrived(network, values, gamma=0.75)
    assert_classifier_arrived(network)
    assert network.Mixed_4c.b2b.bn.num_batches_tracked == (9 if counters else 0)
    again = models.load_weights(i3d(), folder / "i3d.pt", name)
    assert again.matched == report.matched


def test_other_modality(folder: Path, values: dict[Unit, Values]) -> None:
    entries = ported(values, field="piergiaj", norm="bn", logits="logits", counters=False)
    torch.save(entries, folder / "i3d.pt")
    rgb = i3d(channels=3)
    with pytest.raises(
        ValueError, match=r"must have shape \[64, 3, 7, 7, 7\]; got \[64, 2, 7, 7, 7\]; .*cross_modality"
    ):
        models.load_weights(rgb, folder / "i3d.pt")
    report = models.load_weights(rgb, folder / "i3d.pt", cross_modality=True)
    assert report.averaged == ("Conv3d_1a_7x7.conv3d.weight",)
    expected = entries["Conv3d_1a_7x7.conv3d.weight"].mean(1)
    torch.testing.assert_close(rgb.Conv3d_1a_7x7.conv3d.weight[:, 2].detach(), expected)
