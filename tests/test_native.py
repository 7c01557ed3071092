"""The compiled module: its facts, its symbols, and what its loading costs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import pyaction
from pyaction import _native, ops

ROOT = Path(__file__).parents[1]
BINARY = Path(_native._C.__file__)
LEVELS = ["baseline", "avx2", "avx512"]


def symbols(*arguments: str) -> list[str]:
    assert shutil.which("nm"), "binutils' nm is needed, as the compiler itself needs binutils"
    return subprocess.run(["nm", *arguments], check=True, capture_output=True, text=True).stdout.splitlines()


def test_build_facts() -> None:
    facts = _native.build_facts()
    assert facts["version"] == pyaction.__version__
    assert facts["torch_target"] == "2.11"
    assert facts["compiler"].startswith("g++ ")
    assert facts["simd_levels"].split()[0] == "baseline"
    assert _native.simd_level() in facts["simd_levels"].split()
    assert bool(facts["cuda_version"]) == bool(facts["cuda_architectures"])


def test_every_op_has_its_kernels() -> None:
    devices = ["CPU", "CUDA"] if _native.build_facts()["cuda_version"] else ["CPU"]
    private = ("warp_grad_flow", "warp_grad_image", "ssim_grad", "hardest_pairs")
    for op in (*ops.OPS, *private):
        for device in devices:
            assert torch._C._dispatch_has_kernel_for_dispatch_key(f"pyaction::{op}", device), (op, device)


def test_only_the_stable_abi_of_torch_is_used() -> None:
    """No C++ symbol of at::, c10:: or torch:: is wanted from outside: those change from release to release."""
    undefined = [line.split()[-1] for line in symbols("-D", "--undefined-only", str(BINARY))]
    assert any(name.startswith("aoti_torch_") for name in undefined)
    mangled = [name for name in undefined if name.startswith(("_ZN2at", "_ZNK2at", "_ZN3c10", "_ZNK3c10", "_ZN5torch"))]
    assert mangled == []


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="one instruction set only")
@pytest.mark.parametrize("source", sorted(ROOT.glob("csrc/*/*_cpu.cpp")), ids=lambda path: path.stem)
def test_kernels_of_one_instruction_set_stay_private(source: Path, tmp_path: Path) -> None:
    """A symbol that the linker may merge could put AVX-512 code into the baseline."""
    binary = tmp_path / "kernels.o"
    flags = ["-std=c++17", "-O3", "-march=x86-64-v4", "-DPYACTION_SIMD_LEVEL=avx512", f"-I{ROOT / 'csrc'}"]
    compiler = os.environ.get("CXX", "g++")
    subprocess.run([compiler, *flags, "-w", "-c", str(source), "-o", str(binary)], check=True)
    defined = [line.split()[-2:] for line in symbols("-C", "--defined-only", str(binary))]
    assert [name for kind, name in defined if kind in "WVu"] == []
    shared = [name for kind, name in defined if kind in "TDRB"]
    assert shared and all(name.startswith("pyaction::avx512::") for name in shared)


@pytest.mark.parametrize("level", LEVELS)
def test_ops_on_every_instruction_set(level: str) -> None:
    supported = LEVELS[: LEVELS.index(_native.simd_level()) + 1]
    if level not in supported:
        pytest.skip(f"this CPU has no {level}")
    chosen = ["-m", "not simt", "-k", "reference or gradcheck"]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *chosen]
    environment = {**os.environ, "PYACTION_SIMD": level}
    ops = ("warp", "ssim", "photometric", "triplet_kernels")
    tests = [str(ROOT / "tests/ops" / f"test_{op}.py") for op in ops]
    run = subprocess.run(
        [*command, *tests], env=environment, cwd=ROOT / "tests", capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout[-3000:]


def test_import_is_light() -> None:
    """`import pyaction` brings in no decoder, trainer or plotting package."""
    heavy = "av torchvision rich matplotlib lightning numba cv2"
    code = (
        "import sys, torch; before = set(sys.modules); import pyaction; "
        f"print(sorted(set('{heavy}'.split()) & (set(sys.modules) - before)))"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "[]"


def test_missing_module_says_what_to_do(tmp_path: Path) -> None:
    """A source folder on the path, with nothing compiled in it."""
    shutil.copytree(ROOT / "pyaction", tmp_path / "pyaction", ignore=shutil.ignore_patterns("*.so"))
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import pyaction"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert run.returncode == 1
    assert "kernels could not be loaded" in run.stderr and "pip install" in run.stderr
