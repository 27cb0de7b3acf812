"""Python imports this when it starts with this folder on its path: what the process opens, binds and calls is noted.

Each line of `$ISTHMUS_WATCHED` is a kind and a value: `read` and `write` (paths, links resolved), `remove`, `connect`
and `bind` (addresses), `run` (programs).
"""

from __future__ import annotations

import os
import sys
from typing import Any

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_PATHS = {"os.mkdir": ("write",), "os.remove": ("remove",), "os.rmdir": ("remove",), "os.rename": ("remove", "write")}
_PATHS |= {"os.symlink": ("read", "write"), "os.link": ("read", "write"), "os.truncate": ("write",)}
_RUNS = {"subprocess.Popen", "os.exec", "os.posix_spawn", "os.system"}

_known: set[tuple[str, str]] = set()
_output = os.open(os.environ["ISTHMUS_WATCHED"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def _note(kind: str, value: object) -> None:
    if isinstance(value, bytes):
        value = os.fsdecode(value)
    if isinstance(value, str) and kind in ("read", "write", "remove"):
        value = os.path.realpath(value)
    if not isinstance(value, str) or (kind, value) in _known:
        return  # a number is a file that is open already
    _known.add((kind, value))
    os.write(_output, f"{kind}\t{value!a}\n".encode())


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        path, mode, flags = arguments
        writes = any(letter in mode for letter in "wax+") if isinstance(mode, str) else bool((flags or 0) & _WRITES)
        _note("write" if writes else "read", path)
    elif event in _PATHS:
        for kind, path in zip(_PATHS[event], arguments, strict=False):
            _note(kind, path)
    elif event in ("socket.connect", "socket.bind"):
        _note(event.split(".")[1], repr(arguments[1]))
    elif event in _RUNS:
        _note("run", repr(arguments[0]))


sys.addaudithook(_watch)
