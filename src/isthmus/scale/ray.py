"""The engine on a Ray cluster: Ray Data carries pieces from tasks that read them to a pool of workers that write parts.

    from_items(shards) -> flat_map(read_pieces) -> map_batches(Explainer) -> what came of each piece

The rows never come here: a worker writes them itself, and the driver hears of counts alone. What a machine or process
that dies was at is done again elsewhere; a part is written whole and by its place, so that doing it twice is harmless.
"""

from __future__ import annotations

import inspect
import logging
import pickle
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from isthmus.errors import IsthmusError, OptionError
from isthmus.scale.actors import Explainer, Reading, read_pieces
from isthmus.scale.cluster import CORES, Kind, check, connected, kinds
from isthmus.scale.job import Job
from isthmus.scale.pieces import PAIRS
from isthmus.scale.source import Plan
from isthmus.scale.store import Store

_THREADS = 2  # of a worker, and pieces sent to it at once: one is explained, one written or waiting
_ROUNDS = 3  # over what is left, before it is said that something is
_ITEMS = 20_000  # readings in Ray's store at once: a task takes several where there are more shards


@dataclass(frozen=True)
class Part:
    """What came of a piece: how many pairs and records it had, rows it gave, and failures among them."""

    shard: int
    piece: int
    pairs: int
    records: int
    rows: int
    failures: int


class _Pool:
    """Workers of two kinds for one pool: Ray asks what the next one needs."""

    def __init__(self, rooms: Sequence[Kind]) -> None:
        self._rooms = [room for room in rooms for _ in range(room.count)]
        self._made = 0

    def __call__(self) -> dict[str, float]:
        room = self._rooms[self._made % len(self._rooms)]
        self._made += 1
        return room.needs


def parts(
    plan: Plan, job: Job, store: Store, *, address: str | None = None, size: int = PAIRS, cores: int = CORES
) -> Generator[Part, None, None]:
    """Do what is left of a run on a Ray cluster; closing the iterator ends it.

    Args:
        plan: of `isthmus.scale.source.plan`; every machine must be able to read it.
        job: what is done. Without a device it is done on GPUs and on the machines without.
        store: where to, on a file system that every machine sees.
        address: see `isthmus.scale.cluster.connected`.
        size: pairs in a piece.
        cores: of each worker without a GPU.

    Yields:
        A `Part` for each piece that is done now.

    Raises:
        OptionError: no cluster is there, or it cannot do it.
        IsthmusError: what ended it, on whichever machine.
    """
    left = _left(plan, store, size)
    if not left:
        return
    with connected(address) as ray:
        nodes = ray.nodes()
        rooms = _suited(kinds(nodes, cores=cores), job)
        check(ray, nodes)
        with _telling(ray):
            for _ in range(_ROUNDS):
                yield from _round(ray, left, job, store, rooms)
                left = _left(plan, store, size)
                if not left:
                    return
    names = ", ".join(reading.shard.shown for reading in left[:3])
    raise IsthmusError(f"Parts of {len(left)} shards ({names}) are missing: run the same command again.")


def _suited(rooms: list[Kind], job: Job) -> list[Kind]:
    """The workers that a job's device asks for. Raises OptionError where there are none."""
    if job.device is None:
        return rooms
    gpu = job.device.startswith("cuda")
    found = [room for room in rooms if room.gpu == gpu]
    if not found:
        raise OptionError(f"The Ray cluster has no {'GPU' if gpu else 'machine without GPUs'}: give another device.")
    return found


def _left(plan: Plan, store: Store, size: int) -> list[Reading]:
    """The shards that are not complete, with the pieces of them that are done."""
    done = store.done()
    complete, pieces = done.complete(), dict[int, set[int]]()
    for shard, piece in done.pieces:
        pieces.setdefault(shard, set()).add(piece)
    return [
        Reading(shard, size, frozenset(pieces.get(shard.number, ())))
        for shard in plan.shards
        if shard.number not in complete
    ]


def _round(ray: Any, left: Sequence[Reading], job: Job, store: Store, rooms: Sequence[Kind]) -> Iterator[Part]:
    """All readings once through the pipeline."""
    items = [{"reading": pickle.dumps(reading, protocol=5)} for reading in left]
    with _settings(ray):
        data = ray.data.from_items(items, override_num_blocks=min(len(items), _ITEMS))
        workers = sum(room.count for room in rooms)
        # Readers need no core of Ray's: one that must read again for a machine that died may not wait for a worker
        # that itself waits for what it reads.
        data = data.flat_map(read_pieces, num_cpus=0, compute=ray.data.TaskPoolStrategy(size=workers))
        data = data.map_batches(
            Explainer, batch_size=1, fn_constructor_args=(job, store), **_pool(ray, rooms, data.map_batches)
        )
        for batch in data.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0):
            for values in zip(*batch.values(), strict=True):
                row = dict(zip(batch, values, strict=True))
                _raise(row.pop("error"))
                yield Part(**{name: int(value) for name, value in row.items()})


def _pool(ray: Any, rooms: Sequence[Kind], taker: Callable[..., Any]) -> dict[str, Any]:
    """Options of `map_batches` for workers of one kind, whose pool grows with the cluster, or of two."""
    compute = partial(
        ray.data.ActorPoolStrategy,
        max_tasks_in_flight_per_actor=_THREADS,
        max_concurrent_calls_per_actor=_THREADS,
        enable_true_multi_threading=True,
    )
    if len(rooms) == 1:
        return {**rooms[0].needs, "compute": compute(min_size=rooms[0].count, max_size=None)}
    if "ray_remote_args_fn" not in inspect.signature(taker).parameters:
        raise OptionError("This version of Ray cannot use GPUs and machines without at once: give a device.")
    count = sum(room.count for room in rooms)
    return {
        "num_cpus": min(room.cores for room in rooms),
        "compute": compute(size=count),
        "ray_remote_args_fn": _Pool(rooms),
    }


def _raise(error: bytes) -> None:
    """Raise what went wrong on another machine, with where it came from as its cause."""
    if not error:
        return
    found = pickle.loads(error)
    if isinstance(found, tuple):
        raise found[0] from RuntimeError(f"\n{found[1]}")
    raise found


@contextmanager
def _settings(ray: Any) -> Iterator[None]:
    """Ray Data as this engine needs it, and silent; then as it was."""
    context, logger = ray.data.DataContext, logging.getLogger("ray.data")
    before, level = context.get_current(), logger.level
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"ray\.|isthmus\.scale\.ray")
        own = before.copy()
        own.target_max_block_size = 1  # a block, and so a task of a worker, is one piece
        own.enable_progress_bars = False
        own.print_on_execution_start = False
        own.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0  # workers that are all busy are too few
        own.execution_no_progress_timeout_s = -1  # a piece may take as long as it takes
        context._set_current(own)
        logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            logger.setLevel(level)
            context._set_current(before)


@contextmanager
def _telling(ray: Any) -> Iterator[None]:
    """Ray's own errors as one sentence."""
    try:
        yield
    except ray.exceptions.RayError as error:
        said = " ".join(str(error).split())
        raise IsthmusError(
            f"The Ray cluster failed ({type(error).__name__}: {said[:200]}): run the same command again to go on."
        ) from error
