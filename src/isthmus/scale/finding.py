"""Finds out what INPUT is and which files it has, and cuts it into shards."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from isthmus.datasets.huggingface import HUGGING_FACE, is_saved
from isthmus.datasets.options import Options, split_names
from isthmus.datasets.parquet import of_split
from isthmus.datasets.records import METADATA, TABLES
from isthmus.datasets.rows import find_columns, picture_column
from isthmus.errors import InputError, OptionError
from isthmus.extras import needed
from isthmus.scale.patience import is_passing
from isthmus.scale.pictures import is_picture
from isthmus.scale.places import File, expanded, files_at, is_folder, is_remote, open_file, reached, walk, whole
from isthmus.scale.raw import SECTION, Shard
from isthmus.scale.reading import count_of, dataset_rows, table_columns, table_rows

_TAR = re.compile(r"\.(tar(\.(gz|bz2|xz))?|tgz)([}?].*)?$", re.IGNORECASE)
_PICTURES = 4096  # of a folder, in a shard
_COUNTED = 64 << 20  # bytes of a table that is read once more to know how long it is
_FOOTERS = 1000  # Parquet files whose ends are read to know how long they are
_THREADS = 16


@dataclass
class Found:
    """The shards of an input, what tells its files, and what a user should know of it."""

    shards: list[Shard]
    stamps: Sequence[object]
    notice: str = ""


def find(source: str, options: Options) -> Found:
    """The shards of an input; see `isthmus.scale.source.plan`."""
    if not source.strip():
        raise InputError("The input is empty: give a folder, a table, Parquet, tar shards, or hf:NAME.")
    if source.startswith(HUGGING_FACE):
        return _dataset(source, options)
    if options.config is not None:
        raise OptionError(f"The input {source!r} is not of Hugging Face: leave the config out.")
    plain = PurePosixPath(re.split(r"[?#]", source)[0] if is_remote(source) else source.replace(os.sep, "/"))
    suffix = plain.suffix.rstrip("}").lower()
    local = not is_remote(whole(source))
    if local and Path(source).is_dir() and is_saved(Path(source)):
        return _dataset(f"{HUGGING_FACE}{source}", options)
    if not (local and Path(source).is_dir()):
        if _TAR.search(source):
            return _archives(files_at(expanded(source)), options)
        if suffix == ".parquet":
            return _tables_of_arrow(files_at(expanded(source)), options)
        if suffix in TABLES:
            return _tables(files_at(expanded(source)), options)
    if not is_folder(source):
        hint = difflib.get_close_matches(source, [one.name for one in Path().iterdir()], n=1) if local else []
        mend = f"did you mean {hint[0]!r}?" if hint else "give a folder, a table, Parquet, tar shards, or hf:NAME."
        raise InputError(f"There is no input {source!r}: {mend}")
    return _folder(whole(source).rstrip("/"), options)


@dataclass
class _Held:
    """What a folder holds, seen once."""

    archives: list[File] = field(default_factory=list)
    arrow: list[File] = field(default_factory=list)
    table: File | None = None
    tables: list[File] = field(default_factory=list)
    shards: list[tuple[str, str, int]] = field(default_factory=list)  # first and last picture, and their number
    pictures: int = 0
    texts: bool = False
    stamp: Any = field(default_factory=hashlib.sha256)


def _folder(folder: str, options: Options) -> Found:
    """A folder: its table of captions speaks for it; else it holds archives, Parquet files or pictures."""
    held = _look(folder)
    if held.table is not None and not options.texts:
        return _tables([held.table], options)
    kinds = [
        name
        for name, there in (("tar shards", held.archives), ("Parquet files", held.arrow), ("pictures", held.pictures))
        if there
    ]
    lists = bool(held.arrow) and not held.archives and _lists_files(held.arrow[0], options)
    if len(kinds) > 1 and not lists:
        raise InputError(
            f"The folder {folder!r} holds {' and '.join(kinds)}, and only one kind is read: give '*.tar', '*.parquet' "
            "or a folder of one kind."
        )
    if held.archives:
        return _archives(held.archives, options)
    if held.arrow:
        return _tables_of_arrow(held.arrow, options)
    return _pictures(folder, held, options)


def _look(folder: str) -> _Held:
    held = _Held()
    for where, files in walk(folder):
        names = {file.name for file in files}
        for file in files:
            name, suffix = file.name, Path(file.name).suffix.lower()
            if (
                not where
                and name in METADATA
                and (held.table is None or METADATA.index(name) < METADATA.index(held.table.name))
            ):
                held.table = file
            elif not where and _TAR.search(name):
                held.archives.append(file)
            elif suffix == ".parquet":
                held.arrow.append(file)
            elif not where and suffix in TABLES:
                held.tables.append(file)
            elif is_picture(name):
                if held.pictures % _PICTURES == 0:
                    held.shards.append((where + name, "", 0))
                first, _, count = held.shards[-1]
                held.shards[-1] = (first, where + name, count + 1)
                held.pictures += 1
                held.texts = held.texts or f"{Path(name).stem}.txt" in names
            if is_picture(name) or suffix == ".txt":
                held.stamp.update(repr((where + name, file.size, file.changed)).encode())
    return held


def _pictures(folder: str, held: _Held, options: Options) -> Found:
    if options.split is not None or options.image_column or options.text_columns:
        raise OptionError(f"The folder {folder!r} holds only pictures: leave out the split and the columns.")
    if not held.pictures:
        raise InputError(f"There is nothing to read in {folder!r}: it needs pictures, tar shards or Parquet files.")
    if not options.texts and not held.texts:
        table = f", or give the table {held.tables[0].path!r} in place of the folder" if held.tables else ""
        raise InputError(
            f"The pictures in {folder!r} have no texts: give prompts (--prompts FILE), or put a metadata.csv "
            f"(columns file_name and text) into it, or a NAME.txt beside each NAME.jpg{table}."
        )
    shards, start = [], 0
    for first, last, count in held.shards:
        stop = start + count
        shards.append(
            Shard(0, "pictures", folder, options, start=start, stop=stop, records=count, first=first, last=last)
        )
        start = stop
    return Found(shards, [held.stamp.hexdigest()])


def _stamps(files: Sequence[File]) -> list[object]:
    """The files by their names, so that an input that was moved as a whole is the same."""
    return [(name, file.size, file.changed) for name, file in zip(_names(files), files, strict=True)]


def _names(files: Sequence[File]) -> list[str]:
    """Names that tell files from each other: without their folders where that is enough."""
    short = [file.name for file in files]
    if len(set(short)) == len(short):
        return short
    parts = [file.path.split("/") for file in files]
    depth = next(n for n, same in enumerate(zip(*parts, strict=False)) if len(set(same)) > 1)
    return ["/".join(one[depth:]) for one in parts]


def _prefixes(files: Sequence[File]) -> list[str]:
    """What ids begin with: nothing where there is one file, else its name without its suffix; all are distinct."""
    if len(files) == 1:
        return [""]
    stems = [f"{name[: name.rindex('.')] if '.' in name else name}/" for name in _names(files)]
    return stems if len(set(stems)) == len(stems) else [f"{number:05d}/" for number in range(len(files))]


def _archives(files: Sequence[File], options: Options) -> Found:
    needed("webdataset")
    if options.split is not None:
        names = split_names(options.split)
        files = [file for file in files if any(name.lower() in file.name.lower() for name in names)]
        if not files:
            raise InputError(f"No shard is named after the split {options.split!r}: check it, or leave it out.")
    shards = [
        Shard(0, "tar", file.path, options, prefix=prefix) for file, prefix in zip(files, _prefixes(files), strict=True)
    ]
    return Found(shards, _stamps(files))


def _tables(files: Sequence[File], options: Options) -> Found:
    shards = []
    for file, prefix in zip(files, _prefixes(files), strict=True):
        table_columns(file.path, options)
        small = file.size is not None and file.size <= _COUNTED and options.split is None
        count = reached(partial(_rows, file.path), file.path) if small else None
        shards.append(Shard(0, "table", file.path, options, prefix=prefix, records=count))
    return Found(shards, _stamps(files))


def _rows(table: str) -> int:
    return count_of(table_rows(table))


def _tables_of_arrow(files: Sequence[File], options: Options) -> Found:
    if options.split is not None:
        kept = {str(path) for path in of_split([Path(file.path) for file in files], options.split)}
        chosen = [file for file in files if str(Path(file.path)) in kept]
        files, options = (chosen, replace(options, split=None)) if chosen else (files, options)
    with ThreadPoolExecutor(_THREADS) as pool:
        footers = list(pool.map(_footer, files[:_FOOTERS]))
    schema = next((footer.schema.to_arrow_schema() for footer in footers if footer is not None), None)
    if schema is None:
        raise InputError(f"{files[0].path!r} is no Parquet file that can be read: get a whole copy.")
    columns = find_columns(schema.names, options, f"The file {files[0].path!r}")
    if options.split is not None and columns.split is None:
        raise InputError(f"No file is named after the split {options.split!r}: check it, or leave it out.")
    told = [*footers, *(None for _ in files[_FOOTERS:])]
    shards = []
    for file, prefix, footer in zip(files, _prefixes(files), told, strict=True):
        shards += list(_of_file(file, prefix, footer, options))
    return Found(shards, _stamps(files))


def _footer(file: File) -> Any:
    """What the end of a Parquet file tells; None where it is damaged, which is told when the shard is read.

    Raises:
        InputError: it is out of reach. Shards are cut by what it tells, and must be the same in every run.
    """
    parquet = needed("pyarrow.parquet")
    try:
        with open_file(file.path) as stream:
            return parquet.read_metadata(stream)
    except Exception as error:  # pyarrow and file systems have many
        if is_passing(error):
            raise InputError(f"{file.path!r} cannot be reached ({error}): run the same command again.") from error
        return None


def _of_file(file: File, prefix: str, footer: Any, options: Options) -> Iterator[Shard]:
    """A file is a shard; a long one is several, each of some row groups."""
    if footer is None:
        yield Shard(0, "parquet", file.path, options, prefix=prefix)
        return
    counted = options.split is None
    first = start = rows = 0
    for group in range(footer.num_row_groups):
        more = footer.row_group(group).num_rows
        if rows and rows + more > SECTION:
            records = rows if counted else None
            yield Shard(0, "parquet", file.path, options, prefix, start, records=records, groups=(first, group))
            first, start, rows = group, start + rows, 0
        rows += more
    records = rows if counted else None
    groups = (first, footer.num_row_groups)
    yield Shard(0, "parquet", file.path, options, prefix, start, records=records, groups=groups)


def _lists_files(file: File, options: Options) -> bool:
    """Whether the picture column of a Parquet file holds paths, and not pictures."""
    footer = _footer(file)
    if footer is None:
        return False
    schema = footer.schema.to_arrow_schema()
    column = picture_column(schema.names, options)
    return column in schema.names and "string" in str(schema.field(column).type).split("<")[0]


def _dataset(name: str, options: Options) -> Found:
    given = name.removeprefix(HUGGING_FACE)
    given = whole(given) if Path(given).is_dir() else given
    rows = dataset_rows(given, options)
    count, by_column = len(rows.data), rows.columns.split is not None  # then it is not known how many are of the split
    size = count if by_column else SECTION
    shards = []
    for start in range(0, count, size):
        stop = min(start + size, count)
        records = None if by_column else stop - start
        path = HUGGING_FACE + given
        shards.append(Shard(0, "datasets", path, options, start=start, stop=stop, records=records))
    notice = f"Reading the split {rows.split!r}." if rows.split else ""
    return Found(shards, [given.rpartition("/")[2], rows.split, count, rows.stamp], notice)
