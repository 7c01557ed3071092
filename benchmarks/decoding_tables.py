"""Results of bench_decoding.py as a table, for the terminal and for the README."""

from tables import NONE, Result, Table, number

PEER = "OpenCV, in order"


def decoding_table(result: Result) -> Table:
    title = f"Chosen frames of {result['clips']} clips, 320 × 240, 1 thread"
    header = ["task", "method", "clips/s", "frames/s", "IQR", f"× {PEER}", "wrong frames"]
    table = Table(title, header, [], 2)
    for task in result["tasks"]:
        times = {row["method"]: row["seconds"]["median"] for row in task["methods"] if row["seconds"]}
        for row in task["methods"]:
            wrong = f"{row['wrong_frames']} of {task['frames']}"
            seconds = times.get(row["method"])
            if seconds is None:
                cells = [NONE] * 4
            else:
                ratio = number(times[PEER] / seconds) if PEER in times else NONE
                spread = f"{100 * row['seconds']['iqr'] / seconds:.0f} %"
                cells = [number(result["clips"] / seconds), number(task["frames"] / seconds), spread, ratio]
            table.rows.append([task["task"], row["method"], *cells, wrong])
    return table
