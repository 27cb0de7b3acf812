"""The Hugging Face `datasets` library: any set with a picture and a text column, on the hub or on the disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from isthmus.datasets.options import Options, Reader, same_split, split_names
from isthmus.datasets.rows import Columns, Place, find_columns, samples_of_rows
from isthmus.datasets.values import BadRecordError, picture_of
from isthmus.errors import InputError
from isthmus.extras import needed

HUGGING_FACE = "hf:"
_BUFFER = 1000
_PREFERRED = ("validation", "test", "train")


def is_saved(folder: Path) -> bool:
    """Whether a folder was written by `save_to_disk`."""
    return any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))


def read_huggingface(name: str, options: Options) -> tuple[Reader, str | None]:
    """A reader of a dataset of the hub, of a local folder that `load_dataset` knows, or of one of `save_to_disk`.

    Pictures stay encoded until they are opened. With `streaming` the rows are shuffled in a buffer of 1,000 by the
    seed, and only what is read is fetched. Without a split, `validation`, `test` or `train` is taken, the first there;
    a split that the dataset has not may be a value of its column `split`.

    Returns:
        The reader, and the split that it reads.

    Raises:
        InputError: there is no such dataset or split, or it has no picture or text column.
        OptionError: datasets is not installed.
    """
    rows = open_rows(name, options)
    if options.streaming:
        shuffled = rows.data.shuffle(seed=options.seed, buffer_size=_BUFFER)
        return lambda: samples_of_rows(_stream(shuffled, name), rows.columns, rows.place), rows.split
    return lambda: samples_of_rows(rows_of(rows.data), rows.columns, rows.place), rows.split


@dataclass(frozen=True, eq=False)
class Rows:
    """An opened dataset: the library's object with the wanted columns, pictures encoded; its columns, place and split.

    `stamp` is the library's own fingerprint of the data, "" where it has none.
    """

    data: Any
    columns: Columns
    place: Place
    split: str | None
    stamp: str = ""


def open_rows(name: str, options: Options) -> Rows:
    """Open a dataset, see `read_huggingface`."""
    library = needed("datasets")
    data, split = _load(library, name, options)
    stamp = str(getattr(data, "_fingerprint", "") or "")
    if data.features is None:
        data = data._resolve_features()
    features: Mapping[str, Any] = data.features or {}
    pictures = [column for column, feature in features.items() if isinstance(feature, library.Image)]
    columns = find_columns(features, options, f"The dataset {name!r}", pictures=pictures)
    if split is None and options.split is not None and columns.split is None:
        raise InputError(f"The dataset {name!r} has no split {options.split!r}, and no column 'split': check the name.")
    if split is not None:
        columns = replace(columns, split=None)
    if columns.image in pictures:
        data = data.cast_column(columns.image, library.Image(decode=False))
    data = data.select_columns(list(columns.all))
    names = getattr(features.get(columns.label or ""), "names", None) or ()
    place = Place(Path(name) if Path(name).is_dir() else Path(), options, names, _finder(library))
    return Rows(data, columns, place, split or options.split, stamp)


def _load(library: Any, name: str, options: Options) -> tuple[Any, str | None]:
    """The data of a split, and the split; None where it has to be looked for in a column."""
    try:
        if is_saved(Path(name)):
            there = library.load_from_disk(name)
            split = _choose(there, name, options.split) if isinstance(there, dict) else None
            found = there if split is None else there[split]
            return found.to_iterable_dataset() if options.streaming else found, _asked(split, options)
        try:  # a stream loads nothing yet, and tells which splits there are
            there = library.load_dataset(name, options.config, streaming=True)
            split = _choose(there, name, options.split)
            found = there[split] if options.streaming else library.load_dataset(name, options.config, split=split)
        except NotImplementedError:  # what is only in the cache cannot be streamed
            there = library.load_dataset(name, options.config)
            split = _choose(there, name, options.split)
            found = there[split].to_iterable_dataset() if options.streaming else there[split]
        return found, _asked(split, options)
    except InputError:
        raise
    except Exception as error:  # the library has many
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(
            f"The dataset {name!r} cannot be loaded ({said}): check its name, its config and the network."
        ) from error


def _asked(split: str | None, options: Options) -> str | None:
    """The split that was loaded, where it is the one that was asked for, or none was."""
    return split if split is not None and (options.split is None or same_split(split, options.split)) else None


def _choose(there: Mapping[str, Any], name: str, split: str | None) -> str:
    wanted = _PREFERRED if split is None else split_names(split)
    chosen = next((one for one in wanted if one in there), None)
    if chosen is None and (split is None or len(there) == 1):
        chosen = next(iter(there), None)
    if chosen is None:
        raise InputError(f"The dataset {name!r} has no split {split!r}: choose one of {', '.join(there) or 'none'}.")
    return chosen


def _finder(library: Any) -> Callable[[Any, Path], Path | Image.Image]:
    decoder = library.Image()

    def find(value: Any, folder: Path) -> Path | Image.Image:
        """A picture; one inside an archive or on the hub is opened by the library that wrote its path."""
        path = value.get("path") if isinstance(value, Mapping) and not value.get("bytes") else None
        if not isinstance(path, str) or "://" not in path:
            return picture_of(value, folder)
        try:
            found: Image.Image = decoder.decode_example(value)
        except Exception as error:  # whatever the network or Pillow throws
            raise BadRecordError("Its picture cannot be fetched, or is damaged.") from error
        return found

    return find


def rows_of(data: Any, start: int = 0, stop: int | None = None) -> Iterator[dict[str, Any] | str]:
    """Rows `start` to before `stop` of a dataset that does not stream; a string, which says why, for a bad one."""
    for number in range(start, len(data) if stop is None else min(stop, len(data))):
        try:
            yield data[number]
        except Exception as error:  # a damaged row does not end the rest
            yield f"Its row cannot be read ({' '.join(str(error).split())[:200]})."


def _stream(data: Any, name: str) -> Iterator[dict[str, Any]]:
    try:
        yield from data
    except Exception as error:  # the library has many
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(f"The stream of {name!r} broke ({said}): check the network and start again.") from error
