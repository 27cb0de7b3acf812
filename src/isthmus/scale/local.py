"""The engine on one machine: a thread reads ahead, processes decode, this thread explains, another thread writes.

Every step waits for the next one, so that what is in memory does not grow with the input.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from queue import Empty, Full, Queue

from isthmus.encoders.dual import DualEncoder
from isthmus.scale.job import Job
from isthmus.scale.pictures import Walks
from isthmus.scale.pieces import Piece, pieces
from isthmus.scale.progress import Listener, Progress, within_budget
from isthmus.scale.source import Plan
from isthmus.scale.store import Store
from isthmus.scale.worker import Done, Worker

_AHEAD = 2  # pieces that are read, and that wait to be written
_TICK = 0.2  # seconds after which a thread that waits looks whether the run is over


@dataclass
class _Threads:
    """What the three threads of a run share."""

    read: Queue[Piece | None] = field(default_factory=lambda: Queue(_AHEAD))
    written: Queue[tuple[Piece, Done] | None] = field(default_factory=lambda: Queue(_AHEAD))
    over: threading.Event = field(default_factory=threading.Event)
    errors: list[BaseException] = field(default_factory=list)
    skipped: int = 0  # records that an earlier run did

    def put(self, queue: Queue, item: object) -> bool:  # type: ignore[type-arg]
        """Wait for room; False where the run is over before there is any."""
        while not self.over.is_set():
            try:
                queue.put(item, timeout=_TICK)
            except Full:
                continue
            return True
        return False

    def failed(self, error: BaseException) -> None:
        """Keep the error for the thread of the run, and end the others."""
        self.errors.append(error)
        self.over.set()

    def check(self) -> None:
        """Raise what another thread failed with."""
        if self.errors:
            raise self.errors[0]


def run_local(
    plan: Plan,
    job: Job,
    store: Store,
    *,
    piece_size: int,
    model: DualEncoder | None = None,
    max_failures: int | None = None,
    listen: Listener | None = None,
) -> Progress:
    """Explain what is not done yet, piece by piece.

    Args:
        plan, job: what is read, and what is done to it.
        store: prepared; where it is written.
        piece_size: pairs in a piece.
        model: the job's, where it is loaded already.
        max_failures: stop where more pairs and records than so many fail in this run.
        listen: told how far the run is.

    Raises:
        TooManyFailuresError: more failed than `max_failures`.
        IsthmusError: of an option, the model, the input or the store. What was finished before is written.
        KeyboardInterrupt: passed on; what was finished before is written.
    """
    threads = _Threads()
    with Worker(job, store=store, model=model) as worker:
        reader = threading.Thread(target=_read, args=(plan, store, piece_size, threads), daemon=True)
        writer = threading.Thread(target=_write, args=(store, threads), daemon=True)
        reader.start()
        writer.start()
        try:
            progress = _explain(worker, threads, plan, max_failures, store.errors, listen)
        finally:
            _finish_writing(threads, writer)
    threads.check()
    return progress


def _read(plan: Plan, store: Store, piece_size: int, threads: _Threads) -> None:
    try:
        done = store.done()
        complete, walks = done.complete(), Walks()
        for shard in plan.shards:
            if shard.number in complete:
                threads.skipped += shard.records or 0
                continue
            for piece in pieces(shard, piece_size, walks):
                if (piece.shard, piece.number) in done.pieces:
                    threads.skipped += len(piece.items)
                elif not threads.put(threads.read, piece):
                    return
                if threads.over.is_set():
                    return
        threads.put(threads.read, None)
    except BaseException as error:  # told by the thread of the run
        threads.failed(error)


def _write(store: Store, threads: _Threads) -> None:
    try:
        while (item := threads.written.get()) is not None:
            piece, done = item
            store.put(piece.shard, piece.number, done.table, done.failures, last=piece.last, all_read=piece.all_read)
            store.clear(piece.shard, piece.number)
    except BaseException as error:  # told by the thread of the run
        threads.failed(error)


def _finish_writing(threads: _Threads, writer: threading.Thread) -> None:
    """Let what is finished be written, then end the threads."""
    while writer.is_alive():
        try:
            threads.written.put(None, timeout=_TICK)
            break
        except Full:
            continue
    writer.join()
    threads.over.set()


def _explain(
    worker: Worker, threads: _Threads, plan: Plan, max_failures: int | None, errors: str, listen: Listener | None
) -> Progress:
    progress, began = Progress(total=plan.records), time.monotonic()
    before = at = size = records = 0  # pairs and records: of earlier pieces done, and of the one at work

    def tell(pairs: int = 0) -> None:
        nonlocal at
        threads.check()
        at += pairs
        progress.pairs += pairs
        progress.done = before + (records * at // size if size else 0)
        progress.records = threads.skipped + progress.done
        progress.seconds = time.monotonic() - began
        if listen is not None:
            listen(progress)

    tell()
    for piece, following in _each(threads):
        at, size, records = 0, piece.pairs, len(piece.items)
        done = worker.run(piece, following=following, progress=tell)
        before, at, size = before + records, 0, 0
        progress.failures += len(done.failures)
        while not threads.put(threads.written, (piece, done)):
            threads.check()
        tell()
        within_budget(progress, max_failures, errors)
    tell()
    return progress


def _each(threads: _Threads) -> Iterator[tuple[Piece, Callable[[], Piece | None]]]:
    """The pieces in their order, each with what gives the next one where that is read already."""
    seen: list[Piece | None] = []

    def following() -> Piece | None:
        if not seen:
            try:
                seen.append(threads.read.get_nowait())
            except Empty:
                return None
        return seen[0]

    while (piece := seen.pop() if seen else _next(threads)) is not None:
        yield piece, following


def _next(threads: _Threads) -> Piece | None:
    while True:
        threads.check()
        try:
            return threads.read.get(timeout=_TICK)
        except Empty:
            continue
