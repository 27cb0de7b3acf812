"""What is told of a piece at work, so that a record whose explanation kills the process is found by the next one.

The first time a piece is only said to be at work. Where that process died, the next one says which pairs it is at
before it explains them; the one after that explains these first, in halves, and so on, until the pair is found that
two processes in a row died at while they explained it alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Protocol

from isthmus.errors import IsthmusError


class Keeper(Protocol):
    """The part of `isthmus.scale.store.Store` that a journal needs."""

    def trying(self, shard: int, piece: int) -> dict[str, Any] | None:
        """See `Store`."""

    def note(self, shard: int, piece: int, told: dict[str, Any]) -> None:
        """See `Store`."""

    def clear(self, shard: int, piece: int) -> None:
        """See `Store`."""


class Journal:
    """The journal of one piece.

    Args:
        store: keeps it; None keeps nothing.
        shard, piece: the piece's place.

    Attributes:
        deadly: the pairs, by their place in the piece, that are known to kill the process.
    """

    def __init__(self, store: Keeper | None, shard: int, piece: int) -> None:
        """Say that the piece is at work, and hear what became of it before."""
        self._store, self._place = store, (shard, piece)
        before = None if store is None else store.trying(shard, piece)
        self._before, self._careful = dict(before or {}), before is not None
        self._tries = int((before or {}).get("tries", 0)) + 1
        self.deadly = {int(one) for one in (before or {}).get("deadly", ())}
        self._suspects = [int(one) for one in (before or {}).get("at", ())]
        self._alone = int((before or {}).get("alone", 0))
        if len(self._suspects) == 1 and self._alone > 1:
            self.deadly.update(self._suspects)
            self._suspects = []

    def batches(self, plan: Sequence[Sequence[int]]) -> list[list[int]]:
        """Batches of pairs as planned, without those that kill the process; where it died at some, these first."""
        suspects = self._suspects
        half = max(1, len(suspects) // 2)
        first = [part for part in (suspects[:half], suspects[half:]) if part]
        out = self.deadly.union(suspects)
        rest = [[one for one in batch if one not in out] for batch in plan]
        size = half if len(suspects) > 1 else max(map(len, rest), default=1)  # what died of its size is made smaller
        return first + [batch[start : start + size] for batch in rest for start in range(0, len(batch), max(1, size))]

    def at(self, batch: Sequence[int]) -> None:
        """Say which pairs are explained next, where a process died at this piece before."""
        if self._store is None or not self._careful:
            return
        again = len(batch) == 1 and list(batch) == self._suspects
        told = {"tries": self._tries, "deadly": sorted(self.deadly), "at": list(batch)}
        if len(batch) == 1:
            told["alone"] = self._alone + 1 if again else 1
        self._store.note(*self._place, told)

    def forget(self) -> None:
        """Say that the piece is no longer at work, though not done: its process was interrupted and lives."""
        if self._store is None:
            return
        with suppress(IsthmusError):
            if self._careful:
                self._store.note(*self._place, self._before)
            else:
                self._store.clear(*self._place)


def in_halves(batch: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """The two halves of a batch."""
    middle = len(batch) // 2
    yield batch[:middle]
    yield batch[middle:]
