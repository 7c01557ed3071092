"""The parts of benchmarks/bench_models.py that time nothing."""

import json
from collections.abc import Callable
from pathlib import Path

import bench_models
import pytest
import render
import torch
from bench_models import ENTRIES, QUICK
from model_tables import model_table
from peers.networks import PlainI3D, PlainMotionNet, PlainTSN, with_weights_of
from torch import nn
from torch.utils._pytree import tree_leaves

from pyaction import models


@pytest.mark.parametrize(
    ("make", "plain", "shape"),
    [
        (lambda: bench_models.tsn(3), lambda: PlainTSN(bench_models.CLASSES), (3, 3, 64, 96)),
        (lambda: models.I3D(classes=7), lambda: PlainI3D(7), (17, 3, 33, 64)),
        (models.MotionNet, PlainMotionNet, (11, 3, 32, 64)),
    ],
    ids=["tsn", "i3d", "motionnet"],
)
@torch.no_grad()
def test_plain_code_gives_the_same(
    make: Callable[[], nn.Module], plain: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    """With weights, statistics and scales that are not those of the start."""
    network = make().eval()
    for name, value in network.state_dict().items():
        if name.endswith(("running_mean", "running_var", "bn.weight", "bn.bias")):
            value.uniform_(0.5, 1.5)
    video = torch.rand(2, *shape)
    expected, actual = (tree_leaves(each(video)) for each in (network, with_weights_of(network, plain())))
    for theirs, ours in zip(actual, expected, strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5 * float(ours.abs().max()))


def test_every_network_takes_its_video() -> None:
    """Without memory or computation."""
    for entry in ENTRIES.values():
        with torch.device("meta"):
            scores = entry.make().eval()(*(torch.empty(1, *shape) for shape in entry.shapes))
        assert all(len(value) == 1 for value in tree_leaves(scores))
    assert set(QUICK) < set(ENTRIES)


def result(quick: bool = False) -> dict[str, object]:
    def row(name: str, seconds: float) -> dict[str, object]:
        return {"method": name, "seconds": {"median": seconds, "iqr": seconds / 50, "rounds": 7}}

    case = {"case": "MotionNet", "least_bytes": 0, "frames": 10, "published": {bench_models.PAPER: 10 / 370}}
    case["methods"] = [row("pyaction", 0.25), row("for_inference", 0.125), row("for_inference, bfloat16", 0.0625)]
    machine = {"cpu": "a CPU", "cores": 3, "simd": "avx2"}
    head = {"benchmark": "models", "device": "cpu", "quick": quick, "threads": 3, "date": "2026-05-04T03:02:01"}
    return {**head, "machine": machine, "versions": {"torch": "2.99"}, "commit": "abc", "cases": [case]}


def test_table() -> None:
    table = model_table(result())
    assert "2 %" in table.title
    assert table.rows == [["MotionNet", "250", "125", "62.5", "–", "–", "80", "160", "370"]]


def test_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of the networks goes to its own place, and not among the ops."""
    readme, file = tmp_path / "README.md", tmp_path / "models.json"
    text = "a\n\n<!-- ops benchmark -->\nops\n<!-- end -->\nb\n<!-- models benchmark -->\n{}\n<!-- end -->\nc\n"
    readme.write_text(text.format("old"))
    file.write_text(json.dumps(result()))
    monkeypatch.setattr("sys.argv", ["render.py", str(file), "--readme", str(readme)])
    render.main()
    markdown = "\na CPU, 3 cores, avx2; 2026-05-04, commit abc; torch 2.99.\n\n" + render._table(model_table(result()))
    assert readme.read_text() == text.format(markdown + "\n")
    file.write_text(json.dumps(result(quick=True)))
    with pytest.raises(ValueError, match="a quick run is not for the README"):
        render.main()
