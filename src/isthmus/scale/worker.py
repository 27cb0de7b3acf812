"""Worker: a model that explains pieces, one after another, and lets no bad record end the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Protocol, TypeAlias

from isthmus.datasets.records import Failure
from isthmus.encoders.dual import DualEncoder
from isthmus.encoders.pictures import Picture
from isthmus.encoders.sharing import sharing
from isthmus.errors import InputError, IsthmusError, ModelError, OptionError
from isthmus.explainer import explain
from isthmus.preparing import Ready, planned, ready
from isthmus.scale.decoding import Coming, Decoder
from isthmus.scale.job import Job, decoders_for
from isthmus.scale.pieces import Piece
from isthmus.scale.quarantine import Quarantine
from isthmus.scale.raw import Raw
from isthmus.scale.rows import row_of, table_of
from isthmus.scale.vectors import picture_vectors
from isthmus.targets import embeddings_of

Row: TypeAlias = dict[str, Any]
_Picture: TypeAlias = Picture | Ready
Answer: TypeAlias = tuple[list[Row], str]  # the rows of a pair by each method, and why some are missing, or ""


class Keeper(Protocol):
    """The part of `isthmus.scale.store.Store` that tells which pieces are at work."""

    def trying(self, shard: int, piece: int) -> dict[str, Any] | None:
        """See `Store`."""

    def clear(self, shard: int, piece: int) -> None:
        """See `Store`."""


@dataclass(frozen=True)
class Done:
    """What a piece gave.

    Attributes:
        table: its rows, a `pyarrow.Table` of `isthmus.scale.schema`, in the order of its pairs and methods.
        failures: pairs without all of their rows, and records that could not be read, once each.
        pairs, records: how many it had, those that failed among them.
    """

    table: Any
    failures: tuple[Failure, ...]
    pairs: int
    records: int


@dataclass(frozen=True)
class _Pair:
    id: str
    raw: Raw
    text: str


_Asked: TypeAlias = tuple[_Pair, _Picture]


class Worker:
    """Explains pieces; to be used in a `with`, which ends its processes.

    Args:
        job: what is done.
        store: where to say which piece is at work, see `isthmus.scale.quarantine`; None says nothing.
        model: the job's model, where it is loaded already.
    """

    def __init__(self, job: Job, *, store: Keeper | None = None, model: DualEncoder | None = None) -> None:
        """Load the model."""
        self.job, self._store = job, store
        self.model = job.load() if model is None else model
        self._decoder = Decoder(
            job.decoders or decoders_for(self.model.device.type),
            opener=job.opener,
            then=None if job.stored == "vectors" else partial(ready, self.model),  # while the batch before it runs
        )
        self._ahead: tuple[tuple[str, ...], Coming] | None = None
        self._worked, self._strange = False, 0

    def __enter__(self) -> Worker:
        """See the class."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the processes that open pictures."""
        self._decoder.__exit__(kind, error, trace)

    def run(
        self,
        piece: Piece,
        *,
        following: Callable[[], Piece | None] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Done:
        """Explain a piece.

        Args:
            piece: of `isthmus.scale.pieces.pieces`.
            following: asked for the piece that comes next, so that its first pictures are opened meanwhile.
            progress: told the number of pairs after each batch.

        Raises:
            OptionError: an option makes no sense for this model.
            ModelError: the model explains nothing at all, or its device is lost.
        """
        died = self._store is not None and self._store.trying(piece.shard, piece.number) is not None
        guard = self._quarantine() if died else None
        try:
            return self._run(piece, self.answers if guard is None else guard.answers, following, progress)
        except BaseException:
            if self._store is not None and not died:  # this process lives, and has no more to do with it
                with suppress(IsthmusError):
                    self._store.clear(piece.shard, piece.number)
            raise
        finally:
            if guard is not None:
                guard.close()

    def _quarantine(self) -> Quarantine | None:
        """Another process with this model; None where it cannot be loaded by its name."""
        try:
            return Quarantine(self.job, self.model)
        except IsthmusError:
            return None

    def _run(
        self,
        piece: Piece,
        answers: Callable[[Sequence[_Asked]], list[Answer]],
        following: Callable[[], Piece | None] | None,
        progress: Callable[[int], None] | None,
    ) -> Done:
        pairs, failed = _pairs(piece), {item.id: item.reason for item in piece.items if isinstance(item, Failure)}
        rows: dict[int, list[Row]] = {}
        batches = self._plan(pairs)
        coming = self._begin(pairs, batches[0]) if batches else None
        for number, batch in enumerate(batches):
            assert coming is not None
            opened = dict(zip(_names(pairs, batch), coming.result(), strict=True))
            last = number + 1 == len(batches)
            coming = None if last else self._begin(pairs, batches[number + 1])
            if last and following is not None:
                self._look_ahead(following())
            bad = {place: one for place in batch if isinstance(one := opened[pairs[place].raw.id], Failure)}
            failed |= {pairs[place].id: one.reason for place, one in bad.items()}
            good = [place for place in batch if place not in bad]
            asked = [(pairs[place], opened[pairs[place].raw.id]) for place in good]
            for place, (found, reason) in zip(good, answers(asked) if asked else (), strict=True):
                rows[place] = found
                failed |= {pairs[place].id: reason} if reason else {}
            if progress is not None:
                progress(len(batch))
        kept = [row for place in sorted(rows) for row in rows[place]]
        failures = tuple(Failure(name, reason) for name, reason in failed.items())
        return Done(table_of(kept, self.job.stored), failures, len(pairs), len(piece.items))

    def answers(self, batch: Sequence[_Asked]) -> list[Answer]:
        """The rows of pairs, and for those that have not all of them why; see `run` for what it raises."""
        with sharing():  # methods share what the towers make of the batch
            by_method = [self._rows(batch, method) for method in self.job.methods]
        found: list[Answer] = []
        for ones in zip(*by_method, strict=True):
            told = zip(self.job.methods, ones, strict=True)
            reasons = [one if len(ones) == 1 else f"{name}: {one}" for name, one in told if isinstance(one, str)]
            found.append(([one for one in ones if not isinstance(one, str)], " ".join(reasons)))
        return found

    def _plan(self, pairs: Sequence[_Pair]) -> list[list[int]]:
        size, places = self.job.batch_size, [*range(len(pairs))]
        if self.job.preset is not None:  # what is published may depend on the batch
            return [places[start : start + size] for start in places[::size]]
        names, texts = [one.raw.id for one in pairs], [one.text for one in pairs]
        return [batch for batch in planned([(n, n) for n in places], names, texts, size) if batch]

    def _look_ahead(self, piece: Piece | None) -> None:
        pairs = [] if piece is None else _pairs(piece)
        if pairs:
            batch = self._plan(pairs)[0]
            self._ahead = (_names(pairs, batch), self._begin(pairs, batch))

    def _begin(self, pairs: Sequence[_Pair], batch: Sequence[int]) -> Coming:
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == _names(pairs, batch):
            return ahead[1]
        return self._decoder.begin(list({pairs[place].raw.id: pairs[place].raw for place in batch}.values()))

    def _rows(self, batch: Sequence[_Asked], method: str) -> list[Row | str]:
        """The row of each pair, or why there is none; on an error each half alone, until the bad ones are found."""
        try:
            found = self._explained(batch, method)
            self._worked = True
            return [*found]
        except OptionError:
            raise
        except Exception as error:  # whatever a model throws at some input
            if _is_lost(error):
                raise ModelError(f"The device failed ({_said(error)}): run the same command again to go on.") from error
            if len(batch) == 1:
                return [self._why(error)]
        middle = len(batch) // 2
        return self._rows(batch[:middle], method) + self._rows(batch[middle:], method)

    def _why(self, error: Exception) -> str:
        """Why a pair has no row. Raises ModelError where it is not the pair: none has worked, for whatever reason."""
        if not isinstance(error, InputError) and not self._worked:
            self._strange += 1
            if self._strange >= max(2, self.job.batch_size):
                if isinstance(error, IsthmusError):
                    raise error
                raise ModelError(f"This model could explain none of {self._strange} pairs ({_said(error)}).") from error
        return str(error) if isinstance(error, IsthmusError) else f"It cannot be explained ({_said(error)})."

    def _explained(self, batch: Sequence[_Asked], method: str) -> list[Row]:
        job = self.job
        pictures, texts = [picture for _, picture in batch], [pair.text for pair, _ in batch]
        more: list[Mapping[str, Any]] = [{}] * len(batch)
        sides: Any = job.sides
        if job.stored == "vectors":
            more, sides = self._vectors(pictures, texts), ("text",)
        found = explain(
            self.model,
            pictures,
            texts,
            method=method,
            sides=sides,
            preset=job.preset,
            truncate=job.truncate,
            batch_size=len(batch),
            **job.options_of(method),
        )
        assert isinstance(found, list)
        return [
            row_of(one, id=pair.id, picture=pair.raw.name, where=pair.raw.where, **extra)
            for one, (pair, _), extra in zip(found, batch, more, strict=True)
        ]

    def _vectors(self, pictures: Sequence[_Picture], texts: Sequence[str]) -> list[Mapping[str, Any]]:
        distinct = list({id(one): one for one in pictures}.values())
        found = picture_vectors(self.model, distinct, batch_size=len(distinct), **self.job.vector_options)
        of = {id(one): vectors for one, vectors in zip(distinct, found, strict=True)}
        embeddings = embeddings_of(self.model, texts, truncate=self.job.truncate)[0].float().cpu().numpy()
        return [{"vectors": of[id(one)], "text_embedding": embeddings[n]} for n, one in enumerate(pictures)]


def _pairs(piece: Piece) -> list[_Pair]:
    return [
        _Pair(name, item, text)
        for item in piece.items
        if isinstance(item, Raw)
        for name, text in zip(item.ids, item.texts, strict=True)
    ]


def _names(pairs: Sequence[_Pair], batch: Sequence[int]) -> tuple[str, ...]:
    """The records of a batch, once each."""
    return tuple(dict.fromkeys(pairs[place].raw.id for place in batch))


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300].rstrip('.')}"


def _is_lost(error: Exception) -> bool:
    """Whether a GPU is of no more use to this process: it is no fault of the record."""
    text = str(error)
    return isinstance(error, RuntimeError) and "CUDA error" in text and "out of memory" not in text
