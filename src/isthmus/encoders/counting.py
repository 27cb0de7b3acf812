"""Counts passes: runs of an encoder, or of what is left of it behind a cut, on one input.

A run that several pairs share counts for each of them: passes state what a pair needs, so that methods compare.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

_RUNNING: ContextVar[dict[str, int] | None] = ContextVar("passes", default=None)
_WATCHING: ContextVar[Callable[[int], None] | None] = ContextVar("watching", default=None)
_RESTING: ContextVar[Callable[[], None] | None] = ContextVar("resting", default=None)


@contextmanager
def counted() -> Iterator[dict[str, int]]:
    """Within it, every run of a tower is counted for "forward", and every run back through it for "backward"."""
    passes = {"forward": 0, "backward": 0}
    token = _RUNNING.set(passes)
    try:
        yield passes
    finally:
        _RUNNING.reset(token)


@contextmanager
def uncounted() -> Iterator[None]:
    """Within it nothing is counted: what is done once for a model is no cost of a pair."""
    token = _RUNNING.set(None)
    try:
        yield
    finally:
        _RUNNING.reset(token)


@contextmanager
def watched(watch: Callable[[int], None], rest: Callable[[], None] | None = None) -> Iterator[None]:
    """Within it `watch` is told of every run forward by its number of inputs, and may raise to end the work.

    It is told of 0 inputs where long work could end between two of them.
    `rest` is called where long work leaves the model as it was for a moment, so that others may use it.
    """
    tokens = _WATCHING.set(watch), _RESTING.set(rest)
    try:
        yield
    finally:
        _WATCHING.reset(tokens[0])
        _RESTING.reset(tokens[1])


def rested() -> None:
    """Between two chunks of long work, where nothing of the model is changed: see `watched`."""
    watch = _WATCHING.get()
    if watch is not None:
        watch(0)
    rest = _RESTING.get()
    if rest is not None:
        rest()


def count(embedding: Tensor) -> None:
    """Count a run that gave `embedding` `(N, D)`, and later the runs back through it."""
    watch = _WATCHING.get()
    if watch is not None:
        watch(len(embedding))
    passes = _RUNNING.get()
    if passes is None:
        return
    passes["forward"] += len(embedding)
    if embedding.requires_grad:

        def back(gradient: Tensor) -> None:
            passes["backward"] += len(gradient)

        embedding.register_hook(back)  # type: ignore[no-untyped-call]


def count_shared(rows: int) -> None:
    """Count the passes of `rows` inputs that another pair of the call has paid for: a pair would need them alone."""
    passes = _RUNNING.get()
    if passes is not None:
        passes["forward"] += rows
