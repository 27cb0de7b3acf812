"""The only place that reads what a visitor gave: pictures, archives (by `archives`), and texts, all within bounds."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from isthmus.app.archives import is_archive, megabytes, too_heavy, unpack
from isthmus.app.naming import file_called, label, labels_of, told_apart
from isthmus.encoders.pictures import open_picture
from isthmus.encoders.texts import check_text
from isthmus.errors import InputError

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
UNDRAWN = ("TIFF",)  # those that browsers do not draw
_NAMED = "JPEG, PNG, WebP, GIF, BMP or TIFF"
_SCANS = 100  # of a progressive JPEG, which has about ten; each one costs a pass over the whole picture


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
    """A picture's file as it was given.

    Attributes:
        name: a label to show.
        data: its bytes.
        file: its name as the visitor has it, with its path within an archive; it is written, and never opened here.
    """

    name: str
    data: bytes
    file: str = ""

    @property
    def called(self) -> str:
        """The visitor's own name for it."""
        return self.file or self.name

    def picture(self, limits: Limits = LIMITS) -> Image.Image:
        """The picture, see `read_picture`."""
        return read_picture(self.data, limits)


@dataclass
class Gathered:
    """Pictures in the order of their names, and for each file that was left out its label and the reason."""

    uploads: list[Upload] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)

    def add(self, file: str, data: bytes) -> None:
        """One more picture's file, called so by the visitor."""
        self.uploads.append(Upload(label(file), data, file))

    def leave_out(self, file: str, reason: str) -> None:
        """A file that is no picture, or cannot be used."""
        self.left_out.append((label(file), reason))

    def in_order(self) -> None:
        """Give files that are called alike a name of their own, and sort all by what they are labelled."""
        files = told_apart([one.file for one in self.uploads])
        named = zip(labels_of(files), self.uploads, files, strict=True)
        self.uploads = sorted((Upload(name, one.data, file) for name, one, file in named), key=lambda one: one.name)


def read_picture(data: bytes, limits: Limits = LIMITS) -> Image.Image:
    """A picture from its file's bytes: RGB, upright, without what else the file holds but its `format`.

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
            whole = Image.frombytes("RGB", found.size, found.tobytes())
            whole.format = image.format
            return whole
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


def gather(
    paths: Sequence[str | Path], folder: str | Path, limits: Limits = LIMITS, *, names: Sequence[str | None] = ()
) -> Gathered:
    """The pictures in uploaded files, and in the archives among them; they are not decoded yet.

    `names` are those that the visitor's machine has, where they are known: the server changes many.

    Raises:
        InputError: an archive that is too large or damaged, or no picture at all.
    """
    found, left = Gathered(), limits.archive_bytes
    for path, name in zip_longest(paths, names[: len(paths)]):
        file = _inside(path, folder)
        if is_archive(file):
            with file.open("rb") as stream:
                unpack(stream, file.stat().st_size, found, left, limits)
        else:
            called = file_called(name or "", file.name)
            try:
                found.add(called, _bytes_of(file, limits.file_bytes))
            except InputError as error:
                found.leave_out(called, str(error))
        left = limits.archive_bytes - sum(len(one.data) for one in found.uploads)
        if left < 0:
            raise InputError(f"These pictures have more than {megabytes(limits.archive_bytes)}: give fewer.")
    if not found.uploads:
        reason = f" ({found.left_out[0][0]}: {found.left_out[0][1]})" if found.left_out else ""
        raise InputError(f"There is no picture in what you gave{reason}: give {_NAMED}, or a zip of them.")
    found.in_order()
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
        raise InputError(too_heavy(size, most))
    return file.read_bytes()


def _check_bytes(size: int, limits: Limits) -> None:
    if not size:
        raise InputError("This file is empty: give a picture.")
    if size > limits.file_bytes:
        raise InputError(too_heavy(size, limits.file_bytes))


def _check_pixels(size: tuple[int, int], limits: Limits) -> None:
    if size[0] * size[1] > limits.pixels:
        raise InputError(f"The picture is {size[0]} x {size[1]} pixels: {_too_large(limits)}")


def _too_large(limits: Limits) -> str:
    return f"scale it to at most {limits.pixels // 10**6} million pixels before you give it."
