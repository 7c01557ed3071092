import os
import sys
import types
from pathlib import Path

import numpy as np
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


@pytest.mark.parametrize("prefix", ["", "model.", "module.", "model.module."])
@pytest.mark.parametrize("nested", [False, True])
def test_own_files(file: Path, prefix: str, nested: bool) -> None:
    values = filled(Small())
    content: dict[str, object] = {prefix + name: value for name, value in values.items()}
    torch.save({"state_dict": content, "epoch": 4} if nested else content, file)
    network = Small()
    report = models.load_weights(network, file)
    assert report == models.LoadReport("pyaction", 9, {}, (), None)
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


def test_network_with_a_module_called_model(file: Path) -> None:
    network, values = nn.ModuleDict({"model": Small()}), filled(nn.ModuleDict({"model": Small()}))
    torch.save(values, file)
    models.load_weights(network, file)
    assert_same(network.state_dict(), values)


def test_files_before_torch_1_6(file: Path) -> None:
    torch.save(filled(Small()), file, _use_new_zipfile_serialization=False)
    assert models.load_weights(Small(), file).matched == 9


def test_npz(tmp_path: Path) -> None:
    values = filled(Small())
    np.savez(tmp_path / "weights.npz", **{name: value.numpy() for name, value in values.items()})
    network = Small()
    models.load_weights(network, tmp_path / "weights.npz")
    assert_same(network.state_dict(), values)


def test_safetensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "weights.safetensors"
    file.touch()
    values = filled(Small())
    reader = types.ModuleType("safetensors.torch")
    reader.load_file = lambda path: {file: values}[path]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "safetensors", types.ModuleType("safetensors"))
    monkeypatch.setitem(sys.modules, "safetensors.torch", reader)
    network = Small()
    models.load_weights(network, file)
    assert_same(network.state_dict(), values)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)  # type: ignore[arg-type]
    with pytest.raises(ImportError, match="weights.safetensors needs `pip install safetensors`"):
        models.load_weights(network, file)


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


def test_missing(file: Path) -> None:
    values = filled(Small())
    del values["bn.running_var"], values["bn.num_batches_tracked"]
    torch.save(values, file)
    report = models.load_weights(Small(), file)
    assert report.missing == ("bn.running_var",)
    assert report.skipped == {}


def test_long_report() -> None:
    report = models.LoadReport("torchvision", 34, {}, ("a", "b", "c", "d", "e"), "conv1.weight")
    assert str(report) == (
        "Loaded 34 entries in the format torchvision. Averaged conv1.weight over its input channels. "
        "Missing 5 of the model: a, b, c and 2 more."
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
    assert report.averaged == "conv.weight"
    for channel in range(10):
        torch.testing.assert_close(flow.conv.weight[:, channel].detach(), values["conv.weight"].mean(1))
    torch.testing.assert_close(flow.conv.bias.detach(), values["conv.bias"], rtol=0, atol=0)


def test_cross_modality_changes_nothing_that_fits(file: Path) -> None:
    values = filled(Small())
    torch.save(values, file)
    network = Small()
    assert models.load_weights(network, file, cross_modality=True).averaged is None
    assert_same(network.state_dict(), values)
    torch.save(filled(models.FuseNet(classes=3)), file)  # no convolution
    assert models.load_weights(models.FuseNet(classes=3), file, cross_modality=True).matched == 4


OTHER_SHAPE = filled(Small()) | {"bn.weight": torch.rand(1, 6)}
INTEGERS = filled(Small()) | {"bn.weight": torch.arange(6)}
SPARSE = filled(Small()) | {"bn.weight": torch.rand(6).to_sparse()}
META = filled(Small()) | {"bn.weight": torch.rand(6, device="meta")}
TWICE = filled(Small()) | {"model.bn.weight": torch.rand(6)}
FOREIGN = {f"encoder.layer.{i}.weight": torch.rand(3) for i in range(5)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (OTHER_SHAPE, r"bn.weight of .*weights.pt must have shape \[6\]; got \[1, 6\]$"),
        (INTEGERS, r"bn.weight of .* must be a dense tensor of floating point; got torch.int64, torch.strided"),
        (SPARSE, r"bn.weight of .* must be a dense tensor of floating point; got torch.float32, torch.sparse_coo"),
        (META, r"bn.weight of .* must be a dense tensor"),
        (TWICE, r"weights.pt has bn.weight twice, as bn.weight and as model.bn.weight"),
        (FOREIGN, r"no known format; its keys are encoder.layer.0.weight, .*, encoder.layer.2.weight and 2 more$"),
        (
            {"conv.bias": torch.rand(6), "fc.weight": torch.rand(5, 6), "fc.bias": torch.rand(5)},
            r"weights.pt, in the format pyaction, has 3% of the weights of Small, less than half; its keys are conv.b",
        ),
        ({"epoch": 3}, "is no checkpoint: it must hold tensors by name"),
        ([torch.rand(6)], "is no checkpoint: it must hold tensors by name"),
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


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 broken", b"\x80\x02}q\x00"])
@pytest.mark.parametrize("name", ["weights.pt", "weights.npz"])
def test_no_checkpoint(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} is no checkpoint, or a broken one"):
        models.load_weights(Small(), tmp_path / name)


def test_no_such_file(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"path must be a checkpoint; there is no file {path}"):
            models.load_weights(Small(), path)


def test_no_such_format(file: Path) -> None:
    torch.save(filled(Small()), file)
    with pytest.raises(ValueError, match="'auto' or one of tensorflow-i3d, .*, pyaction; got 'caffe'"):
        models.load_weights(Small(), file, "caffe")


def test_wrong_format(file: Path) -> None:
    torch.save(filled(Small()), file)
    with pytest.raises(ValueError, match="has 0% of the weights of I3D"):
        models.load_weights(models.I3D(classes=2), file, "tensorflow-i3d")


class Code:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_not_run(tmp_path: Path, zipped: bool) -> None:
    trace = tmp_path / "trace"
    content = {**filled(Small()), "code": Code(trace)}
    torch.save(content, tmp_path / "weights.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"weights.pt holds posix.mkdir, which only running its code could load"):
        models.load_weights(Small(), tmp_path / "weights.pt")
    np.savez(tmp_path / "weights.npz", code=np.array([Code(trace)], dtype=object))
    with pytest.raises(ValueError, match=r"weights.npz holds a pickled array, which only running its code could load"):
        models.load_weights(Small(), tmp_path / "weights.npz")
    assert not trace.exists()
