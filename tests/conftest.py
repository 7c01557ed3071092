"""Marks and fixtures of the whole suite."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from simt.harness import cuda_kernels_on_cpu, product


def pytest_runtest_setup(item: pytest.Item) -> None:
    """GPU tests are skipped without a GPU, unless the run is there to test the GPU."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        if os.environ.get("PYACTION_REQUIRE_GPU") == "1":
            pytest.fail("PYACTION_REQUIRE_GPU=1, but torch sees no CUDA device")
        pytest.skip("no CUDA device")


# What torch and Python do does not depend on whose kernels run; and gradients are compared with the reference's.
NOT_ABOUT_KERNELS = ("test_opcheck", "test_compile", "test_gradcheck", "test_second_derivative", "test_gradient_is_re")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Emulated kernels are slow: they run where they make the difference."""

    def is_about_kernels(item: pytest.Item) -> bool:
        values = item.callspec.params if hasattr(item, "callspec") else {}
        in_python = values.get("distance") == "euclidean" or values.get("reduction", "mean") != "mean"
        return not in_python and not item.name.startswith(NOT_ABOUT_KERNELS)

    items[:] = [item for item in items if item.get_closest_marker("simt") is None or is_about_kernels(item)]


@pytest.fixture(scope="session")
def cuda_kernels() -> None:
    """Compiles them for the CPU: once, also where that fails."""
    product()


SIMT, CUDA = pytest.param("simt", marks=pytest.mark.simt), pytest.param("cuda", marks=pytest.mark.gpu)


@pytest.fixture(params=["cpu", SIMT, CUDA])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each device that has kernels; and "simt", the CPU with the kernels of CUDA."""
    yield from _with_kernels(request)


@pytest.fixture(params=[SIMT, CUDA])
def cuda_device(request: pytest.FixtureRequest) -> Iterator[str]:
    """For what CUDA's kernels alone can do. The public functions take "simt" for the CPU: call torch.ops.pyaction."""
    yield from _with_kernels(request)


def _with_kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param != "simt":
        yield request.param
        return
    request.getfixturevalue("cuda_kernels")
    with cuda_kernels_on_cpu():
        yield "cpu"


@pytest.fixture(scope="session", autouse=True)
def _outside_the_source_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """In it, a child process would find the folder pyaction, with nothing compiled in it, before the installed one."""
    os.chdir(tmp_path_factory.mktemp("elsewhere"))


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    torch.manual_seed(20)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real videos, flows and annotation files; tests that need it are skipped without it."""
    folder = os.environ.get("PYACTION_TEST_DATA")
    if not folder:
        pytest.skip("PYACTION_TEST_DATA is not set")
    return Path(folder)
