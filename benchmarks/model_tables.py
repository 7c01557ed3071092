"""Results of bench_models.py as a table, for the terminal and for the README."""

from tables import NONE, Result, Row, Table, number

OURS, FAST, BFLOAT16 = "pyaction", "for_inference", "for_inference, bfloat16"
PLAIN, PLAIN_COMPILED = "plain code", "plain code, torch.compile"
METHODS = (OURS, FAST, BFLOAT16, PLAIN, PLAIN_COMPILED)


def model_table(result: Result) -> Table:
    """A row for each network: milliseconds; frames of video per second, and a paper's."""
    spread = max(_spread(row) for case in result["cases"] for row in case["methods"])
    title = (
        f"One video at a time, 224 × 224, {result['threads']} threads, {result['device']}; ms, IQR at most "
        f"{100 * spread:.0f} %; frames/s"
    )
    rates = [f"frames/s, {method}" for method in (FAST, BFLOAT16)]
    table = Table(title, ["network", *METHODS, *rates, "frames/s, paper"], [])
    for case in result["cases"]:
        seconds = {row["method"]: row["seconds"]["median"] for row in case["methods"]}
        times = [number(1e3 * seconds[method]) if method in seconds else NONE for method in METHODS]
        fps = [number(case["frames"] / seconds[method]) for method in (FAST, BFLOAT16)]
        papers = ", ".join(number(case["frames"] / value) for value in case.get("published", {}).values())
        table.rows.append([case["case"], *times, *fps, papers or NONE])
    return table


def _spread(row: Row) -> float:
    return float(row["seconds"]["iqr"] / row["seconds"]["median"])
