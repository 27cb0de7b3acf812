"""Captions in one JSON file beside a folder of pictures, in the forms in which Flickr8k, RSICD and COCO go about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isthmus.datasets.files import picture_folder, read_json
from isthmus.datasets.options import Items, Options, Reader, same_split
from isthmus.datasets.records import Failure
from isthmus.datasets.rows import PICTURES, TEXTS
from isthmus.datasets.sample import Sample
from isthmus.datasets.values import BadRecordError, existing, file_name, texts_of
from isthmus.errors import InputError

FOLDERS = ("images", "Images", "pictures")
ALL = "all"
_FILES = ("filename", "file_name", *PICTURES)
_TEXTS = ("sentences", "captions", *TEXTS)


@dataclass(frozen=True)
class Captioned:
    """A picture's file name with its captions, as the file holds them."""

    file: str
    texts: Any
    split: str | None = None


def caption_records(path: Path) -> list[Captioned | Failure]:
    """The records of a caption file, one a picture.

    Known forms: Karpathy and Fei-Fei's (CVPR 2015), `{"images": [{"filename", "split", "sentences": [{"raw"}]}]}`;
    COCO's, `{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}`; `{file: captions}`; and a
    list of objects with a file and a caption or captions, where one picture may come several times.

    Raises:
        InputError: the file is of none of these forms.
    """
    data = read_json(path)
    if isinstance(data, dict) and isinstance(data.get("images"), list):
        captions = data.get("annotations")
        return _coco(data["images"], captions) if isinstance(captions, list) else grouped(data["images"])
    if isinstance(data, dict) and data and all(isinstance(value, (str, list)) for value in data.values()):
        return [Captioned(name, texts) for name, texts in data.items()]
    if isinstance(data, list) and data:
        return grouped(data)
    raise InputError(
        f"The file {str(path)!r} holds no captions of pictures in a form that is known: see docs/datasets.md."
    )


def grouped(rows: Iterable[Any]) -> list[Captioned | Failure]:
    """Rows with a file and captions; those of one file become one record."""
    found: dict[str, Captioned] = {}
    bad: list[Captioned | Failure] = []
    for number, row in enumerate(rows, 1):
        file = next((row[key] for key in _FILES if row.get(key)), None) if isinstance(row, Mapping) else None
        if not isinstance(file, str):
            bad.append(Failure(f"record {number}", "It names no picture: give its file name."))
            continue
        folder = row.get("filepath")  # the folder in Karpathy's COCO
        file = f"{folder}/{file}" if isinstance(folder, str) and folder and folder != file else file
        texts = [row[key] for key in _TEXTS if row.get(key) is not None][:1]
        split = row.get("split")
        before = found[file].texts if file in found else []
        found[file] = Captioned(file, [*before, *texts], split if isinstance(split, str) else None)
    return [*found.values(), *bad]


def _coco(images: Sequence[Any], captions: Sequence[Any]) -> list[Captioned | Failure]:
    texts: dict[Any, list[Any]] = {}
    for caption in captions:
        if isinstance(caption, Mapping):
            texts.setdefault(caption.get("image_id"), []).append(caption.get("caption"))
    rows = [{**row, "captions": texts.get(row.get("id"), [])} if isinstance(row, Mapping) else row for row in images]
    return grouped(rows)


def read_caption_file(
    path: Path,
    root: Path,
    options: Options,
    *,
    dataset: str,
    folders: Sequence[str] = FOLDERS,
    split: str | None = None,
) -> tuple[Reader, str | None]:
    """A reader of a caption file; see `caption_records`, and `read_captions` for the rest."""
    return read_captions(caption_records(path), root, options, dataset=dataset, folders=folders, split=split)


def read_captions(
    records: Sequence[Captioned | Failure],
    root: Path,
    options: Options,
    *,
    dataset: str,
    folders: Sequence[str] = FOLDERS,
    split: str | None = None,
) -> tuple[Reader, str | None]:
    """A reader of pictures with their captions, each named by its file name.

    Args:
        records: the pictures and captions.
        root: where the pictures, or a folder of them, are.
        options: `split`, or `all`; and `texts`.
        dataset: what it is called, for the errors.
        folders: names of the picture folder that are tried.
        split: the split without one in the options; it is left aside where the records name no splits.

    Returns:
        The reader, and the split that it reads: None where there are none.

    Raises:
        InputError: there is no such split, or none of the pictures is there.
    """
    there = sorted({record.split for record in records if isinstance(record, Captioned) and record.split})
    wanted = options.split or (split if there else None)
    if wanted not in (None, ALL):
        chosen = [r for r in records if isinstance(r, Captioned) and r.split and same_split(r.split, wanted or "")]
        if not chosen:
            said = f"choose one of {', '.join((*there, ALL))}" if there else "its records name none: leave it out"
            raise InputError(f"{dataset} has no split {wanted!r}: {said}.")
        records = chosen
    names = [record.file for record in records if isinstance(record, Captioned)]
    folder = picture_folder(root, folders, names, dataset)
    return lambda: _samples(records, folder, options), wanted


def _samples(records: Iterable[Captioned | Failure], folder: Path, options: Options) -> Items:
    for record in records:
        if isinstance(record, Failure):
            yield record
            continue
        name = record.file.rpartition("/")[2]
        try:
            path = existing(folder / record.file)
            texts = options.texts or texts_of(record.texts)
            yield Sample(name, path, texts, picture=file_name(path, folder))  # names may repeat in other folders
        except BadRecordError as error:
            yield Failure(name, str(error))
