"""Reads the pictures of an archive, within bounds, and writes none of it anywhere."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from stat import S_ISLNK
from typing import TYPE_CHECKING, BinaryIO

from isthmus.app.naming import file_in
from isthmus.encoders.pictures import PICTURE_SUFFIXES
from isthmus.errors import InputError

if TYPE_CHECKING:
    from isthmus.app.uploads import Gathered, Limits

_END, _END_SIZE, _LONGEST_COMMENT = b"PK\x05\x06", 22, 65535
_DIRECTORY = 1 << 20  # bytes of an archive's list of files; some 8,000 names
_DIRECT = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # those that unpack in pieces of a bounded size


def is_archive(file: Path) -> bool:
    """Whether a file starts as a zip does; a picture with a zip behind it is a picture."""
    with file.open("rb") as stream:
        return stream.read(4) in (b"PK\x03\x04", _END)


def unpack(stream: BinaryIO, size: int, found: Gathered, left: int, limits: Limits) -> None:
    """Add the pictures of an archive; nothing of it is written anywhere."""
    if size > limits.archive_bytes:
        raise InputError(too_heavy(size, limits.archive_bytes))
    damaged = "The zip is damaged or of an unusual kind: pack the pictures again."
    if not _plain_directory(stream, size):
        raise InputError(damaged)
    try:
        with zipfile.ZipFile(stream) as archive:
            for info in _pictures_in(archive, found):
                if len(found.uploads) > limits.pictures:
                    found.leave_out(info.filename, f"more than {limits.pictures} pictures at once")
                    continue
                left -= _add(archive, info, found, left, limits)
    except (zipfile.BadZipFile, struct.error, OSError, ValueError, EOFError, NotImplementedError, zlib.error) as error:
        raise InputError(damaged) from error


def _plain_directory(stream: BinaryIO, size: int) -> bool:
    """Whether an archive's list of files is short, before zipfile makes an object of each name.

    It is found as zipfile finds it: at the very end, else before a comment.
    """
    stream.seek(max(0, size - _END_SIZE - _LONGEST_COMMENT - 20))
    tail = stream.read()
    stream.seek(0)
    last = tail[-_END_SIZE:]
    place = len(tail) - _END_SIZE if last[:4] == _END and last[-2:] == b"\0\0" else tail.rfind(_END)
    record = tail[place : place + _END_SIZE] if place >= 0 else b""
    if len(record) < _END_SIZE or tail[max(0, place - 20) : place].startswith(b"PK\x06\x07"):
        return False
    return int(struct.unpack("<I", record[12:16])[0]) <= _DIRECTORY


def _pictures_in(archive: zipfile.ZipFile, found: Gathered) -> Iterator[zipfile.ZipInfo]:
    """Files that are called pictures, in the order of their names; hidden ones and folders are passed over."""
    for info in sorted(archive.infolist(), key=lambda one: one.filename):
        parts = PurePosixPath(info.filename.replace("\\", "/")).parts
        if info.is_dir() or not parts or any(part.startswith((".", "__MACOSX")) and part != ".." for part in parts):
            continue
        if S_ISLNK(info.external_attr >> 16):
            found.leave_out(info.filename, "a link, which is not followed")
        elif PurePosixPath(parts[-1]).suffix.lower() not in PICTURE_SUFFIXES:
            found.leave_out(info.filename, "no picture by its name")
        elif info.flag_bits & 1:
            found.leave_out(info.filename, "locked with a password")
        elif info.compress_type not in _DIRECT:
            found.leave_out(info.filename, "packed in an unusual way")
        else:
            yield info


def _add(archive: zipfile.ZipFile, info: zipfile.ZipInfo, found: Gathered, left: int, limits: Limits) -> int:
    """Read one file of an archive, no more of it than is allowed; returns the bytes that were read."""
    try:
        with archive.open(info) as member:
            data = member.read(limits.file_bytes + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError):
        found.leave_out(info.filename, "damaged")
        return 0
    if len(data) > limits.file_bytes:
        found.leave_out(info.filename, f"more than {megabytes(limits.file_bytes)}")
    elif len(data) > left:
        raise InputError(f"The zip unpacks to more than {megabytes(limits.archive_bytes)}: give fewer pictures.")
    else:
        found.add(file_in(info.filename), data)
    return len(data)


def too_heavy(size: int, most: int) -> str:
    """What is said of a file with too many bytes."""
    return f"The file has {megabytes(size)}: give one of at most {megabytes(most)}."


def megabytes(size: int) -> str:
    """A number of bytes as it is told."""
    return f"{size / (1 << 20):.3g} MB"
