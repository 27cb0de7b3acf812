"""The models that the page offers: named when it starts, loaded once, used by one question at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from isthmus.app.turns import Turns
from isthmus.encoders.dual import DualEncoder
from isthmus.errors import OptionError


@dataclass(frozen=True, eq=False)
class Served:
    """A model of the page, and the turns of those who use it: a tower is cut in place, by one at a time."""

    encoder: DualEncoder
    _turns: Turns = field(default_factory=Turns, repr=False)

    @property
    def name(self) -> str:
        """What it was loaded by."""
        return self.encoder.name

    @contextmanager
    def used(
        self, watch: Callable[[int], None] | None = None, *, long: bool = False, quick: bool = False
    ) -> Iterator[DualEncoder]:
        """The model, for as long as the `with` lasts; see `Turns.taken`."""
        with self._turns.taken(long=long, quick=quick, watch=watch):
            yield self.encoder

    def lend(self) -> None:
        """Let those use the model who go before; to be called by who has it, while it is whole."""
        self._turns.lend()


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

        turns = Turns()  # one for all: what computes one model may change how torch computes another
        return cls([Served(load(name, **options), turns) for name in dict.fromkeys(names)])

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
