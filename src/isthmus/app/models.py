"""The models that the page offers: named when it starts, loaded once, used by one question at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from isthmus.encoders.dual import DualEncoder
from isthmus.errors import OptionError

_PATIENCE, _MOMENT = 0.2, 0.005  # seconds


@dataclass(frozen=True, eq=False)
class Served:
    """A model of the page, and the lock of who uses it: a tower is cut in place, by one at a time."""

    encoder: DualEncoder
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def name(self) -> str:
        """What it was loaded by."""
        return self.encoder.name

    @contextmanager
    def used(self, watch: Callable[[int], None] | None = None) -> Iterator[DualEncoder]:
        """The model, for as long as the `with` lasts; `watch` is asked while it waits, and may raise to give up."""
        while not self._lock.acquire(timeout=_PATIENCE):
            if watch is not None:
                watch(0)
        try:
            yield self.encoder
        finally:
            self._lock.release()

    def lend(self) -> None:
        """Let those who wait use the model, and take it back; to be called by who has it, while it is whole."""
        self._lock.release()
        try:
            time.sleep(_MOMENT)
        finally:
            self._lock.acquire()


class Models:
    """The models of the page by name; a visitor's choice is looked up here and nowhere else."""

    def __init__(self, served: Sequence[Served]) -> None:
        """Hold these, at least one; the first is the default."""
        if not served:
            raise OptionError("There is no model: name at least one, such as mini.")
        self._served = {one.name: one for one in served}

    @classmethod
    def load(cls, names: Sequence[str], **options: Any) -> Models:
        """Load each name once, by `isthmus.load` with the same options.

        Raises:
            ModelError: no such model.
            OptionError: no name.
        """
        from isthmus.explainer import load

        lock = threading.Lock()  # one for all: what computes one model may change how torch computes another
        return cls([Served(load(name, **options), lock) for name in dict.fromkeys(names)])

    @property
    def names(self) -> tuple[str, ...]:
        """What a visitor chooses from."""
        return tuple(self._served)

    @property
    def notices(self) -> tuple[str, ...]:
        """What readers of their results should know."""
        return tuple(dict.fromkeys(one.encoder.notice for one in self._served.values() if one.encoder.notice))

    def get(self, name: str | None) -> Served:
        """The model of a name, the first for None. Raises OptionError where the page has no such model."""
        if name is None:
            return next(iter(self._served.values()))
        found = self._served.get(name) if isinstance(name, str) else None
        if found is None:
            raise OptionError(f"This page has no such model: choose one of {', '.join(self._served)}.")
        return found
