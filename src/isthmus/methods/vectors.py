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
from torch import Tensor

from isthmus.encoders.counting import count_shared, rested
from isthmus.encoders.memory import in_chunks, rows_at_once
from isthmus.encoders.sharing import States
from isthmus.encoders.tower import Inputs, Tower
from isthmus.methods.checks import whole
from isthmus.methods.opening import Opening


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
            of every input is under `tolerance`, or there would be more than `limit`; to know costs one product a node.
        tolerance, limit: see `steps`.
        memory: budget in bytes.

    Raises:
        OptionError: an option out of its range.
        ModelError: the tower's states are no sequences of positions.
    """
    given: dict[str, Any] = {"layer": layer, "rule": rule, "closed": closed, "floor": floor, "memory": memory}
    if shareable(steps, closed):
        return _once(tower, inputs, whole("steps", steps, 1), given)
    opening = Opening.of(tower, inputs, **given)
    ends = opening.ends()
    nodes, told = resolved(opening, ends, steps, tolerance, limit)
    return PositionVectors(_integrated(opening, nodes), *ends, told)


def shareable(steps: int | str, closed: str | Tensor) -> bool:
    """Whether an input has the same vectors whatever inputs stand beside it, so that a call makes them once."""
    return steps != "auto" and not isinstance(closed, Tensor)


def resolved(
    opening: Opening, ends: tuple[Tensor, Tensor], steps: int | str, tolerance: float, limit: int
) -> tuple[int, dict[str, Any]]:
    """How many nodes there are, and options as resolved."""
    if steps != "auto":
        nodes = whole("steps", steps, 1)
        return nodes, {**opening.used, "steps": nodes}
    nodes = opening.enough(ends, tolerance, limit)
    return nodes, {**opening.used, "steps": nodes, "tolerance": tolerance, "limit": limit}


def _once(tower: Tower, inputs: Inputs, steps: int, given: dict[str, Any]) -> PositionVectors:
    """By a fixed rule, once in a call for each input: a picture beside another text has the same vectors."""
    made = 0

    def run(inputs: Inputs) -> States:
        nonlocal made
        opening = Opening.of(tower, inputs, **given)
        made = len(opening.closing)
        return _integrated(opening, steps), *opening.ends(), {**opening.used, "steps": steps}

    kind = "position vectors", steps, *given.values()
    vectors, shut, opened, used = tower.once(kind, dict(inputs), run)
    # Each known one is counted as one pass already; a pair would need them all.
    count_shared((len(vectors) - made) * (steps * vectors.shape[1] + 2))
    return PositionVectors(vectors, shut, opened, dict(used))


def _integrated(opening: Opening, steps: int) -> Tensor:
    """`(B, T, D)` by a fixed rule: at each node one forward-mode product for each position."""
    split = opening.split
    batch, positions, _ = split.hidden.shape
    nodes, weights = opening.nodes(steps)
    found = opening.closing.new_zeros(batch * positions, split.embedding.shape[1])
    each = torch.arange(len(found), device=found.device)

    def run(part: slice) -> None:
        rested()
        number = torch.arange(part.start, part.stop, device=found.device)
        node, place = number // len(each), number % len(each)
        rows, position = place // positions, place % positions
        state, change = opening.at(nodes[node], rows)
        only, own = torch.zeros_like(change), torch.arange(len(rows), device=found.device)
        only[own, position] = change[own, position]
        found.index_add_(0, place, weights[node][:, None] * opening.product(state, only, rows))

    with torch.no_grad():
        in_chunks(run, steps * len(each), rows_at_once(split, opening.memory))
    return found.view(batch, positions, -1)
