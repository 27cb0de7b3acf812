"""open_dataset: every dataset by one call, whether by its name, by a path, or from Hugging Face."""

from __future__ import annotations

import difflib
import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path

from isthmus.datasets.captions import read_caption_file
from isthmus.datasets.files import MissingFilesError, read_json
from isthmus.datasets.folders import read_folder
from isthmus.datasets.huggingface import HUGGING_FACE, read_huggingface
from isthmus.datasets.index import read_index
from isthmus.datasets.options import ClassNames, Items, Options, Reader
from isthmus.datasets.parquet import matching_files, read_parquet
from isthmus.datasets.records import TABLES, Failure
from isthmus.datasets.registry import DATASETS, NamedDataset
from isthmus.datasets.rows import Place
from isthmus.datasets.shards import find_shards, is_remote, read_shards
from isthmus.datasets.tables import read_table
from isthmus.datasets.values import one_line
from isthmus.errors import InputError, OptionError

_SHARDS = re.compile(r"\.(tar(\.(gz|bz2|xz))?|tgz)([}?].*)?$", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples to go through, once or several times.

    Attributes:
        name: what it is called in results.
        reader: begins a pass.
        split: the part of it that is read, None where it has no parts or all is read.
        streams: only a pass from the front makes sense, as where every picture comes over the network.
        notice: its licence, "" where none is known.
    """

    name: str
    reader: Reader
    split: str | None = None
    streams: bool = False
    notice: str = ""

    def __iter__(self) -> Items:
        """The samples, and in place of a bad record why it is bad.

        Ids are put on one line, see `isthmus.datasets.values.one_line`. Those that repeat, as where a table has a row
        for each caption of a picture, get `#2`, `#3` and so on, in the order of the records.
        """
        seen: dict[str, int] = {}
        for item in self.reader():
            name = found = one_line(item.id)
            if isinstance(item, Failure):
                yield Failure(name, item.reason)
                continue
            while found in seen:  # again, where a file itself is called `NAME#2`
                seen[name] += 1
                found = f"{name}#{seen[name]}"
            seen[found] = 1
            yield replace(item, id=found, picture=one_line(item.picture))


def open_dataset(
    source: str | Path,
    *,
    root: str | Path | None = None,
    split: str | None = None,
    image_column: str | None = None,
    text_columns: Sequence[str] = (),
    label_column: str | None = None,
    config: str | None = None,
    streaming: bool = False,
    texts: Sequence[str] = (),
    seed: int = 0,
    per_class: int | None = None,
    class_names: ClassNames = "all",
) -> Dataset:
    """Open a dataset; no picture is opened yet.

    Args:
        source: a name in `DATASETS`; a path of a folder, a `.csv`, `.tsv`, `.jsonl`, `.parquet` or `.json` file, or
            of `.tar` shards; of Parquet also a glob, of shards a glob, a brace pattern or a URL; or `hf:NAME`, for
            the Hugging Face library.
        root: for a name, the folder that holds the dataset; for a table, Parquet or `.json`, the folder where
            relative paths of pictures start.
        split: a part of it, such as `val`; `dev`, `val` and `validation` are one. Without it, see each dataset.
        image_column, text_columns, label_column: columns of a table, Parquet or Hugging Face dataset; of shards, a
            suffix, and suffixes or keys of the `.json`. Without them well-known names are looked for.
        config: of a Hugging Face dataset.
        streaming: fetch a Hugging Face dataset as it is read, shuffled by `seed` in a buffer of 1,000.
        texts: texts for every picture, in place of its own.
        seed: of the shuffling of a stream.
        per_class: the first so many pictures of each class, by the numbers in their names; the paper takes 5.
        class_names: `all` names of a class in its caption, as the paper writes them, or the `first` alone.

    Returns:
        A `Dataset`; iterating gives a `Sample`, or a `Failure` for a bad record.

    Raises:
        InputError: there is no such dataset, or its files are not where they were looked for.
        OptionError: an option that means nothing for this dataset, or a library that is not installed.
    """
    options = Options(
        split,
        image_column,
        (text_columns,) if isinstance(text_columns, str) else tuple(text_columns),
        label_column,
        config,
        streaming,
        (texts,) if isinstance(texts, str) else tuple(texts),
        seed,
        per_class,
        class_names,
    )
    _check(options)
    name = str(source)
    if name in DATASETS:
        return _named(DATASETS[name], root, options)
    if name.startswith(HUGGING_FACE):
        return _hugging_face(name, root, options)
    return _at_path(name, Path(root) if root is not None else None, options)


def _check(options: Options) -> None:
    if options.per_class is not None and options.per_class < 1:
        raise OptionError(f"per_class must be at least 1, not {options.per_class}.")
    if options.class_names not in ("all", "first"):
        raise OptionError(f"class_names must be 'all' or 'first', not {options.class_names!r}.")
    if any(not text.strip() for text in options.texts):
        raise OptionError("A text for every picture is empty: give words.")


def _refuse(options: Options, name: str, *, columns: bool = False, classes: bool = False, hub: bool = False) -> None:
    """Refuse options that would be passed over in silence."""
    if not columns and (options.image_column or options.text_columns or options.label_column):
        raise OptionError(f"The dataset {name!r} has no columns to be named: leave them out.")
    if not classes and (options.per_class is not None or options.class_names != "all"):
        raise OptionError(f"The dataset {name!r} has no ImageNet classes: leave per_class and class_names out.")
    if not hub and (options.config is not None or options.streaming):
        raise OptionError(f"The dataset {name!r} is not of Hugging Face: leave config and streaming out.")


def _named(known: NamedDataset, root: str | Path | None, options: Options) -> Dataset:
    _refuse(options, known.name, columns=known.columns, classes=known.classes)
    if root is None:
        raise InputError(f"The dataset {known.name} needs root (--dataset-root), a folder with {known.needs}.")
    folder = Path(root)
    if not folder.exists():
        raise InputError(f"There is no folder {str(folder)!r}: give the one that holds {known.title} as root.")
    reader, split = _read_named(known, folder, options)
    return Dataset(known.name, reader, split, notice=known.licence)


def _read_named(known: NamedDataset, folder: Path, options: Options) -> tuple[Reader, str | None]:
    """The dataset in the root, or in a folder of its own name in it, so that one root may hold several."""
    try:
        return known.reader(folder, options)
    except MissingFilesError as error:
        inside = folder / known.name
        if not inside.is_dir():
            raise
        try:
            return known.reader(inside, options)
        except MissingFilesError:
            raise error from None


def _hugging_face(name: str, root: str | Path | None, options: Options) -> Dataset:
    _refuse(options, name, columns=True, hub=True)
    if root is not None:
        raise OptionError(f"The dataset {name!r} has no root: write its folder, or its name on the hub, after 'hf:'.")
    given = name.removeprefix(HUGGING_FACE)
    reader, split = read_huggingface(given, options)
    shown = f"{HUGGING_FACE}{Path(given).resolve().name}" if Path(given).is_dir() else name
    return Dataset(shown, reader, split, streams=options.streaming)


def _at_path(name: str, root: Path | None, options: Options) -> Dataset:
    if _SHARDS.search(name) and not Path(name).is_dir():
        _refuse(options, name, columns=True)
        shards = find_shards(name)
        return Dataset(Path(name).name, read_shards(shards, options), options.split, streams=is_remote(shards[0]))
    path = Path(name)
    suffix = path.suffix.lower()
    if suffix == ".parquet" and glob.has_magic(name) and not path.exists():
        return _parquet_pattern(name, root, options)
    if not path.exists():
        close = difflib.get_close_matches(name, DATASETS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"give a path, hf:NAME, or one of {', '.join(DATASETS)}."
        raise InputError(f"There is no dataset {name!r}: {hint}")
    _refuse(options, name, columns=suffix != ".json", classes=suffix == ".json")
    place = Place(root or path.parent, options)
    split = options.split
    if path.is_dir():
        if root is not None:
            raise OptionError(f"The dataset {name!r} is a folder itself: leave root out.")
        reader, split = read_folder(path, options)
    elif suffix in TABLES:
        reader = read_table(path, options, place=place)
    elif suffix == ".parquet":
        reader = read_parquet([path], options, place=place)
    elif suffix == ".json":
        reader = _json(path, root, options)
    else:
        raise InputError(f"{name!r} is no dataset: give a folder, .csv, .tsv, .jsonl, .parquet, .json or .tar.")
    return Dataset(path.resolve().name, reader, split)


def _parquet_pattern(name: str, root: Path | None, options: Options) -> Dataset:
    _refuse(options, name, columns=True)
    place = Place(root, options) if root is not None else None
    fixed = Path(*takewhile(lambda part: not glob.has_magic(part), Path(name).parts))
    return Dataset(fixed.resolve().name, read_parquet(matching_files(name), options, place=place), options.split)


def _json(path: Path, root: Path | None, options: Options) -> Reader:
    """A list beside a folder of its stem is an index; all else is a file of captions."""
    if isinstance(read_json(path), list) and (root is not None or path.with_suffix("").is_dir()):
        return read_index(path, options, folder=root)
    _refuse(options, str(path))
    folders = (path.stem, "images", "Images", "pictures")
    return read_caption_file(path, root or path.parent, options, dataset=str(path), folders=folders)[0]
