"""The slope of the score, the one gradient that most methods need."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from isthmus.encoders.memory import in_chunks, rows_at_once
from isthmus.encoders.pooled import pooled_only
from isthmus.encoders.split import Split
from isthmus.encoders.tower import accumulator, unit

# Gradients of a cosine are small; in half precision they would be rounded off to zero.
_HALF_SCALE = 1024.0


def score_of(split: Split, state: Tensor, rows: Tensor, target: Tensor, *, narrow: bool = False) -> Tensor:
    """`(N,)` scores `<unit(g(z)), t>` of hidden states `(N, T, d)` of inputs `rows`, with target `(B, D)`.

    With `narrow` the last block runs for the pooled position alone: where nothing inside the blocks is read.
    """
    dtype = accumulator(split.embedding.dtype)
    with pooled_only(split, rows) if narrow else nullcontext():
        embedding = split.resume(state, rows)
    return (unit(embedding) * target[rows].to(dtype)).sum(-1)


def slope(
    split: Split,
    state: Tensor,
    rows: Tensor,
    target: Tensor,
    wanted: Callable[[Tensor], Sequence[Tensor]] = lambda state: (state,),
    *,
    narrow: bool = False,
) -> tuple[list[Tensor], Tensor]:
    """Gradients of the scores, in float32 or better, and the scores `(N,)`.

    Args:
        split, state, rows, target, narrow: see `score_of`.
        wanted: what to differentiate by, called after the forward pass; each begins with the N rows.

    Returns:
        The gradients by each; rows that overflow in half precision are taken again, unscaled.
    """
    gradients: list[Tensor] = []
    for scale in scales_of(split.embedding.dtype):
        state = state.detach().requires_grad_(True)
        with torch.enable_grad():
            score = score_of(split, state, rows, target, narrow=narrow)
            found = torch.autograd.grad(score.sum() * scale, wanted(state))
        scaled = [part.to(accumulator(part.dtype)) / scale for part in found]
        gradients = [mended(old, new) for old, new in zip(gradients, scaled, strict=True)] if gradients else scaled
        if all(bool(torch.isfinite(part).all()) for part in gradients):
            break
    return gradients, score.detach()


def in_one_pass(
    split: Split,
    target: Tensor,
    combine: Callable[[Sequence[Tensor], Tensor], Tensor],
    *,
    memory: int | None,
    wanted: Callable[[Tensor], Sequence[Tensor]] = lambda state: (state,),
) -> tuple[Tensor, Tensor]:
    """Scores `(B, T)` that `combine` makes of the gradients and rows of the unchanged inputs, and their `(B,)` scores.

    Args:
        split, target, wanted: see `slope`.
        combine: takes the gradients and which inputs `(N,)` they belong to; gives `(N, T)`.
        memory: budget in bytes.
    """
    device = split.hidden.device
    target = target.to(device)
    scores = torch.empty(len(target), positions_of(split), device=device, dtype=target.dtype)
    opened = torch.empty(len(scores), device=device, dtype=target.dtype)

    def run(part: slice) -> None:
        rows = torch.arange(part.start, part.stop, device=device)
        gradients, opened[part] = slope(split, split.hidden[part], rows, target, wanted)
        scores[part] = combine(gradients, rows)

    in_chunks(run, len(scores), rows_at_once(split, memory))
    return scores, opened


def positions_of(split: Split) -> int:
    """T, the number of positions of the tower's states; every place of the grid in a convolutional tower."""
    return math.prod(grid_of(split) or (split.shape[0],))


def grid_of(split: Split) -> tuple[int, int] | None:
    """`(rows, columns)` of the states of a convolutional tower; None of a transformer's."""
    return (split.shape[1], split.shape[2]) if len(split.shape) == 3 else None


def by_position(states: Tensor) -> Tensor:
    """States as `(N, T, d)`; those of a convolutional tower, `(N, C, H, W)`, row by row."""
    return states.flatten(2).transpose(1, 2) if states.ndim == 4 else states


def as_state(positions: Tensor, split: Split) -> Tensor:
    """States `(N, T, d)` in the shape that the tower's own have: the reverse of `by_position`."""
    if split.hidden.ndim == 3:
        return positions
    return positions.transpose(1, 2).reshape(len(positions), *split.hidden.shape[1:])


def scales_of(dtype: torch.dtype) -> tuple[float, ...]:
    """By what a score is multiplied before it is run back, in turn, until no gradient overflows."""
    return (_HALF_SCALE, 1.0) if dtype == torch.float16 else (1.0,)


def mended(old: Tensor, new: Tensor) -> Tensor:
    """Rows of `old` `(N, ...)`; those of `new` where they are not finite."""
    good = torch.isfinite(old).flatten(1).all(1)
    return torch.where(good.view(-1, *[1] * (old.ndim - 1)), old, new)
