"""The embedding itself as a sum of one vector for each position, from which the map of any prompt follows.

On the path `z(g) = c + g (h - c)` from a closed state c to the hidden state h, with J the Jacobian of the tower from
there on,

    P_i = integral over g in [0, 1] of J(z(g)) (h - c)_i,        sum over i of P_i = u(h) - u(c),

for the embedding u before it is made of length one. `<P_i, t> / |u|` is the share of position i in the cosine with any
unit vector t: one matrix product. This is NIB (ICLR 2025) with its gradient taken forward, one product for each
position, and it explains u divided by its own fixed length, where `nib` explains the cosine on the whole way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.autograd.forward_ad as forward
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from isthmus.encoders.counting import count_shared
from isthmus.encoders.memory import in_chunks, rows_at_once
from isthmus.encoders.sharing import States
from isthmus.encoders.split import Split
from isthmus.encoders.tower import Inputs, Tower, accumulator
from isthmus.errors import ModelError, OptionError
from isthmus.methods.checks import probability, whole
from isthmus.methods.closed import closed_state
from isthmus.quadrature import nodes_and_weights

_FIRST = 5  # nodes from which steps="auto" doubles


@dataclass(frozen=True, eq=False)
class PositionVectors:
    """Embeddings of B inputs of T positions, taken apart.

    Attributes:
        vectors: `(B, T, D)` the part of each position.
        closed: `(B, D)` the embedding of the closed state.
        open: `(B, D)` the embedding, not normalised.
        options: options as resolved.
    """

    vectors: Tensor
    closed: Tensor
    open: Tensor
    options: dict[str, Any]

    @property
    def delta(self) -> Tensor:
        """`(B,)` the size of what the parts miss, as a share of `open - closed`."""
        change = self.open - self.closed
        missed: Tensor = (self.vectors.sum(1) - change).norm(dim=-1) / change.norm(dim=-1)
        return missed


def position_vectors(
    tower: Tower,
    inputs: Inputs,
    *,
    layer: float = 0,
    steps: int | str = 10,
    rule: str = "gauss-legendre",
    closed: str | Tensor = "mean",
    floor: float | None = None,
    tolerance: float = 0.01,
    limit: int = 40,
    memory: int | None = None,
) -> PositionVectors:
    """Take the embeddings of a tower apart by position.

    Args:
        tower, inputs: one side, B inputs of T positions.
        layer, closed, floor: as in `isthmus.methods.nib.nib`.
        rule: one of `isthmus.quadrature.RULES`; the default, "gauss-legendre", is the best of them for the closed
            states "mean" and "floor" (docs/completeness.md).
        steps: nodes of the integral; each costs T forward-mode products. "auto" doubles them from 5 until the delta
            of every input is under `tolerance`, or there would be more than `limit`.
        tolerance, limit: see `steps`.
        memory: budget in bytes.

    Raises:
        OptionError: an option out of its range.
        ModelError: the tower's states are no sequences of positions.
    """
    if steps != "auto" and not isinstance(closed, Tensor):
        return _once(tower, inputs, (layer, whole("steps", steps, 1), rule, closed, floor, memory))
    split = tower.split(inputs, layer)
    closing, used = _closing(split, closed, floor, rule)
    shut, opened = _ends(split, closing, memory)
    if steps != "auto":
        vectors = _integrated(split, closing, rule, whole("steps", steps, 1), memory)
        return PositionVectors(vectors, shut, opened, {**used, "steps": steps})
    probability("tolerance", tolerance)
    nodes = _FIRST
    if whole("limit", limit, 1) < _FIRST:
        raise OptionError(f"limit must be at least {_FIRST} nodes, not {limit}.")
    while True:
        vectors = _integrated(split, closing, rule, nodes, memory)
        found = PositionVectors(vectors, shut, opened, {**used, "steps": nodes, "tolerance": tolerance, "limit": limit})
        if bool((found.delta <= tolerance).all()) or 2 * nodes > limit:
            return found
        nodes *= 2


def _once(tower: Tower, inputs: Inputs, options: tuple[Any, ...]) -> PositionVectors:
    """By a fixed rule, once in a call for each input: a picture beside another text has the same vectors."""
    layer, steps, rule, closed, floor, memory = options
    made = 0

    def run(inputs: Inputs) -> States:
        nonlocal made
        split = tower.split(inputs, layer)
        closing, used = _closing(split, closed, floor, rule)
        made = len(closing)
        vectors = _integrated(split, closing, rule, steps, memory)
        return vectors, *_ends(split, closing, memory), {**used, "steps": steps}

    vectors, shut, opened, used = tower.once(("position vectors", options), dict(inputs), run)
    # Each known one is counted as one pass already; a pair would need them all.
    count_shared((len(vectors) - made) * (steps * vectors.shape[1] + 2))
    return PositionVectors(vectors, shut, opened, dict(used))


def _closing(split: Split, closed: str | Tensor, floor: float | None, rule: str) -> tuple[Tensor, dict[str, Any]]:
    """The closed state, and options as resolved."""
    if len(split.shape) != 2:
        raise ModelError("Joint and prompt-free maps need a tower of tokens: this one is convolutional.")
    closing, used = closed_state(split, closed, floor)
    return closing, {"layer": split.layer, **used, "rule": rule}


def _ends(split: Split, closing: Tensor, memory: int | None) -> tuple[Tensor, Tensor]:
    """`(B, D)` embeddings of the closed state and of the features as they are."""
    with torch.no_grad():
        shut, opened = (_embedded(split, state, memory) for state in (closing, split.hidden))
    return shut, opened


def _embedded(split: Split, states: Tensor, memory: int | None) -> Tensor:
    """`(B, D)` embeddings of one state for each input."""
    dtype = accumulator(split.embedding.dtype)
    found = torch.empty(len(states), split.embedding.shape[1], device=states.device, dtype=dtype)

    def run(part: slice) -> None:
        rows = torch.arange(part.start, part.stop, device=states.device)
        found[part] = split.resume(states[part].to(split.hidden.dtype), rows).to(dtype)

    in_chunks(run, len(states), rows_at_once(split, memory))
    return found


def _integrated(split: Split, closing: Tensor, rule: str, steps: int, memory: int | None) -> Tensor:
    """`(B, T, D)` by a fixed rule: at each node one forward-mode product for each position."""
    batch, positions, _ = split.hidden.shape
    nodes, weights = nodes_and_weights(rule, steps)
    device = split.hidden.device
    found = torch.zeros(batch * positions, split.embedding.shape[1], device=device, dtype=closing.dtype)
    nodes, weights = nodes.to(device, closing.dtype), weights.to(device, closing.dtype)
    which = torch.arange(batch * positions, device=device)

    def run(part: slice) -> None:
        number = torch.arange(part.start, part.stop, device=device)
        node, place = number // len(which), number % len(which)
        rows, position = place // positions, place % positions
        change = split.hidden[rows].to(closing.dtype) - closing[rows]
        state = closing[rows] + nodes[node][:, None, None] * change
        only = torch.zeros_like(change)
        only[torch.arange(len(rows)), position] = change[torch.arange(len(rows)), position]
        found.index_add_(0, place, weights[node][:, None] * _product(split, state, only, rows).to(closing.dtype))

    with torch.no_grad():
        in_chunks(run, steps * len(which), rows_at_once(split, memory))
    return found.view(batch, positions, -1)


def _product(split: Split, states: Tensor, tangents: Tensor, rows: Tensor) -> Tensor:
    """`(N, D)` Jacobians of the rest of the tower at states `(N, T, d)`, times tangents of the same shape."""
    dtype = split.hidden.dtype
    # The fused kernels of attention have no forward-mode derivative; this one computes the same by plain products.
    with forward.dual_level(), sdpa_kernel(SDPBackend.MATH):
        dual = forward.make_dual(states.to(dtype), tangents.to(dtype))  # type: ignore[no-untyped-call]
        found = split.resume(dual, rows)
        tangent: Tensor | None = forward.unpack_dual(found).tangent  # type: ignore[no-untyped-call]
    if tangent is None:
        raise ModelError(f"The {split.tower.side} tower's embedding does not depend on this layer: choose another.")
    return tangent
