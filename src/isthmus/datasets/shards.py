"""WebDataset: tar archives in which the files of one sample share a name (the webdataset library)."""

from __future__ import annotations

import glob
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isthmus.datasets.options import Items, Options, Reader, split_names
from isthmus.datasets.records import Failure
from isthmus.datasets.rows import LABELS, TEXTS
from isthmus.datasets.sample import Sample, Truth
from isthmus.datasets.values import BadRecordError, encoded_picture, texts_of
from isthmus.encoders.pictures import PICTURE_SUFFIXES, is_url
from isthmus.errors import InputError
from isthmus.extras import needed

_REMOTE = ("http://", "https://", "hf://", "gs://")


def find_shards(pattern: str) -> list[str]:
    """The archives that a path, a glob or a brace pattern such as `cc3m-{0000..0015}.tar` stands for.

    Raises:
        InputError: there are none, or one of them is missing, or the URL is of a kind that is not read.
        OptionError: webdataset is not installed.
    """
    found: list[str] = []
    for name in needed("webdataset").shardlists.expand_urls(pattern):
        if is_remote(name):
            found.append(name)
        elif is_url(name) or "://" in name or name.startswith("pipe:"):
            raise InputError(f"{name!r} cannot be read: give a path, or a URL with {', '.join(_REMOTE)}.")
        elif any(mark in name for mark in "*?["):
            found += sorted(glob.glob(name))  # noqa: PTH207  the pattern may be absolute, which Path.glob refuses
        elif Path(name).is_file():
            found.append(name)
        else:
            raise InputError(f"There is no shard {name!r}: check the path and the numbers of the pattern.")
    if not found:
        raise InputError(f"There are no shards {pattern!r}: check the path.")
    return found


def is_remote(name: str) -> bool:
    """Whether a shard is read over the network."""
    return name.lower().startswith(_REMOTE)


def read_shards(shards: Sequence[str], options: Options, *, bare_keys: bool = False) -> Reader:
    """A reader of archives, whose samples have a picture and a `.txt`, a `.json` with a caption, or a `.cls`.

    `image_column` names the picture's suffix, `text_columns` name suffixes or keys of the `.json`, `label_column`
    a suffix or such a key. A split takes the archives that are named after it. A sample is named SHARD/KEY, or KEY
    alone with `bare_keys`, where the keys are unique over all archives, as img2dataset makes them.

    Raises:
        InputError: no archive is named after the split.
        OptionError: webdataset is not installed.
    """
    library = needed("webdataset")
    if options.split is not None:
        names = split_names(options.split)
        shards = [shard for shard in shards if any(name.lower() in Path(shard).name.lower() for name in names)]
        if not shards:
            raise InputError(f"No shard is named after the split {options.split!r}: check it, or leave it out.")
    return lambda: _samples(library, list(shards), options, bare_keys)


@dataclass
class _Broken:
    """Counts what the library could not read; it asks for a handler of its errors."""

    failures: list[Failure]

    def __call__(self, error: Exception) -> bool:
        said = " ".join(str(part) for part in error.args[:1]) or type(error).__name__
        shard = next((str(part) for part in reversed(error.args) if str(part).endswith(".tar")), "shard")
        reason = f"The rest of this shard cannot be read ({' '.join(said.split())[:200]}): get a whole copy."
        self.failures.append(Failure(Path(shard).name, reason))
        return True


def _samples(library: Any, shards: list[str], options: Options, bare_keys: bool) -> Items:
    broken = _Broken([])
    stream = library.WebDataset(shards, handler=broken, shardshuffle=False, empty_check=False)
    for found in stream:
        yield from _drain(broken)
        key, shard = str(found["__key__"]), Path(str(found["__url__"])).name.removesuffix(".tar")
        name = key.rpartition("/")[2] if bare_keys else f"{shard}/{key}"
        try:
            yield _sample(name, found, options)
        except BadRecordError as error:
            yield Failure(name, str(error))
    yield from _drain(broken)


def _drain(broken: _Broken) -> Items:
    yield from broken.failures
    broken.failures.clear()


def _sample(name: str, found: Mapping[str, Any], options: Options) -> Sample:
    suffix = options.image_column or next((key for key in found if f".{key}" in PICTURE_SUFFIXES), None)
    if suffix is None or suffix not in found:
        raise BadRecordError(f"It has no picture among {', '.join(_suffixes(found)) or 'nothing'}: check the archive.")
    more = _json(found)
    label = next(
        (value for key in _wanted(options.label_column, ("cls", *LABELS)) if (value := _part(found, more, key))), None
    )
    texts: tuple[str, ...]
    if options.texts:
        texts = options.texts
    elif options.text_columns:
        texts = texts_of([_part(found, more, key) for key in options.text_columns])
    else:
        texts = texts_of(next((value for key in ("txt", *TEXTS) if (value := _part(found, more, key))), None))
    named = str(label).strip() if label is not None else ""
    if named.isdecimal() and options.label_column is None:  # a bare number is no name of a class
        named = ""
    return Sample(name, encoded_picture(found[suffix]), texts, Truth(label=named or None))


def _wanted(given: str | None, usual: Sequence[str]) -> Sequence[str]:
    return usual if given is None else (given,)


def _suffixes(found: Mapping[str, Any]) -> list[str]:
    return [key for key in found if not key.startswith("__")]


def _json(found: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        more = json.loads(found["json"])
    except (KeyError, ValueError, RecursionError):
        return {}
    return more if isinstance(more, dict) else {}


def _part(found: Mapping[str, Any], more: Mapping[str, Any], key: str) -> Any:
    """A file of the sample as text, or a value of its `.json`."""
    if key in found and isinstance(found[key], bytes):
        try:
            return found[key].decode("utf-8-sig").strip()
        except UnicodeDecodeError as error:
            raise BadRecordError(f"Its .{key} is not UTF-8: write it anew.") from error
    return more.get(key)
