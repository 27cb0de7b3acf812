"""`isthmus reproduce`: a table or figure of the NIB paper, ours beside the paper's."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus.cli.compare import _options
from isthmus.cli.evaluate import LIBRARIES, _listed_failures, _said, bar, note, print_whole
from isthmus.cli.explain import _loaded
from isthmus.errors import OptionError

if TYPE_CHECKING:
    from isthmus.benchmark.reproduce import Reproduction
    from isthmus.encoders.dual import DualEncoder


class What(str, Enum):
    """Tables and figures of the paper."""

    table2 = "table2"
    table3 = "table3"
    table4 = "table4"
    table5 = "table5"
    table6 = "table6"
    table7 = "table7"
    table8 = "table8"
    figure1 = "figure1"
    figure2 = "figure2"


def reproduce(
    what: Annotated[What, typer.Argument(help="A table or figure of the NIB paper.", show_default=False)],
    model: Annotated[
        str, typer.Option(help="mini, a Hugging Face name (the paper's: openai/clip-vit-base-patch32), or a folder.")
    ] = "mini",
    dataset_root: Annotated[
        Path | None, typer.Option(help="Folder that holds the paper's datasets, see `isthmus datasets`.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Samples of each dataset.", show_default="all")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METHOD.NAME=VALUE", help="An option in place of the paper's, such as rise.samples=300; is told."
        ),
    ] = None,
    image: Annotated[str | None, typer.Option(help="A picture of your own (figures).")] = None,
    text: Annotated[list[str] | None, typer.Option(help="What is asked of it. May be repeated.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results.", show_default="isthmus-out/WHAT")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Names the sample.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16 or auto.")] = "float32",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin anew.")] = False,
) -> None:
    """Run WHAT by the paper's protocol and print our figures beside the paper's, with the difference.

    The paper's list of Conceptual Captions pairs is not public, so that another sample is judged: a difference of the
    figures is one of model, sample and, where the paper's code does not run, of code (see `isthmus methods`).
    """
    from isthmus.cli.screen import print_files

    folder = out if out is not None else Path("isthmus-out") / what.value
    if folder.is_file():
        raise OptionError(f"{str(folder)!r} is a file: give --out a folder.")
    loaded = _loaded(model, device, dtype)
    options = _options(option or ())
    if what.value.startswith("figure"):
        from isthmus.benchmark.figures import draw

        print_files(
            draw(
                what.value,
                loaded,
                folder,
                root=dataset_root,
                limit=limit,
                seed=seed,
                image=image,
                texts=text or (),
                options=options,
            ),
            folder,
        )
        return
    if image is not None or text:
        raise OptionError("--image and --text are for figures: leave them out.")
    _table(what.value, loaded, folder, dataset_root, limit, seed, options, overwrite)


def _table(
    table: str,
    model: DualEncoder,
    folder: Path,
    root: Path | None,
    limit: int | None,
    seed: int,
    options: dict[str, dict[str, Any]],
    overwrite: bool,
) -> None:
    from isthmus.benchmark.reproduce import reproduce as run
    from isthmus.benchmark.reproduce import save
    from isthmus.cli.screen import output, print_files
    from isthmus.extras import needed

    for library in LIBRARIES:
        needed(library)  # rather than after hours
    with _said(folder), bar("Reproducing") as progress:
        found = run(
            table,
            model,
            folder,
            root=root,
            limit=limit,
            seed=seed,
            options=options,
            overwrite=overwrite,
            progress=progress,
        )
    paths = save(found, folder)
    _print(found)
    print_files(paths, folder)
    for label, reason in found.refused.items():
        note(f"{label} has no result: {reason}")
    if found.failed:
        output().print(f"{len(found.failed)} failed:")
        _listed_failures(found.failed)
    if found.failed or found.refused:
        raise typer.Exit(2)


def _print(found: Reproduction) -> None:
    from rich.table import Table
    from rich.text import Text

    from isthmus.benchmark.paper import TITLES
    from isthmus.benchmark.reproduce import grids
    from isthmus.benchmark.table import Cell
    from isthmus.cli.screen import output

    console = output()
    console.print(Text(TITLES[found.table], style="bold"))
    for name, value in found.about.items():
        console.print(Text(f"{name}: {value}"), soft_wrap=True)
    for caption, header, rows in grids(found):
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for i, name in enumerate(header):
            table.add_column(Text(name), justify="right" if i else "left", no_wrap=True)
        for row in rows:
            table.add_row(*(value.text if isinstance(value, Cell) else str(value or "–") for value in row))
        console.print()
        console.print(Text(caption, style="bold"), soft_wrap=True)
        print_whole(table)
