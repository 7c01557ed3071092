"""Results of op_benchmark as tables: all of one, and for the README the essence of several."""

from collections.abc import Sequence

from tables import NONE, Result, Row, Table, number

OURS = "pyaction"
MEGA = 2**20


def all_methods(result: Result) -> Table:
    title = f"{result['benchmark']} on {result['device']}, {result['threads']} threads"
    header = ["task", "method", "ms", "IQR", "share of copying", "× as long as pyaction", "peak memory, MiB"]
    table = Table(f"{title}; copying: {number(result['copy_bytes_per_second'] / 1e9)} GB/s", header, [], 2)
    for case in result["cases"]:
        ours = _median(case["methods"][0])
        for row in case["methods"]:
            seconds = _median(row)
            spread = f"{100 * row['seconds']['iqr'] / seconds:.0f} %"
            cells = [case["case"], row["method"], number(1e3 * seconds), spread, _share(result, case, seconds)]
            table.rows.append([*cells, number(seconds / ours), _memory(row)])
        for where, seconds in case.get("published", {}).items():
            cells = [case["case"], where, number(1e3 * seconds), NONE, _share(result, case, seconds)]
            table.rows.append([*cells, number(seconds / ours), NONE])
    return table


def essence(results: Sequence[Result]) -> Table:
    """For each task pyaction and the best of the others."""
    header = ["op", "task", "pyaction, ms", "share of copying", "best other", "its ms", "× sooner", "× less memory"]
    table = Table("pyaction and the best of what else was tried", header, [], 2)
    for result in results:
        for case in result["cases"]:
            ours, *others = case["methods"]
            if not others:
                continue
            best = min(others, key=_median)
            memory = number(best["peak_bytes"] / max(ours["peak_bytes"], 1)) if "peak_bytes" in ours else NONE
            cells = [number(1e3 * _median(ours)), _share(result, case, _median(ours)), best["method"]]
            ratio = number(_median(best) / _median(ours))
            table.rows.append([result["benchmark"], case["case"], *cells, number(1e3 * _median(best)), ratio, memory])
    return table


def _median(row: Row) -> float:
    return row["seconds"]["median"]


def _share(result: Result, case: Row, seconds: float) -> str:
    """Of the rate at which memory is copied, for the bytes that cannot be avoided."""
    if not case["least_bytes"]:
        return NONE
    return f"{100 * case['least_bytes'] / seconds / result['copy_bytes_per_second']:.0f} %"


def _memory(row: Row) -> str:
    return number(row["peak_bytes"] / MEGA) if "peak_bytes" in row else NONE
