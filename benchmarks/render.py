"""Writes the tables of a result file into the README, between two comments: python benchmarks/render.py RESULT.json"""

import argparse
import json
from pathlib import Path

from tables import NONE, Result, Table, heading, readme_tables

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- tvl1 benchmark -->", "<!-- end -->"


def markdown(result: Result) -> str:
    return "\n\n".join([heading(result) + ".", *map(_table, readme_tables(result))])


def replaced(text: str, new: str) -> str:
    """The text with something else between the comments."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the README needs the comments {BEGIN} and {END}, in this order")
    return f"{before}{BEGIN}\n\n{new}\n\n{END}{after}"


def _table(table: Table) -> str:
    alignment = [":--" if column < table.texts else "--:" for column in range(len(table.header))]
    lines = [table.header, alignment, *([cell or NONE for cell in row] for row in table.rows)]
    return f"**{table.title}**\n\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Puts the tables of a TV-L1 benchmark result into a README.")
    parser.add_argument("result", type=Path, help="what bench_tvl1.py --json wrote")
    parser.add_argument("--readme", type=Path, default=README)
    arguments = parser.parse_args()
    new = markdown(json.loads(arguments.result.read_text()))
    arguments.readme.write_text(replaced(arguments.readme.read_text(), new))


if __name__ == "__main__":
    main()
