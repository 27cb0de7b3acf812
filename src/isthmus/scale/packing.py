"""Tables as the content of Parquet files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from isthmus.datasets.records import Failure
from isthmus.extras import needed
from isthmus.scale.schema import text_leaves

_ALL_READ = b"all_read"


def error_schema() -> Any:
    """The `pyarrow.Schema` of `errors.parquet`."""
    arrow = needed("pyarrow")
    return arrow.schema([("id", arrow.string()), ("reason", arrow.string()), ("shard", arrow.int32())])


def errors_table(shard: int, failures: Sequence[Failure], *, all_read: bool = False) -> Any:
    """Failures of a shard as a `pyarrow.Table`; `all_read`: no record among them could not even be read."""
    rows = [{"id": one.id, "reason": one.reason, "shard": shard} for one in failures]
    table = needed("pyarrow").Table.from_pylist(rows, schema=error_schema())
    return table.replace_schema_metadata({_ALL_READ: b"1"} if all_read else None)


def unread(schema: Any) -> bool:
    """Whether there may be records that could not be read in an `errors_table`, by its `pyarrow.Schema`."""
    return _ALL_READ not in (schema.metadata or {})


def packed(table: Any) -> bytes:
    """A table as a Parquet file. Texts that repeat are kept once; the scores, which do not, are not looked up."""
    sink = io.BytesIO()
    texts = text_leaves(table.schema)
    with needed("pyarrow.parquet").ParquetWriter(
        sink, table.schema, compression="zstd", use_dictionary=texts
    ) as writer:
        if table.num_rows:  # readers stumble over a group of no rows, as `datasets` does
            writer.write_table(table)
    return sink.getvalue()
