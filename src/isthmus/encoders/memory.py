"""Memory is a budget: how many replacements of a hidden state run at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real

import torch
from torch import nn

from isthmus.encoders.split import Split
from isthmus.errors import ModelError, OptionError

_CPU_BUDGET = 512 << 20
# Values per position and channel, measured on CLIPs whose MLP is four times as wide (benchmarks/speed_memory.py); what
# freed tensors leave unusable in a CPU's memory is a quarter of it.
_KEPT = 19  # of each block, for its backward pass; fewer with an activation that keeps its input alone
_PASSING = 32  # once: what the block at work needs besides, and states, changes and gradients of a path
_WHOLE = 4  # once for every input of the batch, whatever runs at once: its states, its closed state, its stem
_WEIGHTS = 4  # copies of the attention weights of all heads in a block, where attention is not fused


def rows_at_once(split: Split, memory: int | None) -> int:
    """How many replacements fit into `memory` bytes; by default half a GiB, on a GPU 40 % of the whole.

    The default depends on the machine, never on what else runs there, so that a repeated call is bit-identical.
    """
    sound = isinstance(memory, Real) and not isinstance(memory, bool) and 0 < memory < math.inf
    if memory is not None and not sound:
        raise OptionError(f"memory must be a number of bytes, not {memory!r}.")
    if memory is None:
        device = split.hidden.device
        memory = _CPU_BUDGET
        if device.type == "cuda":
            memory = int(0.4 * torch.cuda.get_device_properties(device).total_memory)
    blocks = max(1, split.tower.depth - split.layer)
    channels = split.shape[0] if len(split.shape) == 3 else split.shape[-1]
    positions = math.prod(split.shape) // channels
    attention = 0 if _fused(split.tower.model) else _WEIGHTS * positions * max(1, channels // 64)
    size = split.embedding.element_size()
    path = positions * channels * max(size, 4)  # summed in float32 or better
    row = blocks * positions * (_KEPT * channels + attention) * size + _PASSING * path
    return max(1, int((memory - _WHOLE * path * len(split.hidden)) // row))


def _fused(model: nn.Module) -> bool:
    """Whether no part of a transformers model keeps its attention weights; of others it is not known."""
    configs = (getattr(module, "config", None) for module in model.modules())
    used = {getattr(config, "_attn_implementation", None) for config in configs} - {None}
    return bool(used) and "eager" not in used


def in_chunks(run: Callable[[slice], None], total: int, size: int) -> None:
    """Run `run` on slices of `total` rows, at most `size` at once; halve `size` when memory runs out.

    Raises:
        ModelError: not even one row fits.
    """
    start = 0
    while start < total:
        try:
            run(slice(start, min(start + size, total)))
            start += size
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise
            if size == 1:
                raise ModelError(
                    "The device's memory does not hold one pass of this model: use a smaller model, a smaller "
                    "image_size, dtype=bfloat16, or device=cpu."
                ) from error
            size = max(1, size // 2)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def _out_of_memory(error: RuntimeError) -> bool:
    """On a CPU, torch raises a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
