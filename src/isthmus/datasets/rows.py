"""Rows of any table as samples: which columns hold the picture, the texts, the label, and how a row is named."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from isthmus.datasets.options import Items, Options, same_split
from isthmus.datasets.records import IMAGE_COLUMNS, TEXT_COLUMNS, Failure
from isthmus.datasets.sample import Sample, Truth
from isthmus.datasets.values import BadRecordError, name_of, picture_name, picture_of, relative_name, texts_of
from isthmus.errors import InputError

PICTURES = (*IMAGE_COLUMNS, "file_path", "filepath", "img", "jpg", "jpeg", "png", "webp")
TEXTS = (*TEXT_COLUMNS, "texts", "sentences", "sentences_raw", "raw", "alt_text", "txt")
LABELS = ("label", "class", "class_name", "fine_label")
IDS = ("id", "key", "__key__", "image_id", "img_id", "imgid", "filename", "file_name")
_NUMBERED = re.compile(r"(?:caption|text|sentence)s?[_ -]?\d+", re.IGNORECASE)


@dataclass(frozen=True)
class Columns:
    """The columns to read; without `texts`, the text is made of the label."""

    image: str
    texts: tuple[str, ...] = ()
    label: str | None = None
    id: str | None = None
    split: str | None = None

    @property
    def all(self) -> tuple[str, ...]:
        """Every one of them, once."""
        named = (self.image, *self.texts, self.label, self.id, self.split)
        return tuple(dict.fromkeys(name for name in named if name is not None))


@dataclass(frozen=True)
class Place:
    """Where rows come from.

    Attributes:
        folder: where relative paths start.
        options: as the user gave them.
        names: the class names that integer labels stand for.
        find: turns the picture column's value into a picture; `picture_of` unless a reader knows better.
        base_names: name rows by the last part of a path, where a dataset's picture names are unique by themselves.
    """

    folder: Path
    options: Options
    names: Sequence[str] = ()
    find: Callable[[Any, Path], Path | Image.Image] = picture_of
    base_names: bool = False


def find_columns(there: Iterable[str], options: Options, where: str, *, pictures: Sequence[str] = ()) -> Columns:
    """The columns that hold what is needed: those that the user names, else those with well-known names.

    Args:
        there: the columns that there are.
        options: `image_column`, `text_columns`, `label_column`, `split` and `texts` are looked at.
        where: what the columns are of, for the errors.
        pictures: columns that are known to hold pictures, such as those of a picture type.

    Raises:
        InputError: a named column is not there, or none has a well-known name.
    """
    names = [str(name) for name in there if name]
    for given in filter(None, (options.image_column, *options.text_columns, options.label_column)):
        if given not in names:
            raise InputError(f"{where} has no column {given!r}: choose among {', '.join(names) or 'none'}.")
    image = picture_column(names, options, pictures=pictures)
    if image is None:
        raise InputError(
            f"{where} has no picture column among {', '.join(names) or 'none'}: "
            f"name it with image_column (--image-column), or call it {PICTURES[0]!r}."
        )
    texts = options.text_columns or _text_columns([name for name in names if name != image])
    label = options.label_column or _first(LABELS, names)
    if not texts and label is None and not options.texts:
        raise InputError(
            f"{where} has no text column among {', '.join(names)}: "
            f"name it with text_columns (--text-column), or call it {TEXTS[1]!r}."
        )
    split = _first(("split",), names) if options.split is not None else None
    return Columns(image, texts, label, _first(IDS, [name for name in names if name != image]), split)


def picture_column(there: Sequence[str], options: Options, *, pictures: Sequence[str] = ()) -> str | None:
    """The column of pictures: the one that the user names, else one of `pictures`, else one with a well-known name."""
    return options.image_column or _first((*pictures, *PICTURES), there)


def _first(wanted: Sequence[str], there: Sequence[str]) -> str | None:
    known = {name.strip().lower(): name for name in reversed(there)}
    return next((known[name.lower()] for name in wanted if name.lower() in known), None)


def _text_columns(names: Sequence[str]) -> tuple[str, ...]:
    numbered = tuple(name for name in names if _NUMBERED.fullmatch(name.strip()))
    one = _first(TEXTS, names)
    return (one,) if one is not None else numbered


def samples_of_rows(
    rows: Iterable[Mapping[str, Any] | str], columns: Columns, place: Place, *, first: int = 1
) -> Items:
    """A sample for each row of the wanted split; a row that is a string is bad, and the string says why.

    `first` is the number of the first row, by which rows without a name are named.
    """
    for number, row in enumerate(rows, first):
        if isinstance(row, str):
            yield Failure(f"row {number}", row)
            continue
        if place.options.split and columns.split and not same_split(str(row.get(columns.split)), place.options.split):
            continue
        name = _name(row, columns, place) or f"row {number}"
        try:
            yield sample_of_row(row, columns, place, name)
        except BadRecordError as error:
            yield Failure(name, str(error))


def _name(row: Mapping[str, Any], columns: Columns, place: Place) -> str:
    picture = row.get(columns.image)
    by_path = name_of(picture, place.folder) if isinstance(picture, str) else ""
    given = row.get(columns.id) if columns.id is not None else None
    by_id = name_of(str(given)) if given not in (None, "") else ""
    name = by_path or by_id or name_of(picture, place.folder)
    return name.rpartition("/")[2] if place.base_names else name


def sample_of_row(row: Mapping[str, Any], columns: Columns, place: Place, name: str) -> Sample:
    """One row as a sample. Raises BadRecordError where it has no usable picture or text."""
    label = _label(row.get(columns.label), place) if columns.label is not None else None
    if place.options.texts:
        texts = place.options.texts
    elif columns.texts:
        texts = texts_of([row.get(column) for column in columns.texts])
    else:
        if label is None:
            raise BadRecordError("It has no text, and its label has no name to make one of: give it a caption.")
        texts = (f"a photo of a {label}",)
    picture = place.find(row.get(columns.image), place.folder)
    if isinstance(picture, Path) and not place.base_names:
        name = relative_name(os.path.abspath(picture), place.folder)  # noqa: PTH100  see relative_name
    same = picture_name(row.get(columns.image), picture, place.folder)
    return Sample(name, picture, texts, Truth(label=label), picture=same)


def _label(value: Any, place: Place) -> str | None:
    """The label's name; a bare number is one only where the user named its column."""
    if isinstance(value, bool) or value is None or value == "":
        return None
    if isinstance(value, int) and place.names:
        return str(place.names[value]) if 0 <= value < len(place.names) else None
    label = str(value).strip()
    return label if label and (place.options.label_column is not None or not label.isdecimal()) else None
