"""Reads the small files that come with a dataset, finds its pictures, and says what was expected where."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from isthmus.errors import InputError


class MissingFilesError(InputError):
    """A folder that does not hold the files of a dataset."""


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises InputError where it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"The file {str(path)!r} is no JSON that can be read: get a whole copy.") from error


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank. Raises InputError where it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The file {str(path)!r} cannot be read as UTF-8: get a whole copy.") from error
    return [line.strip() for line in text.split("\n") if line.strip()]


def first_there(root: Path, names: Iterable[str]) -> Path | None:
    """The first of some relative paths that is there."""
    return next((root / name for name in names if (root / name).exists()), None)


def need(root: Path, names: Sequence[str], dataset: str) -> Path:
    """The first of some relative paths that is there. Raises InputError, naming them, where none is."""
    found = first_there(root, names)
    if found is None:
        raise MissingFilesError(
            f"{dataset} needs {' or '.join(names)} in {str(root)!r}: give the folder that holds it as root."
        )
    return found


def files_in(folder: Path, suffixes: Collection[str]) -> Iterator[Path]:
    """Files of some kinds in a folder to its depths, past what is hidden and the results that Isthmus wrote there."""
    for where, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and not _results(Path(where) / name)]
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in suffixes:
                yield Path(where) / name


def _results(folder: Path) -> bool:
    of_one = any((folder / name).is_file() for name in ("run.json", "explanation.json", "1/explanation.json"))
    return of_one or ((folder / "manifest.json").is_file() and (folder / "pairs").is_dir())


def picture_folder(root: Path, folders: Sequence[str], names: Sequence[str], dataset: str) -> Path:
    """The folder, among some in root or root itself, that holds pictures of these names.

    Raises:
        InputError: none holds any of them.
    """
    for folder in (*(root / name for name in folders), root):
        if folder.is_dir() and any((folder / name).is_file() for name in names):
            return folder
    example = f", such as {names[0]!r}," if names else ""
    raise MissingFilesError(
        f"The pictures of {dataset}{example} are not in {str(root)!r}: put them there, or into {' or '.join(folders)}."
    )
