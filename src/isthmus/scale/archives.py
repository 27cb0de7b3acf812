"""Reads a tar archive in the layout of WebDataset, sample by sample, without decoding a picture."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any

from isthmus.datasets.records import Failure
from isthmus.datasets.shards import parts_of
from isthmus.datasets.values import BadRecordError, digest
from isthmus.extras import needed
from isthmus.scale.breaks import broken
from isthmus.scale.patience import is_passing
from isthmus.scale.places import open_file
from isthmus.scale.raw import Raw, Shard
from isthmus.scale.schema import Where

_BUFFER = 4 << 20  # bytes that are read at once of what follows the last sample
_BLOCK = 512


def read_tar(shard: Shard) -> Iterator[Raw | Failure]:
    """Samples of a tar archive; what comes before a cut is kept."""
    tar = needed("webdataset").tariterators
    trouble: list[Exception] = []
    twice: list[str] = []

    def note(error: Exception) -> bool:
        name, duplicate, _ = str(next(iter(error.args), "")).partition(": duplicate file name")
        if duplicate:
            twice.append(name)
        else:
            trouble.append(error)
        return bool(duplicate)

    last = None
    try:
        with _Watched(open_file(shard.path)) as stream:
            files = tar.tar_file_expander([{"url": shard.path, "stream": stream}], handler=note, eof_value=None)
            for found in tar.group_by_keys(files, handler=note):
                if last is not None:
                    yield _member(shard, last)
                last = found
            cut = bool(trouble) or not stream.ended_well()
    except Exception as error:  # each file system has its own
        trouble.append(error)
        cut = True
    if last is not None and not cut:  # else it may lack files
        yield _member(shard, last)
    if twice:
        reason = f"The shard {shard.shown!r} holds {twice[0]!r} twice, and the first is taken: pack it again."
        yield Failure(shard.shown, reason)
    if cut:
        yield _cut(shard, trouble)


def _cut(shard: Shard, trouble: list[Exception]) -> Failure:
    passing = next((error for error in trouble if is_passing(error)), None)
    if passing is not None:
        return broken(shard, passing)
    reason = f"The shard {shard.shown!r} is cut off or damaged, and the rest of it cannot be read: get a whole copy."
    return Failure(shard.shown, reason)


class _Watched(io.RawIOBase):
    """A stream that remembers how it began and ended: a tar cut within a header raises no error."""

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self._stream, self._head, self._tail = stream, b"", b""

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        data: bytes = self._stream.read(-1 if size is None else size)
        if len(self._head) < _BLOCK:
            self._head = (self._head + data)[:_BLOCK]
        self._tail = (self._tail + data[-_BLOCK:])[-_BLOCK:]
        return data

    def close(self) -> None:
        self._stream.close()
        super().close()

    def ended_well(self) -> bool:
        """Whether a plain archive ended with the zeros that belong there; a compressed one tells of a cut itself."""
        while self.read(_BUFFER):
            pass
        return self._head[257:262] != b"ustar" or not any(self._tail)


def _member(shard: Shard, found: Mapping[str, Any]) -> Raw | Failure:
    name = str(found["__key__"])
    try:
        suffix, texts, _ = parts_of(found, shard.options)
    except BadRecordError as error:
        return Failure(name, str(error))
    data: bytes = found[suffix]
    return Raw(name, data, texts, digest(data), Where(shard.path, member=f"{name}.{suffix}"))
