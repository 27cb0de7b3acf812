"""Tries again what a network or a disk failed at, where the next try may well work."""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable
from typing import TypeVar

from isthmus.errors import IsthmusError

T = TypeVar("T")

TRIES = 6
PAUSE = 0.2
_LONGEST = 30.0
# No use to try again.
_FINAL = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EFBIG, errno.ENAMETOOLONG}
)
_ABSENT = frozenset({errno.ENOENT, errno.EISDIR})
_BUSY = frozenset({408, 425, 429})  # too slow, too early, too many
# Libraries behind fsspec whose errors of the network are no OSError.
_NETWORK = frozenset({"aiohttp", "asyncio", "azure", "botocore", "google", "gcsfs", "http", "requests", "urllib3"})


def of_network(error: Exception) -> bool:
    """Whether an error is one of a disk or network rather than of the program."""
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _NETWORK


def is_final(error: Exception) -> bool:
    """Whether the next try would fail too: a disk that is full, or closed to us."""
    return isinstance(error, OSError) and error.errno in _FINAL


def is_passing(error: Exception) -> bool:
    """Whether a file that cannot be read now may be later; what is damaged, not there or closed to us will not.

    Readers of damaged files raise OSError too, but without the number of a system's error.
    """
    if isinstance(error, (FileNotFoundError, PermissionError)):
        return False
    if isinstance(error, OSError) and not isinstance(error, (TimeoutError, ConnectionError)):
        return error.errno is not None and error.errno not in _FINAL | _ABSENT
    status = getattr(error, "status", None)  # of HTTP
    refused = isinstance(status, int) and 400 <= status < 500 and status not in _BUSY
    return of_network(error) and not refused


def rest(number: int, pause: float) -> None:
    """Wait after a try that failed, the first being 0: twice as long each time, and not in step with others."""
    time.sleep(min(_LONGEST, pause * 2**number) * random.uniform(0.5, 1))


def patiently(work: Callable[[], T], *, tries: int = TRIES, pause: float = PAUSE) -> T:
    """Do what reads a file, again where the error is a passing one. Raises that of the last try."""
    for number in range(tries - 1):
        try:
            return work()
        except IsthmusError:
            raise
        except Exception as error:  # each file system has its own
            if not is_passing(error):
                raise
        rest(number, pause)
    return work()
