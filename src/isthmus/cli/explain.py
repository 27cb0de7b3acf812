"""`isthmus explain`: one picture, or a folder or table of them."""

from __future__ import annotations

import inspect
import json
import webbrowser
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus.errors import OptionError

if TYPE_CHECKING:
    from isthmus.encoders.dual import DualEncoder
    from isthmus.explanation import Explanation


class Closed(str, Enum):
    """Closed states that need no tensor."""

    zero = "zero"
    floor = "floor"
    mean = "mean"


class Sides(str, Enum):
    """Which sides to explain."""

    both = "both"
    image = "image"
    text = "text"


def explain(
    image: Annotated[
        str,
        typer.Argument(
            metavar="IMAGE", help="A picture; or a folder, .csv, .tsv or .jsonl of many.", show_default=False
        ),
    ],
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="TEXT", help="Texts to compare with it.", show_default=False),
    ] = None,
    against: Annotated[
        list[str] | None, typer.Option(help="Why the texts rather than this one? May be repeated.")
    ] = None,
    model: Annotated[
        str, typer.Option(help="mini, a dual encoder's Hugging Face name or local folder, or open_clip:NAME/WEIGHTS.")
    ] = "mini",
    method: Annotated[str, typer.Option(help="See `isthmus methods`.")] = "nib",
    layer: Annotated[
        str | None, typer.Option(help="Block whose input is explained: 0..depth, -1.., or a fraction.")
    ] = None,
    steps: Annotated[str | None, typer.Option(help='Nodes of the integral, or "auto".')] = None,
    tolerance: Annotated[float | None, typer.Option(help="Largest relative delta with --steps auto.")] = None,
    rule: Annotated[str | None, typer.Option(help="Quadrature rule, see `isthmus methods`.")] = None,
    closed: Annotated[Closed | None, typer.Option(help="State that stands for no information.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Another option of the method. May be repeated."),
    ] = None,
    preset: Annotated[str | None, typer.Option(help='"paper" for the published code\'s behaviour.')] = None,
    sides: Annotated[Sides, typer.Option(help="Sides to explain.")] = Sides.both,
    truncate: Annotated[bool, typer.Option("--truncate", help="Cut texts that are too long.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16 or auto.")] = "float32",
    out: Annotated[Path | None, typer.Option(help="Folder for the results.", show_default="isthmus-out/NAME")] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs at once.")] = 16,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make again what is there (folders).")] = False,
) -> None:
    """Explain which regions and words make the model say that IMAGE and TEXT match, and which speak against it."""
    options: dict[str, Any] = {
        "method": method,
        "against": against or None,
        "layer": _layer(layer),
        "steps": _steps(steps),
        "tolerance": tolerance,
        "rule": rule,
        "closed": None if closed is None else closed.value,
        "preset": preset,
        "sides": sides.value,
        "truncate": truncate,
        "batch_size": batch_size,
        **dict(map(_named_option, option or ())),
    }
    from isthmus.datasets.records import is_collection

    if not image.strip():
        raise OptionError("The path of the picture is empty: isthmus explain PICTURE TEXT.")
    source, failed = Path(image), 0
    folder = out if out is not None else Path("isthmus-out") / (source.resolve().stem or "pictures")
    if is_collection(source):
        from isthmus.cli.many import run_many

        loaded = _loaded(model, device, dtype)
        page, failed = run_many(loaded, source, tuple(texts or ()), folder, options, overwrite=overwrite)
    else:
        page = _one(model, device, dtype, image, texts, folder, options)
    if open_page:
        webbrowser.open(page.resolve().as_uri())
    if failed:
        raise typer.Exit(2)


def _loaded(model: str, device: str, dtype: str) -> DualEncoder:
    from isthmus.cli.screen import messages
    from isthmus.explainer import load

    loaded = load(model, device=device, dtype=dtype)
    if loaded.notice:
        messages().print(f"Note: {loaded.notice}", style="dim", markup=False)
    return loaded


def _one(
    model: str,
    device: str,
    dtype: str,
    image: str,
    texts: list[str] | None,
    folder: Path,
    options: dict[str, Any],
) -> Path:
    from isthmus.cli.screen import print_files, print_table
    from isthmus.encoders.pictures import open_picture
    from isthmus.explainer import explain as run

    picture = open_picture(image)  # a wrong path shows before the model loads
    if not texts:
        raise OptionError("There is no text: isthmus explain PICTURE TEXT.")
    found = run(_loaded(model, device, dtype), picture, texts, **options)
    assert isinstance(found, list)
    paths = _saved(found, folder, picture.source)
    print_table(found)
    print_files(paths, folder)
    return next(path for path in paths if path.suffix == ".html")


def _saved(found: list[Explanation], folder: Path, title: str) -> list[Path]:
    """One text straight into the folder; several into a folder each, with a page and a figure of all."""
    from isthmus.drawing import page, to_png
    from isthmus.export import write_files

    def index(path: Path) -> None:
        path.write_text(page(found, Path(title).name), encoding="utf-8")

    def figure(path: Path) -> None:
        path.write_bytes(to_png(found))

    if len(found) == 1:
        return [*write_files(folder, {"index.html": index}), *found[0].save(folder)]
    paths = [*write_files(folder, {"index.html": index, "index.png": figure})]
    for number, one in enumerate(found, 1):
        paths += one.save(folder / str(number))
    return paths


def _named_option(text: str) -> tuple[str, Any]:
    """NAME=VALUE, see `value_of`."""
    name, equals, value = text.partition("=")
    name = name.strip().replace("-", "_")
    if not equals or not name.isidentifier() or name in inspect.signature(explain).parameters:
        raise OptionError(f"--option takes NAME=VALUE, and a name that has no option of its own, not {text!r}.")
    return name, value_of(value)


def value_of(text: str) -> Any:
    """An option's value: as in JSON where it is such, the path of a picture that is there, else a text."""
    from isthmus.encoders.pictures import PICTURE_SUFFIXES

    try:
        return json.loads(text)
    except ValueError:
        path = Path(text)
        return path if path.suffix.lower() in PICTURE_SUFFIXES and path.is_file() else text


def _layer(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return float(text) if "." in text else int(text)
    except ValueError as error:
        raise OptionError(f"--layer takes a whole number or a fraction such as 0.75, not {text!r}.") from error


def _steps(text: str | None) -> int | str | None:
    if text is None or text == "auto":
        return text
    try:
        return int(text)
    except ValueError as error:
        raise OptionError(f'--steps takes a whole number or "auto", not {text!r}.') from error
