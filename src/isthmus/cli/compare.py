"""`isthmus compare`: one picture and one text, as several methods explain them."""

from __future__ import annotations

import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus.cli.explain import Sides, _loaded, value_of
from isthmus.errors import OptionError

if TYPE_CHECKING:
    from rich.text import Text

    from isthmus.comparison import CompareRow, Comparison


def compare(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="A picture.", show_default=False)],
    text: Annotated[
        str | None, typer.Argument(metavar="TEXT", help="The text to compare with it.", show_default=False)
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C",
            help='Methods in the order of the rows, the first one the reference, see `isthmus methods`; or "all".',
            show_default="nib and one or two of each family",
        ),
    ] = None,
    against: Annotated[list[str] | None, typer.Option(help="Why TEXT rather than this one? May be repeated.")] = None,
    model: Annotated[
        str, typer.Option(help="mini, a dual encoder's Hugging Face name or local folder, or open_clip:NAME/WEIGHTS.")
    ] = "mini",
    sides: Annotated[Sides, typer.Option(help="Sides to explain.")] = Sides.both,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="METHOD.NAME=VALUE", help="An option of one method. May be repeated."),
    ] = None,
    truncate: Annotated[bool, typer.Option("--truncate", help="Cut a text that is too long.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16 or auto.")] = "float32",
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results.", show_default="isthmus-out/NAME-compared")
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Explain IMAGE and TEXT by several methods: a row for each, with its time, passes and agreement with the first."""
    options = _options(option or ())
    from isthmus.cli.screen import print_files
    from isthmus.comparison import check, chosen
    from isthmus.comparison import compare as run
    from isthmus.encoders.pictures import open_picture

    if not image.strip():
        raise OptionError("The path of the picture is empty: isthmus compare PICTURE TEXT.")
    picture = open_picture(image)  # a wrong path or name shows before the model loads
    if text is None:
        raise OptionError("There is no text: isthmus compare PICTURE TEXT.")
    names = chosen(_listed(methods))
    check(names, options)
    folder = out if out is not None else Path("isthmus-out") / f"{Path(image).resolve().stem or 'picture'}-compared"
    if folder.is_file():
        raise OptionError(f"{str(folder)!r} is a file: give --out a folder.")
    loaded = _loaded(model, device, dtype)
    with _progress(names) as progress:
        found = run(
            loaded,
            picture,
            text,
            methods=names,
            against=against or None,
            sides=sides.value,  # type: ignore[arg-type]
            options=options,
            truncate=truncate,
            progress=progress,
        )
    paths = found.save(folder)
    _print(found)
    print_files(paths, folder)
    if open_page:
        webbrowser.open(paths[0].resolve().as_uri())


def _listed(methods: str | None) -> str | list[str] | None:
    """Names between commas; "all" stays as it is."""
    names = None if methods is None else [name.strip() for name in methods.split(",") if name.strip()]
    return "all" if names == ["all"] else names


def _options(given: Sequence[str]) -> dict[str, dict[str, Any]]:
    """METHOD.NAME=VALUE by method and name, see `value_of`."""
    options: dict[str, dict[str, Any]] = {}
    for text in given:
        place, equals, value = text.partition("=")
        method, dot, name = (part.strip() for part in place.partition("."))
        if not (equals and dot and method and name):
            raise OptionError(f"--option takes METHOD.NAME=VALUE, such as nib.layer=9, not {text!r}.")
        options.setdefault(method, {})[name.replace("-", "_")] = value_of(value)
    return options


@contextmanager
def _progress(names: Sequence[str]) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error that names the method at work."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from isthmus.cli.screen import messages

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=messages()) as bar:
        task = bar.add_task(names[0], total=len(names))

        def advance(done: int, _: int) -> None:
            bar.update(task, completed=done, description=names[done] if done < len(names) else "Compared")

        yield advance


def _print(found: Comparison) -> None:
    """A row for each method, what the columns mean, and why a method was left out."""
    from rich.table import Table
    from rich.text import Text

    from isthmus.cli.screen import messages, output
    from isthmus.drawing.compared_words import meaning_of_agreement, notes_of

    console = output()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("method", overflow="fold", min_width=10)
    for name in ("time", "passes", "image", "text"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("strongest words", ratio=1, overflow="fold", min_width=16)
    for row in found.rows:
        if row.explanation is not None:
            table.add_row(*_row(row))
    console.print(table)
    console.print(Text(f"Passes: forward + backward. {meaning_of_agreement(found)}"), style="dim")
    for row in found.rows:
        if row.reason is not None:
            console.print(Text.assemble((row.method, "bold"), f" has no result: {row.reason}"), soft_wrap=True)
    for note in dict.fromkeys(note for one in found.explanations for note in notes_of(one)):
        messages().print(Text(f"Note: {note}."))


def _row(row: CompareRow) -> list[Text]:
    from rich.text import Text

    from isthmus.drawing.compared_words import written
    from isthmus.drawing.scale import word_scale

    assert row.explanation is not None
    words = Text()
    text = row.explanation.text
    limit = word_scale([row.explanation]).limit
    for word in text.top(3) if text is not None else ():
        words.append(f"{', ' if words else ''}{word.text} ")
        words.append(written(word.score, limit, 2), style="red" if word.score > 0 else "blue")
    agreed = ("" if value is None else f"{value:+.2f}" for value in (row.agreement_image, row.agreement_text))
    passes = f"{row.forward or 0:g} + {row.backward or 0:g}"
    return [Text(part) for part in (row.method, f"{row.seconds or 0:.2f} s", passes, *agreed)] + [words]
