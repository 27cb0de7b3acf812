"""`isthmus axioms`: how far each method is from what an attribution is asked for, on toys where the truth is known."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from isthmus.errors import OptionError

if TYPE_CHECKING:
    from rich.text import Text

    from isthmus.metrics.axioms import AxiomRow

_FIELDS = ("method", "side", "axiom", "value", "holds", "note")
_HEADS = {"implementation-invariance": "implementation"}
_ROUNDING = 1e-9
_WIDTH = 112  # a narrower terminal breaks the lines, but no cell is cut
_LEGEND = (
    "Errors on toys, 0 where the axiom holds: shares of the map's largest score (completeness: of the score lost; "
    "sensitivity: of the places that change the score). A dash: not defined."
)


def axioms(
    methods: Annotated[
        str, typer.Option(metavar="A,B,C", help='Methods, see `isthmus methods`; or "all".', show_default="all")
    ] = "all",
    out: Annotated[
        Path | None, typer.Option(help="Folder for axioms.csv and axioms.md.", show_default="isthmus-out/axioms")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the toys' weights and inputs.")] = 0,
) -> None:
    """Measure completeness, sensitivity, dummy, implementation invariance, linearity and symmetry of methods."""
    names = [name.strip() for name in methods.split(",") if name.strip()]
    if not names:
        raise OptionError("There is no method to measure: name at least one, see isthmus methods.")
    folder = out if out is not None else Path("isthmus-out") / "axioms"
    if folder.is_file():
        raise OptionError(f"{str(folder)!r} is a file: give --out a folder.")
    from isthmus.cli.screen import print_files
    from isthmus.export import write_files
    from isthmus.metrics.axioms import axioms as measured

    with _progress() as progress:
        rows = measured("all" if names == ["all"] else names, seed=seed, progress=progress)
    _print(rows)
    paths = write_files(
        folder,
        {
            "axioms.csv": lambda path: _write_csv(path, rows),
            "axioms.md": lambda path: path.write_text(to_markdown(rows), encoding="utf-8"),
        },
    )
    print_files(paths, folder)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    from isthmus.cli.screen import messages

    with Progress(BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=messages()) as bar:
        task = bar.add_task("methods", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _print(rows: Sequence[AxiomRow]) -> None:
    from rich.table import Table
    from rich.text import Text

    from isthmus.cli.screen import output
    from isthmus.metrics.axioms import AXIOMS

    console = output()
    console.width = max(console.width, _WIDTH)
    unicode = (console.encoding or "").lower().replace("-", "").startswith("utf")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("method", "side"):
        table.add_column(name, no_wrap=True)
    for name in AXIOMS:
        table.add_column(_HEADS.get(name, name), no_wrap=True, justify="right")
    for (method, side), cells in _grouped(rows).items():
        table.add_row(Text(method, style="bold"), side, *(_cell(one, unicode=unicode) for one in cells))
    console.print(table)
    console.print(_LEGEND, style="dim", markup=False)
    for note in _notes(rows):
        console.print(Text(note), style="dim", soft_wrap=True)


def _cell(row: AxiomRow, *, unicode: bool) -> Text:
    from rich.text import Text

    if row.value is None:
        return Text("-", style="dim")
    marks = ("✓", "✗") if unicode else ("ok", "no")
    return Text(f"{written(row.value)} {marks[not row.holds]}", style="green" if row.holds else "red")


def written(value: float) -> str:
    """An error in few characters; rounding, which is another on every machine, is not spelled out."""
    if value < _ROUNDING:
        return "0" if value == 0 else "<1e-9"
    return f"{value:.2f}" if value >= 0.01 else f"{value:.0e}"


def _grouped(rows: Sequence[AxiomRow]) -> dict[tuple[str, str], list[AxiomRow]]:
    found: dict[tuple[str, str], list[AxiomRow]] = {}
    for row in rows:
        found.setdefault((row.method, row.side), []).append(row)
    return found


def _notes(rows: Sequence[AxiomRow]) -> list[str]:
    """What breaks an axiom, or why it is not defined; that a method has no closed state is no news."""
    from isthmus.metrics.axioms import NO_CLOSED_STATE

    told: dict[tuple[str, str], dict[str, list[str]]] = {}
    for row in rows:
        if row.note and row.note != NO_CLOSED_STATE:
            told.setdefault((row.axiom, row.note), {}).setdefault(row.method, []).append(row.side)
    sides = {row.method: {one.side for one in rows if one.method == row.method} for row in rows}
    return [
        f"{axiom}, {note}: "
        + ", ".join(name if len(there) == len(sides[name]) else f"{name} ({there[0]})" for name, there in by.items())
        for (axiom, note), by in told.items()
    ]


def to_markdown(rows: Sequence[AxiomRow]) -> str:
    """A table with a row for each method and side, and what breaks the axioms."""
    from isthmus.metrics.axioms import AXIOMS

    lines = [
        f"| method | side | {' | '.join(_HEADS.get(name, name) for name in AXIOMS)} |",
        f"|---|---|{'---:|' * len(AXIOMS)}",
    ]
    for (method, side), cells in _grouped(rows).items():
        shown = ("-" if one.value is None else f"{written(one.value)} {'✗✓'[bool(one.holds)]}" for one in cells)
        lines.append(f"| `{method}` | {side} | {' | '.join(shown)} |")
    return "\n".join([*lines, "", *(f"- {note}" for note in _notes(rows))]).rstrip() + "\n"


def _write_csv(path: Path, rows: Sequence[AxiomRow]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(_FIELDS)
        for row in rows:
            table.writerow(["" if (value := getattr(row, name)) is None else value for name in _FIELDS])
