"""What ptxas makes of the CUDA kernels with the product's own flags: no variable may end up in memory.

A spilled register or an array on the stack costs a round trip through the cache wherever it is used, and nothing else
tells of it.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from simt.harness import kernels_in_sources

ROOT = Path(__file__).parents[1]
ARCHITECTURES = ["8.0", "9.0", "12.0"]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of nvcc, about all kernels for all these architectures. CMake finds it, as it does for the product."""
    folder = tmp_path_factory.mktemp("build")
    # Programs that pip has installed are beside Python, also where the environment is not activated.
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    definitions = {
        "PYACTION_CUDA": "on",
        "PYACTION_CUDA_ARCHITECTURES": ";".join(ARCHITECTURES),
        "Python_EXECUTABLE": sys.executable,
        "CMAKE_CUDA_FLAGS": "-Xptxas=-v",
    }
    options = [f"-D{name}={value}" for name, value in definitions.items()]

    def cmake(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["cmake", *arguments], env=environment, capture_output=True, text=True, check=False)

    try:
        configured = cmake("-S", ROOT, "-B", folder, "-G", "Ninja", *options)
        problem = configured.stderr if configured.returncode else ""
    except FileNotFoundError:
        problem = "cmake is not installed"
    if problem and os.environ.get("PYACTION_REQUIRE_NVCC") != "1":
        pytest.skip(f"what compiles CUDA kernels is not there: {' '.join(problem.split())[:300]}")
    assert not problem, problem
    built = cmake("--build", folder, "--target", "kernels_cuda")
    assert built.returncode == 0, built.stdout + built.stderr
    return built.stdout


def kernels_in(report: str) -> list[tuple[str, str, str]]:
    """Mangled name, architecture, and what ptxas says of each kernel and of what it calls."""
    kernels = []
    for part in report.split("Compiling entry function ")[1:]:
        head = re.match(r"'(\w+)' for '(sm_\d+)'\n", part)
        assert head, part
        kernels.append((head[1], head[2], part[head.end() :]))
    return kernels


def test_every_kernel_is_compiled(report: str) -> None:
    kernels = kernels_in_sources()
    assert kernels
    for architecture in ARCHITECTURES:
        number = "sm_" + architecture.replace(".", "")
        names = " ".join(name for name, target, _ in kernels_in(report) if target == number)
        assert {kernel for kernel in kernels if f"{len(kernel)}{kernel}" not in names} == set(), number


def test_no_kernel_needs_local_memory(report: str) -> None:
    needy = []
    for name, architecture, text in kernels_in(report):
        sizes = re.findall(r"(\d+) bytes (?:stack frame|spill stores|spill loads)", text)
        assert sizes and len(sizes) % 3 == 0, text
        if any(size != "0" for size in sizes):
            needy.append(f"{name} for {architecture}: {text}")
    assert not needy, "\n".join(needy)
