"""What the runs of one call share: an input that a tower has run already is found again by its content.

The store lives as long as the call, in its own thread, and drops what was not used for longest beyond a bound: a call
that is repeated does the same work in the same order, so its result is bit-identical, and nothing of the user's data
is kept once it is over.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from isthmus.encoders.counting import count_shared

_BOUND = 512 << 20
_REMEMBERED = 8  # tensors whose digests are kept: those of both sides of a batch
_RUNNING: ContextVar[Shared | None] = ContextVar("shared", default=None)
_T = TypeVar("_T")

States = tuple[Any, ...]  # tensors with the batch first; what is no tensor holds for every row


class Same:
    """Stands for an object in a key: equal to itself alone, and alive as long as the key."""

    def __init__(self, item: Any) -> None:
        """Keep the object."""
        self._item = item

    def __hash__(self) -> int:
        """Of the object's identity."""
        return id(self._item)

    def __eq__(self, other: object) -> bool:
        """Whether it is the same object."""
        return isinstance(other, Same) and self._item is other._item


class Store:
    """Values by key, of at most `bound` bytes; what was not used for longest goes first. Threads may share it."""

    def __init__(self, bound: int) -> None:
        """An empty store."""
        self._bound, self._size, self._lock = bound, 0, threading.Lock()
        self._kept: OrderedDict[Hashable, tuple[int, Any]] = OrderedDict()

    @property
    def size(self) -> int:
        """The bytes of what it holds."""
        return self._size

    def get(self, key: Hashable) -> Any:
        """What is kept under a key; None where there is nothing."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key][1]

    def put(self, key: Hashable, value: Any, size: int) -> None:
        """Keep a value of `size` bytes."""
        with self._lock:
            self._size += size - self._kept.pop(key, (0, None))[0]
            self._kept[key] = size, value
            while self._size > self._bound:
                self._size -= self._kept.popitem(last=False)[1][0]


class Shared(Store):
    """What one call shares."""

    def __init__(self, bound: int = _BOUND) -> None:
        """An empty store of at most `bound` bytes."""
        super().__init__(bound)
        self._digests: OrderedDict[int, tuple[Tensor, int, list[bytes]]] = OrderedDict()

    def digests(self, inputs: Mapping[str, Any]) -> list[Hashable]:
        """What each row of a batch of inputs is, by its bytes."""
        tensors = {name: value for name, value in inputs.items() if isinstance(value, Tensor)}
        rest = tuple((name, repr(value)) for name, value in inputs.items() if name not in tensors)
        rows = zip(*(self._of(value) for value in tensors.values()), strict=True)
        return [(tuple(tensors), rest, row) for row in rows]

    def tell(self, value: Tensor, digests: list[bytes]) -> None:
        """Remember the digests of a tensor's rows, where they are known already: see `digests_of`."""
        self._digests[id(value)] = value, value._version, digests
        while len(self._digests) > _REMEMBERED:
            self._digests.popitem(last=False)

    def _of(self, value: Tensor) -> list[bytes]:
        """Digests of a tensor's rows; those of the last tensors are remembered, as a method asks for them again."""
        known = self._digests.get(id(value))
        if known is not None and known[1] == value._version:
            return known[2]
        self.tell(value, digests_of(value))
        return self._digests[id(value)][2]


def digests_of(value: Tensor) -> list[bytes]:
    """Digests of a tensor's rows: type, shape and bytes."""
    kind = f"{value.dtype} {tuple(value.shape[1:])}".encode()
    rows = value.detach().cpu().contiguous().view(len(value), -1).view(torch.uint8).numpy()
    return [hashlib.blake2b(kind + row.tobytes(), digest_size=16).digest() for row in rows]


@contextmanager
def sharing(store: Shared | None = None) -> Iterator[Shared]:
    """Within it, in this thread, towers run each distinct input once; one within another has the outer one's store.

    A `store` that is given serves several calls, for as long as whoever gave it keeps it.
    """
    outer = _RUNNING.get()
    if outer is not None:
        yield outer
        return
    token = _RUNNING.set(Shared() if store is None else store)
    try:
        yield _RUNNING.get()  # type: ignore[misc]
    finally:
        _RUNNING.reset(token)


def run_once(
    kind: Callable[[], Hashable],
    inputs: dict[str, Any],
    run: Callable[[dict[str, Any]], States],
    *,
    watched: nn.Module,
) -> States:
    """What `run` gives for a batch of inputs; within `sharing`, once for each input.

    Args:
        kind: what the result depends on beside the inputs; asked only within `sharing`.
        inputs: every tensor has the batch first.
        run: takes some of the inputs.
        watched: a module whose hooks need the run itself; while it has any, nothing is shared.
    """
    shared = _RUNNING.get()
    if shared is None or has_hooks(watched) or not _told_by_rows(inputs):
        return run(inputs)
    base = kind()
    keys = [(base, digest) for digest in shared.digests(inputs)]
    known = {key: shared.get(key) for key in keys}
    first = {key: row for row, key in reversed([*enumerate(keys)]) if known[key] is None}
    missing = sorted(first.values())
    if missing:
        found = run(inputs if len(missing) == len(keys) else _rows(inputs, missing))
        for place, row in enumerate(missing):
            known[keys[row]] = _keep(shared, keys[row], found, place)
        if len(missing) == len(keys):
            return found
    count_shared(len(keys) - len(missing))
    return _together([known[key] for key in keys])


def distinct(inputs: Mapping[str, Any], *, watched: nn.Module) -> int:
    """How many inputs of a batch `run_once` would run where it knows none of them."""
    shared = _RUNNING.get()
    if shared is None or has_hooks(watched) or not _told_by_rows(inputs):
        return max((len(value) for value in inputs.values() if isinstance(value, Tensor) and value.ndim), default=1)
    return len(set(shared.digests(inputs)))


def known_once(kind: Callable[[], Hashable], inputs: Mapping[str, Any], *, watched: nn.Module) -> States | None:
    """What `run_once` gave for these inputs already; None where that is not known of every row."""
    shared = _RUNNING.get()
    if shared is None or has_hooks(watched) or not _told_by_rows(inputs):
        return None
    base = kind()
    rows = [shared.get((base, digest)) for digest in shared.digests(inputs)]
    return None if any(row is None for row in rows) else _together(rows)


def keep_once(kind: Callable[[], Hashable], inputs: Mapping[str, Any], found: States, *, watched: nn.Module) -> None:
    """Keep what a run showed of these inputs beside what it was made for, as `run_once` would have."""
    shared = _RUNNING.get()
    if shared is not None and not has_hooks(watched) and _told_by_rows(inputs):
        base = kind()
        for place, digest in enumerate(shared.digests(inputs)):
            _keep(shared, (base, digest), found, place)


def _keep(shared: Shared, key: Hashable, found: States, place: int) -> States:
    own = tuple(part[place].clone() if isinstance(part, Tensor) else part for part in found)
    shared.put(key, own, sum(part.nbytes for part in own if isinstance(part, Tensor)))
    return own


def _together(rows: Sequence[States]) -> States:
    return tuple(torch.stack(parts) if isinstance(parts[0], Tensor) else parts[0] for parts in zip(*rows, strict=True))


def _rows(inputs: Mapping[str, Any], rows: Sequence[int]) -> dict[str, Any]:
    return {name: value[list(rows)] if isinstance(value, Tensor) else value for name, value in inputs.items()}


def _told_by_rows(inputs: Mapping[str, Any]) -> bool:
    """Whether the rows of the tensors, all of one number, and the `repr` of the rest tell all of the inputs."""
    tensors = [value for value in inputs.values() if isinstance(value, Tensor)]
    rest = [value for value in inputs.values() if not isinstance(value, Tensor)]
    alike = {len(value) if value.ndim else 0 for value in tensors}
    plain = all(isinstance(value, (bool, int, float, str, type(None))) for value in rest)
    return plain and len(alike) == 1 and 0 not in alike


def has_hooks(model: nn.Module) -> bool:
    """Whether someone watches a module or one inside it."""
    return any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
