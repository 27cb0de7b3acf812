"""What a run reads: records that are not decoded, and the shards of the input that they come from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from isthmus.datasets.options import Options
from isthmus.datasets.values import one_line
from isthmus.scale.schema import Where

Kind = Literal["pictures", "table", "parquet", "tar", "datasets"]
SECTION = 65_536  # records within which names are made unique: what is remembered of them does not grow with the input
_NUMBERED = re.compile(r":\d+\Z")


@dataclass(frozen=True)
class Raw:
    """A record as it was read, its picture still encoded.

    Attributes:
        id: unique in the run.
        picture: the encoded picture, or its path or URL.
        texts: one at least.
        name: the same for all records of one picture, see `isthmus.datasets.Sample.picture`.
        where: what is needed to open the picture again.
    """

    id: str
    picture: bytes | str
    texts: tuple[str, ...]
    name: str
    where: Where

    @property
    def size(self) -> int:
        """The bytes that it holds of the picture."""
        return len(self.picture) if isinstance(self.picture, bytes) else 0

    @property
    def ids(self) -> tuple[str, ...]:
        """The id of each pair: the record's own for the first text, `ID:2`, `ID:3` and so on for further ones.

        A record whose id itself ends so, such as `a:2`, has the number on the first one too: `a:2:1`. So no two
        pairs of a run have one id.
        """
        return (first_id(self.id), *(f"{self.id}:{number}" for number in range(2, len(self.texts) + 1)))


def first_id(name: str) -> str:
    """The id of the first pair of a record, and of one that cannot be read; see `Raw.ids`."""
    return f"{name}:1" if _NUMBERED.search(name) else name


@dataclass(frozen=True)
class Shard:
    """A part of the input that is read from its beginning to its end.

    Attributes:
        number: its place in the order of the input; outputs are named after it.
        kind: how it is read.
        path: a file, a folder of pictures, or `hf:NAME`; a local path is absolute.
        options: columns, split, and texts for every picture.
        prefix: put before the ids of its records, "" where the input is one file.
        start: the number of its first record in the file, from 0.
        stop: that of the record before which it ends; None for the end of the file, or where `groups` tell.
        records: how many it has, None where that is not known.
        groups: of a Parquet file, the row groups from the first to before the last.
        first, last: of a folder, the paths in it of the first and the last picture.
        limit: read no more than so many records.
    """

    number: int
    kind: Kind
    path: str
    options: Options
    prefix: str = ""
    start: int = 0
    stop: int | None = None
    records: int | None = None
    groups: tuple[int, int] | None = None
    first: str = ""
    last: str = ""
    limit: int | None = None

    @property
    def shown(self) -> str:
        """What it is called in messages: its path without the folders."""
        return self.path if self.kind == "datasets" else self.path.rstrip("/").rpartition("/")[2]


class Names:
    """Ids that are unique in a shard, for as little as `SECTION` names in memory.

    What repeats gets `#2`, `#3` and so on. After `SECTION` records the names are forgotten and the ids begin with the
    number of the record that begins the section, `65536//NAME`; so do those of a shard that begins within a file.
    """

    def __init__(self, prefix: str, start: int) -> None:
        """See `Shard`."""
        self._prefix, self._start, self._count = prefix, start, 0
        self._seen: dict[str, int] = {}

    def unique(self, name: str) -> str:
        """The id of the next record, which has this name."""
        if self._count % SECTION == 0:
            begins = self._start + self._count
            self._before = f"{self._prefix}{begins}//" if begins else self._prefix
            self._seen.clear()
        self._count += 1
        name = found = one_line(name)
        while found in self._seen:  # again, where a file itself is called `NAME#2`
            self._seen[name] += 1
            found = f"{name}#{self._seen[name]}"
        self._seen[found] = 1
        return self._before + found
