"""Files are read whole, whatever lies in them beside the weights, and nothing in them is run."""

import argparse
import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pyaction.models import FuseNet, load_weights
from pyaction.models.checkpoint_files import read_checkpoint

WEIGHTS = {"fc.weight": torch.tensor([[0.5, 2.0, -3.0]]), "fc.bias": torch.tensor([7.0])}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "weights.pt"


def assert_weights(content: dict[str, object]) -> None:
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    torch.testing.assert_close(tensors, WEIGHTS, rtol=0, atol=0)


@pytest.mark.parametrize("zipped", [True, False], ids=["now", "before torch 1.6"])
def test_state_dict(file: Path, zipped: bool) -> None:
    torch.save(WEIGHTS, file, _use_new_zipfile_serialization=zipped)
    assert_weights(read_checkpoint(file))


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": WEIGHTS, "epoch": 4, "best_prec1": torch.tensor(71.5)},
        {"model": WEIGHTS, "optimizer": {"state": {0: {"momentum": torch.rand(3)}}}},
        {"model_state_dict": WEIGHTS, "model": "FuseNet"},
        {"model": {"state_dict": WEIGHTS, "scale": torch.tensor(2.5)}},
        {"model": {"hidden": 256}, "state_dict": WEIGHTS},
        WEIGHTS | {"model": {"hidden": 256}, "state_dict": "above"},
    ],
)
def test_wrappers(file: Path, content: object) -> None:
    torch.save(content, file)
    assert_weights(read_checkpoint(file))


@pytest.mark.parametrize("zipped", [True, False])
def test_what_training_scripts_keep_beside(file: Path, zipped: bool) -> None:
    beside = {
        "best_prec1": np.float64(71.5),
        "epoch": np.int64(4),
        "args": argparse.Namespace(arch="resnet50", lr=np.float32(0.3), paths=["a", "b"]),
    }
    allowed = set(torch.serialization.get_safe_globals())
    torch.save({"state_dict": WEIGHTS, **beside}, file, _use_new_zipfile_serialization=zipped)
    assert_weights(read_checkpoint(file))
    torch.save(WEIGHTS | beside, file, _use_new_zipfile_serialization=zipped)
    content = read_checkpoint(file)
    assert_weights(content)
    # Neither numpy nor argparse has made anything of what the file says; and torch.load is as strict as before.
    assert not any(isinstance(value, (np.generic, argparse.Namespace)) for value in content.values())
    assert set(torch.serialization.get_safe_globals()) == allowed


class Forged:
    """A numpy scalar whose bytes would be taken for the address of an object."""

    def __reduce__(self) -> tuple[object, tuple[object, bytes]]:
        scalar = np.float64(2.5).__reduce__()[0]
        return scalar, (np.dtype("O"), b"\x08" * 8)


def test_forged_scalar(file: Path) -> None:
    torch.save(WEIGHTS | {"forged": Forged()}, file)
    assert_weights(read_checkpoint(file))


class Code:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_not_run(tmp_path: Path, zipped: bool, inside: bool) -> None:
    """Nor inside of what is passed over."""
    trace, file = tmp_path / "trace", tmp_path / "weights.pt"
    code = argparse.Namespace(code=Code(trace)) if inside else Code(trace)
    torch.save(WEIGHTS | {"code": code}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        ValueError, match=r"weights.pt holds posix.mkdir, which only .* where you trust it, .* save its"
    ):
        read_checkpoint(file)
    np.savez(tmp_path / "weights.npz", code=np.array([Code(trace)], dtype=object))
    with pytest.raises(ValueError, match=r"weights.npz holds a pickled array, which only running its code could load"):
        read_checkpoint(tmp_path / "weights.npz")
    assert not trace.exists()


def test_whole_network(file: Path) -> None:
    """Which torch.save writes as a reference to its class."""
    torch.save({"state_dict": FuseNet(classes=3)}, file)
    message = r"^models.load_weights: .* holds pyaction.models.fusenet.FuseNet, which .* torch.save\(network.state_dict"
    with pytest.raises(ValueError, match=message):
        load_weights(FuseNet(classes=3), file)


def test_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "weights.npz", **{name: value.numpy() for name, value in WEIGHTS.items()})
    assert_weights(read_checkpoint(tmp_path / "weights.npz"))


def test_safetensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "weights.safetensors"
    file.touch()
    reader = types.ModuleType("safetensors.torch")
    reader.load_file = lambda path: {file: WEIGHTS}[path]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "safetensors", types.ModuleType("safetensors"))
    monkeypatch.setitem(sys.modules, "safetensors.torch", reader)
    assert_weights(read_checkpoint(file))
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)  # type: ignore[arg-type]
    with pytest.raises(ImportError, match="weights.safetensors needs `pip install safetensors`"):
        read_checkpoint(file)


@pytest.mark.parametrize("content", [{"epoch": 3}, {"model": {"epoch": 3}}, [torch.rand(6)], torch.rand(6)])
def test_no_weights(file: Path, content: object) -> None:
    torch.save(content, file)
    with pytest.raises(ValueError, match="is no checkpoint: it must hold tensors by name"):
        read_checkpoint(file)


def test_wrapper_of_itself(file: Path) -> None:
    content: dict[str, object] = {"epoch": 3}
    content["model"] = content
    torch.save(content, file)
    with pytest.raises(ValueError, match=r"is no checkpoint, or a broken one \(RecursionError\)"):
        read_checkpoint(file)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 broken", b"\x80\x02}q\x00"])
@pytest.mark.parametrize("name", ["weights.pt", "weights.npz"])
def test_no_checkpoint(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} is no checkpoint, or a broken one"):
        read_checkpoint(tmp_path / name)


def test_no_such_file(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"path must be a checkpoint; there is no file {path}"):
            read_checkpoint(path)
