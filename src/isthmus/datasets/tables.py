"""CSV, TSV and JSONL tables, row by row; a row that cannot be read does not end the table."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

from isthmus.datasets.options import Options, Reader
from isthmus.datasets.rows import Place, find_columns, samples_of_rows
from isthmus.errors import InputError

_UNREADABLE = "Its row is not UTF-8: save the table as UTF-8."
_LONGEST = 16_000_000


def read_table(path: Path, options: Options, *, place: Place | None = None) -> Reader:
    """A reader of a `.csv`, `.tsv` or `.jsonl` file with a header, or keys, that name the columns.

    Raises:
        InputError: the file cannot be opened or is empty, or has no picture or text column.
    """
    place = place or Place(path.parent, options)
    where = f"The table {str(path)!r}"
    first = next((row for row in islice(rows_of(path), 100) if not isinstance(row, str)), None)
    if first is None:
        raise InputError(f"{where} has no rows: give a header, or keys, and one picture a row.")
    columns = find_columns(first, options, where)
    if options.split is not None and columns.split is None:
        raise InputError(f"{where} has no column 'split': leave the split out, or add the column.")

    def read() -> Iterator[Any]:
        return samples_of_rows(rows_of(path), columns, place)

    return read


def rows_of(path: Path) -> Iterator[dict[str, Any] | str]:
    """The rows of a table by their columns; a string, which says why, in place of one that cannot be read."""
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            yield from rows_of_stream(stream, path.suffix)
    except OSError as error:
        raise InputError(f"The table {str(path)!r} cannot be read ({error.strerror}): check the path.") from error


def rows_of_stream(stream: IO[str], suffix: str) -> Iterator[dict[str, Any] | str]:
    """As `rows_of`, of a table that is open as UTF-8 with `surrogateescape` and no newlines translated."""
    kind = suffix.lower()
    return _json_rows(stream) if kind == ".jsonl" else _csv_rows(stream, tabs=kind == ".tsv")


def _csv_rows(stream: IO[str], *, tabs: bool) -> Iterator[dict[str, Any] | str]:
    header = stream.readline()
    stream.seek(0)
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST))  # pictures' alt texts go beyond the usual 128 KiB
    reader = csv.DictReader(stream, delimiter="\t" if tabs and "\t" in header else max(",;\t", key=header.count))
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield f"Its row is broken ({error}): mend the table there."
            continue
        if None in row:  # csv's key of what is left over
            yield "It has more columns than the header: put quotes around a text with commas."
        elif any(not _clean(value) for value in row.values()):
            yield _UNREADABLE
        else:
            yield dict(row)


def _json_rows(stream: IO[str]) -> Iterator[dict[str, Any] | str]:
    for line in filter(str.strip, stream):
        if not _clean(line):
            yield _UNREADABLE
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        yield row if isinstance(row, dict) else "Its line is no JSON object: write one object a line."


def _clean(text: Any) -> bool:
    return not isinstance(text, str) or not any("\udc80" <= letter <= "\udcff" for letter in text)
