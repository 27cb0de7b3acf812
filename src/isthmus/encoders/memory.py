"""Memory is a budget: how many replacements of a hidden state run at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from isthmus.encoders.pooled import pooled_positions
from isthmus.encoders.split import Split
from isthmus.errors import ModelError, OptionError

_CPU_BUDGET = 512 << 20
# Values per position and channel, measured on CLIPs whose MLP is four times as wide (benchmarks/speed_memory.py); what
# freed tensors leave unusable in a CPU's memory is a quarter of it.
_KEPT = 19  # of each block, for its backward pass; fewer with an activation that keeps its input alone
_SAVED = 0.6  # of a block whose parts run for the pooled position alone
_UNMADE = 8  # of `_PASSING`, the MLP's, where no other block runs
_PASSING = 32  # once: what the block at work needs besides, and states, changes and gradients of a path
# Once for every input of the batch, whatever runs at once: its states, as the call keeps them too, closed state, stem.
_WHOLE = 6
_GIVEN = 3  # copies of the inputs themselves: as they were prepared, as a batch, and in the run that embeds them
_WEIGHTS = 4  # copies of the attention weights of all heads in a block, where attention is not fused


_ROOM: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()  # bytes that a model ran in after it ran out of memory
_PAIRS: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()  # the same as a number of pairs


class Rows(int):
    """A number of rows at once, of a model, with the bytes that one is reckoned to take."""

    model: nn.Module
    each: float

    @classmethod
    def of(cls, number: int, model: nn.Module, each: float) -> Rows:
        """`number` of rows, at least one."""
        found = cls(max(1, number))
        found.model, found.each = model, each
        return found

    def times(self, factor: int) -> Rows:
        """As many times the rows, each of which takes as much less."""
        return Rows.of(self * factor, self.model, self.each / factor)

    def at_most(self, limit: int) -> Rows:
        """No more than `limit` rows."""
        return Rows.of(min(self, limit), self.model, self.each)


def rows_at_once(split: Split, memory: int | None, *, narrow: bool = False) -> Rows:
    """How many replacements fit into `memory` bytes; by default half a GiB, on a GPU 40 % of the whole.

    The default depends on the machine, never on what else runs there, so that a repeated call is bit-identical; only
    where a model ran out of memory it gets less from then on, in this process.

    Args:
        split: what is resumed.
        memory: bytes on top of the model.
        narrow: whether it is resumed in `pooled_only`.
    """
    sound = isinstance(memory, Real) and not isinstance(memory, bool) and 0 < memory < math.inf
    if memory is not None and not sound:
        raise OptionError(f"memory must be a number of bytes, not {memory!r}.")
    if memory is None:
        device = split.hidden.device
        memory = _CPU_BUDGET
        if device.type == "cuda":
            memory = int(0.4 * torch.cuda.get_device_properties(device).total_memory)
    model = split.tower.model
    blocks = float(max(1, split.tower.depth - split.layer))
    passing = _PASSING
    if narrow and pooled_positions(split) is not None:
        blocks -= _SAVED
        passing -= _UNMADE if blocks < 1 else 0
    channels = split.shape[0] if len(split.shape) == 3 else split.shape[-1]
    positions = math.prod(split.shape) // channels
    attention = 0 if _fused(split.tower.model) else _WEIGHTS * positions * max(1, channels // 64)
    size = split.embedding.element_size()
    path = positions * channels * max(size, 4)  # summed in float32 or better
    row = blocks * positions * (_KEPT * channels + attention) * size + passing * path
    given = sum(value.nbytes for value in split.inputs.values() if isinstance(value, Tensor))
    free = memory - _WHOLE * path * len(split.hidden) - _GIVEN * given
    return Rows.of(int(min(free, _ROOM.get(model, free)) // row), model, row)


def _fused(model: nn.Module) -> bool:
    """Whether no part of a transformers model keeps its attention weights; of others it is not known."""
    configs = (getattr(module, "config", None) for module in model.modules())
    used = {getattr(config, "_attn_implementation", None) for config in configs} - {None}
    return bool(used) and "eager" not in used


def in_chunks(run: Callable[[slice], None], total: int, size: int) -> None:
    """Run `run` on slices of `total` rows, at most `size` at once; halve `size` when memory runs out.

    Where `size` is a `Rows`, the halved one is remembered for its model.

    Raises:
        ModelError: not even one row fits.
    """
    fits = _halving(run, total, size)
    if isinstance(size, Rows) and fits < size:
        _ROOM[size.model] = int(fits * size.each)


def pairs_in_chunks(run: Callable[[slice], None], total: int, model: nn.Module, *, whole: bool = False) -> None:
    """As `in_chunks`, of pairs; a model that ran out of memory runs no more at once in this process than what fitted.

    Args:
        run: takes a slice of the pairs.
        total: how many pairs there are.
        model: what they are explained by.
        whole: they must not be cut, as the result depends on all of them.

    Raises:
        ModelError: not even one pair fits, or not all of those that belong together.
    """
    if whole:
        try:
            return run(slice(0, total))
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise
            raise ModelError(
                f"The device's memory does not hold these {total} pairs, on which a published result depends as a "
                "whole: give a smaller batch_size."
            ) from error
    size = min(total, _PAIRS.get(model, total))
    fits = _halving(run, total, size)
    if fits < size:
        _PAIRS[model] = fits


def _halving(run: Callable[[slice], None], total: int, size: int) -> int:
    """The size that fitted; `size` itself where memory never ran out."""
    start = 0
    while start < total:
        try:
            run(slice(start, min(start + size, total)))
            start += size
            continue
        except (RuntimeError, _NoRoomError) as error:
            if not _out_of_memory(error):
                raise
            if min(size, total - start) == 1:
                raise _NoRoomError(
                    "The device's memory does not hold one pass of this model: use a smaller model, a smaller "
                    "image_size, dtype=bfloat16, or device=cpu."
                ) from error
        size = min(size, total - start) // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return size


class _NoRoomError(ModelError):
    """Not even one row fitted, beside what else was held: with fewer pairs at once it may."""


def _out_of_memory(error: Exception) -> bool:
    """On a CPU, torch raises a plain RuntimeError."""
    return isinstance(error, (torch.OutOfMemoryError, _NoRoomError)) or "DefaultCPUAllocator" in str(error)
