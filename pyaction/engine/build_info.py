"""What is installed here and what it can do."""

import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from pyaction import _native, ops


def _has_kernel(op: str, device: str) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"pyaction::{op}", device)


def build_info() -> dict[str, str]:
    """Collects versions, compiled kernels and devices, ready for printing."""
    facts = _native.build_facts()
    cuda = "no (pyaction was compiled without CUDA)"
    if facts["cuda_version"]:
        architectures = " ".join(_readable(name) for name in facts["cuda_architectures"].split())
        cuda = f"CUDA {facts['cuda_version']} for {architectures}"
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    info = {
        "pyaction": facts["version"],
        "Python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "torch": torch.__version__,
        "compiled by": f"{facts['compiler']}, with torch {facts['torch_built']} for {facts['torch_target']} and newer",
        "CPU kernels": f"{facts['simd_levels']}; in use: {_native.simd_level()}",
        "CPU threads": str(torch.get_num_threads()),
        "CUDA kernels": cuda,
        "GPUs": ", ".join(gpus) or "none that torch sees",
        "decoder": f"PyAV {version('av')}, {_dali()}",
    }
    for op in ops.OPS:
        devices = [name for name in ("CPU", "CUDA") if _has_kernel(op, name)]
        info[f"op {op}"] = " ".join(devices) or "missing"
    return info


def _dali() -> str:
    for cuda in (13, 12):
        try:
            return f"DALI {version(f'nvidia-dali-cuda{cuda}0')} for CUDA {cuda}"
        except PackageNotFoundError:
            continue
    return "no DALI"


def _readable(architecture: str) -> str:
    """'90-real' -> '9.0'; '120', which is also PTX for later GPUs, -> '12.0+PTX'."""
    number, _, kind = architecture.partition("-")
    return f"{number[:-1]}.{number[-1]}" + ("" if kind else "+PTX")
