"""Reads a folder of pictures, named by their paths in it, without opening a picture."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from isthmus.datasets.records import Failure, sidecar_texts
from isthmus.encoders.pictures import PICTURE_SUFFIXES
from isthmus.scale.places import content_of, walk
from isthmus.scale.raw import Raw, Shard
from isthmus.scale.schema import Where

_Found = Iterator[tuple[str, str]]  # paths, and paths in the folder


class Walks:
    """The walk through a folder, which the reader of one shard leaves to that of the next.

    Without it every shard lists its folders anew, which costs the square of what a folder holds.
    """

    def __init__(self) -> None:
        """No folder yet."""
        self._left: tuple[str, str, _Found] | None = None

    def pictures(self, shard: Shard) -> _Found:
        """The pictures of a shard, from its first to its last one."""
        left, self._left = self._left, None
        found = left[2] if left is not None and left[:2] == (shard.path, shard.first) else _pictures(shard)
        last = _order(shard.last)
        for path, relative in found:
            if _order(relative) > last:
                self._left = (shard.path, relative, chain([(path, relative)], found))
                return
            yield path, relative


def read_pictures(shard: Shard, walks: Walks | None = None) -> Iterator[Raw | Failure]:
    """Pictures of a folder.

    Args:
        shard: of the plan.
        walks: shared by the readers of shards that follow each other.
    """
    for path, relative in (walks or Walks()).pictures(shard):
        texts = shard.options.texts or _beside(path)
        if isinstance(texts, str):
            yield Failure(relative, texts)
        else:
            yield Raw(relative, path, texts, relative, Where(path))


def is_picture(name: str) -> bool:
    """Whether a file has the suffix of a picture."""
    return Path(name).suffix.lower() in PICTURE_SUFFIXES


def _pictures(shard: Shard) -> _Found:
    for folder, files in walk(shard.path, shard.first):
        yield from ((file.path, folder + file.name) for file in files if is_picture(file.name))


def _order(relative: str) -> tuple[tuple[bool, str], ...]:
    """What `walk` goes by: the files of a folder, then the folders in it."""
    *folders, name = relative.split("/")
    return (*((True, folder) for folder in folders), (False, name))


def _beside(picture: str) -> tuple[str, ...] | str:
    text = f"{picture[: picture.rindex('.')]}.txt"
    return sidecar_texts(text.rpartition("/")[2], lambda: content_of(text))
