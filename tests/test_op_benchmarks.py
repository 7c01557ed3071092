"""The parts of benchmarks/op_benchmark.py that time nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import bench_photometric
import bench_warp
import op_benchmark
import pytest
import render
import torch
from op_benchmark import Case, with_grad
from op_tables import all_methods
from peers.similarity import pooled_ssim
from torch import Tensor
from verification import Verification, VerificationError

from pyaction.ops import ssim


def giving(*values: float) -> Callable[[], list[Tensor]]:
    return lambda: [torch.tensor(values)]


def test_a_wrong_peer_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(op_benchmark, "interleaved", lambda *arguments: pytest.fail("it was timed"))
    for wrong in (giving(1.0, 2.3), giving(1.0, float("nan"))):
        cases = [Case("task", {"pyaction": giving(1.0, 2.0), "other": wrong}, 0.1)]
        assert op_benchmark.main("op", lambda device, quick, cases=cases: cases, ["--quick"]) == 1
        assert "Refused: task: result 0 of other" in capsys.readouterr().out.replace("\n", " ")


def test_a_difference_within_the_tolerance_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(op_benchmark, "COPIED_BYTES", {"cpu": 1 << 16})
    cases = [Case("task", {"pyaction": giving(1.0, 2.0), "other": giving(1.0, 2.1)}, 0.1, 8, compare_memory=True)]
    path = tmp_path / "result.json"
    assert op_benchmark.main("op", lambda device, quick: cases, ["--quick", "--json", str(path)]) == 0
    assert '"peak_bytes"' in path.read_text()


def test_a_tolerance_may_hold_for_a_share_of_the_elements() -> None:
    theirs = {  # differences, of 10 at most: whether 60 % of them are at most 0.2
        (0.1, 0.1, 5.0, 0.1, 5.0): True,
        (0.1, 5.0, 5.0, 0.1, 5.0): False,
        (0.1, 0.3, 5.0, 0.1, 0.1): True,
        (0.1, 0.1, 0.1, 0.1, float("nan")): False,
    }
    for differences, passes in theirs.items():
        other = giving(*(10 - difference for difference in differences))
        case = Case("task", {"pyaction": giving(*[10.0] * 5), "other": other}, 0.02, share=0.6)
        verification = Verification()
        if passes:
            op_benchmark._verify(case, verification)
        else:
            with pytest.raises(VerificationError):
                op_benchmark._verify(case, verification)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_is_refused_where_there_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    cases = pytest.fail
    assert op_benchmark.main("op", cases, ["--device", "cuda"]) == 1
    assert op_benchmark.main("op", cases, [], devices=("cuda",)) == 1
    assert capsys.readouterr().out.count("op on cuda needs a CUDA device, and torch sees none.") == 2


def test_peak_memory_is_seen() -> None:
    assert 63 <= op_benchmark._peak_bytes(lambda: [torch.ones(64, 1024, 256)], "cpu") / 2**20 < 72


def test_gradients_are_those_of_the_inputs_that_want_one() -> None:
    one, other = torch.tensor([2.0, 3.0]), torch.tensor([5.0, 7.0], requires_grad=True)
    output, grad = with_grad(torch.mul, [one, other])()
    assert output.tolist() == [10, 21] and grad.tolist() == [2, 3]


def test_photometric_peer_does_the_same() -> None:
    levels = [bench_photometric.level_of(size, "cpu", pairs=2) for size in (28, 7)]
    (case,) = (case for case in bench_photometric.cases("cpu", True) if "gradient" in case.name)
    methods = [bench_photometric.photometric_loss, bench_photometric.composed_loss]
    ours, theirs = (bench_photometric.losses_and_grads(function, levels)() for function in methods)
    for mine, expected in zip(ours, theirs, strict=True):
        assert (mine - expected).abs().max() <= case.tolerance * expected.abs().max()


def test_ssim_and_warp_peers_do_the_same() -> None:
    images = torch.rand(2, 1, 3, 32, 24)
    torch.testing.assert_close(pooled_ssim(*images, 8), ssim(*images), rtol=1e-3, atol=1e-4)
    for case in bench_warp.cases("cpu", True):
        ours, theirs = (run() for run in case.methods.values())
        assert (ours[-1] - theirs[-1]).abs().max() <= case.tolerance * theirs[-1].abs().max()


def test_tables_say_what_the_results_say() -> None:
    def method(name: str, seconds: float, **more: Any) -> dict[str, Any]:
        return {"method": name, "seconds": {"median": seconds, "iqr": seconds / 4, "rounds": 3}, **more}

    methods = [
        method("pyaction", 0.002, peak_bytes=2**20),
        method("slow", 0.03),
        method("fast", 0.01, peak_bytes=2**22),
    ]
    result = {
        **{"benchmark": "op", "device": "cpu", "threads": 2, "copy_bytes_per_second": 2e10},
        **{
            "date": "2030-01-02T03:04:05+00:00",
            "commit": "abc",
            "quick": False,
            "versions": dict.fromkeys(render.PEERS, "1.2"),
        },
        "machine": {"cpu": "Some CPU", "cores": 2, "simd": "avx2"},
        "cases": [{"case": "task", "least_bytes": 10**7, "methods": methods, "published": {"paper": 0.004}}],
    }
    assert all_methods(result).rows[0] == ["task", "pyaction", "2", "25 %", "25 %", "1", "1"]
    assert all_methods(result).rows[1] == ["task", "slow", "30", "25 %", "2 %", "15", "–"]
    assert all_methods(result).rows[3] == ["task", "paper", "4", "–", "12 %", "2", "–"]
    assert render.ops_markdown([result]).startswith("Some CPU, 2 cores, avx2; 2030-01-02, commit abc; torch 1.2, ")
    for wrong in ({**result, "quick": True}, {**result, "machine": {**result["machine"], "cores": 3}}):  # type: ignore[dict-item]
        with pytest.raises(ValueError, match="quick run|one machine"):
            render.ops_markdown([result, wrong])
    assert "| op | task | 2 | 25 % | fast | 10 | 5 | 4 |" in render.ops_markdown([result])
