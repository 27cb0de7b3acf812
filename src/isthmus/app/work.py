"""Work in a thread of its own: it reports its passes, and ends at the next one when it is cancelled."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from isthmus.encoders.sharing import Shared
from isthmus.errors import IsthmusError

T = TypeVar("T")
_TICK = 0.15
_STORE = 24 << 20  # bytes


class CancelledError(IsthmusError):
    """The visitor has cancelled the work, or left."""


class Work(Generic[T]):
    """One piece of work; `result` has what it gave, or raises what it raised."""

    def __init__(self, function: Callable[[Callable[[int], None]], T]) -> None:
        """Begin `function`, which is given a watch to call for every run of the model."""
        self.passes = 0
        self.began = time.perf_counter()
        self._stop = threading.Event()
        self._found: Future[T] = Future()
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(self._run, function), name="isthmus-work", daemon=True).start()

    def cancel(self) -> None:
        """End the work at the next run of the model."""
        self._stop.set()

    def ticks(self) -> Iterator[tuple[int, float]]:
        """Passes and seconds so far, now and then, until it ends. Who stops to listen cancels it."""
        try:
            while not self._found.done():
                self._wait()
                yield self.passes, time.perf_counter() - self.began
        finally:
            self.cancel()

    def result(self) -> T:
        """What the work gave. Raises CancelledError where it was cancelled, or what it raised."""
        return self._found.result()

    def _wait(self) -> None:
        try:
            self._found.exception(timeout=_TICK)
        except TimeoutError:
            return

    def _run(self, function: Callable[[Callable[[int], None]], T]) -> None:
        try:
            self._found.set_result(function(self._watch))
        except BaseException as error:
            self._found.set_exception(error)

    def _watch(self, inputs: int) -> None:
        if self._stop.is_set():
            raise CancelledError("Cancelled.")
        self.passes += inputs


class Visit:
    """What the page keeps of one visitor: the work that runs, and results to go back to. It is never shared.

    Attributes:
        work: what runs now, if anything.
        answers: results, oldest first; None for each of the oldest that was let go of (`history.thin`).
        at: the place of the one that is shown.
        store: what the model made of the last pictures and texts.
        turn: the number of questions so far; one that is not the last has been given up for another.
    """

    def __init__(self) -> None:
        """A visitor who has asked nothing yet."""
        self.work: Work[Any] | None = None
        self.answers: list[Any] = []
        self.at = -1
        self.store = Shared(_STORE)
        self.turn = 0
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: dict[int, Any]) -> Visit:
        """Gradio copies the first value of a state for every visitor: each begins anew."""
        return Visit()

    def next_turn(self) -> int:
        """The turn of a new question, which takes the place of every former one."""
        with self._lock:
            self.turn += 1
            return self.turn

    def begin(self, function: Callable[[Callable[[int], None]], T], turn: int | None = None) -> Work[T]:
        """Begin some work in place of what runs; `turn` is that of the question that it is for, if any.

        Raises CancelledError where another question has taken the place of that one: it must not end the newer work.
        """
        with self._lock:
            if turn not in (None, self.turn):
                raise CancelledError("Another question has taken the place of this one.")
            self.cancel()
            self.work = work = Work(function)
        return work

    def cancel(self) -> None:
        """End what runs."""
        if self.work is not None:
            self.work.cancel()

    def forget_store(self) -> None:
        """Let go of what the model made of pictures and texts; it is made again where it is needed."""
        self.store = Shared(_STORE)

    def close(self) -> None:
        """End what runs and what would follow it, and forget everything."""
        self.next_turn()
        self.cancel()
        self.answers.clear()
        self.at = -1
        self.forget_store()
