"""What runs on the machines of a Ray cluster: reading tasks, and workers that explain pieces and write their parts."""

from __future__ import annotations

import hashlib
import pickle
import threading
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import isthmus
from isthmus.errors import IsthmusError
from isthmus.extras import needed
from isthmus.scale.pieces import Piece, pieces
from isthmus.scale.source import Shard
from isthmus.scale.store import Store

if TYPE_CHECKING:
    from isthmus.scale.job import Job  # with torch, which a task that reads has no need of


@dataclass(frozen=True)
class Reading:
    """A shard to read.

    Attributes:
        shard: of the plan.
        size: pairs in a piece.
        done: pieces to leave out. It is fixed when the run begins: Ray reads a shard again where a machine died with
            pieces that were read there, and counts on the same ones in the same order.
    """

    shard: Shard
    size: int
    done: frozenset[int]


def read_pieces(item: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The pieces of a shard one by one, not decoded, as rows that Ray carries; or a row that tells what went wrong."""
    try:
        reading: Reading = pickle.loads(item["reading"])
        for piece in pieces(reading.shard, reading.size):
            if piece.number not in reading.done:
                yield {"piece": pickle.dumps(piece, protocol=5), "error": b""}
    except Exception as error:  # whatever it is, it is for the one who asked, not for Ray's log
        yield {"piece": b"", "error": told(error)}


class Explainer:
    """A worker of the pool: one process that loads the model once. Every piece that it ends is written by itself.

    It is called in several threads: while one explains a piece, another writes the one before, or has the next one,
    whose first pictures are opened meanwhile.

    Args:
        job: what is done. Its device is that of this worker where it names none.
        store: where parts are written.
    """

    def __init__(self, job: Job, store: Store) -> None:
        """Nothing is loaded before the first piece: then its journal knows of a process that dies as it loads."""
        self._job, self._store = job, store
        self._worker: Any = None
        self._explaining = threading.Lock()
        self._waiting: list[Piece] = []

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Explain pieces, one as a rule; a row for each tells what came of it."""
        found = [self._row(piece, error) for piece, error in zip(batch["piece"], batch["error"], strict=True)]
        return {name: [one[name] for one in found] for name in found[0]}

    def _row(self, packed: bytes, error: bytes) -> dict[str, Any]:
        row = {"shard": -1, "piece": -1, "pairs": 0, "records": 0, "rows": 0, "failures": 0, "error": bytes(error)}
        if error:
            return row
        try:
            return row | self._ended(pickle.loads(packed))
        except Exception as problem:
            return row | {"error": told(problem)}

    def _ended(self, piece: Piece) -> dict[str, Any]:
        """Explain a piece and write it, unless a worker that died after it wrote did so."""
        place = {"shard": piece.shard, "piece": piece.number}
        if self._store.has(piece.shard, piece.number):
            self._store.clear(piece.shard, piece.number)
            return place
        done = self._explained(piece)
        self._store.put(piece.shard, piece.number, done.table, done.failures, last=piece.last, all_read=piece.all_read)
        self._store.clear(piece.shard, piece.number)
        rows, failures = done.table.num_rows, len(done.failures)
        return {**place, "pairs": done.pairs, "records": done.records, "rows": rows, "failures": failures}

    def _explained(self, piece: Piece) -> Any:
        """Explain a piece, after those that came before it."""
        self._waiting.append(piece)
        with self._explaining:
            self._waiting.remove(piece)
            cores = _cores()
            needed("torch").set_num_threads(cores)  # of this thread
            if self._worker is None:
                self._worker = self._load(cores)
            return self._worker.run(piece, following=lambda: self._waiting[0] if self._waiting else None)

    def _load(self, cores: int) -> Any:
        """A `Worker` on the GPU that Ray keeps for this process, where torch can use it, or on its cores."""
        from isthmus.scale.job import decoders_for
        from isthmus.scale.worker import Worker

        own, job = needed("ray").get_gpu_ids() and needed("torch").cuda.is_available(), self._job
        device = job.device or ("cuda" if own else "cpu")
        decoders = job.decoders or decoders_for(device, cores)
        return Worker(replace(job, device=device, decoders=decoders), store=self._store)


def _cores() -> int:
    """How many Ray keeps for this process."""
    return max(1, int(needed("ray").get_runtime_context().get_assigned_resources().get("CPU", 1)))


def told(error: Exception) -> bytes:
    """An error to send home: our own as they are, of any other its sentence and where it came from."""
    if isinstance(error, IsthmusError):
        return pickle.dumps(type(error)(str(error)))
    said = f"{type(error).__name__}: {' '.join(str(error).split())[:300].rstrip('.')}"
    problem = IsthmusError(f"A worker on the Ray cluster failed ({said}): run the same command again to go on.")
    return pickle.dumps((problem, traceback.format_exc()))


@cache
def code() -> tuple[str, str]:
    """The version that is installed here, and a digest of its code."""
    digest, root = hashlib.sha256(), Path(isthmus.__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(path.read_bytes())
    return isthmus.__version__, digest.hexdigest()
