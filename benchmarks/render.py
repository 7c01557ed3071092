"""Writes the tables of result files into the README, between comments: python benchmarks/render.py RESULT.json ..."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from decoding_tables import decoding_table
from loader_tables import loader_table
from model_tables import model_table
from op_tables import essence
from tables import NONE, Result, Table, heading, readme_tables

README = Path(__file__).parents[1] / "README.md"
END = "<!-- end -->"
DECODERS = ("av", "opencv-contrib-python-headless", "decord", "torchcodec")
PEERS = ("torch", "kornia", "torchmetrics", "pytorch-msssim", "pytorch-metric-learning")


def tvl1_markdown(result: Result) -> str:
    return "\n\n".join([heading(result) + ".", *map(_table, readme_tables(result))])


def ops_markdown(results: Sequence[Result]) -> str:
    """Of full runs on one machine."""
    first = results[0]
    for result in results:
        _refuse_quick(result)
        if any(result[what] != first[what] for what in ("machine", "device", "versions")):
            raise ValueError(f"{result['benchmark']} and {first['benchmark']} do not come from one machine and device")
    versions = first["versions"]
    commits = ", ".join(sorted({result["commit"] for result in results}))
    packages = ", ".join(f"{name} {versions[name]}" for name in PEERS)
    return f"{_processor(first)}; {first['date'][:10]}, commit {commits}; {packages}.\n\n{_table(essence(results))}"


def decoding_markdown(result: Result) -> str:
    _refuse_quick(result)
    machine, versions = result["machine"], result["versions"]
    packages = ", ".join(f"{name} {versions[name]}" for name in DECODERS)
    clips = "UCF101" if result["data"] == "real" else "generated"
    left_out = "".join(f" {sentence}." for sentence in result["left_out"])
    return (
        f"{machine['cpu']}; {result['date'][:10]}, commit {result['commit']}; {packages}; {clips} clips.{left_out}\n\n"
        f"{_table(decoding_table(result))}"
    )


def loader_markdown(result: Result) -> str:
    _refuse_quick(result)
    machine, versions = result["machine"], result["versions"]
    return (
        f"{machine['cpu']}; {result['date'][:10]}, commit {result['commit']}; torch {versions['torch']}, OpenCV "
        f"{versions['opencv-contrib-python-headless']}; {result['clips']} clips, {result['data']}.\n\n"
        f"{_table(loader_table(result))}"
    )


def models_markdown(result: Result) -> str:
    _refuse_quick(result)
    return (
        f"{_processor(result)}; {result['date'][:10]}, commit {result['commit']}; "
        f"torch {result['versions']['torch']}.\n\n{_table(model_table(result))}"
    )


def _processor(result: Result) -> str:
    machine = result["machine"]
    if result["device"] == "cuda":
        return str(machine["gpu"])
    return f"{machine['cpu']}, {machine['cores']} cores, {machine['simd']}"


def _refuse_quick(result: Result) -> None:
    if result["quick"]:
        raise ValueError(f"{result['benchmark']}: a quick run is not for the README; run it without --quick")


def replaced(text: str, name: str, new: str) -> str:
    """The text with something else between the comments `<!-- name -->` and `<!-- end -->`."""
    comment = f"<!-- {name} -->"
    before, begin, rest = text.partition(comment)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the README needs the comments {comment} and {END}, in this order")
    return f"{before}{comment}\n\n{new}\n\n{END}{after}"


def _table(table: Table) -> str:
    alignment = [":--" if column < table.texts else "--:" for column in range(len(table.header))]
    lines = [table.header, alignment, *([cell or NONE for cell in row] for row in table.rows)]
    return f"**{table.title}**\n\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Puts the tables of benchmark results into a README.")
    parser.add_argument(
        "results",
        type=Path,
        nargs="+",
        help="what bench_*.py --json wrote; of the ops but TV-L1, all",
    )
    parser.add_argument("--readme", type=Path, default=README)
    arguments = parser.parse_args()
    results = [json.loads(path.read_text()) for path in arguments.results]
    text = arguments.readme.read_text()
    for result in results:
        if "pairs" in result:  # of bench_tvl1.py
            text = replaced(text, "tvl1 benchmark", tvl1_markdown(result))
        if result["benchmark"] == "decoding":
            text = replaced(text, "decoding benchmark", decoding_markdown(result))
        if result["benchmark"] == "loader":
            text = replaced(text, "loader benchmark", loader_markdown(result))
        if result["benchmark"] == "models":
            text = replaced(text, "models benchmark", models_markdown(result))
    if ops := [result for result in results if "cases" in result and result["benchmark"] != "models"]:
        text = replaced(text, "ops benchmark", ops_markdown(ops))
    arguments.readme.write_text(text)


if __name__ == "__main__":
    main()
