"""The tables of `isthmus sanity`, on the screen, in Markdown and in CSV, each with a sentence on how to read it."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from isthmus.cli.axioms import written
from isthmus.cli.sanity_run import CHECKS, CheckRow

_TITLES = {
    "randomisation": "Weights drawn anew",
    "caption-swap": "Captions swapped",
    "batch": "Batch against alone",
    "repeat": "Two equal calls",
    "agreement": "Agreement between methods",
}
_RANKED = "Spearman's rank correlation, mean over pairs with half its 95 % interval, of the maps"
_LEGENDS = {
    "caption-swap": f"{_RANKED} for an input's own partner and for that of the next pair: near 1, the map hardly sees "
    "what the input is compared with.",
    "batch": "The largest difference of a score between all pairs in one batch and each alone, as a share of the map's "
    "largest score: more than rounding says that a map depends on what happens to be explained with it.",
    "repeat": "The largest difference of a score between two equal calls, as a share of the map's largest score: above "
    "0, the same question gets different answers.",
    "agreement": f"{_RANKED} of two methods: 1, they rank all places alike; near 0, they do not show the same.",
}
_DRAWN = {
    True: f"{_RANKED} before and after the weights of a block and of all behind it were drawn anew: a map that stays "
    "near 1 does not depend on what the model learnt there (Adebayo et al., NeurIPS 2018).",
    False: f"{_RANKED} before and after the weights of one block alone were drawn anew: a map that stays near 1 does "
    "not depend on what the model learnt there (Adebayo et al., NeurIPS 2018).",
}


@dataclass(frozen=True)
class CheckTable:
    """A check as text: title, names of columns, how many of them are words, cells, and how to read them."""

    title: str
    header: tuple[str, ...]
    words: int
    rows: tuple[tuple[str, ...], ...]
    legend: str


def tables_of(rows: Sequence[CheckRow], *, cascading: bool = True) -> list[CheckTable]:
    """A table for each check that has rows.

    Args:
        rows: of `isthmus.cli.sanity_run.measured`.
        cascading: whether all blocks behind one were drawn anew with it, which the legend says.
    """
    found = []
    for check in CHECKS:
        own = [row for row in rows if row.check == check]
        if own:
            legend = _DRAWN[cascading] if check == "randomisation" else _LEGENDS[check]
            found.append(CheckTable(_TITLES[check], *_grid(check, own), legend))
    return found


def _grid(check: str, rows: Sequence[CheckRow]) -> tuple[tuple[str, ...], int, tuple[tuple[str, ...], ...]]:
    """Columns are methods where a check has a figure for each block or other method, else there is one column."""
    names = tuple(dict.fromkeys(row.method for row in rows))
    if check in ("randomisation", "agreement"):
        cells = {(row.side, _place(row), row.method): _cell(row) for row in rows}
        places = sorted(dict.fromkeys(key[:2] for key in cells), key=lambda key: key[0])  # blocks stay in their order
        second = "block" if check == "randomisation" else "method"
        table = ((*key, *(cells.get((*key, name), "-") for name in names)) for key in places)
        return ("side", second, *names), 2, tuple(table)
    value = "Spearman" if check == "caption-swap" else "worst difference"
    return ("method", "side", value), 2, tuple((row.method, row.side, _cell(row)) for row in rows)


def _place(row: CheckRow) -> str:
    return str(row.block) if row.check == "randomisation" else row.other


def _cell(row: CheckRow) -> str:
    if row.value is None:
        return "n/a"
    if row.check in ("batch", "repeat"):
        return written(row.value)
    half = ""
    if row.low is not None and row.high is not None and row.other != row.method:
        half = f" ±{(row.high - row.low) / 2:.2f}"
    return f"{round(row.value, 2) + 0.0:.2f}{half}"  # no minus before a zero


def print_tables(head: str, tables: Sequence[CheckTable]) -> None:
    """Print the tables as wide as they are, each with its legend."""
    from rich.table import Table
    from rich.text import Text

    from isthmus.cli.evaluate import print_whole
    from isthmus.cli.screen import output

    console = output()
    console.print(Text(head), soft_wrap=True)
    for one in tables:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for number, name in enumerate(one.header):
            table.add_column(Text(name), justify="left" if number < one.words else "right", no_wrap=True)
        for row in one.rows:
            table.add_row(*map(Text, row))
        console.print()
        console.print(Text(one.title, style="bold"))
        print_whole(table)
        console.print(Text(one.legend, style="dim"))
    console.print()


def to_markdown(head: str, tables: Sequence[CheckTable], refused: Mapping[str, str]) -> str:
    """The tables under headings, with their legends, and the methods that have no result."""
    lines = [f"{head}.", ""]
    for one in tables:
        marks = ("---:" if number >= one.words else "---" for number in range(len(one.header)))
        lines += [f"## {one.title}", "", _line(one.header), f"|{'|'.join(marks)}|", *map(_line, one.rows)]
        lines += ["", one.legend, ""]
    lines += [f"- `{name}` has no result: {reason}" for name, reason in refused.items()]
    return "\n".join(lines).rstrip() + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def write_csv(path: Path, rows: Sequence[CheckRow]) -> None:
    """A line for each row; an empty cell where there is no value."""
    names = [field.name for field in fields(CheckRow)]
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(names)
        for row in rows:
            table.writerow(["" if (value := getattr(row, name)) is None else value for name in names])
