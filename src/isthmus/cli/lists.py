"""`isthmus datasets` and `isthmus metrics`: what there is by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

_WIDTH = 110


def datasets(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Datasets to tell all of.")] = None,
) -> None:
    """List the datasets that have a name, with the files that each needs; any folder, table or hf:NAME works too."""
    from isthmus.datasets import DATASETS
    from isthmus.errors import OptionError

    for name in names or ():
        if name not in DATASETS:
            raise OptionError(f"There is no dataset {name!r} by name: choose one of {', '.join(DATASETS)}.")
    if not names:
        _table(("dataset", "what"), [(one.name, f"{one.title}: {one.summary}") for one in DATASETS.values()])
        return
    for name in names:
        one = DATASETS[name]
        facts = {"described in": one.paper, "holds": one.summary, "licence": one.licence, "needs": one.needs}
        _facts(f"{one.name}: {one.title}", facts)


def metrics(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Metrics to tell all of.")] = None,
) -> None:
    """List the metrics of `isthmus evaluate`, with what each asks of the dataset; with NAME, its variants."""
    import inspect

    from isthmus.metrics import METRICS, registry

    asks = {"caption": "captions", "region": "masks or boxes", "swap": "captions (swaps a word)"}
    if not names:
        rows = [
            (one.name, "+".join(one.sides), one.better or "-", one.unit or "-", asks[one.question], one.title)
            for one in METRICS.values()
        ]
        _table(("metric", "sides", "better", "unit", "needs", "what"), rows)
        return
    for one in map(registry.get, names):
        takes = [p.name for p in inspect.signature(one.function).parameters.values() if p.kind == p.KEYWORD_ONLY]
        text = inspect.getdoc(getattr(one.function, "func", one.function)) or ""
        facts = {
            "described in": one.paper,
            "better": one.better or "neither",
            "needs": asks[one.question],
            "variants": ", ".join(name or "(one)" for name in one.variants),
            "options": ", ".join(takes) or "none",
        }
        _facts(f"{one.name}: {one.title}", facts, text.split("\n\n")[0])


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.table import Table

    from isthmus.cli.screen import output

    console = output()
    console.width = max(console.width, _WIDTH)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for i, name in enumerate(header):
        table.add_column(name, no_wrap=i < len(header) - 1, style="bold" if i == 0 else "", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _facts(title: str, facts: dict[str, str], text: str = "") -> None:
    from rich.text import Text

    from isthmus.cli.screen import output

    console = output()
    console.print(Text(title, style="bold"))
    if text:
        console.print(Text(" ".join(text.split())), soft_wrap=True)
    for name, value in facts.items():
        console.print(Text.assemble((f"  {name}: ", "dim"), value), soft_wrap=True)
