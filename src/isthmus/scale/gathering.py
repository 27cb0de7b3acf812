"""errors.parquet: gathered from what each piece left in .work, and from what was gathered before where that is lost.

`keep` sets aside, when a run begins, the lines of errors.parquet that no piece in .work tells. `gather` writes
errors.parquet when it ends; what was kept stays in it, but for what pieces that were done meanwhile tell anew.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from isthmus.extras import needed
from isthmus.scale.files import Files
from isthmus.scale.naming import errors_among
from isthmus.scale.packing import error_schema, packed

ERRORS = "errors.parquet"
READERS = 32  # threads that read small files at once, since a store answers each after some time
KEPT = ".work/kept.parquet"
_GROUP = 256  # small files in memory at once
_LINES = 65_536  # of errors.parquet in memory at once
_DONE = b"done"

Place = tuple[int, int]
Read = Callable[[str], Any]


def keep(files: Files, read: Read, names: Sequence[str], done: frozenset[Place]) -> None:
    """Set aside what errors.parquet alone tells, before anything is removed or written.

    Args:
        files, read: of a store; `read` opens a Parquet file.
        names: the errors of pieces that are in .work, finished or not.
        done: the pieces that are done.
    """
    if files.exists(KEPT) or not files.exists(ERRORS):  # of a run that was killed, and that knew more
        return
    arrow, schema = needed("pyarrow"), error_schema()
    with read(ERRORS) as part:
        found = [_alone(read, batch, names) for batch in part.iter_batches(_LINES)]
    alone = arrow.concat_tables([schema.empty_table(), *found])
    shards = {shard for shard, _ in _lines(alone)}
    before = json.dumps(sorted(one for one in done if one[0] in shards)).encode()
    files.write(KEPT, packed(alone.replace_schema_metadata({_DONE: before})))


def _alone(read: Read, batch: Any, names: Sequence[str]) -> Any:
    """The lines of a batch of errors.parquet that .work does not tell; only what is told of its shards is held."""
    table = needed("pyarrow").Table.from_batches([batch])
    shards = {shard for shard, _ in _lines(table)}
    own = [name for name in names if any(one[0] in shards for one in errors_among([name.rpartition("/")[2]]))]
    return _without(table, {line for found in _tables(read, own) for line in _lines(found)})


def gather(files: Files, read: Read, names: Sequence[str], part_of: Callable[[Place], str], done: set[Place]) -> int:
    """Write errors.parquet from the errors of the pieces that are done, one after another; their number.

    Args:
        files, read: as of `keep`.
        names: the errors of pieces that are done.
        part_of: the name of a piece's rows.
        done: the pieces that are done.
    """
    kept, count = _kept(files, read, part_of, done), 0
    told, unsure = set[tuple[int, str]](), set() if kept is None else {shard for shard, _ in _lines(kept)}
    with tempfile.TemporaryFile() as beside:
        with needed("pyarrow.parquet").ParquetWriter(beside, error_schema()) as writer:
            for table in _tables(read, names):
                writer.write_table(table)
                count += table.num_rows
                told.update(line for line in _lines(table) if line[0] in unsure)
            if kept is not None:
                rest = _without(kept, told)
                writer.write_table(rest)
                count += rest.num_rows
        beside.seek(0)
        files.write(ERRORS, beside)
    files.remove(KEPT)
    return count


def _kept(files: Files, read: Read, part_of: Callable[[Place], str], done: set[Place]) -> Any:
    """What `keep` set aside, without the records that have been explained since; None where there is nothing."""
    if not files.exists(KEPT):
        return None
    with read(KEPT) as part:
        table = part.read()
    if not table.num_rows:
        return None
    before = {(shard, piece) for shard, piece in json.loads(table.schema.metadata[_DONE])}
    shards = {shard for shard, _ in _lines(table)}
    since = set[tuple[int, str]]()
    for place in done - before:
        if place[0] in shards:
            with read(part_of(place)) as part:
                since |= {(place[0], name) for name in part.read(columns=["id"]).column("id").to_pylist()}
    return _without(table, since).replace_schema_metadata(None)


def _tables(read: Read, names: Sequence[str]) -> Iterator[Any]:
    """The lines of pieces, of many at once."""

    def whole(name: str) -> Any:
        with read(name) as part:
            return part.read()

    with ThreadPoolExecutor(READERS) as pool:
        for start in range(0, len(names), _GROUP):
            yield needed("pyarrow").concat_tables(pool.map(whole, names[start : start + _GROUP]))


def _without(table: Any, told: Set[tuple[int, str]]) -> Any:
    return table.filter(needed("pyarrow").array([line not in told for line in _lines(table)], type="bool"))


def _lines(table: Any) -> list[tuple[int, str]]:
    return list(zip(table.column("shard").to_pylist(), table.column("id").to_pylist(), strict=True))
