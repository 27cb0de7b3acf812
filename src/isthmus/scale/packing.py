"""Tables as the content of Parquet files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from isthmus.datasets.records import Failure
from isthmus.extras import needed
from isthmus.scale.schema import text_leaves


def error_schema() -> Any:
    """The `pyarrow.Schema` of `errors.parquet`."""
    arrow = needed("pyarrow")
    return arrow.schema([("id", arrow.string()), ("reason", arrow.string()), ("shard", arrow.int32())])


def errors_table(shard: int, failures: Sequence[Failure]) -> Any:
    """Failures of a shard as a `pyarrow.Table`."""
    rows = [{"id": one.id, "reason": one.reason, "shard": shard} for one in failures]
    return needed("pyarrow").Table.from_pylist(rows, schema=error_schema())


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
