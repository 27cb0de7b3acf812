"""Rows: one number each, in Parquet, a file a part or all of them in one."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from isthmus.extras import needed

_TEXTS = ("dataset", "pair", "sample", "method", "metric", "side", "variant")
_GROUP = 1 << 17  # rows that are held at once while all are written
DAMAGED = (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class Row:
    """One number: of a pair, a method, and a variant of a metric on a side.

    Attributes:
        sample: the picture that the pair is of, see `isthmus.datasets.Sample`; several pairs may be of one.
        curve: of insertion and deletion, the score at equal steps.
    """

    dataset: str
    pair: str
    sample: str
    method: str
    metric: str
    side: str
    variant: str
    value: float
    curve: tuple[float, ...] | None = None


def packed(rows: Sequence[Row]) -> bytes:
    """Rows as the content of a Parquet file."""
    table = needed("pyarrow").Table.from_pylist([vars(row) for row in rows], schema=_schema())
    sink = io.BytesIO()
    needed("pyarrow.parquet").write_table(table, sink)
    return sink.getvalue()


def rows_of(table: Any) -> list[Row]:
    """The rows of a `pyarrow.Table`."""
    found = table.to_pylist()
    return [Row(**{**one, "curve": None if one["curve"] is None else tuple(one["curve"])}) for one in found]


def table_at(path: Path) -> Any:
    """The rows of a part as a `pyarrow.Table`; None where it is not there, or was damaged."""
    parquet, arrow = needed("pyarrow.parquet"), needed("pyarrow")
    try:
        content = path.read_bytes()  # given a path, pyarrow takes a folder `a=1` on it for a column
        found = parquet.read_table(arrow.BufferReader(content))
        if "sample" not in found.column_names:  # of a run before there was such a column
            found = found.add_column(2, "sample", found.column("pair"))
        return found.cast(_schema())
    except DAMAGED:
        return None


def write_all(tables: Iterable[Any], stream: BinaryIO) -> None:
    """Write the tables of many parts as one Parquet file, with few of them in memory at once."""
    with needed("pyarrow.parquet").ParquetWriter(stream, _schema()) as writer:
        for group in _groups(tables):
            writer.write_table(group)


def read_all(path: Path) -> Any:
    """All rows as a `pyarrow.Table`: some 60 bytes a row, and the curves.

    Its texts are dictionaries, but for `pair`, which Arrow could not sort by then.
    """
    with path.open("rb") as stream:
        few = [name for name in _TEXTS if name != "pair"]
        return needed("pyarrow.parquet").ParquetFile(stream, read_dictionary=few).read()


def _groups(tables: Iterable[Any]) -> Iterator[Any]:
    """Tables joined to about `_GROUP` rows each."""
    concat, held, count = needed("pyarrow").concat_tables, [], 0
    for table in tables:
        held.append(table)
        count += table.num_rows
        if count >= _GROUP:
            yield concat(held)
            held, count = [], 0
    if held:
        yield concat(held)


def _schema() -> Any:
    arrow = needed("pyarrow")
    fields = [(name, arrow.string()) for name in _TEXTS]
    return arrow.schema([*fields, ("value", arrow.float64()), ("curve", arrow.list_(arrow.float32()))])
