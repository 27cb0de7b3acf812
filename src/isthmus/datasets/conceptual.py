"""Conceptual Captions (Sharma et al., ACL 2018), CC3M: captions with URLs, and what was downloaded of the pictures."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

from PIL import Image

from isthmus.datasets.files import MissingFilesError, first_there
from isthmus.datasets.index import read_index_beside
from isthmus.datasets.options import Items, Options, Reader, split_names
from isthmus.datasets.records import Failure
from isthmus.datasets.rows import Place
from isthmus.datasets.sample import Sample
from isthmus.datasets.shards import read_shards
from isthmus.datasets.tables import read_table
from isthmus.datasets.values import BadRecordError, picture_of, texts_of
from isthmus.encoders.pictures import PICTURE_SUFFIXES, is_url

NEEDS = (
    "cc.csv (caption, file_path), tar shards, the official TSV (caption, URL) with the pictures that were downloaded, "
    "img2dataset's folders of NAME.jpg with NAME.txt or NAME.json, or cc.json"
)


def read_conceptual(root: Path, options: Options) -> tuple[Reader, str | None]:
    """A reader of whichever layout the root has; see `NEEDS`. A split chooses shards and TSV files by their names.

    Raises:
        InputError: the root holds none of the known layouts, or nothing of the split.
    """
    index = read_index_beside(root, "cc", options)
    if index is not None:
        return index, options.split
    table = root if root.suffix.lower() == ".csv" else first_there(root, ["cc.csv", "datasets/cc.csv"])
    if table is not None:
        return read_table(table, options, place=Place(table.parent, options, find=_by_tail)), options.split
    shards = [str(path) for path in ([root] if root.suffix.lower() == ".tar" else sorted(root.glob("*.tar")))]
    if shards:
        return read_shards(shards, options, bare_keys=True), options.split
    tables = [root] if root.suffix.lower() == ".tsv" else sorted(root.glob("*.tsv"))
    split = options.split or ("validation" if len(tables) > 1 else None)
    chosen = [path for path in tables if split is None or _named_after(path, split)]
    if chosen:
        return _official(chosen[0], options), split
    pictures = _pictures(root) if root.is_dir() and not tables else {}
    pictures = {stem: path for stem, path in pictures.items() if path.suffix}
    if options.split is None and any(_said(path) is not None for path in pictures.values()):
        return lambda: _downloaded(pictures, options), None
    raise MissingFilesError(
        f"Conceptual Captions needs {NEEDS} in {str(root)!r}"
        f"{f' for the split {options.split!r}' if options.split else ''}: give the folder that holds it as root."
    )


def _named_after(path: Path, split: str) -> bool:
    return any(name.lower() in path.name.lower() for name in split_names(split))


def _by_tail(value: Any, folder: Path) -> Path | Image.Image:
    """The picture at a path; where that was a path of another machine, at as much of its end as is in the folder."""
    parts = Path(value.replace("\\", "/")).parts if isinstance(value, str) and not is_url(value) else ()
    ends = ["/".join(parts[n:]) for n in range(len(parts)) if parts[n] != "/"]
    found = next((folder / end for end in ends if (folder / end).is_file()), None)
    return found if found is not None else picture_of(value, folder)


def _pictures(root: Path) -> dict[str, Path]:
    """Pictures by their stem, to the folder's depths; a file without a suffix is one, as a common script saves them."""
    found: dict[str, Path] = {}
    for where, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(files):
            path = Path(where) / name
            if not name.startswith(".") and (path.suffix.lower() in PICTURE_SUFFIXES or not path.suffix):
                found.setdefault(path.stem, path)
    return found


def _official(table: Path, options: Options) -> Reader:
    """Rows `CAPTION<tab>URL` without a header; row N, from 0, is in N_CRC32(URL), in N of nine digits, or in N."""
    pictures = _pictures(table.parent)

    def read() -> Items:
        with table.open(encoding="utf-8-sig", errors="replace") as stream:
            for number, line in enumerate(stream):
                caption, _, url = line.rstrip("\r\n").partition("\t")
                stems = (f"{number}_{zlib.crc32(url.strip().encode())}", f"{number:09d}", str(number))
                path = next((pictures[stem] for stem in stems if stem in pictures), None)
                if path is None:
                    yield Failure(f"{number:09d}", "Its picture was not downloaded, or is not named after its row.")
                else:
                    yield _sample(path, caption, options)

    return read


def _downloaded(pictures: dict[str, Path], options: Options) -> Items:
    for path in pictures.values():
        yield _sample(path, _said(path), options)


def _sample(path: Path, caption: str | None, options: Options) -> Sample | Failure:
    try:
        return Sample(path.stem, path, options.texts or texts_of(caption))
    except BadRecordError as error:
        return Failure(path.stem, str(error))


def _said(picture: Path) -> str | None:
    """The caption in the text or JSON file that img2dataset writes beside a picture."""
    for suffix in (".txt", ".json"):
        try:
            said = picture.with_suffix(suffix).read_text(encoding="utf-8-sig")
            found = said if suffix == ".txt" else json.loads(said)["caption"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if isinstance(found, str) and found.strip():
            return found
    return None
