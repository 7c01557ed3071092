"""What a result was measured on and with."""

import os
import platform
import re
import subprocess
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pyaction import _native

HERE = Path(__file__).parent
PACKAGES = (  # whose versions matter
    "torch",
    "opencv-contrib-python-headless",
    "scikit-image",
    "kornia",
    "torchmetrics",
    "pytorch-msssim",
    "pytorch-metric-learning",
)
SIMD_LEVELS = ("baseline", "avx2", "avx512")


def describe() -> dict[str, Any]:
    """The head of a result file."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": {"cpu": _cpu_name(), "cores": cores(), "simd": _native.simd_level()},
        "load": round(os.getloadavg()[0], 2),  # other programs', where it is taken before anything runs here
        "versions": {
            "pyaction": _native.build_facts()["version"],
            "compiler": _native.build_facts()["compiler"],
            **{package: _version(package) for package in PACKAGES},
        },
        "commit": _commit(),
    }


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0))


def simd_levels() -> list[str]:
    """What both this build and this CPU have, best last."""
    built = _native.build_facts()["simd_levels"].split()
    best = SIMD_LEVELS.index(_native.simd_level())
    return [level for level in SIMD_LEVELS[: best + 1] if level in built]


def result_path(head: dict[str, Any], device: str, op: str) -> Path:
    """benchmarks/results/<machine>--<device>--<op>.json"""
    name = re.sub(r"[^a-z0-9]+", "-", head["machine"]["cpu"].lower()).strip("-")
    return HERE / "results" / f"{name}-{head['machine']['cores']}-cores--{device}--{op}.json"


def _cpu_name() -> str:
    try:
        names = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    """With a plus sign where files differ from it."""
    run = ["git", "-C", str(HERE), "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"]
    process = subprocess.run(run, capture_output=True, text=True, check=False)
    return process.stdout.strip() or "unknown"
