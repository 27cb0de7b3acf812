"""WebDataset: tar archives in which the files of one sample share a name (the webdataset library)."""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isthmus.datasets.options import Items, Options, Reader, split_names
from isthmus.datasets.records import Failure
from isthmus.datasets.rows import LABELS, TEXTS
from isthmus.datasets.sample import Sample, Truth
from isthmus.datasets.values import BadRecordError, digest, encoded_picture, texts_of
from isthmus.encoders.pictures import PICTURE_SUFFIXES, is_url
from isthmus.errors import InputError
from isthmus.extras import needed

_BLOCK = 512
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
class _Trouble:
    """What the library could not read of a shard; it asks for a handler of its errors."""

    broken: Exception | None = None
    twice: list[str] = field(default_factory=list)

    def __call__(self, error: Exception) -> bool:
        """Note an error; say whether the shard can be read on."""
        name, twice, _ = str(next(iter(error.args), "")).partition(": duplicate file name")
        if twice:
            self.twice.append(name)
            return True
        self.broken = self.broken or error
        return False


def _samples(library: Any, shards: Sequence[str], options: Options, bare_keys: bool) -> Items:
    for shard in shards:  # one by one: the library may join the end of a broken one with the next one's beginning
        trouble = _Trouble()
        stream = library.WebDataset([shard], handler=trouble, shardshuffle=False, empty_check=False)
        shown = _shown(shard)
        before = "" if bare_keys else f"{shown.removesuffix('.tar')}/"
        last = None
        for found in stream:
            if last is not None:
                yield _item(before, last, options)
            last = found
        broken = trouble.broken is not None or _lacks_its_end(shard)
        if last is not None and not broken:  # else it may lack files
            yield _item(before, last, options)
        if trouble.twice:
            reason = f"The shard {shown!r} holds {trouble.twice[0]!r} twice, and the first is taken: pack it again."
            yield Failure(shown, reason)
        if broken:
            yield Failure(shown, _why(trouble.broken, shard, shown))


def _item(before: str, found: Mapping[str, Any], options: Options) -> Sample | Failure:
    key = str(found["__key__"])
    name = f"{before}{key}" if before else key.rpartition("/")[2]
    try:
        return _sample(name, found, options)
    except BadRecordError as error:
        return Failure(name, str(error))


def _lacks_its_end(shard: str) -> bool:
    """Whether a plain archive on the disk lacks the zeros that end it; a cut within a header raises no error."""
    try:
        with Path(shard).open("rb") as stream:
            if stream.read(_BLOCK)[257:262] != b"ustar":  # compressed
                return False
            stream.seek(-_BLOCK, os.SEEK_END)
            return any(stream.read())
    except OSError:  # it is remote
        return False


def _shown(shard: str) -> str:
    """The name of a shard, without what a URL may carry behind it."""
    return Path(re.split(r"[?#]", shard)[0] if is_remote(shard) else shard).name


def _why(error: Exception | None, shard: str, shown: str) -> str:
    if is_remote(shard):
        return f"The shard {shown!r} cannot be fetched whole: check its address and the network, or download it."
    if isinstance(error, OSError) and error.strerror:
        return f"The shard {shown!r} cannot be read ({error.strerror}): check the file."
    return f"The shard {shown!r} is cut off or damaged, and the rest of it cannot be read: get a whole copy."


def _sample(name: str, found: Mapping[str, Any], options: Options) -> Sample:
    suffix, texts, label = parts_of(found, options)
    data = found[suffix]
    return Sample(name, encoded_picture(data), texts, Truth(label=label), picture=digest(data))


def parts_of(found: Mapping[str, Any], options: Options) -> tuple[str, tuple[str, ...], str | None]:
    """The suffix of the picture, the texts and the label among the files of a sample, `{"__key__", "jpg", "txt", ...}`.

    Raises:
        BadRecordError: there is no picture or no text.
    """
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
    return suffix, texts, named or None


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
