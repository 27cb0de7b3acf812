"""Flickr8k (Hodosh, Young and Hockenmaier, JAIR 2013): 8,000 pictures with five captions each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from isthmus.datasets.captions import FOLDERS, Captioned, grouped, read_caption_file, read_captions
from isthmus.datasets.files import MissingFilesError, first_there, read_lines
from isthmus.datasets.index import read_index_beside
from isthmus.datasets.options import Options, Reader
from isthmus.datasets.parquet import parquet_files, read_named_parquet
from isthmus.datasets.records import Failure
from isthmus.datasets.tables import rows_of

NEEDS = (
    "dataset_flickr8k.json (Karpathy), Flickr8k.token.txt with Flickr_8k.devImages.txt, captions.txt (Kaggle), "
    "en_val.json, Parquet files, or flickr8k.json"
)
_FOLDERS = (*FOLDERS, "Flicker8k_Dataset", "Flickr8k_Dataset", "Flickr8k_Dataset/Flicker8k_Dataset", "flickr8k")
_JSON = ("dataset_flickr8k.json", "flickr8k/dataset.json", "en_val.json")
_LISTS = {"train": "Flickr_8k.trainImages.txt", "val": "Flickr_8k.devImages.txt", "test": "Flickr_8k.testImages.txt"}
_TEXT = ("", "Flickr8k_text/")


def read_flickr8k(root: Path, options: Options) -> tuple[Reader, str | None]:
    """A reader of Flickr8k with all captions of a picture; the split is `val` (dev) where none is given.

    Raises:
        InputError: the root holds none of the known layouts, or not this split.
    """
    index = read_index_beside(root, "flickr8k", options)
    if index is not None:
        return index, options.split
    json = first_there(root, _JSON)
    if json is not None:
        return read_caption_file(json, root, options, dataset="Flickr8k", folders=_FOLDERS, split="val")
    token = first_there(root, [f"{folder}Flickr8k.token.txt" for folder in _TEXT])
    if token is not None:
        records = _with_splits(token_records(token), root)
        return read_captions(records, root, options, dataset="Flickr8k", folders=_FOLDERS, split="val")
    if (root / "captions.txt").is_file():
        rows = [row if isinstance(row, dict) else {} for row in rows_of(root / "captions.txt")]
        return read_captions(grouped(rows), root, options, dataset="Flickr8k", folders=_FOLDERS)
    files = parquet_files(root)
    if files:
        return read_named_parquet(files, options, split="val")
    raise MissingFilesError(f"Flickr8k needs {NEEDS} in {str(root)!r}: give the folder that holds it as root.")


def token_records(path: Path) -> list[Captioned | Failure]:
    """The pictures of `Flickr8k.token.txt`, whose lines are `FILE#NUMBER<tab>CAPTION`."""
    found: dict[str, list[str]] = {}
    bad: list[Captioned | Failure] = []
    for number, line in enumerate(read_lines(path), 1):
        key, tab, caption = line.partition("\t")
        if tab:
            found.setdefault(key.partition("#")[0], []).append(caption)
        else:
            bad.append(Failure(f"line {number}", "Its line has no tab between the file and the caption: mend it."))
    return [*(Captioned(file, texts) for file, texts in found.items()), *bad]


def _with_splits(records: Sequence[Captioned | Failure], root: Path) -> list[Captioned | Failure]:
    """Records with the split whose list names them; a picture that is listed but has no caption is added."""
    listed: dict[str, str] = {}
    for split, name in _LISTS.items():
        path = first_there(root, [f"{folder}{name}" for folder in _TEXT])
        if path is not None:
            listed |= dict.fromkeys(read_lines(path), split)
    known = {record.file for record in records if isinstance(record, Captioned)}
    split_of = [Captioned(r.file, r.texts, listed.get(r.file)) if isinstance(r, Captioned) else r for r in records]
    return [*split_of, *(Captioned(file, [], split) for file, split in listed.items() if file not in known)]
