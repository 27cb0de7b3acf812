"""`isthmus evaluate`: methods by metrics on a dataset, in a folder that can be gone on with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus.cli.compare import _listed, _options
from isthmus.cli.explain import Sides, _loaded
from isthmus.errors import OptionError

if TYPE_CHECKING:
    from rich.table import Table

    from isthmus.benchmark.run import Outcome
    from isthmus.benchmark.summary import SummaryRow
    from isthmus.datasets import Failure, Sample

LIBRARIES = ("pyarrow.parquet", "scipy.stats")
_SHOWN = 10
_WIDE = 10_000


def evaluate(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET",
            help="A name, see `isthmus datasets`; a folder, .csv, .tsv, .jsonl, .parquet, .json or .tar of pictures "
            "with texts; or hf:NAME.",
            show_default=False,
        ),
    ],
    methods: Annotated[
        str, typer.Option(metavar="A,B,C", help='Methods, see `isthmus methods`; or "all".')
    ] = "nib,gradcam,grad-eclip,chefer",
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C", help='Metrics, see `isthmus metrics`; or "all".', show_default="those for any captions"
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="How many samples, chosen by --seed.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results.", show_default="isthmus-out/NAME")] = None,
    dataset_root: Annotated[Path | None, typer.Option(help="Where a named dataset lies.")] = None,
    split: Annotated[str | None, typer.Option(help="A part of the dataset, such as val.")] = None,
    image_column: Annotated[str | None, typer.Option(help="Column of the picture.")] = None,
    text_column: Annotated[list[str] | None, typer.Option(help="Column of a text. May be repeated.")] = None,
    text: Annotated[
        list[str] | None, typer.Option(help="A text for every picture, in place of its own. May be repeated.")
    ] = None,
    streaming: Annotated[bool, typer.Option("--streaming", help="Fetch a hub dataset as it is read.")] = False,
    ids: Annotated[Path | None, typer.Option(help="File with the ids to take, one a line.")] = None,
    captions: Annotated[
        str, typer.Option(help="Which caption of several: best (by cosine), first, all, or paper.")
    ] = "best",
    option: Annotated[
        list[str] | None, typer.Option(metavar="METHOD.NAME=VALUE", help="An option of a method. May be repeated.")
    ] = None,
    metric_option: Annotated[
        list[str] | None, typer.Option(metavar="METRIC.NAME=VALUE", help="An option of a metric. May be repeated.")
    ] = None,
    replacement: Annotated[
        list[str] | None,
        typer.Option(help="What stands where parts are taken away: mean, blur, zero, black, remove. May be repeated."),
    ] = None,
    preset: Annotated[str | None, typer.Option(help='"paper" for every method that has it.')] = None,
    oracle: Annotated[int, typer.Option(min=0, help="Pairs for the greedy oracle of insertion and deletion.")] = 48,
    sides: Annotated[Sides, typer.Option(help="Sides to judge.")] = Sides.both,
    seed: Annotated[int, typer.Option(min=0, help="Names the sample, and all random draws.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs at once.")] = 32,
    model: Annotated[
        str, typer.Option(help="mini, a dual encoder's Hugging Face name or local folder, or open_clip:NAME/WEIGHTS.")
    ] = "mini",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16 or auto.")] = "float32",
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Draw the plots.")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin anew.")] = False,
) -> None:
    """Judge METHODS on DATASET: a row for each pair, method and metric, a table with intervals, and plots.

    Interrupted or killed, the same command goes on where it was; more methods or metrics may be added.
    """
    from isthmus.benchmark.plan import Plan, metrics_of
    from isthmus.benchmark.report import report
    from isthmus.benchmark.run import run
    from isthmus.benchmark.spec import ORACLE, specs_of
    from isthmus.datasets import open_dataset, read_ids, sampled
    from isthmus.extras import needed
    from isthmus.metrics.trivial import TRIVIAL

    for library in LIBRARIES:
        needed(library)  # rather than after hours
    chosen = metrics_of(_names(metrics))
    dear = (ORACLE,) if oracle and any(metric.oracle for metric in chosen) else ()
    names = _names(methods)
    if not names:
        raise OptionError(
            "There is no method to judge: name at least one, see isthmus methods; random, flat and centre too."
        )
    specs = specs_of(names, options=_options(option or ()), preset=preset, trivial=(*TRIVIAL, *dear))
    opened = open_dataset(
        dataset,
        root=dataset_root,
        split=split,
        image_column=image_column,
        text_columns=tuple(text_column or ()),
        streaming=streaming,
        texts=tuple(text or ()),
        seed=seed,
    )
    folder = out if out is not None else Path("isthmus-out") / f"evaluate-{Path(opened.name).stem}"
    if folder.is_file():
        raise OptionError(f"{str(folder)!r} is a file: give --out a folder.")
    samples, bad = sampled(opened, limit=limit, seed=seed, ids=None if ids is None else read_ids(ids))
    plan = Plan(
        _loaded(model, device, dtype),
        opened.name,
        samples,
        specs,
        chosen,
        metric_options=_metric_options(metric_option or ()),
        replacements=tuple(replacement or ("mean",)),
        choice=captions,
        seed=seed,
        batch_size=batch_size,
        oracle_pairs=oracle,
        sides=("image", "text") if sides is Sides.both else (sides.value,),
    )
    with _said(folder), bar("Evaluating") as progress:
        outcome = run(plan, folder, overwrite=overwrite, progress=progress)
    outcome.failed = [*bad, *outcome.failed]
    summary, paths = report(plan, outcome, folder, plots=plots)
    print_summary(summary)
    for reason in dict.fromkeys(outcome.skipped.values()):
        names = [name for name, why in outcome.skipped.items() if why == reason]
        note(f"Not measured: {', '.join(names)}. {reason}.")
    _finish(outcome, samples, paths, folder)
    if outcome.failed or outcome.refused:
        raise typer.Exit(2)


def _names(given: str | None) -> list[str] | None:
    found = _listed(given)
    return [found] if isinstance(found, str) else found


def _metric_options(given: Sequence[str]) -> dict[str, dict[str, Any]]:
    try:
        return _options(given)
    except OptionError as error:
        raise OptionError(
            f"--metric-option takes METRIC.NAME=VALUE, such as insertion.points=10, not {', '.join(map(repr, given))}."
        ) from error


def note(text: str) -> None:
    """Print a sentence on standard error."""
    from isthmus.cli.screen import messages

    messages().print(text, markup=False, soft_wrap=True)


@contextmanager
def _said(folder: Path) -> Iterator[None]:
    """On an interrupt, say what is safe and how to go on."""
    try:
        yield
    except KeyboardInterrupt as error:
        note(f"Interrupted: what was measured is whole in {folder}. Run the same command again to go on.")
        raise typer.Exit(130) from error


@contextmanager
def bar(what: str) -> Iterator[Callable[[int, int, str], None]]:
    """A bar on standard error that names the method at work."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from isthmus.cli.screen import messages

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=messages()) as shown:
        task = shown.add_task(what, total=None)

        def advance(done: int, total: int, label: str) -> None:
            shown.update(task, completed=done, total=total, description=label or what)

        yield advance


def print_summary(summary: Sequence[SummaryRow]) -> None:
    """A line for each metric, side and variant; a column for each method; means with half their interval."""
    from rich.table import Table
    from rich.text import Text

    from isthmus.cli.screen import output

    console = output()
    for dataset in dict.fromkeys(row.dataset for row in summary):
        own = [row for row in summary if row.dataset == dataset]
        names = list(dict.fromkeys(row.method for row in own))
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for name in ("metric", "side", "variant"):
            table.add_column(name, no_wrap=True)
        for name in names:
            table.add_column(Text(name), justify="right", no_wrap=True)
        for key in dict.fromkeys(row.key for row in own):
            cells = {row.method: _cell(row) for row in own if row.key == key}
            table.add_row(*map(Text, key[1:]), *(cells.get(name, "") for name in names))
        console.print(Text(dataset, style="bold"), soft_wrap=True)
        print_whole(table)


def print_whole(table: Table) -> None:
    """Print a table as wide as it is: a narrower terminal breaks the lines, but no cell is cut."""
    from isthmus.cli.screen import output

    console = output()
    console.width = max(console.width, console.measure(table, options=console.options.update(width=_WIDE)).maximum)
    console.print(table)


def _cell(row: SummaryRow) -> str:
    """Mean and half the interval; a batch's cost is told of each of its pairs alike, so that it has no spread."""
    from isthmus.benchmark.summary import COSTS

    if row.mean != row.mean:
        return "n/a"
    digits = 3 if abs(row.mean) < 1 else 1
    half = (row.high - row.low) / 2
    return f"{row.mean:.{digits}f}" + (f" ±{half:.{digits}f}" if half == half and row.metric not in COSTS else "")


def _finish(outcome: Outcome, samples: Sequence[Sample], paths: Sequence[Path], folder: Path) -> None:
    from isthmus.benchmark.summary import fewer_pairs
    from isthmus.cli.screen import output

    console = output()
    console.print(
        f"{len(samples)} samples, {outcome.rows.num_rows} rows: {folder / 'rows.parquet'}, {paths[0]}",
        markup=False,
        soft_wrap=True,
    )
    for label, reason in outcome.refused.items():
        note(f"{label} has no result: {reason}")
    for label, (count, most) in fewer_pairs(outcome.rows).items():
        note(f"{label} is measured on {count} of {most} pairs: ask for it again, and those that can be are added.")
    if outcome.failed:
        console.print(
            f"{len(outcome.failed)} failed, listed in {folder / 'failures.csv'}:", markup=False, soft_wrap=True
        )
        _listed_failures(outcome.failed)


def _listed_failures(failed: Sequence[Failure]) -> None:
    from rich.text import Text

    from isthmus.cli.screen import output

    console = output()
    for one in failed[:_SHOWN]:
        console.print(Text(f"  {one.id}: {one.reason}"), soft_wrap=True)
    if len(failed) > _SHOWN:
        console.print(f"  ... and {len(failed) - _SHOWN} more")
