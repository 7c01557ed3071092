"""Loads the compiled module `pyaction._C`, which registers `torch.ops.pyaction.*`."""

import torch  # noqa: F401  (libtorch must be in the process before the module that links to it)

try:
    from pyaction import _C
except ImportError as error:
    raise ImportError(
        f"pyaction's compiled kernels could not be loaded ({error}). Install them with `pip install .` in the "
        "pyaction folder; where the source folder itself is on the path, use `pip install -e .`."
    ) from error

build_facts = _C.build_facts
simd_level = _C.simd_level
