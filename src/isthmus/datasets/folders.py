"""A folder: pictures with texts beside them, or a table, Parquet files, tar shards or a saved dataset in it."""

from __future__ import annotations

from pathlib import Path

from isthmus.datasets.huggingface import is_saved, read_huggingface
from isthmus.datasets.options import Items, Options, Reader
from isthmus.datasets.parquet import parquet_files, read_parquet
from isthmus.datasets.records import METADATA, Failure, read_records
from isthmus.datasets.sample import Sample
from isthmus.datasets.shards import read_shards
from isthmus.datasets.tables import read_table
from isthmus.datasets.values import BadRecordError, existing
from isthmus.errors import InputError, OptionError


def read_folder(folder: Path, options: Options) -> tuple[Reader, str | None]:
    """A reader of whatever a folder holds, and the split that it reads.

    Raises:
        InputError: it holds nothing that is known, or pictures without texts.
        OptionError: a column or a split is named, and there are only pictures.
    """
    if is_saved(folder):
        return read_huggingface(str(folder), options)
    table = next((folder / name for name in METADATA if (folder / name).is_file()), None)
    if table is not None:
        return read_table(table, options), options.split
    if any(folder.glob("*.tar")):
        return read_shards([str(path) for path in sorted(folder.glob("*.tar"))], options), options.split
    files = parquet_files(folder)
    if files:
        return read_parquet(files, options), options.split
    return read_pictures(folder, options), None


def read_pictures(folder: Path, options: Options) -> Reader:
    """A reader of pictures with a `NAME.txt` beside each, one text a line, or with the same texts for all."""
    if options.split is not None or options.image_column or options.text_columns or options.label_column:
        raise OptionError(f"The folder {str(folder)!r} holds only pictures: leave out the split and the columns.")
    source = read_records(folder, texts=options.texts)
    first = next(source, None)  # read_records looks at the folder when the first is asked for
    if first is None:
        raise InputError(f"There are no pictures in {str(folder)!r}: check the path.")
    return lambda: _samples(folder, options)


def _samples(folder: Path, options: Options) -> Items:
    for record in read_records(folder, texts=options.texts):
        if isinstance(record, Failure):
            yield record
            continue
        try:
            yield Sample(record.id, existing(record.image), record.texts)
        except BadRecordError as error:
            yield Failure(record.id, str(error))
