"""Turns what a dataset holds, of whatever form, into pictures, texts and names; says why where it cannot."""

from __future__ import annotations

import hashlib
import io
import os
import re
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
from PIL import Image

from isthmus.encoders.pictures import is_url

_NOT_IN_A_LINE = re.compile(r"\\|[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]|^[\s#\ufeff]|\s\Z")


class BadRecordError(Exception):
    """A record that cannot be used; its text is the sentence that a `Failure` gives as the reason."""


def texts_of(value: Any) -> tuple[str, ...]:
    """The texts in a string, a number, a list of texts, or an object with `raw`, `caption` or `text`.

    Raises:
        BadRecordError: there is none, or something else is among them.
    """
    found = tuple(_gathered(value))
    if not found:
        raise BadRecordError("It has no text: give it a caption.")
    return found


def _gathered(value: Any) -> list[str]:
    if value is None or (isinstance(value, float) and value != value):  # tables write nothing as NaN
        return []
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        text = str(value).strip()
        return [text] if text else []
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [text for part in value for text in _gathered(part)]
    if isinstance(value, Mapping):
        inside = next((value[key] for key in ("raw", "caption", "text") if key in value), None)
        if inside is not None:
            return _gathered(inside)
    raise BadRecordError(f"Its text is of type {type(value).__name__}: give a string or a list of strings.")


def picture_of(value: Any, folder: Path) -> Path | Image.Image:
    """A picture from a path, from encoded bytes, from `{"bytes", "path"}`, or as it is; bytes are not decoded yet.

    Raises:
        BadRecordError: there is none, its file is missing, or the bytes are of no known format.
    """
    if isinstance(value, Image.Image):
        return value
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return encoded_picture(bytes(value))
    if value is None or (isinstance(value, str) and not value.strip()):
        raise BadRecordError("It names no picture: give a path.")
    if not isinstance(value, str):
        raise BadRecordError(f"Its picture is of type {type(value).__name__}: give a path or an encoded picture.")
    if is_url(value.strip()):
        raise BadRecordError("It names a URL, and URLs are not fetched: download the picture.")
    return existing(folder / value.strip().replace("\\", "/"))


def encoded_picture(data: bytes) -> Image.Image:
    """A PIL image that decodes its pixels when they are asked for. Raises BadRecordError for an unknown format."""
    if not data:
        raise BadRecordError("Its picture is empty: get a whole copy.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the size is checked when the picture is opened
            return Image.open(io.BytesIO(data))
    except Exception as error:  # Pillow's readers fail in any way on damaged bytes
        raise BadRecordError("Its picture is damaged, or of a format that Pillow cannot read.") from error


def existing(path: Path) -> Path:
    """The path itself. Raises BadRecordError where there is no such file."""
    try:
        there = path.is_file()
    except (OSError, ValueError):  # a name that is too long, or with a NUL
        there = False
    if not there:
        raise BadRecordError(f"There is no picture {path.name[:100]!r}: check its path.")
    return path


def name_of(value: Any, folder: Path | None = None) -> str:
    """A name that is the same everywhere: the path relative to the folder, or a digest of the bytes; may be ""."""
    if isinstance(value, Mapping):
        given, data = value.get("path"), value.get("bytes")
        return name_of(given, folder) if given else name_of(data)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return digest(value)
    return relative_name(str(value), folder) if isinstance(value, str) else ""


def relative_name(path: str, folder: Path | None = None) -> str:
    """A path with forward slashes, relative to the folder or archive; of a URL or a path elsewhere, its last part."""
    given = path.strip()
    inside, chained, _ = given.partition("::")  # fsspec's path of a file in an archive, `zip://FILE::ARCHIVE`
    if chained and "://" in inside:
        return inside.partition("://")[2]
    if is_url(given) or "://" in given:
        return re.split(r"[?#]", given)[0].rstrip("/").rpartition("/")[2]
    pure: PurePath = PureWindowsPath(given) if "\\" in given else PurePosixPath(given)
    if not pure.is_absolute() and ".." not in pure.parts:
        return pure.as_posix() if given else ""
    if folder is not None:
        try:
            # not resolve(): a link in the folder may lead out of it, as in the hub's cache
            return Path(os.path.abspath(given)).relative_to(os.path.abspath(folder)).as_posix()  # noqa: PTH100
        except ValueError:
            pass
    return pure.name


def digest(data: bytes | bytearray | memoryview) -> str:
    """A name for bytes, of 16 hexadecimal digits, which are those of their SHA-256."""
    return hashlib.sha256(data).hexdigest()[:16]


def picture_name(value: Any, found: Path | Image.Image, folder: Path) -> str:
    """What the rows of one picture share, see `Sample.picture`; "" where nothing tells.

    Args:
        value: the picture as the dataset holds it, see `picture_of`.
        found: what it was turned into.
        folder: where relative paths start.
    """
    given, data = (value.get("path"), value.get("bytes")) if isinstance(value, Mapping) else (value, value)
    if isinstance(data, (bytes, bytearray, memoryview)) and data:
        return digest(data)
    if isinstance(found, Path):
        return file_name(found, folder)
    inside, chained, archive = given.partition("::") if isinstance(given, str) else ("", "", "")
    return f"{inside}::{relative_name(archive, folder)}" if chained else inside


def file_name(path: Path, folder: Path) -> str:
    """A file's path without `.` and `..`: relative to the folder where it is given so or lies in it, else whole."""
    whole = Path(os.path.abspath(path))  # noqa: PTH100  see relative_name
    for one, start in ((whole, Path(os.path.abspath(folder))), (path, folder)):  # noqa: PTH100
        with suppress(ValueError):
            return Path(os.path.normpath(one.relative_to(start))).as_posix()
    return whole.as_posix()


def one_line(name: str) -> str:
    """A name as it stands in a list of ids, one a line; no two names become one.

    Backslashes are doubled. What would break a line, or be lost at its ends, becomes `\\xNN` or `\\uNNNN`: control
    characters, bytes of a file name that are not UTF-8, white space at either end, and a `#` at the beginning.
    """
    return _NOT_IN_A_LINE.sub(lambda found: _escape(found[0]), name)


def _escape(letter: str) -> str:
    code = ord(letter)
    return "\\\\" if letter == "\\" else f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def natural(name: str) -> tuple[tuple[int, str], ...]:
    """A sort key that takes the digits in a name as numbers: `val_9` before `val_10`."""
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name) if part)
