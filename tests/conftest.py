"""Marks and fixtures of the whole suite."""

import os
from pathlib import Path

import pytest
import torch


def pytest_runtest_setup(item: pytest.Item) -> None:
    """GPU tests are skipped without a GPU, unless the run is there to test the GPU."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        if os.environ.get("PYACTION_REQUIRE_GPU") == "1":
            pytest.fail("PYACTION_REQUIRE_GPU=1, but torch sees no CUDA device")
        pytest.skip("no CUDA device")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """Each device that has kernels."""
    return request.param


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
