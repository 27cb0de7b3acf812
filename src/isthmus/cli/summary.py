"""`isthmus summary`: what a run of `isthmus map` says of its corpus."""

from __future__ import annotations

import json
import webbrowser
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus.errors import OptionError

if TYPE_CHECKING:
    from rich.console import Console


def summary(
    output: Annotated[
        str, typer.Argument(metavar="OUTPUT", help="The folder or URL that isthmus map wrote.", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="PAGE", help="The page; the numbers are beside it as .json.", show_default="OUTPUT/summary.html"
        ),
    ] = None,
    least: Annotated[int, typer.Option(min=1, help="How often a word must come to be told of.")] = 5,
    words: Annotated[int, typer.Option(min=1, help="Words in each list.")] = 15,
    outliers: Annotated[int, typer.Option(min=0, help="Pairs of each kind that stand out.")] = 6,
    vocabulary: Annotated[int, typer.Option(min=2, help="Words kept in memory; rarer ones are forgotten.")] = 200_000,
    pictures: Annotated[bool, typer.Option("--pictures/--no-pictures", help="Show pictures on the page.")] = True,
    storage_options: Annotated[str | None, typer.Option(help="For the file system of a URL, as a JSON object.")] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Summarise OUTPUT: similarities, deltas, words, positions on the grid, and pairs that stand out, as a page.

    Works while the run goes on, too. Memory does not grow with the number of rows.
    """
    from isthmus.cli.screen import output as console_of
    from isthmus.scale.report import write_report
    from isthmus.scale.summary import summarise

    if out is not None and (out.is_dir() or out.suffix.lower() not in (".html", ".htm")):
        raise OptionError(f"--out takes the path of a page, such as summary.html, not {str(out)!r}.")
    given = _options(storage_options)
    with _progress() as progress:
        found = summarise(
            output,
            least=least,
            words=words,
            outliers=outliers,
            vocabulary=vocabulary,
            storage_options=given,
            progress=progress,
        )
    places = write_report(found, out, storage_options=given, pictures=pictures)
    console = console_of()
    for name, told in found.told["methods"].items():
        _print(console, name, told)
    console.print(f"Written: {places[0]}, {places[1]}", markup=False, soft_wrap=True)
    if open_page:
        webbrowser.open(places[0] if "://" in places[0] else Path(places[0]).resolve().as_uri())


def _options(given: str | None) -> dict[str, Any] | None:
    try:
        found = None if given is None else json.loads(given)
    except ValueError as error:
        raise OptionError(f"--storage-options takes a JSON object, not {given!r}.") from error
    if found is not None and not isinstance(found, dict):
        raise OptionError(f"--storage-options takes a JSON object, not {given!r}.")
    return found


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from isthmus.cli.screen import messages

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = messages()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("Reading parts", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _print(console: Console, name: str, told: Mapping[str, Any]) -> None:
    """What matters most, in a few lines."""
    from rich.text import Text

    console.print(Text.assemble((name, "bold"), f": {told['rows']:,} pairs"))
    for key, said in (("similarity", "similarity"), ("image_delta", "delta, image"), ("text_delta", "delta, text")):
        if told[key] is not None:
            marks = told[key]["quantiles"]
            low, middle, high = (marks[share] for share in ("0.05", "0.5", "0.95"))
            form = ".3f" if key == "similarity" else ".2%"
            console.print(Text(f"  {said:<13} median {middle:{form}}, 5-95 % {low:{form}} to {high:{form}}"))
    for key, said in (("most", "carry most"), ("least", "carry least")):
        words = ", ".join(f"{one['word']} {one['mean_score']:+.3g}" for one in told["words"][key][:5])
        if words:
            console.print(Text(f"  {said:<13} {words}"), soft_wrap=True)
    for grid in told["grids"][:1]:
        for corner, one in grid["corners"].items():
            if isinstance(one, Mapping) and one["beyond"]:
                times = one["mass"] / one["usual"]
                console.print(Text(f"  The {corner} corner carries {times:.1f} times what is usual: a watermark?"))
