"""`isthmus explain FOLDER`: many records, past bad ones, to be interrupted and gone on with."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from isthmus.cli.screen import messages, output
from isthmus.datasets.records import Failure, Record, read_records
from isthmus.drawing.listing import Line, listing
from isthmus.encoders.pictures import open_picture
from isthmus.errors import InputError, ModelError, OptionError, SaveError
from isthmus.explainer import explain
from isthmus.explanation import Explanation
from isthmus.export import STEM, write_files

if TYPE_CHECKING:
    from isthmus.encoders.dual import DualEncoder

_COLUMNS = ("id", "text", "similarity", "top_words", "image_delta", "text_delta", "folder")
_SHOWN = 20


@dataclass
class _Run:
    """Where a run writes, and how far it has come."""

    model: DualEncoder
    folder: Path
    options: Mapping[str, Any]
    written: int = 0
    there: int = 0
    failed: list[Failure] = field(default_factory=list)
    listed: set[str] = field(default_factory=set)

    @property
    def table(self) -> Path:
        return self.folder / "results.csv"

    def one(self, record: Record) -> None:
        """Explain one record with all of its texts, which share a probability; save those that are not there."""
        places = self._places(record)
        todo = [place for text, place in places if not self._done(record, text, place)]
        self._list((record.id, place) for _, place in places if place not in todo)
        self.there += len(places) - len(todo)
        if not todo:
            return
        found = explain(self.model, open_picture(record.image), list(record.texts), **self.options)
        assert isinstance(found, list)
        for one, (_, place) in zip(found, places, strict=True):
            if place in todo:
                one.save(place)
                self._list([(record.id, place)], one)
                self.written += 1

    def together(self, records: Sequence[Record]) -> None:
        """Explain several records in one batch; on any error, one by one, so that only the bad one fails."""
        todo = []
        for record in records:
            places = self._places(record)
            if len(places) > 1 or self._done(record, *places[0]) or self.options["preset"] == "paper":
                self._alone(record)  # the paper's text maps depend on the batch, and a batch on what is there
            else:
                todo.append((record, *places[0]))
        try:
            pictures = [record.image for record, _, _ in todo]  # opened by the call, side by side
            texts = [text for _, text, _ in todo]
            found = explain(self.model, pictures, texts, **self.options) if todo else []
        except (InputError, ModelError):
            for record, _, _ in todo:
                self._alone(record)
            return
        for one, (record, _, place) in zip(found, todo, strict=True):  # type: ignore[arg-type]
            one.save(place)
            self._list([(record.id, place)], one)
            self.written += 1

    def _alone(self, record: Record) -> None:
        try:
            self.one(record)
        except InputError as error:
            self.failed.append(Failure(record.id, str(error)))
        except ModelError as error:
            if not self.written + self.there:
                raise  # the model fails, not this picture
            self.failed.append(Failure(record.id, str(error)))

    def _places(self, record: Record) -> list[tuple[str, Path]]:
        place = self.folder / record.id
        if len(record.texts) == 1:
            return [(record.texts[0], place)]
        return [(text, place / str(n)) for n, text in enumerate(record.texts, 1)]

    def _done(self, record: Record, text: str, place: Path) -> bool:
        """Whether a whole result of this text and of the picture as it now is lies there."""
        try:
            one = Explanation.load(place)
            written, picture = (place / f"{STEM}.json").stat(), record.image.stat()
            same = Path(one.source).resolve() == record.image.resolve() and one.caption == text
            return same and max(picture.st_mtime_ns, picture.st_ctime_ns) <= written.st_mtime_ns
        except (OSError, SaveError):
            return False

    def _list(self, places: Iterable[tuple[str, Path]], one: Explanation | None = None) -> None:
        """Add rows to the table; one that an earlier run saved but did not list is read back.

        A result that was made again gets a second row, which `_mend` takes for the first.
        """
        rows = []
        for name, place in places:
            where = place.relative_to(self.folder).as_posix()
            if one is not None or where not in self.listed:
                rows.append(_row(name, where, one or Explanation.load(place)))
                self.listed.add(where)
        if rows:
            with self.table.open("a", encoding="utf-8", newline="") as stream:
                csv.writer(stream).writerows(rows)


def _row(name: str, where: str, one: Explanation) -> list[Any]:
    words = [] if one.text is None else [f"{word.text} {word.score:+.4f}" for word in one.text.top()]
    deltas = ["" if s is None else s.completeness.relative_delta for s in (one.image, one.text)]
    return [name, one.caption, one.similarity, "; ".join(words), *deltas, where]


def run_many(
    model: DualEncoder,
    source: Path,
    texts: tuple[str, ...],
    folder: Path,
    options: Mapping[str, Any],
    *,
    overwrite: bool,
) -> tuple[Path, int]:
    """Explain every record of a source into a folder each; return the page that lists them, and how many failed.

    Raises:
        typer.Exit: with code 130 where it was interrupted.
    """
    total = sum(1 for _ in read_records(source, texts=texts))
    run = _Run(model, folder, options)
    _prepare(run, {"source": str(source.resolve()), "texts": texts}, overwrite=overwrite)
    try:
        with _progress() as progress:
            task = progress.add_task("Explaining", total=total)
            for part in _parts(read_records(source, texts=texts), int(options["batch_size"])):
                run.failed += [item for item in part if isinstance(item, Failure)]
                run.together([item for item in part if isinstance(item, Record)])
                progress.advance(task, len(part))
    except KeyboardInterrupt as error:
        output().print(
            f"Interrupted: {run.written} written to {folder}, whole. Run the same command again to go on.",
            markup=False,
            soft_wrap=True,
        )
        raise typer.Exit(130) from error
    _mend(run)
    _index(run)
    _finish(run, folder)
    return folder / "index.html", len(run.failed)


def _prepare(run: _Run, inputs: Mapping[str, Any], *, overwrite: bool) -> None:
    """Refuse to mix results of other pictures, texts or options into a folder; go on with one of the same."""
    settings = {**inputs, **{k: v for k, v in run.options.items() if k != "batch_size"}}
    settings |= {"model": run.model.name, "revision": run.model.revision, "dtype": str(run.model.dtype)}
    path = run.folder / "run.json"
    if path.is_file() and not overwrite:
        if _read(path) != json.loads(json.dumps(settings)):
            raise OptionError(
                f"The folder {str(run.folder)!r} holds results of other pictures, texts, options or another model: "
                "give another --out, or --overwrite."
            )
    elif overwrite:
        for old in run.folder.glob("**/explanation.json") if run.folder.is_dir() else ():
            old.unlink()
        run.table.unlink(missing_ok=True)
    write_files(run.folder, {"run.json": lambda p: p.write_text(json.dumps(settings, indent=1), encoding="utf-8")})
    _mend(run)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _mend(run: _Run) -> None:
    """Keep the whole rows of the table, the last of each result: a killed run may have cut its last row."""
    rows: list[list[str]] = []
    if run.table.is_file():
        with run.table.open(encoding="utf-8", newline="") as stream:
            text = stream.read()
        whole = io.StringIO(text[: text.rfind("\n") + 1], newline="")
        rows = [row for row in csv.reader(whole) if len(row) == len(_COLUMNS)]
    rows = [row for row in rows if tuple(row) != _COLUMNS and (run.folder / row[-1] / "explanation.json").is_file()]
    rows = list({row[-1]: row for row in rows}.values())
    run.listed = {row[-1] for row in rows}

    def write(path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([list(_COLUMNS), *rows])

    write_files(run.folder, {run.table.name: write})


def _parts(items: Iterable[Record | Failure], size: int) -> Iterator[list[Record | Failure]]:
    iterator = iter(items)
    while part := list(islice(iterator, size)):
        yield part


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=messages(),
    )


def _index(run: _Run) -> None:
    """Make a page of the table with a link to each result, in the order of the records."""
    with run.table.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    lines = [
        Line(row["folder"], f"{row['folder']}/{STEM}", row["text"], float(row["similarity"] or "nan"), row["top_words"])
        for row in sorted(rows, key=lambda row: _natural(row["folder"]))
    ]
    write_files(run.folder, {"index.html": lambda path: path.write_text(listing(lines), encoding="utf-8")})


def _natural(name: str) -> list[Any]:
    """A key that sorts 2 before 10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def _finish(run: _Run, folder: Path) -> None:
    console = output()
    there = f", {run.there} already there" if run.there else ""
    console.print(f"{run.written} explained{there}: {folder / 'index.html'}, {run.table}", markup=False, soft_wrap=True)
    if not run.failed:
        (folder / "failures.csv").unlink(missing_ok=True)
        return

    def write(path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([["id", "reason"], *([f.id, f.reason] for f in run.failed)])

    write_files(folder, {"failures.csv": write})
    console.print(f"{len(run.failed)} failed, listed in {folder / 'failures.csv'}:", markup=False, soft_wrap=True)
    for failure in run.failed[:_SHOWN]:
        console.print(Text(f"  {failure.id}: {failure.reason}"), soft_wrap=True)
    if len(run.failed) > _SHOWN:
        console.print(f"  ... and {len(run.failed) - _SHOWN} more")
