"""The examples in the docstrings of the installed package; README.md is collected by pytest itself."""

import doctest
import importlib
import pkgutil

import pytest

import pyaction

MODULES = [info.name for info in pkgutil.walk_packages(pyaction.__path__, "pyaction.") if not info.name.endswith("._C")]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder()
    modules = [importlib.import_module(name) for name in MODULES]
    assert sum(len(test.examples) for module in modules for test in finder.find(module)) > 20
