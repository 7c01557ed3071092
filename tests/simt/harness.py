"""Compiles the CUDA kernels for the CPU and puts them in the place of the CPU kernels.

The sources are the ones that nvcc gets. CUDA's header is that of `include/`, a launch, `<<<...>>>`, which is no C++, is
spelled as a call, and a kernel begins by telling its name. How they run: `emulator.cpp`.
"""

import ctypes
import functools
import hashlib
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import torch

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
ORDERS = ("ascending", "descending", "random")  # of the threads' turns, in the numbers of simt_set_order
_LAUNCH = re.compile(r"(\w+)<<<(.+?)>>>\(")
_KERNEL = re.compile(r"__global__[^{;]*\b(\w+)\([^()]*\) \{")


def build(sources: list[Path], sanitize: str = "") -> Path:
    """A library of the sources and the emulator. What has been compiled before is taken from the user's cache.

    Args:
        sources: C++, or CUDA kernels and the code that launches them.
        sanitize: A list for -fsanitize. The process that loads the library needs the sanitizers' own beforehand.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pyaction-simt"
    compiler = os.environ.get("CXX") or "c++"
    flags = _flags(sanitize)
    headers = [path for path in sorted(CSRC.rglob("*")) if path.suffix in (".h", ".cuh")]
    contents = [path.read_bytes() for path in (Path(__file__), *headers, *sorted(HERE.rglob("*.h")))]
    common = _digest(compiler, torch.__version__, *flags, *contents)
    spelled = cache / f"include-{common}"
    for header in headers:
        text = _spelled(header)
        _make(spelled / header.relative_to(CSRC), lambda part, text=text: part.write_text(text))
    torch_folder = Path(torch.__file__).parent
    includes = [*(f"-I{folder}" for folder in (spelled, HERE / "include", CSRC)), f"-isystem{torch_folder / 'include'}"]

    def compiled(source: Path) -> Path:
        text = _spelled(source)
        target = cache / f"{source.stem}-{_digest(common, text)}.o"
        command = [compiler, *flags, *includes, f"-I{source.parent}", "-x", "c++", "-c", "-"]
        return _make(target, lambda part: subprocess.run([*command, "-o", part], input=text, text=True, check=True))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compiled, [HERE / "emulator.cpp", *sources]))
    target = cache / f"simt-{_digest(*(path.name for path in objects))}.so"
    command = [compiler, *flags, "-shared", "-Wl,-Bsymbolic", *objects, f"-L{torch_folder / 'lib'}", "-ltorch_cpu"]
    return _make(target, lambda part: subprocess.run([*command, "-o", part], check=True))


def _spelled(source: Path) -> str:
    text = _LAUNCH.sub(r"simt::launch(\1, \2)(", source.read_text())
    return f'#line 1 "{source}"\n' + _KERNEL.sub(r"\g<0> simt::enter(__func__);", text)


def _flags(sanitize: str) -> list[str]:
    # No contraction: TV-L1 decides itself what is fused, and as on a GPU it can be.
    flags = ["-std=c++17", "-O2", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off"]
    if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512"):
        flags += ["-mavx2", "-mfma"]
    if sanitize:
        flags += [f"-fsanitize={sanitize}", "-fno-sanitize-recover=all", "-g"]
    return [*flags, "-DTORCH_TARGET_VERSION=0x020b000000000000", "-DUSE_CUDA", "-Dpyaction=pyaction_simt"]


def _digest(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part if isinstance(part, bytes) else part.encode()).digest())
    return digest.hexdigest()[:16]


def _make(target: Path, make: Callable[[Path], object]) -> Path:
    """Calls make(path) unless the target is there. It gets its name when it is complete: others may look for it."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_suffix(f".{os.getpid()}{target.suffix}")
        make(part)
        part.replace(target)
    return target


def load(library: Path) -> ctypes.CDLL:
    """Registers the ops of a library."""
    torch.ops.load_library(library)
    return ctypes.CDLL(str(library))


@functools.cache
def product() -> ctypes.CDLL:
    """The library of all ops of pyaction, as torch.ops.pyaction_simt.*: the CUDA kernels for CPU tensors.

    With PYACTION_SIMT_SANITIZE=address,undefined it is compiled with these sanitizers; run pytest with
    ``LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libstdc++.so)"`` then.
    """
    sources = [CSRC / "library.cpp", *sorted(CSRC.glob("*/*_cuda.cu"))]
    return load(build(sources, sanitize=os.environ.get("PYACTION_SIMT_SANITIZE", "")))


def kernels_in_sources() -> set[str]:
    """The names of the product's kernels."""
    sources = [path for path in CSRC.rglob("*") if path.suffix in (".cu", ".cuh", ".h")]
    return {name for path in sources for name in _KERNEL.findall(path.read_text())}


def kernels_that_ran() -> set[str]:
    """The names of those that have run since the order was chosen last."""
    names = product().simt_kernels
    names.restype = ctypes.c_char_p
    return set(names().decode().split())


@contextmanager
def cuda_kernels_on_cpu(order: str = "random", seed: int = 20) -> Iterator[None]:
    """Within it, torch.ops.pyaction and all that is built on it use the CUDA kernels for CPU tensors."""
    product().simt_set_order(ORDERS.index(order), ctypes.c_uint64(seed))
    library = torch.library.Library("pyaction", "IMPL")
    for name in re.findall(r'm\.def\(\s*"(\w+)\(', (CSRC / "library.cpp").read_text()):
        library.impl(name, getattr(torch.ops.pyaction_simt, name).default, "CPU")
    try:
        yield
    finally:
        library._destroy()
