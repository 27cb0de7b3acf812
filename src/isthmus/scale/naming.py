"""The names of the files of an output, by the shard and piece that they are of; see `isthmus.scale.store`."""

from __future__ import annotations

import re
from collections.abc import Iterable

Piece = tuple[int, int]
WORK = ".work"
PAIRS = "pairs"
RETRYING = f"{WORK}/retrying.json"  # pieces are being taken back
_PART = re.compile(r"part-(\d{5,})-(\d{5,})\.parquet")
_ERRORS = re.compile(r"errors-(\d{5,})-(\d{5,})\.parquet")
_ENDED = re.compile(r"ended-(\d{5,})-(\d{5,})\.json")


def part(shard: int, piece: int) -> str:
    """The rows of a piece."""
    return f"{PAIRS}/part-{shard:05d}-{piece:05d}.parquet"


def errors(shard: int, piece: int) -> str:
    """What failed in a piece."""
    return f"{WORK}/errors-{shard:05d}-{piece:05d}.parquet"


def ended(shard: int, pieces: int) -> str:
    """A shard has so many pieces."""
    return f"{WORK}/ended-{shard:05d}-{pieces:05d}.json"


def trying(shard: int, piece: int) -> str:
    """A piece is at work."""
    return f"{WORK}/trying-{shard:05d}-{piece:05d}.json"


def parts_among(names: Iterable[str]) -> list[Piece]:
    """The pieces whose rows are among the names of files in `PAIRS`."""
    return _among(_PART, names)


def errors_among(names: Iterable[str]) -> list[Piece]:
    """The pieces whose errors are among the names of files in `WORK`."""
    return _among(_ERRORS, names)


def ended_among(names: Iterable[str]) -> list[tuple[int, int]]:
    """The shards, with their number of pieces, whose ends are among the names of files in `WORK`."""
    return _among(_ENDED, names)


def trying_among(names: Iterable[str]) -> list[str]:
    """The names of files in `WORK` that tell of pieces at work."""
    return [name for name in names if name.startswith("trying-")]


def _among(pattern: re.Pattern[str], names: Iterable[str]) -> list[tuple[int, int]]:
    found = (pattern.fullmatch(name) for name in names)
    return [(int(one[1]), int(one[2])) for one in found if one is not None]
