"""A folder: a saved dataset, or a table, tar shards, Parquet files or pictures with texts, of which it holds one."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from isthmus.datasets.files import files_in
from isthmus.datasets.huggingface import is_saved, read_huggingface
from isthmus.datasets.options import Items, Options, Reader
from isthmus.datasets.parquet import lists_files, parquet_files, read_parquet
from isthmus.datasets.records import METADATA, Failure, pictures_with_texts
from isthmus.datasets.sample import Sample
from isthmus.datasets.shards import read_shards
from isthmus.datasets.tables import read_table
from isthmus.datasets.values import BadRecordError, existing
from isthmus.encoders.pictures import PICTURE_SUFFIXES
from isthmus.errors import InputError, OptionError


def read_folder(folder: Path, options: Options) -> tuple[Reader, str | None]:
    """A reader of what a folder holds, and the split that it reads.

    A dataset that Hugging Face saved, else the first table of `METADATA`, speaks for the whole folder. Without them it
    holds tar shards at its top, Parquet files or pictures, of one kind; Parquet files with paths of pictures are a
    table of them.

    Raises:
        InputError: it holds nothing that is known, several kinds, or pictures without texts.
        OptionError: a column or a split is named, and there are only pictures.
    """
    if is_saved(folder):
        return read_huggingface(str(folder), options)
    table = next((folder / name for name in METADATA if (folder / name).is_file()), None)
    if table is not None:
        return read_table(table, options), options.split
    shards, files = sorted(folder.glob("*.tar")), parquet_files(folder)
    _refuse_several(folder, shards, files, options)
    if shards:
        return read_shards([str(path) for path in shards], options), options.split
    if files:
        return read_parquet(files, options), options.split
    return read_pictures(folder, options), None


def _refuse_several(folder: Path, shards: Sequence[Path], files: Sequence[Path], options: Options) -> None:
    """Refuse to pass over all but one kind of data in silence."""
    picture = next(files_in(folder, PICTURE_SUFFIXES), None) if shards or files else None
    if picture is not None and not shards and lists_files(files[0], options):
        return
    kinds = (("tar shards", shards, "*.tar"), ("Parquet files", files, "*.parquet"))
    there = [(kind, found[0], _beside(found[0], pattern)) for kind, found, pattern in kinds if found]
    if len(there) + (picture is not None) < 2:
        return
    held = [(kind, path) for kind, path, _ in there] + ([("pictures", picture)] if picture is not None else [])
    told = " and ".join(f"{kind} (such as {path.relative_to(folder).as_posix()!r})" for kind, path in held)
    ways = " or ".join(f"{pattern!r} for the {kind}" for kind, _, pattern in there)
    move = ", or move all but the pictures out of it" if picture is not None else ""
    raise InputError(f"The folder {str(folder)!r} holds {told}, and only one kind is read: give {ways}{move}.")


def _beside(path: Path, pattern: str) -> str:
    return (Path(glob.escape(str(path.parent))) / pattern).as_posix()


def read_pictures(folder: Path, options: Options) -> Reader:
    """A reader of pictures with a `NAME.txt` beside each, one text a line, or with the same texts for all."""
    if options.split is not None or options.image_column or options.text_columns or options.label_column:
        raise OptionError(f"The folder {str(folder)!r} holds only pictures: leave out the split and the columns.")
    next(pictures_with_texts(folder, options.texts))  # which looks at the folder when the first is asked for
    return lambda: _samples(folder, options)


def _samples(folder: Path, options: Options) -> Items:
    for path, texts in pictures_with_texts(folder, options.texts):
        name = path.relative_to(folder).as_posix()
        try:
            yield Failure(name, texts) if isinstance(texts, str) else Sample(name, existing(path), texts)
        except BadRecordError as error:  # a link to nowhere
            yield Failure(name, str(error))
