"""The machine's ceiling for TV-L1's iterations, see ceiling.cpp."""

import os
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
CSRC = HERE.parent / "csrc"
# As CMakeLists.txt compiles the kernels. No warnings: gcc's own intrinsics give many.
FLAGS = ["-std=c++17", "-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-w"]
VECTORS = range(4, 17, 2)


class Ceiling:
    """Pixel-iterations per second of the arithmetic alone."""

    def __init__(self, folder: Path) -> None:
        self._program = folder / "ceiling"
        sources = ["-DPYACTION_SIMD_LEVEL=native", f"-I{CSRC}", str(HERE / "ceiling.cpp"), "-pthread"]
        subprocess.run([_compiler(), *FLAGS, *sources, "-o", str(self._program)], check=True)
        # As many at once as this processor likes best.
        self._vectors = max(VECTORS, key=lambda vectors: self._run(1, vectors, 0.05))

    def rate(self, threads: int, seconds: float) -> float:
        return self._run(threads, self._vectors, seconds)

    def _run(self, threads: int, vectors: int, seconds: float) -> float:
        command = [str(self._program), str(threads), str(vectors), str(seconds)]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def has_compiler() -> bool:
    return shutil.which(_compiler()) is not None


def _compiler() -> str:
    return os.environ.get("CXX") or "c++"
