"""--retry-failed: takes pieces in which something failed back, so that the run does them again.

A piece of which only pictures or pairs failed is taken back alone. Where records could not be read, how many texts they
have was not known: when they are read, the pieces after them begin elsewhere, so these are taken back too. So are all
of a shard of which only errors.parquet tells, where .work was lost.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Any

from isthmus.scale import naming
from isthmus.scale.files import Files
from isthmus.scale.gathering import ERRORS, KEPT
from isthmus.scale.naming import Piece
from isthmus.scale.packing import unread


def take_back(files: Files, read: Callable[[str], Any], done: Set[Piece]) -> int:
    """Remove the pieces in which something failed; how many.

    It is told in .work as long as it goes on, and where it was killed the next run does the rest of it first: a shard
    of which only some pieces were removed must not be read on. The last pieces go first, the one with the errors last.

    Args:
        files, read: of a store; `read` opens a Parquet file.
        done: the pieces that are done.
    """
    files.write(naming.RETRYING, b"{}")
    work = files.names(naming.WORK)
    failed = {one for one in naming.errors_among(work) if one in done}
    since = _whole(files, read)  # for each shard, the piece from which on all are taken back
    for shard, piece in failed:
        with read(naming.errors(shard, piece)) as part:
            if unread(part.schema_arrow):
                since[shard] = min(piece, since.get(shard, piece))
    files.remove(ERRORS)  # what is not taken back is told in .work
    back = sorted((one for one in done if one in failed or one[1] >= since.get(one[0], one[1] + 1)), reverse=True)
    files.remove(*(naming.ended(*one) for one in naming.ended_among(work) if one[0] in since))
    for one in back:
        files.remove(naming.part(*one), naming.errors(*one))
    files.remove(KEPT, naming.RETRYING)
    return len(back)


def _whole(files: Files, read: Callable[[str], Any]) -> dict[int, int]:
    if not files.exists(KEPT):
        return {}
    with read(KEPT) as part:
        return dict.fromkeys(part.read(columns=["shard"]).column("shard").to_pylist(), 0)
