"""What a visitor's files are called: shortened, as a label on the page, and whole, in the lines that are copied."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

_LABEL = 60
_LONGEST = 255  # characters of a file's name, as file systems have it


def label(name: str) -> str:
    """The last part of a file's name as a label: printable, at most 60 characters."""
    last = PurePosixPath(name.replace("\\", "/")).name
    shown = _printable(last)
    return (shown if len(shown) <= _LABEL else shown[: _LABEL - 1] + "…") or "picture"


def labels_of(files: Sequence[str]) -> list[str]:
    """A label for each file: its last part, or where several have the same, the end of its path."""
    short = [label(file) for file in files]
    times = Counter(short)
    return [one if times[one] == 1 else _end(file) for one, file in zip(short, files, strict=True)]


def file_in(archive_name: str) -> str:
    """A path within an archive as it is unpacked: no root, no drive, no way up."""
    parts = [part for part in archive_name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    if len(parts) > 1 and re.fullmatch(r"[A-Za-z]:", parts[0]):
        del parts[0]
    return "/".join(parts) or "picture"


def file_called(given: str, on_disk: str) -> str:
    """The name of a file as the visitor's machine has it; `on_disk` is what the server made of it."""
    last = given.rpartition("/")[2]
    return last if last not in ("", ".", "..") and len(last) <= _LONGEST else on_disk


def told_apart(files: Sequence[str]) -> list[str]:
    """Names of which none comes twice; the second `a.png` is `a (2).png`, as where both lie in one folder."""
    found: dict[str, None] = {}
    for file in files:
        path, name, number = PurePosixPath(file), file, 1
        while name in found:
            number += 1
            name = str(path.with_name(f"{path.stem} ({number}){path.suffix}"))
        found[name] = None
    return list(found)


def _end(file: str) -> str:
    shown = _printable(file)
    return shown if len(shown) <= _LABEL else "…" + shown[1 - _LABEL :]


def _printable(name: str) -> str:
    return "".join(c for c in name if c.isprintable())
