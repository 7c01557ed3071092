"""A result file as tables, for the terminal and for the README."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table as RichTable

Result = dict[str, Any]
Row = dict[str, Any]
Size = tuple[int, int]  # width, height

OPENCV, DIS = "OpenCV TV-L1", "OpenCV DIS medium"
# Zhu, Lan, Newsam and Hauptmann, "Hidden Two-Stream Convolutional Networks for Action Recognition", 2018: TV-L1 on a
# GPU (Titan X), frames per second.
PAPER_FPS = 14.75
PAPER_SIZES = ((320, 240), (340, 256))
NONE = "–"


class Table(NamedTuple):
    """Columns after the first `texts` hold numbers."""

    title: str
    header: list[str]
    rows: list[list[str]]
    texts: int = 1


def show(table: Table, console: Console) -> None:
    printed = RichTable(title=table.title, title_justify="left")
    for i, name in enumerate(table.header):
        printed.add_column(name, justify="left" if i < table.texts else "right")
    for row in table.rows:
        printed.add_row(*row)
    console.print(printed)


def all_tables(result: Result) -> list[Table]:
    """Everything that was measured."""
    sizes = {(row["batch"], (row["width"], row["height"])) for row in result["pairs"]}
    groups = sorted(sizes, key=lambda group: (group[0], pixels(group[1])))
    return [
        *(_speed(result, batch, size) for batch, size in groups),
        _threads(result),
        _iterations(result),
        _stages(result),
        _video(result),
    ]


def readme_tables(result: Result) -> list[Table]:
    """With the best instruction set and all threads; pair by pair and in video."""
    return [_summary(result), _video(result), _iterations(result), _stages(result)]


def heading(result: Result) -> str:
    """One line on where the figures come from."""
    machine, versions = result["machine"], result["versions"]
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['simd']}; {result['date'][:10]}, commit "
        f"{result['commit']}; pyaction {versions['pyaction']}, torch {versions['torch']}, OpenCV "
        f"{versions['opencv-contrib-python-headless']}, scikit-image {versions['scikit-image']}; "
        f"{'Middlebury and UCF101' if result['data'] == 'real' else 'generated'} frames"
    )


def _speed(result: Result, batch: int, size: Size) -> Table:
    rows = [row for row in result["pairs"] if row["batch"] == batch and size_of(row) == size]
    header = ["method", "SIMD", "threads", "ns/pixel", "IQR", "pairs/s", "EPE, px", f"× {OPENCV}", f"× {DIS}"]
    with_paper = size in PAPER_SIZES
    if with_paper:
        header.append(f"× paper's {PAPER_FPS} fps")
    table = Table(f"{_text(size)}, batch {batch}", header, [], 2)
    for row in sorted(rows, key=lambda row: (row["threads"], row["method"], row["seconds"]["median"])):
        timing = row["seconds"]
        cells = [
            *(row["method"], row["simd"], str(row["threads"])),
            number(1e9 * per_pair(row) / pixels(size)),
            f"{100 * timing['iqr'] / timing['median']:.0f} %",
            number(1 / per_pair(row)),
            _error(result, row["method"]),
            *(_ratio(result, row, peer) for peer in (OPENCV, DIS)),
        ]
        table.rows.append([*cells, number(1 / per_pair(row) / PAPER_FPS)] if with_paper else cells)
    return table


def _summary(result: Result) -> Table:
    """A row for each method, a column for each size."""
    threads, simd = result["machine"]["cores"], result["machine"]["simd"]
    rows = [row for row in result["pairs"] if row["batch"] == 1 and row["simd"] in ("", simd)]
    most = {method: max(row["threads"] for row in rows if row["method"] == method) for method in _methods(rows)}
    sizes = sorted({size_of(row) for row in rows}, key=pixels)
    title = f"Pairs of frames per second, one pair at a time, {threads} threads; × at {_text(PAPER_SIZES[0])}"
    columns = [_text(size) for size in sizes]
    table = Table(title, ["method", *columns, "EPE, px", f"× {OPENCV}", f"× {DIS}"], [])
    for method in sorted(most, key=lambda method: (not method.startswith("pyaction"), method)):
        of_method = [row for row in rows if row["method"] == method and row["threads"] == most[method]]
        of_size = {size_of(row): row for row in of_method}
        smallest = of_size[min(of_size, key=pixels)]
        speeds = [number(1 / per_pair(of_size[size])) if size in of_size else NONE for size in sizes]
        # To the peers' rows of this table, even where this method has one thread only.
        ratios = [_ratio(result, {**smallest, "threads": threads}, peer) for peer in (OPENCV, DIS)]
        name = method if most[method] == threads else f"{method}, {most[method]} thread"
        table.rows.append([name, *speeds, _error(result, method), *ratios])
    paper = [str(PAPER_FPS) if size in PAPER_SIZES else NONE for size in sizes]
    table.rows.append(["TV-L1 on a GPU, as published (Hidden Two-Stream)", *paper, NONE, NONE, NONE])
    return table


def _threads(result: Result) -> Table:
    rows = [row for row in result["pairs"] if row["batch"] == 1 and row["simd"] in ("", result["machine"]["simd"])]
    most = max((row["threads"] for row in rows), default=1)
    table = Table(f"One pair on {most} threads against one thread", ["method", "size", "sooner by"], [], 2)
    seconds = {(row["method"], size_of(row), row["threads"]): per_pair(row) for row in rows}
    for (method, size, threads), one in sorted(seconds.items()):
        if threads == 1 < most and (method, size, most) in seconds:
            table.rows.append([method, _text(size), f"{one / seconds[method, size, most]:.2f}"])
    return table


def _iterations(result: Result) -> Table:
    header = ["size", "batch", "threads", "10⁹ pixel-iterations/s", "arithmetic alone", "share"]
    table = Table("Iterations alone, and what the processor's arithmetic allows", header, [], 1)
    for row in result["iterations"]:
        rate, ceiling = row["rate"]["median"], row["ceiling"]["median"] if "ceiling" in row else None
        reached = [number(ceiling / 1e9), f"{100 * rate / ceiling:.0f} %"] if ceiling else [NONE, NONE]
        table.rows.append([_text(size_of(row)), str(row["batch"]), str(row["threads"]), number(rate / 1e9), *reached])
    return table


def _stages(result: Result) -> Table:
    names = ["iterations", "warping", "median", "rest"]
    table = Table('Where the time of preset "fast" goes', ["size", "batch", "threads", *names], [], 1)
    for row in result["stages"]:
        shares = [f"{100 * row['shares'][name]:.0f} %" for name in names]
        table.rows.append([_text(size_of(row)), str(row["batch"]), str(row["threads"]), *shares])
    return table


def _video(result: Result) -> Table:
    video = result["video"]
    clips, pairs = len(video["clips"]), video["frames"] - 1
    title = f"Video: {clips} clips of {pairs} pairs, {_text(size_of(video))}"
    header = ["method", "threads", "warping error, grey levels", "pairs/s", f"× {OPENCV}"]
    table = Table(title, header, [])
    slow = next(row for row in video["rows"] if row["method"] == OPENCV)["seconds_per_pair"]["median"]
    for row in video["rows"]:
        seconds = row["seconds_per_pair"]["median"]
        ratio = video["ratio"]["median"] if row["method"].startswith("pyaction") else slow / seconds
        cells = [f"{row['error']:.3f}", number(1 / seconds), number(ratio)]
        table.rows.append([row["method"], str(row["threads"]), *cells])
    ours, at_once = video["rows"][0], video["all_clips_at_once"]["median"]
    cells = [f"{ours['error']:.3f}", number(1 / at_once), number(slow / at_once)]
    table.rows.append([f"{ours['method']}, {clips} clips at once", str(ours["threads"]), *cells])
    table.rows.append(["nothing moves", NONE, f"{video['no_motion_error']:.3f}", NONE, NONE])
    return table


def per_pair(row: Row) -> float:
    return row["seconds"]["median"] / row["batch"]


def size_of(row: Row) -> Size:
    return row["width"], row["height"]


def pixels(size: Size) -> int:
    return size[0] * size[1]


def _text(size: Size) -> str:
    return f"{size[0]} × {size[1]}"


def _methods(rows: Iterable[Row]) -> set[str]:
    return {row["method"] for row in rows}


def _ratio(result: Result, row: Row, method: str) -> str:
    """How many times as fast as a peer with as many threads at that size; in its own batch where that was measured."""
    found = [
        peer
        for peer in result["pairs"]
        if peer["method"] == method and size_of(peer) == size_of(row) and peer["threads"] == row["threads"]
    ]
    peer = min(found, key=lambda peer: peer["batch"] != row["batch"], default=None)
    return NONE if peer is None else number(per_pair(peer) / per_pair(row))


def _error(result: Result, method: str) -> str:
    error = result["accuracy"].get(method)
    return NONE if error is None else f"{error:.3f}"


def number(value: float) -> str:
    """Three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
