"""A benchmark as a command: measure, show one table, keep the result."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import machine
from rich.console import Console
from tables import Result, Table, show
from verification import VerificationError


def run(
    description: str,
    measure: Callable[[bool, Console], Result],
    table: Callable[[Result], Table],
    arguments: list[str] | None = None,
) -> int:
    """measure(quick, console) raises VerificationError before it times anything."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and clips")
    parser.add_argument("--json", nargs="?", const="", metavar="FILE", help="default: a file in results/")
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 160)
    try:
        result = measure(options.quick, console)
    except VerificationError as error:
        console.print(f"[bold red]Refused:[/] {error}. Nothing was timed.")
        return 1
    show(table(result), console)
    if options.json is not None:
        path = Path(options.json) if options.json else machine.result_path(result, "cpu", result["benchmark"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")
        console.print(f"wrote {path}")
    return 0
