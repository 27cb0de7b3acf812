"""Reads a shard of each kind, record by record, without decoding a picture."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

from isthmus.datasets.huggingface import HUGGING_FACE, Rows, open_rows, rows_of
from isthmus.datasets.options import Options
from isthmus.datasets.parquet import class_names
from isthmus.datasets.records import Failure
from isthmus.datasets.rows import Columns, Place, find_columns, samples_of_rows
from isthmus.datasets.tables import rows_of_stream
from isthmus.datasets.values import BadRecordError
from isthmus.encoders.pictures import is_url
from isthmus.errors import InputError
from isthmus.extras import needed
from isthmus.scale.archives import read_tar
from isthmus.scale.breaks import broken, said
from isthmus.scale.pictures import read_pictures
from isthmus.scale.places import is_remote, open_file
from isthmus.scale.raw import Raw, Shard
from isthmus.scale.schema import Where

Items: TypeAlias = Iterator[Raw | Failure]
_ROWS = 64
_BUFFER = 4 << 20  # bytes of a Parquet column that are read at once


def folder_of(path: str) -> str:
    """The folder of a file, as a path or URL."""
    return path.rpartition("/")[0]


def table_rows(path: str) -> Iterator[dict[str, Any] | str]:
    """The rows of a `.csv`, `.tsv` or `.jsonl` file; a string, which says why, in place of one that cannot be read."""
    with io.TextIOWrapper(open_file(path), "utf-8-sig", errors="surrogateescape", newline="") as stream:
        yield from rows_of_stream(stream, Path(path).suffix)


def table_columns(path: str, options: Options) -> Columns:
    """The columns of a table. Raises InputError where it cannot be read, or lacks a picture or text column."""
    try:
        rows = list(islice(table_rows(path), 100))
    except Exception as error:  # each file system has its own
        raise InputError(f"The table {path!r} cannot be read ({said(error)}): check the path.") from error
    first = next((row for row in rows if not isinstance(row, str)), None)
    if first is None:
        raise InputError(f"The table {path!r} has no rows: give a header, or keys, and one picture a row.")
    return find_columns(first, options, f"The table {path!r}")


def read_table(shard: Shard) -> Items:
    """Rows of a table; paths of pictures start where it lies."""
    columns = table_columns(shard.path, shard.options)
    place = Place(Path(folder_of(shard.path)), shard.options, find=finder(folder_of(shard.path)))
    yield from _until_it_breaks(shard, lambda: table_rows(shard.path), columns, place)


def read_parquet(shard: Shard) -> Items:
    """Rows of a Parquet file, of some of its row groups."""
    parquet = needed("pyarrow.parquet")
    folder = folder_of(shard.path)
    try:
        with closing(open_file(shard.path)) as stream, parquet.ParquetFile(stream) as file:
            schema = file.schema_arrow
    except Exception as error:  # pyarrow has many
        yield broken(shard, error)
        return
    try:
        columns = find_columns(schema.names, shard.options, f"The file {shard.shown!r}")
    except InputError as error:
        yield Failure(shard.shown, str(error))
        return
    place = Place(Path(folder), shard.options, class_names(schema.metadata, columns.label), finder(folder))

    def rows() -> Iterator[dict[str, Any]]:
        with (
            closing(open_file(shard.path)) as stream,
            parquet.ParquetFile(stream, buffer_size=_BUFFER, pre_buffer=False) as file,
        ):
            groups = list(range(file.num_row_groups) if shard.groups is None else range(*shard.groups))
            for batch in file.iter_batches(batch_size=_ROWS, row_groups=groups, columns=list(columns.all)):
                yield from batch.to_pylist()

    yield from _until_it_breaks(shard, rows, columns, place)


@lru_cache(maxsize=1)
def dataset_rows(name: str, options: Options) -> Rows:
    """A dataset of Hugging Face; the last one stays open, as its shards are read one after another."""
    return open_rows(name, options)


def read_dataset(shard: Shard) -> Items:
    """Some rows of a Hugging Face dataset."""
    opened = dataset_rows(shard.path.removeprefix(HUGGING_FACE), shard.options)
    place = replace(opened.place, find=finder("", any_url=True))
    yield from _until_it_breaks(shard, lambda: rows_of(opened.data, shard.start, shard.stop), opened.columns, place)


def _until_it_breaks(
    shard: Shard, rows: Callable[[], Iterator[dict[str, Any] | str]], columns: Columns, place: Place
) -> Items:
    """The records of rows; where they break off, what was read before is kept."""
    at = shard.start - 1
    breaks: list[Exception] = []

    def counted() -> Iterator[dict[str, Any] | str]:
        nonlocal at
        try:
            for row in rows():
                at += 1
                yield row
        except Exception as error:  # pyarrow and file systems have many
            breaks.append(error)

    for sample in samples_of_rows(counted(), columns, place, first=shard.start + 1):
        if isinstance(sample, Failure):
            yield sample
            continue
        picture = sample.image if isinstance(sample.image, bytes) else str(sample.image)
        in_row = Where(shard.path, row=at, column=columns.image)
        where = in_row if isinstance(picture, bytes) else Where(picture)
        yield Raw(sample.id, picture, sample.texts, sample.picture, where)
    if breaks:
        yield broken(shard, breaks[0])


def finder(folder: str, *, any_url: bool = False) -> Callable[[Any, Path], Any]:
    """What turns a picture column's value into bytes, a path or a URL; see `Place.find`.

    Args:
        folder: a path or URL, where relative paths start.
        any_url: take URLs as they are; else only those of the folder's own file system.
    """
    scheme = folder.partition("://")[0] if is_remote(folder) else None

    def find(value: Any, _: Path) -> bytes | Path | str:
        if isinstance(value, Mapping):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, (bytes, bytearray, memoryview)):
            return bytes(value)
        if value is None or (isinstance(value, str) and not value.strip()):
            raise BadRecordError("It names no picture: give a path.")
        if not isinstance(value, str):
            raise BadRecordError(f"Its picture is of type {type(value).__name__}: give a path or an encoded picture.")
        path = value.strip()
        if "://" in path or is_url(path):
            if any_url or (scheme is not None and path.startswith(f"{scheme}://")):
                return path
            raise BadRecordError("It names a URL, and URLs are not fetched: download the picture.")
        path = path.replace("\\", "/")
        # Whether it is there is seen when it is opened: what a shard reads may not change with files beside it.
        return f"{folder}/{path.removeprefix('./')}" if scheme is not None else Path(folder) / path

    return find


READERS: Mapping[str, Callable[[Shard], Items]] = {
    "pictures": read_pictures,
    "table": read_table,
    "parquet": read_parquet,
    "tar": read_tar,
    "datasets": read_dataset,
}


def count_of(items: Iterable[Any]) -> int:
    """How many there are."""
    return sum(1 for _ in items)
