"""A process of our own that is asked through its pipes: when it dies, it is known at what.

It imports nothing but what it serves with, not the user's script, and ends when the process that asks it ends.
"""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from isthmus.errors import IsthmusError


class DiedError(Exception):
    """The process ended before it answered."""


class Child:
    """A process that answers requests; it starts when it is first asked, and anew after it died.

    Args:
        maker: "module:function", which is called there with `given` and returns what answers a request.
        given: anything that can be pickled.
        patience: seconds for one answer, before the process is ended; None waits for ever.
        environment: joins that of this process.
        before: code that is run there first.
    """

    def __init__(
        self,
        maker: str,
        given: Any,
        *,
        patience: float | None = None,
        environment: Mapping[str, str] | None = None,
        before: str = "",
    ) -> None:
        """Nothing is started yet; see the class."""
        self._maker, self._given, self._patience, self._before = maker, given, patience, before
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._over = threading.Event()

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return None if self._process is None else self._process.pid

    def ask(self, request: Any) -> Any:
        """Its answer.

        Raises:
            DiedError: it ended, or took for ever.
            IsthmusError: it cannot be started, or raised this error.
        """
        if self._over.is_set():
            raise DiedError
        process = self._process or self.start()
        assert process.stdin is not None
        watch = threading.Timer(self._patience or 0, process.kill)
        watch.daemon = True
        if self._patience is not None:
            watch.start()
        try:
            pickle.dump(request, process.stdin, protocol=5)
            process.stdin.flush()
            answer = pickle.load(process.stdout)  # type: ignore[arg-type]
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            self.end()
            raise DiedError from error
        finally:
            watch.cancel()
        if isinstance(answer, IsthmusError):
            raise answer
        return answer

    def start(self, tries: int = 3) -> subprocess.Popen[bytes]:
        """Start it. Raises IsthmusError where it cannot be."""
        path = f"import sys; sys.path[:] = {sys.path!r}\n{self._before}\n"
        process = subprocess.Popen(
            [sys.executable, "-c", f"{path}from isthmus.scale.child import serve\nserve({self._maker!r})"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self._environment,
            start_new_session=True,  # an interrupt from the keyboard is for the one who asks alone
        )
        self._process = process
        try:
            pickle.dump(self._given, process.stdin, protocol=5)  # type: ignore[arg-type]
            process.stdin.flush()  # type: ignore[union-attr]
            said = pickle.load(process.stdout)  # type: ignore[arg-type]
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            self.end()
            if tries > 1 and not self._over.is_set():  # it may have been killed
                return self.start(tries - 1)
            module = self._maker.partition(":")[0]
            raise IsthmusError(
                f"A process of our own cannot be started: see what python -c 'import {module}' says."
            ) from error
        if isinstance(said, IsthmusError):
            self.end()
            raise said
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


def serve(maker: str) -> None:
    """Answer requests on standard input until it ends; what is raised as an IsthmusError is an answer."""
    with suppress(ValueError, OSError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer

    def send(answer: Any) -> None:
        pickle.dump(answer, answers, protocol=5)
        answers.flush()

    module, _, name = maker.partition(":")
    make: Callable[[Any], Callable[[Any], Any]] = getattr(importlib.import_module(module), name)
    try:
        handle = make(pickle.load(sys.stdin.buffer))
    except IsthmusError as error:
        return send(error)
    send("ready")
    while True:
        try:
            request = pickle.load(sys.stdin.buffer)
        except EOFError:
            return None
        try:
            send(handle(request))
        except IsthmusError as error:
            send(error)
