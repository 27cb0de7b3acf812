"""Who is on the page, and which files they use: a visit ends some time after the last sign of it."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

LONGEST = 64  # letters of a session's name; a page's has about eleven


class Uploads:
    """Which visits use which uploaded file: it is deleted with the last of them, or after `idle` seconds unused."""

    def __init__(self, folder: Path, idle: float = 3600) -> None:
        """Uploads lie in `folder`; nothing outside of it is ever deleted."""
        self._folder, self._idle, self._lock = folder.resolve(), idle, threading.Lock()
        self._users: dict[Path, set[str]] = {}

    def note(self, visit: str, paths: Iterator[str]) -> None:
        """A visit uses these files; what does not lie in the folder of uploads is left alone."""
        for name in paths:
            try:
                path = Path(name).resolve()
                if path.is_relative_to(self._folder) and path.is_file():
                    with self._lock:
                        self._users.setdefault(path, set()).add(visit)
            except (OSError, ValueError, RuntimeError):
                continue

    def leave(self, visit: str) -> None:
        """A visit has ended."""
        with self._lock:
            for users in self._users.values():
                users.discard(visit)
            for path in [path for path, users in self._users.items() if not users]:
                del self._users[path]
                self._delete(path)

    def sweep(self) -> None:
        """Delete what nobody uses and lies here for longer than `idle`: files that were dropped and never asked about.

        What a page uses stays as long as the page is open.
        """
        until = time.time() - self._idle
        for path, _, changed in self._files():
            with self._lock:
                if changed < until and path not in self._users:
                    self._delete(path)

    def bytes(self) -> int:
        """How much lies in the folder."""
        return sum(size for _, size, _ in self._files())

    def clear(self) -> None:
        """Delete all, with the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _files(self) -> Iterator[tuple[Path, int, float]]:
        """Files with their sizes and when they came; others come and go meanwhile."""
        for folder, _, names in os.walk(self._folder):
            for path in (Path(folder, name) for name in names):
                try:
                    found = path.lstat()
                except OSError:
                    continue
                if S_ISREG(found.st_mode):
                    yield path, found.st_size, found.st_ctime  # when it was moved into the folder

    def _delete(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        try:
            if path.parent != self._folder and not any(path.parent.iterdir()):
                path.parent.rmdir()
        except OSError:  # somebody puts a file there at this moment
            return


@dataclass
class _Signs:
    """Of one visit: connections that it holds open, when it was last heard, and how long it may be silent."""

    last: float
    patience: float
    open: int = 0


class Visits:
    """Who is there. A page holds a connection open, its heartbeat; it may break off, and the page opens it again."""

    def __init__(
        self,
        left: Callable[[str], None],
        back: Callable[[str], None],
        grace: float,
        idle: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nobody is there yet.

        Args:
            left: told each visit that has ended.
            back: told each one that goes on, since Gradio gives up its state when a heartbeat ends.
            grace: seconds of silence after which a visit has ended.
            idle: the same for one that never had a heartbeat, such as a program.
            clock: gives the seconds.
        """
        self._left, self._back, self._clock = left, back, clock
        self._grace, self._idle, self._lock = grace, idle, threading.Lock()
        self._signs: dict[str, _Signs] = {}

    @property
    def period(self) -> float:
        """Seconds between two looks for those that have left."""
        return min(5.0, self._grace / 4)

    def heard(self, visit: str) -> None:
        """A request of a visit has come."""
        with self._lock:
            self._of(visit)
        self._back(visit)

    @contextmanager
    def connected(self, visit: str, *, heartbeat: bool) -> Iterator[None]:
        """A visit holds a connection open within this."""
        with self._lock:
            signs = self._of(visit)
            signs.open += 1
            if heartbeat:
                signs.patience = self._grace
        self._back(visit)
        try:
            yield
        finally:
            with self._lock:
                signs.open -= 1
                signs.last = self._clock()
                stays = signs.open > 0
            if stays:  # the old connection was found broken after the new one had come
                self._back(visit)

    def end(self) -> None:
        """End the visits that have been silent for too long."""
        with self._lock:
            now = self._clock()
            over = [name for name, one in self._signs.items() if not one.open and now - one.last >= one.patience]
            for name in over:
                del self._signs[name]
        for name in over:
            self._left(name)

    def _of(self, visit: str) -> _Signs:
        """Its signs, as of now; to be called with the lock. One that cannot be a page's is not kept."""
        signs = self._signs.get(visit) or _Signs(0.0, self._idle)
        signs.last = self._clock()
        if len(visit) <= LONGEST:
            self._signs[visit] = signs
        return signs
