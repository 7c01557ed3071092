"""Results of bench_loader.py as a table, for the terminal and for the README."""

from tables import Result, Table, number

TOGETHER = "TV-L1 alone, frames in memory, all threads"


def loader_table(result: Result) -> Table:
    """With the loaders' share of what TV-L1 alone does."""
    rates = {row["method"]: row["fields_per_second"] for row in result["rows"]}
    ours = result["rows"][0]["fields_per_second"]
    workers = result["machine"]["cores"]
    title = f"Clips of {result['length']} frames, 320 × 240, and the flow between them, to 224 × 224; {workers} workers"
    header = ["method", "fields of flow/s", "cores busy", "share of TV-L1 alone", "pyaction is × as fast"]
    table = Table(title, header, [])
    for row in result["rows"]:
        rate = row["fields_per_second"]
        busy, share = f"{100 * row['busy']:.0f} %", f"{100 * rate / rates[TOGETHER]:.1f} %"
        table.rows.append([row["method"], number(rate), busy, share, number(ours / rate)])
    return table
