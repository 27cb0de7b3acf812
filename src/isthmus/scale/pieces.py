"""Cuts a shard into pieces: the unit of output, of going on after an interruption, and of trying again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from isthmus.datasets.records import Failure
from isthmus.scale.pictures import Walks
from isthmus.scale.raw import Raw, Shard
from isthmus.scale.source import read

PAIRS = 512
_BYTES = 64 << 20


@dataclass(frozen=True)
class Piece:
    """Some records of a shard that follow each other.

    Attributes:
        shard: the shard's number.
        number: its place in the shard, from 0.
        items: records, and what could not be read.
        last: the shard ends with it.
    """

    shard: int
    number: int
    items: tuple[Raw | Failure, ...]
    last: bool

    @property
    def pairs(self) -> int:
        """How many pairs its records have."""
        return sum(len(item.texts) for item in self.items if isinstance(item, Raw))

    @property
    def all_read(self) -> bool:
        """Whether every record could be read."""
        return all(isinstance(item, Raw) for item in self.items)


def pieces(shard: Shard, size: int = PAIRS, walks: Walks | None = None) -> Iterator[Piece]:
    """The pieces of a shard; the same ones whenever it is read.

    Args:
        shard: of `isthmus.scale.source.plan`.
        size: pairs in a piece at most, unless a single picture has more texts; what could not be read counts as one.
            A piece also ends where its pictures have 64 MiB.
        walks: see `isthmus.scale.source.read`.

    Yields:
        One piece at least, which is empty where the shard is.
    """
    items: list[Raw | Failure] = []
    number = pairs = held = 0
    for item in read(shard, walks):
        count, own = (len(item.texts), item.size) if isinstance(item, Raw) else (1, 0)
        if items and (pairs + count > size or held + own > _BYTES):
            yield Piece(shard.number, number, tuple(items), last=False)
            items, number, pairs, held = [], number + 1, 0, 0
        items.append(item)
        pairs, held = pairs + count, held + own
    yield Piece(shard.number, number, tuple(items), last=True)
