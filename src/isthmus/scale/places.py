"""Files of the input, on the disk or on any file system that fsspec knows."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import IO, Any, TypeVar

from isthmus.errors import InputError, IsthmusError
from isthmus.extras import needed
from isthmus.scale.patience import patiently
from isthmus.scale.steady import steady

T = TypeVar("T")

_THREADS = 16
_CHANGED = ("mtime", "LastModified", "last_modified", "updated", "ETag", "etag", "created")
_MAGIC = re.compile(r"[*?\[]")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


@dataclass(frozen=True)
class File:
    """A file: its path or URL, its size in bytes, and what tells that it was changed."""

    path: str
    size: int | None
    changed: str

    @property
    def name(self) -> str:
        """The path without its folders."""
        return self.path.rpartition("/")[2]


def is_remote(path: str) -> bool:
    """Whether a path is a URL, chained or not, rather than a path of this machine."""
    return "://" in path or "::" in path


def whole(path: str) -> str:
    """A local path made absolute, with forward slashes; a URL as it is; `file://` is a local path."""
    path = path.removeprefix("file://") if path.startswith("file:///") else path
    return path if is_remote(path) else Path(os.path.abspath(path)).as_posix()  # noqa: PTH100  links stay links


def file_system(path: str) -> tuple[Any, str]:
    """The fsspec file system of a path, and the path in it. Raises InputError where there is none for it."""
    try:
        return needed("fsspec.core").url_to_fs(path)  # type: ignore[no-any-return]
    except (ValueError, ImportError) as error:
        raise InputError(f"{path!r} cannot be opened ({error}): give a path, or a URL that fsspec knows.") from error


def open_file(path: str) -> IO[bytes]:
    """A file to be read; one that is not of this machine is steady, see `isthmus.scale.steady`.

    Raises:
        OSError: or what its file system raises.
    """
    if not is_remote(path):
        return Path(path).open("rb")
    fs, inner = file_system(path)
    return steady(lambda: fs.open(inner, "rb"))


def content_of(path: str) -> bytes:
    """All of a small file. Raises OSError, or what its file system raises."""
    with open_file(path) as stream:
        return stream.read()


def is_folder(path: str) -> bool:
    """Whether there is a folder at a path or URL."""
    if not is_remote(path):
        return Path(path).is_dir()
    fs, inner = file_system(path)

    def once() -> bool:
        try:
            return bool(fs.isdir(inner)) or fs.info(inner)["type"] == "directory"  # the first hides errors
        except FileNotFoundError:
            return False

    return reached(once, path)


def reached(work: Callable[[], T], path: str) -> T:
    """Ask a file system, again where that may help. Raises InputError, in one sentence, where it cannot be reached."""
    try:
        return patiently(work)
    except IsthmusError:
        raise
    except Exception as error:  # each file system has its own
        raise InputError(f"{path!r} cannot be reached ({_said(error)}): check it and your access.") from error


def expanded(pattern: str) -> list[str]:
    """The paths that a path with braces, `{0000..0015}` or `{a,b}`, and marks of a glob stands for, in order.

    Raises:
        InputError: a glob that nothing matches.
    """
    found: list[str] = []
    for name in _without_braces(pattern):
        if not _MAGIC.search(name) or (not is_remote(name) and Path(name).exists()):
            found.append(whole(name))
        elif is_remote(name):
            fs, inner = file_system(name)
            matches = reached(partial(fs.glob, inner), name)
            found += sorted(fs.unstrip_protocol(one) for one in matches)
        else:
            found += [whole(one) for one in sorted(glob.glob(name, recursive=True))]  # noqa: PTH207  may be absolute
    if not found:
        raise InputError(f"There are no files {pattern!r}: check the path.")
    return found


def _without_braces(pattern: str) -> Iterator[str]:
    pieces = _BRACES.split(pattern)
    choices = [[text] if place % 2 == 0 else _choices(text) for place, text in enumerate(pieces)]
    return ("".join(chosen) for chosen in product(*choices))


def _choices(text: str) -> list[str]:
    numbers = _RANGE.fullmatch(text)
    if numbers is None:
        return text.split(",") if "," in text else [f"{{{text}}}"]
    first, last = numbers[1], numbers[2]
    return [f"{n:0{len(first)}d}" for n in range(int(first), int(last) + 1)]


def files_at(paths: Sequence[str]) -> list[File]:
    """What is known of some files. Raises InputError, naming one that is not there."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(_file_at, paths))


def _file_at(path: str) -> File:
    try:
        if not is_remote(path):
            found = Path(path).stat()
            return File(path, found.st_size, str(found.st_mtime))
        fs, inner = file_system(path)
        return _file(patiently(lambda: fs.info(inner)), path)
    except FileNotFoundError as error:
        raise InputError(f"There is no file {path!r}: check the path, and the numbers of a pattern.") from error
    except InputError:
        raise
    except Exception as error:  # each file system has its own
        raise InputError(f"{path!r} cannot be reached ({_said(error)}): check it and your access.") from error


def _file(info: dict[str, Any], path: str) -> File:
    changed = next((str(info[name]) for name in _CHANGED if info.get(name) is not None), "")
    return File(path, info.get("size"), changed)


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def walk(folder: str, first: str = "") -> Iterator[tuple[str, list[File]]]:
    """The folders in a folder to its depths, each with its files in order; the files of one folder are in memory.

    Hidden files, links to folders and the results of Isthmus are passed over.

    Args:
        folder: a path or URL.
        first: the path in it of a file; what comes before that is passed over.

    Yields:
        The folder's path relative to the whole, "" for itself, and its files.
    """
    fs, inner = file_system(folder)
    local = not is_remote(folder)

    def inside(path: str, relative: str, start: Sequence[str]) -> Iterator[tuple[str, list[File]]]:
        entries = sorted(_entries(fs, path), key=lambda pair: pair[0])
        if relative and _is_result({name for name, _ in entries}):
            return
        files = [
            _file(info, info["name"] if local else fs.unstrip_protocol(info["name"]))
            for name, info in entries
            if info["type"] != "directory" and (not start or (len(start) == 1 and name >= start[0]))
        ]
        yield relative, files
        for name, info in entries:
            deeper = len(start) > 1
            if info["type"] == "directory" and not info.get("islink") and not (deeper and name < start[0]):
                more = start[1:] if deeper and name == start[0] else ()
                yield from inside(info["name"], f"{relative}{name}/", more)

    return inside(inner, "", first.split("/") if first else ())


def _entries(fs: Any, path: str) -> Iterable[tuple[str, dict[str, Any]]]:
    for info in reached(lambda: fs.ls(path, detail=True), path):
        name = str(info["name"]).rstrip("/").rpartition("/")[2]
        if name and not name.startswith(".") and str(info["name"]).strip("/") != str(path).strip("/"):
            yield name, {**info, "name": str(info["name"]).rstrip("/")}


def _is_result(names: set[str]) -> bool:
    return bool(names & {"run.json", "explanation.json"}) or {"manifest.json", "pairs"} <= names
