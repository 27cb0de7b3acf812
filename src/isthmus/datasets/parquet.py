"""Parquet files with a picture column: paths, encoded bytes, or `{"bytes", "path"}` as Hugging Face writes them."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from isthmus.datasets.files import files_in
from isthmus.datasets.options import Items, Options, Reader, split_names
from isthmus.datasets.records import Failure
from isthmus.datasets.rows import Columns, Place, find_columns, picture_column, samples_of_rows
from isthmus.errors import InputError
from isthmus.extras import needed

_ROWS = 64


def parquet_files(folder: Path) -> list[Path]:
    """The Parquet files in a folder, to its depths, past what is hidden and the results that Isthmus wrote there."""
    return sorted(path for path in files_in(folder, {".parquet"}) if path.is_file())


def matching_files(pattern: str) -> list[Path]:
    """The Parquet files of a glob pattern, where `**` stands for folders. Raises InputError where there are none."""
    found = sorted(Path(name) for name in glob.glob(pattern, recursive=True))  # noqa: PTH207  it may be absolute
    if not found:
        raise InputError(f"There are no files {pattern!r}: check the path.")
    return found


def lists_files(path: Path, options: Options) -> bool:
    """Whether the picture column of a Parquet file holds paths, and not pictures; no where it has none."""
    try:
        schema = needed("pyarrow.parquet").read_schema(path)
    except Exception:  # pyarrow has many, and may not be there
        return False
    if options.image_column is not None and options.image_column not in schema.names:
        return True  # the file is meant, and its reader says that the column is not there
    column = picture_column(schema.names, options)
    kind = "" if column is None else str(schema.field(column).type)
    return "string" in kind and not kind.startswith(("struct", "list", "large_list"))


def of_split(files: Sequence[Path], split: str | None) -> list[Path]:
    """The files whose name begins with a split's, as in `validation-00000-of-00002`; all where none names a split."""
    if split is None:
        return list(files)
    for name in split_names(split):
        found = [p for p in files if p.name.lower().startswith(name.lower()) or p.parent.name.lower() == name.lower()]
        if found:
            return found
    return []


def read_parquet(files: Sequence[Path], options: Options, *, place: Place | None = None) -> Reader:
    """A reader of Parquet files of one schema, one after another.

    Raises:
        InputError: the first file cannot be read, or has no picture or text column; or nothing is of the split.
        OptionError: pyarrow is not installed.
    """
    arrow = needed("pyarrow.parquet")
    try:
        schema = arrow.read_schema(files[0])
    except Exception as error:  # pyarrow has many
        raise InputError(f"{str(files[0])!r} is no Parquet file that can be read: get a whole copy.") from error
    columns = find_columns(schema.names, options, f"The file {str(files[0])!r}")
    place = replace(place or Place(files[0].parent, options), names=class_names(schema.metadata, columns.label))
    chosen = of_split(files, options.split)
    if chosen:
        files, columns = chosen, replace(columns, split=None)
    elif columns.split is None:
        where = str(files[0].parent)
        raise InputError(f"No file in {where!r} is named after the split {options.split!r}: check it, or leave it out.")

    def read() -> Items:
        for path in files:
            yield from _read_one(arrow, path, columns, place)

    return read


def _read_one(arrow: Any, path: Path, columns: Columns, place: Place) -> Items:
    """One file; where it breaks, what was read before is kept."""
    broken: list[str] = []

    def rows() -> Iterator[dict[str, Any]]:
        try:
            with arrow.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=_ROWS, columns=list(columns.all)):
                    yield from batch.to_pylist()
        except Exception as error:  # pyarrow has many
            broken.append(" ".join(str(error).split())[:200])

    yield from samples_of_rows(rows(), columns, place)
    if broken:
        yield Failure(path.name, f"The rest of this file cannot be read ({broken[0]}): get a whole copy.")


def class_names(metadata: Any, label: str | None) -> Sequence[str]:
    """The names of integer labels that Hugging Face's `datasets` keeps in a file's metadata."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        names = features[label]["names"]
    except (KeyError, TypeError, ValueError):
        return ()
    return [str(name) for name in names]


def read_named_parquet(files: Sequence[Path], options: Options, *, split: str) -> tuple[Reader, str | None]:
    """A reader of a dataset whose picture names are unique by themselves, and the split that it reads.

    Args:
        files: Parquet files, as the hub keeps them.
        options: see `read_parquet`.
        split: the split without one in the options; it is left aside where no file is named after a split.
    """
    wanted = options.split or (split if of_split(files, split) else None)
    options = replace(options, split=wanted)
    return read_parquet(files, options, place=Place(files[0].parent, options, base_names=True)), wanted
