"""Decodes pictures in processes of their own, so that neither a crash nor a slow picture is one of the whole run.

Each process works on a few pictures at a time and is asked through its pipes; when it dies, it is known at what.
It imports neither torch nor the user's script, starts in a moment, and ends when the process that asks it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from PIL import Image

from isthmus.datasets.records import Failure
from isthmus.encoders.pictures import Picture
from isthmus.errors import InputError
from isthmus.scale.child import Child, DiedError
from isthmus.scale.opening import OPENER, fetched
from isthmus.scale.places import is_remote
from isthmus.scale.raw import Raw

_FETCHING = 32  # pictures that are fetched over a network at once
_THREADS = 8  # that do what is done to pictures here
_CHUNK = 4  # pictures that are asked for at once
_PATIENCE = 300.0  # seconds for one such answer, before its process is ended
_DEADLY = "Opening its picture ended the process that did it, twice: save it anew, or leave it out."


@dataclass(frozen=True, eq=False)
class Coming:
    """Pictures that are being opened."""

    parts: tuple[Future[list[Any]], ...]

    def result(self) -> list[Any]:
        """Wait for them; one for each record in order, or a Failure."""
        return [one for part in self.parts for one in part.result()]


class Decoder:
    """Opens pictures in processes of their own; to be used in a `with`, which ends them.

    Args:
        workers: how many processes.
        opener: "module:function", what opens a picture there.
        then: what is done to each picture in a thread of this process, before it is asked for. Where that raises
            InputError the record has failed; where it raises anything else the picture is given as it is.
    """

    def __init__(self, workers: int, *, opener: str = OPENER, then: Callable[[Picture], Any] | None = None) -> None:
        """Nothing is started yet; see the class."""
        self._then = then
        threads = max(1, workers) + (_THREADS if then is not None else 0)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="isthmus-decode")
        self._idle: SimpleQueue[Child] = SimpleQueue()
        alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._children = [
            Child("isthmus.scale.opening:served", opener, patience=_PATIENCE, environment=alone)
            for _ in range(max(1, workers))
        ]
        for child in self._children:
            self._idle.put(child)
        self._fetching = ThreadPoolExecutor(_FETCHING, thread_name_prefix="isthmus-fetch")

    def __enter__(self) -> Decoder:
        """See the class."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the processes, whatever they are at."""
        for pool in (self._fetching, self._pool):
            pool.shutdown(wait=False, cancel_futures=True)
        for child in self._children:
            child.close()

    def begin(self, raws: Sequence[Raw]) -> Coming:
        """Begin to open the pictures of some records; those of `Coming.result` are in the same order."""
        far = {raw.picture for raw in raws if isinstance(raw.picture, str) and is_remote(raw.picture)}
        coming = {url: self._fetching.submit(fetched, url) for url in far}
        parts = [raws[start : start + _CHUNK] for start in range(0, len(raws), _CHUNK)]
        return Coming(tuple(self._pool.submit(self._opened, part, coming) for part in parts))

    def decode(self, raws: Sequence[Raw]) -> list[Any]:
        """The pictures of some records in their order, each upright in RGB, or why it cannot be opened."""
        return self.begin(raws).result()

    def _opened(self, raws: Sequence[Raw], coming: Mapping[str, Future[bytes]]) -> list[Any]:
        given: dict[int, bytes | str] = {}
        found: dict[int, Any] = {}
        for place, raw in enumerate(raws):
            try:
                given[place] = coming[raw.picture].result() if raw.picture in coming else raw.picture  # type: ignore[index]
            except InputError as error:
                found[place] = Failure(raw.id, str(error))
        child = self._idle.get()
        try:
            answers = _asked(child, list(given.values()))
        finally:
            self._idle.put(child)
        found |= {place: self._done(raws[place], answer) for place, answer in zip(given, answers, strict=True)}
        return [found[place] for place in range(len(raws))]

    def _done(self, raw: Raw, answer: Any) -> Any:
        picture = _found(raw, answer)
        if self._then is None or isinstance(picture, Failure):
            return picture
        try:
            return self._then(picture)
        except InputError as error:
            return Failure(raw.id, str(error))
        except Exception:  # whoever uses it meets the same, and knows better what it means
            return picture


def _asked(child: Child, pictures: list[bytes | str]) -> list[Any]:
    """Ask a process, twice where it dies; then each half alone, until the one is found that it dies of."""
    if not pictures:
        return []
    for _ in range(2):
        with suppress(DiedError):
            found: list[Any] = child.ask(pictures)
            return found
    if len(pictures) == 1:
        return [_DEADLY]
    middle = len(pictures) // 2
    return _asked(child, pictures[:middle]) + _asked(child, pictures[middle:])


def _found(raw: Raw, answer: Any) -> Picture | Failure:
    if isinstance(answer, str):
        return Failure(raw.id, answer)
    width, height, pixels = answer
    return Picture(Image.frombytes("RGB", (width, height), pixels), raw.picture if isinstance(raw.picture, str) else "")
