"""Reads a folder of pictures, or a CSV, TSV or JSONL file, one record at a time; opens no picture."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isthmus.datasets.files import files_in
from isthmus.encoders.pictures import PICTURE_SUFFIXES, is_url
from isthmus.errors import InputError

TABLES = frozenset({".csv", ".tsv", ".jsonl"})
IMAGE_COLUMNS = ("image", "file_name", "filename", "file", "path", "image_path", "picture")
TEXT_COLUMNS = ("text", "caption", "captions", "sentence", "title")
METADATA = ("metadata.csv", "metadata.jsonl", "captions.csv", "captions.tsv")
_RESERVED = frozenset({"con", "prn", "aux", "nul"} | {f"{kind}{n}" for kind in ("com", "lpt") for n in range(1, 10)})


@dataclass(frozen=True)
class Record:
    """A picture and its texts; `id` is unique, stable, and a folder name on every system."""

    id: str
    image: Path
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Failure:
    """A record that cannot be used, and why, in one sentence."""

    id: str
    reason: str


def is_collection(source: Path) -> bool:
    """Whether a path is a folder or a table of pictures rather than one picture."""
    try:
        return source.is_dir() or source.suffix.lower() in TABLES
    except OSError:  # such as a name that is too long
        return False


def read_records(source: Path, *, texts: Sequence[str] = ()) -> Iterator[Record | Failure]:
    """Yield the records of a folder or table.

    Args:
        source: a folder of pictures, or a `.csv`, `.tsv` or `.jsonl` file with a picture and a text column (see
            `IMAGE_COLUMNS`, `TEXT_COLUMNS`); relative paths start at the file.
        texts: texts for every picture, in place of its own. Without them a folder needs a `metadata.csv`,
            `metadata.jsonl` or `captions.csv`, or a `NAME.txt` beside each picture, one text a line.

    Raises:
        InputError: no such source, a table without these columns, or a folder without pictures or texts.
    """
    if source.is_dir():
        table = next((source / name for name in METADATA if (source / name).is_file()), None)
        return _from_folder(source, texts) if texts or table is None else _from_table(table, ())
    if not source.is_file():
        raise InputError(f"There is no folder or file {str(source)!r}: check the path.")
    return _from_table(source, texts)


def _from_folder(folder: Path, texts: Sequence[str]) -> Iterator[Record | Failure]:
    taken: set[str] = set()
    for path, own in pictures_with_texts(folder, texts):
        name = _unique(safe_name(path.relative_to(folder).as_posix()), taken)
        yield Failure(name, own) if isinstance(own, str) else Record(name, path, own)


def pictures_with_texts(folder: Path, texts: Sequence[str] = ()) -> Iterator[tuple[Path, tuple[str, ...] | str]]:
    """The pictures of a folder in the order of their paths, each with its texts, or with why it has none.

    Args:
        folder: searched to its depths.
        texts: for every picture, in place of those in its `NAME.txt`.

    Raises:
        InputError: there are no pictures, or none of them has texts.
    """
    paths = sorted(files_in(folder, PICTURE_SUFFIXES))
    if not paths:
        raise InputError(f"There are no pictures in {str(folder)!r}: it needs files such as .jpg, .png or .webp.")
    if not texts and not any(path.with_suffix(".txt").is_file() for path in paths):
        table = next((path for path in sorted(folder.iterdir()) if path.suffix.lower() in TABLES), None)
        raise InputError(
            f"The pictures in {str(folder)!r} have no texts: give texts after the folder, or put a metadata.csv "
            "(columns file_name and text) into it, or a NAME.txt beside each NAME.jpg"
            f"{f', or give the table {str(table)!r} in place of the folder' if table is not None else ''}."
        )
    for path in paths:
        yield path, tuple(texts) or _sidecar(path.with_suffix(".txt"))


def _sidecar(path: Path) -> tuple[str, ...] | str:
    return sidecar_texts(path.name, path.read_bytes)


def sidecar_texts(name: str, read: Callable[[], bytes]) -> tuple[str, ...] | str:
    """The texts in the file of a name, which `read` gives, or why there are none."""
    try:
        lines = read().decode("utf-8-sig").splitlines()
    except FileNotFoundError:
        return f"It has no text: put one into {name!r}."
    except (OSError, UnicodeDecodeError):
        return f"Its text {name!r} cannot be read: save it as UTF-8."
    texts = tuple(line.strip() for line in lines if line.strip())
    return texts or f"Its text {name!r} is empty: write one text a line."


def _from_table(path: Path, texts: Sequence[str]) -> Iterator[Record | Failure]:
    rows = _json_rows(path) if path.suffix.lower() == ".jsonl" else _csv_rows(path)
    columns: tuple[str, str | None] | None = None
    count = 0
    try:
        for count, row in enumerate(rows, 1):
            if isinstance(row, str):
                yield Failure(f"{count:06d}", row)
                continue
            columns = columns or _columns(row, path, needs_text=not texts)
            yield _record(row, columns, path.parent, count, texts)
    except UnicodeDecodeError as error:
        raise InputError(f"The table {str(path)!r} cannot be read ({error}): save it as UTF-8.") from error
    except csv.Error as error:
        raise InputError(f"The table {str(path)!r} is broken after row {count} ({error}): mend that row.") from error
    if not count:
        raise InputError(f"The table {str(path)!r} has no rows: give a header and one picture a row.")


def _csv_rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        header = stream.readline()
        stream.seek(0)
        delimiter = max(",;\t", key=header.count)
        yield from csv.DictReader(stream, delimiter=delimiter)


def _json_rows(path: Path) -> Iterator[dict[str, Any] | str]:
    with path.open(encoding="utf-8-sig") as stream:
        for line in filter(str.strip, stream):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            yield row if isinstance(row, dict) else "Its line is no JSON object: write one object a line."


def _columns(row: dict[str, Any], path: Path, *, needs_text: bool) -> tuple[str, str | None]:
    names = {str(name).strip().lower(): name for name in row if name}
    image = next((names[name] for name in IMAGE_COLUMNS if name in names), None)
    text = next((names[name] for name in TEXT_COLUMNS if name in names), None)
    if image is None or (text is None and needs_text):
        lacking, some = ("picture", IMAGE_COLUMNS) if image is None else ("text", TEXT_COLUMNS)
        raise InputError(
            f"The table {str(path)!r} has no {lacking} column among {', '.join(map(str, names.values()))}: "
            f"name it one of {', '.join(some)}."
        )
    return image, text


def _record(
    row: dict[str, Any], columns: tuple[str, str | None], folder: Path, number: int, texts: Sequence[str]
) -> Record | Failure:
    image = str(row.get(columns[0]) or "").strip()
    if not image:
        return Failure(f"{number:06d}", f"Row {number} names no picture: fill in {columns[0]!r}.")
    name = f"{number:06d}-{safe_name(Path(image).stem)}"
    if is_url(image):
        return Failure(name, f"Row {number} names a URL, and URLs are not fetched: download the picture.")
    if None in row:  # csv's key of what is left over
        return Failure(name, f"Row {number} has more columns than the header: put quotes around a text with commas.")
    value = row.get(columns[1]) if columns[1] is not None else None
    given = value if isinstance(value, list) else [value or ""]
    if not texts and not all(isinstance(text, (str, int, float)) for text in given):
        return Failure(name, f"Row {number} has a text that is none: give a string or a list of strings.")
    own = tuple(texts) or tuple(str(text).strip() for text in given if str(text).strip())
    if not own:
        return Failure(name, f"Row {number} has no text: fill in {columns[1]!r}.")
    return Record(name, folder / image, own)


def safe_name(text: str) -> str:
    """A name for a folder on any system, made of a path."""
    name = re.sub(r"[^\w.-]+", "_", text).strip("._") or "picture"
    if name.split(".")[0].lower() in _RESERVED:
        name = f"_{name}"
    if len(name) > 100:
        name = f"{name[:90]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return name


def _unique(name: str, taken: set[str]) -> str:
    found, n = name, 2
    while found.lower() in taken:  # some file systems do not tell case apart
        found, n = f"{name}-{n}", n + 1
    taken.add(found.lower())
    return found
