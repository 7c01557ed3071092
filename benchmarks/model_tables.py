"""Results of bench_models.py as a table, for the terminal and for the README."""

from tables import NONE, Result, Table, number

OURS, FAST, BFLOAT16 = "pyaction", "for_inference", "for_inference, bfloat16"


def model_table(result: Result) -> Table:
    """Each network as it is and on the fast path; plain code, where there is some; the paper's fps."""
    header = ["network", "method", "ms", "IQR", "frames/s", "× as long as pyaction", "paper's frames/s"]
    table = Table(f"One video at a time, 224 × 224, {result['threads']} threads, {result['device']}", header, [], 2)
    for case in result["cases"]:
        ours = case["methods"][0]["seconds"]["median"]
        papers = ", ".join(number(case["frames"] / seconds) for seconds in case.get("published", {}).values())
        for row in case["methods"]:
            seconds = row["seconds"]["median"]
            spread = f"{100 * row['seconds']['iqr'] / seconds:.0f} %"
            cells = [case["case"], row["method"], number(1e3 * seconds), spread, number(case["frames"] / seconds)]
            table.rows.append([*cells, number(seconds / ours), papers or NONE])
    return table
