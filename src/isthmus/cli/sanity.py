"""`isthmus sanity`: do the maps follow the model's weights and the caption, and nothing else?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus.cli.compare import _options
from isthmus.cli.evaluate import _listed_failures, _names, bar, note
from isthmus.cli.explain import Sides, _loaded
from isthmus.cli.sanity_run import CHECKS, Checked, Plan
from isthmus.errors import InputError, OptionError

if TYPE_CHECKING:
    from isthmus.cli.sanity_run import CheckRow
    from isthmus.cli.sanity_tables import CheckTable
    from isthmus.datasets import Dataset, Failure, Sample
    from isthmus.encoders.dual import DualEncoder

BUNDLED = "the bundled pictures"


def sanity(
    dataset: Annotated[
        str | None,
        typer.Argument(
            metavar="[DATASET]",
            help="As `isthmus evaluate` takes it; by default pictures that come with Isthmus.",
            show_default=False,
        ),
    ] = None,
    methods: Annotated[
        str, typer.Option(metavar="A,B,C", help='Methods, see `isthmus methods`; or "all".')
    ] = "nib,gradcam,grad-eclip,chefer",
    checks: Annotated[
        str, typer.Option(metavar="A,B,C", help=f"Checks among {', '.join(CHECKS)}.", show_default="all")
    ] = "all",
    single: Annotated[
        bool, typer.Option("--single", help="Draw one block anew at a time, not all behind it too.")
    ] = False,
    blocks: Annotated[
        str | None,
        typer.Option(metavar="A,B,C", help="Blocks to draw anew, negative from the end.", show_default="all"),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many samples, chosen by --seed.")] = 8,
    out: Annotated[
        Path | None, typer.Option(help="Folder for sanity.csv and sanity.md.", show_default="isthmus-out/sanity")
    ] = None,
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
    sides: Annotated[Sides, typer.Option(help="Sides to check.")] = Sides.both,
    seed: Annotated[
        int, typer.Option(min=0, help="Names the sample, the weights that are drawn and the intervals.")
    ] = 0,
    model: Annotated[
        str, typer.Option(help="mini, a dual encoder's Hugging Face name or local folder, or open_clip:NAME/WEIGHTS.")
    ] = "mini",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16 or auto.")] = "float32",
) -> None:
    """Check that maps follow the weights and the caption, and neither their batch nor chance; with their agreement."""
    from isthmus.cli.sanity_run import measured
    from isthmus.cli.sanity_tables import tables_of
    from isthmus.datasets import open_dataset, read_ids, sampled

    plan = Plan(
        methods=_methods(methods),
        checks=_checks(checks),
        options=_options(option or ()),
        sides=("image", "text") if sides is Sides.both else (sides.value,),
        cascading=not single,
        blocks=_blocks(blocks),
        seed=seed,
    )
    plan.check()
    folder = out if out is not None else Path("isthmus-out") / "sanity"
    if folder.is_file():
        raise OptionError(f"{str(folder)!r} is a file: give --out a folder.")
    given: dict[str, Any] = {
        "root": dataset_root,
        "split": split,
        "image_column": image_column,
        "text_columns": tuple(text_column or ()),
        "streaming": streaming,
    }
    if dataset is None and any(given.values()):
        raise OptionError("--dataset-root, --split, --streaming and columns are for a DATASET: name one.")
    texts = tuple(text or ())
    opened = bundled(texts) if dataset is None else open_dataset(dataset, texts=texts, seed=seed, **given)
    samples, failed = sampled(opened, limit=limit, seed=seed, ids=None if ids is None else read_ids(ids))
    loaded = _loaded(model, device, dtype)
    pairs = _pairs(loaded, samples, captions, opened.name, failed)
    plan, lacking = plan.fitting(loaded, pairs)
    for check, why in lacking.items():
        note(f"Not checked: {check}. {why}")
    with bar("Checking") as progress:
        rows, refused = measured(loaded, pairs, plan, progress=progress)
    head = f"{loaded.name} on {len(pairs.texts)} pairs of {opened.name}, seed {seed}"
    _told(head, rows, tables_of(rows, cascading=plan.cascading), refused, folder)
    if failed:
        note(f"{len(failed)} failed:")
        _listed_failures(failed)
    if failed or refused:
        raise typer.Exit(2)


def _methods(given: str) -> tuple[str, ...]:
    from isthmus.methods import registry

    names = _names(given) or []
    if not names:
        raise OptionError("There is no method to check: name at least one, see isthmus methods.")
    if names == ["all"]:
        return tuple(sorted(registry.METHODS))
    return tuple(dict.fromkeys(registry.get(name).name for name in names))


def _checks(given: str) -> tuple[str, ...]:
    names = _names(given) or []
    if names == ["all"]:
        return CHECKS
    unknown = [name for name in names if name not in CHECKS]
    if unknown or not names:
        what = f"There is no check {unknown[0]!r}" if unknown else "There is no check to make"
        raise OptionError(f"{what}: choose among {', '.join(CHECKS)}.")
    return tuple(name for name in CHECKS if name in names)


def _blocks(given: str | None) -> tuple[int, ...] | None:
    if given is None:
        return None
    try:
        return tuple(int(number) for number in given.split(",") if number.strip())
    except ValueError as error:
        raise OptionError(f"--blocks takes whole numbers between commas, such as 11,6,0, not {given!r}.") from error


def bundled(texts: Sequence[str] = ()) -> Dataset:
    """The pictures of the reference set, each with all of its captions, of which the model then chooses.

    Args:
        texts: texts for every picture, in place of the captions.
    """
    from importlib.resources import files

    from isthmus.datasets import Dataset, Sample

    folder = Path(str(files("isthmus.encoders"))) / "reference_set"
    captions = tuple(texts) or tuple((folder / "captions.txt").read_text(encoding="utf-8").splitlines())
    return Dataset(BUNDLED, lambda: (Sample(path.stem, path, captions) for path in sorted(folder.glob("*.jpg"))))


def _pairs(model: DualEncoder, samples: Sequence[Sample], choice: str, dataset: str, failed: list[Failure]) -> Checked:
    """The pictures that can be opened with the texts that are chosen; the others are added to `failed`."""
    from isthmus.benchmark.questions import items_of, opened

    items = items_of(samples, "caption", model, choice=choice, failed=failed.append)
    pairs, pictures = opened(items, model, failed=failed.append) if items else (None, [])
    if pairs is None:
        first = f" (the first, {failed[0].id!r}: {failed[0].reason.rstrip('.')})" if failed else ""
        raise InputError(f"None of the {len(samples)} samples of {dataset} can be used{first}: choose other samples.")
    of = {item.id: item.sample.picture for item in items}
    return Checked(tuple(pictures), tuple(pairs.texts), tuple(of[name] for name in pairs.ids))


def _told(
    head: str, rows: Sequence[CheckRow], tables: Sequence[CheckTable], refused: Mapping[str, str], folder: Path
) -> None:
    """Print the tables, write the files, and say which methods have no result."""
    from isthmus.cli.sanity_tables import print_tables, to_markdown, write_csv
    from isthmus.cli.screen import print_files
    from isthmus.export import write_files

    print_tables(head, tables)
    paths = write_files(
        folder,
        {
            "sanity.csv": lambda path: write_csv(path, rows),
            "sanity.md": lambda path: path.write_text(to_markdown(head, tables, refused), encoding="utf-8"),
        },
    )
    print_files(paths, folder)
    for name, reason in refused.items():
        note(f"{name} has no result: {reason}")
