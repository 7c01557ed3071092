"""An op beside what one would use instead: each result is verified, then all are timed in turn. bench_<op>.py say what.

On a GPU the same, with --device cuda.
"""

import argparse
import ctypes
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import machine
import torch
from op_tables import all_methods
from rich.console import Console
from tables import Table, show
from timing import Sample, interleaved, summary, timed
from torch import Tensor
from verification import Verification, VerificationError

ROUNDS, QUICK_ROUNDS = 11, 3
SHORTEST, QUICK_SHORTEST = 0.1, 0.02  # seconds
COPIED_BYTES = {"cpu": 1 << 28, "cuda": 1 << 30}  # beyond all caches

Method = Callable[[], Sequence[Tensor]]


class Case(NamedTuple):
    """One task. All methods give the same tensors, pyaction's first."""

    name: str
    methods: Mapping[str, Method]
    tolerance: float  # the largest difference that is right, as a share of the result's largest element
    least_bytes: int = 0  # that any method has to read and write; 0: memory is not what limits it
    compare_memory: bool = False
    published: Mapping[str, float] = {}  # seconds that others report, and where
    share: float = 1.0  # of all elements, for which the tolerance holds
    rounded: Mapping[str, float] = {}  # methods in half precision, and their own tolerance
    frames: int = 0  # of video that a call sees


def measure(op: str, cases: Sequence[Case], device: str, quick: bool, console: Console) -> dict[str, Any]:
    """Raises VerificationError before anything is timed."""
    torch.set_num_threads(machine.cores())
    head = machine.describe()
    result: dict[str, Any] = {"benchmark": op, "device": device, "quick": quick, **head, "threads": machine.cores()}
    if device == "cuda":
        result["machine"]["gpu"] = torch.cuda.get_device_name()
    verification = Verification()
    for case in cases:
        _verify(case, verification)
    result["checks"] = verification.checks
    console.print(f"{len(verification.checks)} checks passed")
    rounds, shortest = (QUICK_ROUNDS, QUICK_SHORTEST) if quick else (ROUNDS, SHORTEST)
    result["copy_bytes_per_second"] = _copy_rate(device, rounds)
    result["cases"] = []
    for case in cases:
        console.print(f"timing {case.name}")
        seconds = interleaved({name: _sample(run, device) for name, run in case.methods.items()}, rounds, shortest)
        rows = [{"method": name, "seconds": summary(seconds[name])._asdict()} for name in case.methods]
        if case.compare_memory:
            for row in rows:
                row["peak_bytes"] = _peak_bytes(case.methods[row["method"]], device)
        result["cases"].append({"case": case.name, "least_bytes": case.least_bytes, "methods": rows})
        if case.frames:
            result["cases"][-1]["frames"] = case.frames
        if case.published:
            result["cases"][-1]["published"] = dict(case.published)
    return result


def with_grad(function: Callable[..., Tensor], inputs: Sequence[Tensor], grad: Tensor | None = None) -> Method:
    """The output and the gradients of all inputs that want one, for a gradient of the output (default: ones)."""
    leaves = [value for value in inputs if value.requires_grad]

    def run() -> Sequence[Tensor]:
        output = function(*inputs)
        return output.detach(), *torch.autograd.grad(output, leaves, torch.ones_like(output) if grad is None else grad)

    return run


def _verify(case: Case, verification: Verification) -> None:
    names = list(case.methods)
    expected = [value.clone() for value in case.methods[names[0]]()]
    for name in names[1:]:
        for i, (mine, theirs) in enumerate(zip(expected, case.methods[name](), strict=True)):
            difference = _largest((mine - theirs).abs().flatten(), case.share) / mine.abs().max()
            tolerance = case.rounded.get(name, case.tolerance)
            verification.at_most(f"{case.name}: result {i} of {name}", float(difference), tolerance)


def _largest(differences: Tensor, share: float) -> Tensor:
    """Among the smallest of them, as many as this share of all. NaN where one of all is."""
    largest = differences.max()
    if share == 1 or largest.isnan():
        return largest
    return differences.kthvalue(math.ceil(share * differences.numel())).values


def _sample(run: Method, device: str) -> Sample:
    def sample(calls: int) -> float:
        def all_calls() -> None:
            for _ in range(calls):
                run()
            if device == "cuda":
                torch.cuda.synchronize()

        return timed(all_calls, 1)

    return sample


def _copy_rate(device: str, rounds: int) -> float:
    """Bytes per second, read and written."""
    source = torch.ones(COPIED_BYTES[device], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = interleaved({"copy": _sample(lambda: [target.copy_(source)], device)}, rounds)["copy"]
    return 2 * source.numel() / summary(seconds).median


def _peak_bytes(run: Method, device: str) -> int:
    """What a call needs beyond what is there before."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    # Of the whole process. What the allocator keeps for the next call is given back first; pyaction's own scratch, kept
    # likewise, is not counted.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _status("VmRSS")
    run()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    """In bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


def main(
    op: str,
    cases: Callable[[str, bool], Sequence[Case]],
    arguments: list[str] | None = None,
    devices: Sequence[str] = ("cpu", "cuda"),
    table: Callable[[dict[str, Any]], Table] = all_methods,
) -> int:
    """cases(device, quick): what is compared. devices: where it can be, the usual one first. table: of the result."""
    parser = argparse.ArgumentParser(description=f"Verifies {op}, then times it against its peers.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and sizes")
    parser.add_argument("--device", choices=devices, default=devices[0])
    parser.add_argument("--json", nargs="?", const="", metavar="FILE", help="default: a file in results/")
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 160)
    if options.device == "cuda" and not torch.cuda.is_available():
        console.print(f"[bold red]Refused:[/] {op} on cuda needs a CUDA device, and torch sees none.")
        return 1
    torch.manual_seed(0)
    try:
        result = measure(op, cases(options.device, options.quick), options.device, options.quick, console)
    except VerificationError as error:
        console.print(f"[bold red]Refused:[/] {error}. Nothing was timed.")
        return 1
    show(table(result), console)
    if options.json is not None:
        path = Path(options.json) if options.json else machine.result_path(result, options.device, op)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")
        console.print(f"wrote {path}")
    return 0
