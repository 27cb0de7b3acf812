"""A file of a network that is opened again, at the same place, where a read fails in passing."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import IO, Any

from isthmus.scale.patience import PAUSE, TRIES, patiently

_BUFFER = 1 << 16


def steady(open_it: Callable[[], IO[bytes]], *, tries: int = TRIES, pause: float = PAUSE) -> IO[bytes]:
    """A file to read from.

    Args:
        open_it: opens it at its beginning; called again after each read that failed.
        tries, pause: see `isthmus.scale.patience.patiently`.

    Raises:
        Exception: whatever the last of several tries raised, here and in each read.
    """
    return io.BufferedReader(_Steady(open_it, tries, pause), _BUFFER)


class _Steady(io.RawIOBase):
    def __init__(self, open_it: Callable[[], IO[bytes]], tries: int, pause: float) -> None:
        super().__init__()
        self._patiently = partial(patiently, tries=tries, pause=pause)
        self._open, self._at = open_it, 0
        self._stream: IO[bytes] | None = self._patiently(open_it)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._stream is None or self._stream.seekable()

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = self._tried(lambda stream: stream.seek(offset, whence))
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = self._tried(lambda stream: stream.read(len(buffer)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
        super().close()

    def _tried(self, work: Callable[[IO[bytes]], Any]) -> Any:
        def once() -> Any:
            if self._stream is None:
                self._stream = self._open()
                if self._at:
                    self._stream.seek(self._at)
            try:
                return work(self._stream)
            except Exception:  # each file system has its own
                with suppress(Exception):
                    self._stream.close()
                self._stream = None
                raise

        return self._patiently(once)
