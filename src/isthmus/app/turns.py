"""Turns at a model: one question at a time, in the order of asking, what is quick before the rest, long work last."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_PATIENCE = 0.2  # seconds
_Ticket = tuple[int, int]


class Turns:
    """A lock that is fair, and that long work lends to those who ask for less."""

    def __init__(self) -> None:
        """Nobody has it."""
        self._changed = threading.Condition()
        self._waiting: list[_Ticket] = []
        self._holder: _Ticket | None = None
        self._numbers = itertools.count()

    @contextmanager
    def taken(
        self, *, long: bool = False, quick: bool = False, watch: Callable[[int], None] | None = None
    ) -> Iterator[None]:
        """Wait for a turn, and have it for as long as the `with` lasts.

        Args:
            long: let all others go first who are not long, also while this one has its turn: see `lend`.
            quick: go before all others, also while one of them has its turn.
            watch: called with 0 now and then while it waits; may raise to give up.
        """
        ticket = (0 if quick else 2 if long else 1, next(self._numbers))
        self._take(ticket, watch)
        try:
            yield
        finally:
            self._leave()

    def lend(self) -> None:
        """Let those go first who should, and have the turn again after them; to be called by who has it."""
        ticket = self._holder
        assert ticket is not None, "only who has the turn can lend it"
        with self._changed:
            if not self._waiting or min(self._waiting) > ticket:
                return
            self._waiting.append(ticket)
            self._holder = None
            self._changed.notify_all()
        self._take(ticket, None)

    def _take(self, ticket: _Ticket, watch: Callable[[int], None] | None) -> None:
        with self._changed:
            if ticket not in self._waiting:
                self._waiting.append(ticket)
            try:
                while self._holder is not None or min(self._waiting) != ticket:
                    if not self._changed.wait(_PATIENCE) and watch is not None:
                        watch(0)
                self._holder = ticket
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()

    def _leave(self) -> None:
        with self._changed:
            self._holder = None
            self._changed.notify_all()
