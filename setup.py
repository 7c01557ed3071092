"""Drives CMake for the native module; everything else about the package is in pyproject.toml."""

import os
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext


class CMakeBuild(build_ext):
    """Builds `pyaction._C` with the sources and flags of CMakeLists.txt."""

    def build_extension(self, ext: Extension) -> None:
        """Configures and builds in setuptools' temporary folder, straight into the package."""
        source = Path(__file__).parent.resolve()
        output = Path(self.get_ext_fullpath(ext.name)).parent.resolve()
        build = Path(self.build_temp).resolve() / ext.name
        configure = [
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={output}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-DPYACTION_CUDA={os.environ.get('PYACTION_CUDA', 'auto')}",
            f"-DPYACTION_CUDA_ARCHITECTURES={os.environ.get('TORCH_CUDA_ARCH_LIST', '')}",
        ]
        subprocess.run(["cmake", "-S", source, "-B", build, "-G", "Ninja", *configure], check=True)
        subprocess.run(["cmake", "--build", build, "--target", "_C"], check=True)


setup(ext_modules=[Extension("pyaction._C", sources=[])], cmdclass={"build_ext": CMakeBuild})
