"""Explains a piece at which a process died in another process, so that a pair which kills it is found, and no other.

A death alone says little: the process may have been killed, or its machine. So a piece that a process died at is done
by a process that this one watches. Where that dies, halves of the batch are tried, down to a pair that two processes
died at, alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from isthmus.encoders.dual import DualEncoder
from isthmus.scale.child import Child, DiedError
from isthmus.scale.job import Job

BEFORE = ""  # code that such a process runs first
_DEADLY = "Explaining it ended the process that did it, twice: leave it out."


@dataclass(frozen=True)
class _Given:
    job: Job
    revision: str
    threads: int


class Quarantine:
    """A process with the job's model, which explains batches.

    Args:
        job: what is done.
        model: the one that the process that died had.

    Raises:
        IsthmusError: the model cannot be loaded once more by its name, or another one is.
    """

    def __init__(self, job: Job, model: DualEncoder) -> None:
        """Start it."""
        given = _Given(job, model.revision, torch.get_num_threads())
        self._child = Child("isthmus.scale.quarantine:served", given, before=BEFORE)
        self._child.start()

    def answers(self, batch: Sequence[Any]) -> list[Any]:
        """As `isthmus.scale.worker.Worker.answers`; for a pair that kills, no rows and why."""
        for _ in range(2):
            try:
                found: list[Any] = self._child.ask(batch)
            except DiedError:
                if len(batch) > 1:
                    break
            else:
                return found
        if len(batch) == 1:
            return [([], _DEADLY)]
        middle = len(batch) // 2
        return self.answers(batch[:middle]) + self.answers(batch[middle:])

    def close(self) -> None:
        """End it."""
        self._child.close()


def served(given: _Given) -> Callable[[Any], Any]:
    """What answers in the process."""
    from isthmus.errors import ModelError
    from isthmus.scale.worker import Worker

    torch.set_num_threads(given.threads)
    worker = Worker(given.job)
    if worker.model.revision != given.revision:
        raise ModelError(f"{given.job.model!r} is another model by now: load it anew.")
    return worker.answers
