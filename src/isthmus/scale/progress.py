"""How far a run is, and whether it may go on."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from isthmus.errors import IsthmusError


class TooManyFailuresError(IsthmusError):
    """The run was given a budget of failures, and there are more."""


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        pairs: explained, or failed, in this run.
        records: gone through, those that an earlier run did among them, as far as that is known.
        done: records gone through in this run.
        failures: of this run.
        total: records in all, None where that is not known.
        seconds: since the run began to explain.
    """

    pairs: int = 0
    records: int = 0
    done: int = 0
    failures: int = 0
    total: int | None = None
    seconds: float = 0.0


class Listener(Protocol):
    """Is told how far a run is."""

    def __call__(self, progress: Progress, /) -> None:
        """Called often, in the thread of the run."""


class Part(Protocol):
    """What came of a piece on another machine."""

    @property
    def pairs(self) -> int:
        """How many pairs it had."""

    @property
    def records(self) -> int:
        """How many records it had, those that could not be read among them."""

    @property
    def failures(self) -> int:
        """How many of them failed."""


def within_budget(progress: Progress, max_failures: int | None, errors: str) -> None:
    """Raise TooManyFailuresError, which names the file of `errors`, where more failed than may."""
    if max_failures is not None and progress.failures > max_failures:
        raise TooManyFailuresError(
            f"Stopped: {progress.failures} failed, more than the {max_failures} that were allowed; {errors} says "
            "what and why, and what is done is kept."
        )


def counted(
    parts: Iterable[Part],
    total: int | None,
    *,
    before: int,
    max_failures: int | None,
    errors: str,
    listen: Listener | None,
) -> Progress:
    """Go through the parts of a run on other machines, and count them.

    Args:
        parts: as they are done; taking the next one goes on with the run.
        total: records in all, None where that is not known.
        before: records that an earlier run did.
        max_failures, listen: see `isthmus.scale.local.run_local`.
        errors: the file that tells what failed.

    Raises:
        TooManyFailuresError: more failed than `max_failures`.
    """
    progress, began = Progress(total=total, records=before), time.monotonic()
    if listen is not None:
        listen(progress)
    for part in parts:
        progress.pairs += part.pairs
        progress.done += part.records
        progress.records = before + progress.done
        progress.failures += part.failures
        progress.seconds = time.monotonic() - began
        if listen is not None:
            listen(progress)
        within_budget(progress, max_failures, errors)
    return progress
