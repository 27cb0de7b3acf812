"""What a run's folder holds, for who reads it; see `isthmus.scale.store` for its files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from isthmus.errors import SaveError
from isthmus.extras import needed
from isthmus.scale import naming
from isthmus.scale.files import Files
from isthmus.scale.gathering import ERRORS
from isthmus.scale.naming import Piece
from isthmus.scale.patience import PAUSE, TRIES, is_passing


@dataclass(frozen=True)
class Done:
    """What a store holds.

    Attributes:
        pieces: `(shard, piece)` of each part.
        shards: for each shard whose end was seen, how many pieces it has.
    """

    pieces: frozenset[Piece]
    shards: Mapping[int, int]

    def complete(self) -> set[int]:
        """The shards of which every piece is done; they need not be read again."""
        return {s for s, count in self.shards.items() if all((s, k) in self.pieces for k in range(count))}


class Output:
    """A run's output, to be read.

    Args:
        url: a folder, or a URL of any file system that fsspec knows.
        storage_options: for the file system, such as its endpoint.
        tries: how often a write or read that fails is tried, with a pause before each that doubles.
        pause: seconds before the second try.

    Every method raises SaveError where the folder cannot be read.
    """

    def __init__(
        self, url: str, *, storage_options: Mapping[str, Any] | None = None, tries: int = TRIES, pause: float = PAUSE
    ) -> None:
        """See the class."""
        self.url = url
        self.files = Files(url, storage_options=storage_options, tries=tries, pause=pause)

    @property
    def errors(self) -> str:
        """Where `errors.parquet` is."""
        return f"{self.url.rstrip('/')}/{ERRORS}"

    def manifest(self) -> dict[str, Any] | None:
        """What `manifest.json` tells; None where there is none."""
        content = self.files.read("manifest.json")
        if content is None:
            return None
        try:
            found = json.loads(content)
        except ValueError as error:
            raise SaveError(f"The manifest.json in {self.url!r} is damaged: give another OUTPUT.") from error
        ours = isinstance(found, dict) and "format" in found and isinstance(found.get("settings"), dict)
        return found if ours else None

    def done(self) -> Done:
        """What is there already, by listing names."""
        parts = naming.parts_among(self.files.names(naming.PAIRS))
        return Done(frozenset(parts), dict(naming.ended_among(self.files.names(naming.WORK))))

    def has(self, shard: int, piece: int) -> bool:
        """Whether a piece is done, as of now."""
        return self.files.exists(naming.part(shard, piece))

    def parts(self) -> Iterator[str]:
        """The names of all parts in their order, for `read_part`."""
        for shard, piece in sorted(self.done().pieces):
            yield naming.part(shard, piece)

    def read_part(self, name: str) -> Any:
        """A part as a `pyarrow.parquet.ParquetFile`, to be read by batches. Raises SaveError where it is damaged."""
        stream = self.files.open(name)
        try:
            return needed("pyarrow.parquet").ParquetFile(stream)
        except (OSError, ValueError) as error:
            raise self._unread(name, error) from error

    def batches(self, part: Any, name: str, size: int) -> Iterator[Any]:
        """The rows of a part that `read_part` gave, `size` at once. Raises SaveError where it is damaged there."""
        try:
            yield from part.iter_batches(batch_size=size)
        except (OSError, ValueError) as error:
            raise self._unread(name, error) from error

    def _unread(self, name: str, error: Exception) -> SaveError:
        if is_passing(error):
            return self.files.trouble("read", name, error)
        return SaveError(f"{self.url.rstrip('/')}/{name} is damaged: remove it, and run isthmus map again.")
