"""The only place that reads what a visitor gave: pictures, archives of pictures, and texts, all within bounds."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from stat import S_ISLNK
from typing import Any, BinaryIO

from PIL import Image, UnidentifiedImageError

from isthmus.encoders.pictures import PICTURE_SUFFIXES, open_picture
from isthmus.encoders.texts import check_text
from isthmus.errors import InputError

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_NAMED = "JPEG, PNG, WebP, GIF, BMP or TIFF"
_SCANS = 100  # of a progressive JPEG, which has about ten; each one costs a pass over the whole picture
_END, _END_SIZE, _LONGEST_COMMENT = b"PK\x05\x06", 22, 65535
_DIRECTORY = 1 << 20  # bytes of an archive's list of files; some 8,000 names
_DIRECT = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # those that unpack in pieces of a bounded size
_LABEL = 60


@dataclass(frozen=True)
class Limits:
    """What a visitor may give.

    Attributes:
        file_bytes: of one picture's file, packed and unpacked.
        pixels: of one picture.
        pictures: explained at once, by files or an archive.
        archive_bytes: of an archive, and of all that is read from it.
        characters: of one text.
        prompts: texts at once.
        methods: compared at once.
    """

    file_bytes: int = 20 << 20
    pixels: int = 30_000_000
    pictures: int = 48
    archive_bytes: int = 64 << 20
    characters: int = 1000
    prompts: int = 24
    methods: int = 16


LIMITS = Limits()


@dataclass(frozen=True, repr=False)
class Upload:
    """A picture's file as it was given; `name` is a label to show, never a path."""

    name: str
    data: bytes

    def picture(self, limits: Limits = LIMITS) -> Image.Image:
        """The picture, see `read_picture`."""
        return read_picture(self.data, limits)


@dataclass
class Gathered:
    """Pictures in the order of their names, and for each file that was left out its label and the reason."""

    uploads: list[Upload] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)


def read_picture(data: bytes, limits: Limits = LIMITS) -> Image.Image:
    """A picture from its file's bytes: RGB, upright, without what else the file holds.

    Raises:
        InputError: no picture of a kind that is read, too large, damaged or cut off.
    """
    _check_bytes(len(data), limits)
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            _check_pixels(image.size, limits)
            if image.format in ("JPEG", "MPO") and data.count(b"\xff\xda") > _SCANS:
                raise InputError("This JPEG is built to be slow to open: save it again in an image editor.")
            image.load()
            found = open_picture(image.copy()).image
            return Image.frombytes("RGB", found.size, found.tobytes())
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"The picture has far too many pixels: {_too_large(limits)}") from error
    except UnidentifiedImageError as error:
        raise InputError(f"This file is no picture that can be read here: give {_NAMED}.") from error
    except Exception as error:  # Pillow's readers fail in any way on a damaged file
        raise InputError("This picture is damaged or cut off: get a whole copy, or save it again.") from error


def read_upload(path: str | Path, folder: str | Path, limits: Limits = LIMITS) -> Image.Image:
    """The picture in a file that the server itself put into its `folder` of uploads; see `read_picture`."""
    return read_picture(_bytes_of(_inside(path, folder), limits.file_bytes), limits)


def gather(paths: Sequence[str | Path], folder: str | Path, limits: Limits = LIMITS) -> Gathered:
    """The pictures in uploaded files, and in the archives among them; they are not decoded yet.

    Raises:
        InputError: an archive that is too large or damaged, or no picture at all.
    """
    found, left = Gathered(), limits.archive_bytes
    for path in paths:
        file = _inside(path, folder)
        if _is_archive(file):
            with file.open("rb") as stream:
                _unpack(stream, file.stat().st_size, found, left, limits)
        else:
            try:
                found.uploads.append(Upload(label(file.name), _bytes_of(file, limits.file_bytes)))
            except InputError as error:
                found.left_out.append((label(file.name), str(error)))
        left = limits.archive_bytes - sum(len(one.data) for one in found.uploads)
        if left < 0:
            raise InputError(f"These pictures have more than {_megabytes(limits.archive_bytes)}: give fewer.")
    if not found.uploads:
        reason = f" ({found.left_out[0][0]}: {found.left_out[0][1]})" if found.left_out else ""
        raise InputError(f"There is no picture in what you gave{reason}: give {_NAMED}, or a zip of them.")
    found.uploads.sort(key=lambda one: one.name)
    for one in found.uploads[limits.pictures :]:
        found.left_out.append((one.name, f"more than {limits.pictures} pictures at once"))
    del found.uploads[limits.pictures :]
    return found


def clean_text(text: Any, limits: Limits = LIMITS) -> str:
    """A text as it is explained: control characters and line breaks are blanks, none at its ends.

    Raises:
        InputError: no text, an empty one, or one that is too long.
    """
    if text is None or (isinstance(text, str) and not text.strip()):
        raise InputError("There is no text yet: write a few words about the picture.")
    if isinstance(text, str) and len(text) > limits.characters:
        raise InputError(
            f"The text has {len(text):,} characters: shorten it to {limits.characters:,}; models read far less."
        )
    check_text(text)
    plain = "".join(" " if ord(c) < 32 or 127 <= ord(c) < 160 else c for c in text).strip()
    if not plain:
        raise InputError("The text has no letters: write a few words about the picture.")
    return plain


def clean_lines(text: Any, limits: Limits = LIMITS) -> tuple[list[str], int]:
    """Texts, one a line, each once and in its order, and how many lines came again; blank lines are left out.

    Raises:
        InputError: as `clean_text`.
    """
    whole = limits.prompts * (limits.characters + 1)
    if isinstance(text, str) and len(text) > whole:
        raise InputError(f"The prompts have {len(text):,} characters: shorten them to {whole:,} in all.")
    lines = [line for line in text.splitlines() if line.strip()] if isinstance(text, str) else []
    if not lines:
        raise InputError("There is no prompt yet: write one a line.")
    prompts = list(dict.fromkeys(clean_text(line, limits) for line in lines))
    again = len(lines) - len(prompts)
    if len(prompts) > limits.prompts:
        raise InputError(f"There are {len(prompts)} prompts: give at most {limits.prompts} at once.")
    return prompts, again


def label(name: str) -> str:
    """The last part of a file's name as a label: printable, at most 60 characters."""
    last = PurePosixPath(name.replace("\\", "/")).name
    shown = "".join(c for c in last if c.isprintable())
    return (shown if len(shown) <= _LABEL else shown[: _LABEL - 1] + "…") or "picture"


def _inside(path: str | Path, folder: str | Path) -> Path:
    """A file in the folder of uploads, after all links; nothing else is ever opened."""
    try:
        file, root = Path(path).resolve(strict=True), Path(folder).resolve(strict=True)
        there = file.is_relative_to(root) and file.is_file()
    except (OSError, ValueError, RuntimeError):
        there = False
    if not there:
        raise InputError("This file is no longer on the server: give it again.")
    return file


def _bytes_of(file: Path, most: int) -> bytes:
    size = file.stat().st_size
    if size > most:
        raise InputError(_too_heavy(size, most))
    return file.read_bytes()


def _check_bytes(size: int, limits: Limits) -> None:
    if not size:
        raise InputError("This file is empty: give a picture.")
    if size > limits.file_bytes:
        raise InputError(_too_heavy(size, limits.file_bytes))


def _check_pixels(size: tuple[int, int], limits: Limits) -> None:
    if size[0] * size[1] > limits.pixels:
        raise InputError(f"The picture is {size[0]} x {size[1]} pixels: {_too_large(limits)}")


def _too_large(limits: Limits) -> str:
    return f"scale it to at most {limits.pixels // 10**6} million pixels before you give it."


def _too_heavy(size: int, most: int) -> str:
    return f"The file has {_megabytes(size)}: give one of at most {_megabytes(most)}."


def _megabytes(size: int) -> str:
    return f"{size / (1 << 20):.3g} MB"


def _is_archive(file: Path) -> bool:
    """Whether a file starts as a zip does; a picture with a zip behind it is a picture."""
    with file.open("rb") as stream:
        return stream.read(4) in (b"PK\x03\x04", _END)


def _unpack(stream: BinaryIO, size: int, found: Gathered, left: int, limits: Limits) -> None:
    """Add the pictures of an archive; nothing of it is written anywhere."""
    if size > limits.archive_bytes:
        raise InputError(_too_heavy(size, limits.archive_bytes))
    damaged = "The zip is damaged or of an unusual kind: pack the pictures again."
    if not _plain_directory(stream, size):
        raise InputError(damaged)
    try:
        with zipfile.ZipFile(stream) as archive:
            for info in _pictures_in(archive, found):
                if len(found.uploads) > limits.pictures:
                    found.left_out.append((label(info.filename), f"more than {limits.pictures} pictures at once"))
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
            found.left_out.append((label(info.filename), "a link, which is not followed"))
        elif PurePosixPath(parts[-1]).suffix.lower() not in PICTURE_SUFFIXES:
            found.left_out.append((label(info.filename), "no picture by its name"))
        elif info.flag_bits & 1:
            found.left_out.append((label(info.filename), "locked with a password"))
        elif info.compress_type not in _DIRECT:
            found.left_out.append((label(info.filename), "packed in an unusual way"))
        else:
            yield info


def _add(archive: zipfile.ZipFile, info: zipfile.ZipInfo, found: Gathered, left: int, limits: Limits) -> int:
    """Read one file of an archive, no more of it than is allowed; returns the bytes that were read."""
    try:
        with archive.open(info) as member:
            data = member.read(limits.file_bytes + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError):
        found.left_out.append((label(info.filename), "damaged"))
        return 0
    if len(data) > limits.file_bytes:
        found.left_out.append((label(info.filename), f"more than {_megabytes(limits.file_bytes)}"))
    elif len(data) > left:
        raise InputError(f"The zip unpacks to more than {_megabytes(limits.archive_bytes)}: give fewer pictures.")
    else:
        found.uploads.append(Upload(label(info.filename), data))
    return len(data)
