"""Decodes pictures in processes of their own, so that neither a crash nor a slow picture is one of the whole run.

Each process works on a few pictures at a time and is asked through its pipes; when it dies, it is known at what.
It imports neither torch nor the user's script, starts in a moment, and ends when the process that asks it ends.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from PIL import Image

from isthmus.datasets.records import Failure
from isthmus.encoders.pictures import Picture
from isthmus.errors import IsthmusError
from isthmus.scale.opening import OPENER
from isthmus.scale.raw import Raw

_CHUNK = 4  # pictures that are asked for at once
_PATIENCE = 300.0  # seconds for one such answer, before its process is ended
_DEADLY = "Opening its picture ended the process that did it, twice: save it anew, or leave it out."


class _DiedError(Exception):
    """The process ended before it answered."""


class _Child:
    """A process that opens pictures; it starts when it is first asked, and anew after it died."""

    def __init__(self, opener: str) -> None:
        self._opener = opener
        self._process: subprocess.Popen[bytes] | None = None
        self._over = threading.Event()

    def ask(self, pictures: list[bytes | str]) -> list[Any]:
        """Its answers. Raises _DiedError where it ends, or takes for ever."""
        if self._over.is_set():
            raise _DiedError
        process = self._process or self._start()
        assert process.stdin is not None
        watch = threading.Timer(_PATIENCE, process.kill)
        watch.daemon = True
        watch.start()
        try:
            pickle.dump(pictures, process.stdin, protocol=5)
            process.stdin.flush()
            found: list[Any] = pickle.load(process.stdout)  # type: ignore[arg-type]
            return found
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            self.end()
            raise _DiedError from error
        finally:
            watch.cancel()

    def _start(self) -> subprocess.Popen[bytes]:
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; from isthmus.scale.opening import serve; serve({self._opener!r})"
        )
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # an interrupt from the keyboard is for this process alone
        )
        self._process = process
        try:
            pickle.load(process.stdout)  # type: ignore[arg-type]
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            self.end()
            raise IsthmusError(
                "A process that opens pictures cannot be started: "
                "see what python -c 'import isthmus.scale.opening' says."
            ) from error
        return process

    def close(self) -> None:
        """End it for good."""
        self._over.set()
        self.end()

    def end(self) -> None:
        """End it; it starts anew when it is asked again."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                with suppress(OSError):
                    stream.close()  # type: ignore[union-attr]


@dataclass(frozen=True, eq=False)
class Coming:
    """Pictures that are being opened."""

    parts: tuple[Future[list[Picture | Failure]], ...]

    def result(self) -> list[Picture | Failure]:
        """Wait for them; one for each record, in order."""
        return [one for part in self.parts for one in part.result()]


class Decoder:
    """Opens pictures in processes of their own; to be used in a `with`, which ends them.

    Args:
        workers: how many processes.
        opener: "module:function", what opens a picture there.
    """

    def __init__(self, workers: int, *, opener: str = OPENER) -> None:
        """Nothing is started yet; see the class."""
        self._pool = ThreadPoolExecutor(max(1, workers), thread_name_prefix="isthmus-decode")
        self._idle: SimpleQueue[_Child] = SimpleQueue()
        self._children = [_Child(opener) for _ in range(max(1, workers))]
        for child in self._children:
            self._idle.put(child)

    def __enter__(self) -> Decoder:
        """See the class."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the processes, whatever they are at."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for child in self._children:
            child.close()

    def begin(self, raws: Sequence[Raw]) -> Coming:
        """Begin to open the pictures of some records; those of `Coming.result` are in the same order."""
        parts = [raws[start : start + _CHUNK] for start in range(0, len(raws), _CHUNK)]
        return Coming(tuple(self._pool.submit(self._opened, part) for part in parts))

    def decode(self, raws: Sequence[Raw]) -> list[Picture | Failure]:
        """The pictures of some records in their order, each upright in RGB, or why it cannot be opened."""
        return self.begin(raws).result()

    def _opened(self, raws: Sequence[Raw]) -> list[Picture | Failure]:
        child = self._idle.get()
        try:
            return _asked(child, raws)
        finally:
            self._idle.put(child)


def _asked(child: _Child, raws: Sequence[Raw]) -> list[Picture | Failure]:
    """Ask a process, twice where it dies; then each half alone, until the one is found that it dies of."""
    for _ in range(2):
        with suppress(_DiedError):
            answers = child.ask([raw.picture for raw in raws])
            return [_found(raw, answer) for raw, answer in zip(raws, answers, strict=True)]
    if len(raws) == 1:
        return [Failure(raws[0].id, _DEADLY)]
    middle = len(raws) // 2
    return _asked(child, raws[:middle]) + _asked(child, raws[middle:])


def _found(raw: Raw, answer: Any) -> Picture | Failure:
    if isinstance(answer, str):
        return Failure(raw.id, answer)
    width, height, pixels, source = answer
    return Picture(Image.frombytes("RGB", (width, height), pixels), source)
