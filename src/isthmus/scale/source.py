"""INPUT: what it is, the shards that it is read by, and their records, not decoded."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from isthmus.datasets.options import Options
from isthmus.datasets.records import Failure
from isthmus.errors import InputError, OptionError
from isthmus.scale.breaks import said
from isthmus.scale.finding import Found, find
from isthmus.scale.pictures import Walks, read_pictures
from isthmus.scale.raw import Names, Raw, Shard, first_id
from isthmus.scale.reading import READERS, count_of

__all__ = ["Plan", "Raw", "Shard", "plan", "read"]

_PART = re.compile(r"(\d+)/(\d+)")


@dataclass(frozen=True)
class Plan:
    """What a run reads; it can be pickled.

    Attributes:
        shards: in the order of the input.
        fingerprint: changes when a file of the input is added, removed or changed.
        records: how many there are in all, None where that is not known.
        texts: how many each record has, None where that differs or is not known.
        notice: what a user should know of the input, "" where there is nothing.
    """

    shards: tuple[Shard, ...]
    fingerprint: str
    records: int | None = None
    texts: int | None = None
    notice: str = ""


def plan(
    source: str | Path,
    *,
    image_column: str | None = None,
    text_columns: Sequence[str] = (),
    prompts: Sequence[str] = (),
    split: str | None = None,
    config: str | None = None,
    limit: int | None = None,
    shards: str | None = None,
) -> Plan:
    """Look at the input, read no picture, and cut it into shards.

    Args:
        source: a folder of pictures with texts, a `.csv`, `.tsv` or `.jsonl` table, a Parquet file, or a `.tar` shard
            in the layout of WebDataset; a glob or brace pattern of such files, or a folder of one kind of them;
            `hf:NAME`, or a folder that the Hugging Face library saved. A path, or a URL that fsspec knows.
        image_column, text_columns, split, config: as of `isthmus.datasets.open_dataset`.
        prompts: texts for every picture, in place of its own.
        limit: only so many records from the beginning.
        shards: "N/M" for the Nth of M parts of the input, so that M runs share it, each with an output of its own.

    Returns:
        A `Plan`, the same whenever the input is.

    Raises:
        InputError: there is no such input, or nothing in it can be read.
        OptionError: an option makes no sense, or a library is not installed.
    """
    if limit is not None and limit < 1:
        raise OptionError(f"limit must be at least 1, not {limit}.")
    columns = (text_columns,) if isinstance(text_columns, str) else tuple(text_columns)
    texts = (prompts,) if isinstance(prompts, str) else tuple(prompts)
    if any(not text.strip() for text in texts):
        raise OptionError("A prompt is empty: give words.")
    options = Options(split=split, image_column=image_column, text_columns=columns, config=config, texts=texts)
    try:
        found = find(str(source), options)
    except OSError as error:  # a name that is too long, a folder that may not be opened
        raise InputError(f"The input {str(source)!r} cannot be read ({said(error)}): check the path.") from error
    numbered = [replace(shard, number=number) for number, shard in enumerate(found.shards)]
    if all(shard.records == 0 for shard in found.shards):  # a tar is not known before it is read
        raise InputError(f"The input {str(source)!r} has no records: give one picture with a text at least.")
    chosen = _part_of(_limited(numbered, limit), shards)
    known = [shard.records for shard in chosen]
    total = None if None in known else sum(count or 0 for count in known)
    return Plan(tuple(chosen), _fingerprint(found), total, len(texts) or None, found.notice)


def read(shard: Shard, walks: Walks | None = None) -> Iterator[Raw | Failure]:
    """The records of a shard in their order, and in place of what cannot be read why.

    Args:
        shard: of a `Plan`.
        walks: of a folder, where its shards are read one after another.

    An archive or table that breaks off gives what comes before, and a Failure which names the shard.
    """
    items = read_pictures(shard, walks) if shard.kind == "pictures" else READERS[shard.kind](shard)
    names = Names(shard.prefix, 0 if shard.kind == "pictures" else shard.start)
    for item in islice(items, shard.limit):
        name = names.unique(item.id)
        yield Failure(first_id(name), item.reason) if isinstance(item, Failure) else replace(item, id=name)


def _limited(shards: Sequence[Shard], limit: int | None) -> list[Shard]:
    """The shards with the first `limit` records; those of an unknown number are read for it, as far as need be."""
    if limit is None:
        return list(shards)
    found: list[Shard] = []
    left = limit
    for shard in shards:
        if left == 0:
            break
        count = min(
            left, count_of(islice(READERS[shard.kind](shard), left)) if shard.records is None else shard.records
        )
        found.append(replace(shard, records=count, limit=count))
        left -= count
    return found


def _part_of(shards: Sequence[Shard], part: str | None) -> list[Shard]:
    if part is None:
        return list(shards)
    wanted = _PART.fullmatch(part)
    number, parts = (int(wanted[1]), int(wanted[2])) if wanted else (0, 0)
    if not 1 <= number <= parts:
        raise OptionError(f'shards must be "N/M", such as "1/8" for the first of eight parts, not {part!r}.')
    if len(shards) < parts:
        has = "1 shard" if len(shards) == 1 else f"{len(shards)} shards"
        raise InputError(f"The input has {has}, too few for {parts} parts: give at most as many.")
    return list(shards[number - 1 :: parts])


def _fingerprint(found: Found) -> str:
    digest = hashlib.sha256()
    for stamp in found.stamps:
        digest.update(repr(stamp).encode())
    return digest.hexdigest()[:32]
