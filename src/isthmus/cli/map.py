"""`isthmus map`: any number of pairs into a folder of Parquet files, on this machine or a Ray cluster."""

from __future__ import annotations

import inspect
import signal
import sys
import threading
import time
from collections.abc import Container, Iterator
from contextlib import contextmanager
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus.cli.explain import Sides, _layer, _steps, value_of
from isthmus.errors import InputError, OptionError

if TYPE_CHECKING:
    from isthmus.scale.progress import Progress

_LINE = 60.0  # seconds between lines where the output is no terminal


class Engine(str, Enum):
    """What a run runs on."""

    local = "local"
    ray = "ray"


class Stored(str, Enum):
    """How maps are kept."""

    float32 = "float32"
    float16 = "float16"
    int8 = "int8"
    vectors = "vectors"


def map(
    source: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="A folder of pictures, a .csv, .tsv or .jsonl table, Parquet files, .tar shards, or hf:NAME; a path, "
            "a pattern or a URL.",
            show_default=False,
        ),
    ],
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="A folder or a URL.", show_default=False)],
    model: Annotated[
        str, typer.Option(help="mini, a dual encoder's Hugging Face name or local folder, or open_clip:NAME/WEIGHTS.")
    ] = "mini",
    method: Annotated[
        list[str] | None, typer.Option(help="See `isthmus methods`. May be repeated.", show_default="nib")
    ] = None,
    image_column: Annotated[str | None, typer.Option(help="Column of the picture.")] = None,
    text_column: Annotated[list[str] | None, typer.Option(help="Column of a text. May be repeated.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="File of texts for every picture, one a line.")] = None,
    text: Annotated[list[str] | None, typer.Option(help="A text for every picture. May be repeated.")] = None,
    split: Annotated[str | None, typer.Option(help="A part of the dataset, such as val.")] = None,
    config: Annotated[str | None, typer.Option(help="Of a Hugging Face dataset.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many records from the beginning.")] = None,
    shards: Annotated[str | None, typer.Option(metavar="N/M", help="The Nth of M parts of the input.")] = None,
    engine: Annotated[Engine, typer.Option(help="This machine, or a Ray cluster.")] = Engine.local,
    address: Annotated[str | None, typer.Option(help="Of the Ray cluster; see docs/scale-cluster.md.")] = None,
    cores: Annotated[int | None, typer.Option(min=1, help="Of each worker of the cluster without a GPU.")] = None,
    stored: Annotated[Stored, typer.Option(help="How maps are kept.")] = Stored.float32,
    layer: Annotated[
        str | None, typer.Option(help="Block whose input is explained: 0..depth, -1.., or a fraction.")
    ] = None,
    steps: Annotated[str | None, typer.Option(help='Nodes of the integral, or "auto".')] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Another option of the methods. May be repeated."),
    ] = None,
    preset: Annotated[str | None, typer.Option(help='"paper" for the published code\'s behaviour.')] = None,
    sides: Annotated[Sides, typer.Option(help="Sides to explain.")] = Sides.both,
    truncate: Annotated[bool, typer.Option("--truncate", help="Cut texts that are too long.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16 or auto.")] = "float32",
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs at once.")] = 16,
    piece_size: Annotated[int, typer.Option(min=1, help="Pairs in a file of the output.")] = 512,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that open pictures.", show_default="as the device needs")
    ] = None,
    max_failures: Annotated[int | None, typer.Option(min=0, help="Stop where more pairs fail.")] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Do again what failed in an earlier run.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Throw away what an earlier run wrote.")] = False,
) -> None:
    """Explain all pairs of INPUT into OUTPUT: Parquet files with a row for each pair and method.

    Interrupted or killed, the same command goes on where it was. What fails is listed in errors.parquet.
    """
    from isthmus.cli.screen import messages
    from isthmus.cli.screen import output as results
    from isthmus.scale.mapping import map as run

    options: dict[str, Any] = {
        "layer": _layer(layer),
        "steps": _steps(steps),
        **dict(_option(one, inspect.signature(run).parameters) for one in option or ()),
    }
    console = results()
    try:
        with _ended_as_interrupted(), _Screen() as screen:
            found = run(
                source,
                output,
                model=model,
                method=tuple(method or ("nib",)),
                prompts=(*_prompts(prompts), *(text or ())),
                image_column=image_column,
                text_columns=tuple(text_column or ()),
                split=split,
                config=config,
                limit=limit,
                shards=shards,
                engine=engine.value,
                address=address,
                cores=cores,
                stored=stored.value,
                sides=sides.value,
                preset=preset,
                truncate=truncate,
                device=None if device == "auto" else device,
                dtype=dtype,
                batch_size=batch_size,
                piece_size=piece_size,
                workers=workers,
                max_failures=max_failures,
                retry_failed=retry_failed,
                overwrite=overwrite,
                progress=screen.show,
                notice=lambda said: messages().print(f"Note: {said}", style="dim", markup=False),
                **options,
            )
    except KeyboardInterrupt as error:
        console.print(
            f"Interrupted: what is finished is in {output}, whole. Run the same command again to go on.",
            markup=False,
            soft_wrap=True,
        )
        raise typer.Exit(143 if isinstance(error, _Terminated) else 130) from error
    nothing = "" if found.progress.done or found.progress.pairs else "Nothing was left to do: "
    rows = "1 row" if found.rows == 1 else f"{found.rows} rows"
    console.print(f"{nothing}{rows}: {_at(found.folder, 'pairs')}", markup=False, soft_wrap=True)
    if found.failures:
        told = f"{found.failures} failed, listed in {_at(found.folder, 'errors.parquet')}"
        console.print(told, markup=False, soft_wrap=True)
        raise typer.Exit(2)


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a run as Ctrl-C does."""


@contextmanager
def _ended_as_interrupted() -> Iterator[None]:
    """SIGTERM raises _Terminated here; a second one ends the process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, before)
        raise _Terminated

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _at(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}"


def _prompts(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        found = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except FileNotFoundError as error:
        raise InputError(f"There is no file of prompts {str(path)!r}: check the path.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"The prompts {str(path)!r} cannot be read: give a UTF-8 file with one text a line."
        ) from error
    if not found:
        raise InputError(f"The file {str(path)!r} has no prompts: write one text a line.")
    return found


def _option(text: str, taken: Container[str]) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    name = name.strip().replace("-", "_")
    if not equals or not name.isidentifier():
        raise OptionError(f"--option takes NAME=VALUE, not {text!r}.")
    if name in taken:
        raise OptionError(f"--option is for options of the methods: {name!r} is none, see isthmus map --help.")
    return name, value_of(value)


class _Screen:
    """Shows how far a run is: a bar on a terminal, else a line a minute."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        from isthmus.cli.screen import messages

        self._console, self._said = messages(), time.monotonic()
        columns = (TextColumn("Explaining"), BarColumn(), TextColumn("{task.fields[told]}"))
        self._bar = Bar(*columns, console=self._console, disable=not self._console.is_terminal)
        self._task = self._bar.add_task("", total=None, told="")

    def __enter__(self) -> _Screen:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, progress: Progress) -> None:
        """Show the latest state."""
        told = said(progress)
        self._bar.update(self._task, completed=progress.records, total=progress.total, told=told)
        if not self._console.is_terminal and time.monotonic() - self._said > _LINE:
            self._said = time.monotonic()
            print(told, file=sys.stderr, flush=True)


def said(progress: Progress) -> str:
    """How far a run is, its rate and the time that is left, as far as they are known."""
    of = f"/{progress.total:,}" if progress.total is not None else ""
    told = [f"{progress.records:,}{of}"]
    if progress.pairs and progress.seconds > 0:
        rate = progress.pairs / progress.seconds
        told.append(f"{rate:,.1f} pairs/s")
        if progress.total is not None and progress.done:
            left = (progress.total - progress.records) / progress.done * progress.seconds
            told.append(f"{timedelta(seconds=round(max(0.0, left)))} left")
    if progress.failures:
        told.append(f"{progress.failures:,} failed")
    return ", ".join(told)
