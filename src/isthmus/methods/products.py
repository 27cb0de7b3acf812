"""What each position of a tower brings along given directions of the joint space, without its whole vector.

With the vectors P_i of `isthmus.methods.vectors`, the product with a direction q is

    <P_i, q> = <(h - c)_i, integral over g in [0, 1] of (J(z(g))^T q)_i>,

of all positions at once by one backward product a node and direction. Where there are fewer directions than positions
this is the cheaper way, and the numbers are the same up to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from isthmus.encoders.counting import rested
from isthmus.encoders.memory import in_chunks, rows_at_once
from isthmus.encoders.pooled import pooled_only
from isthmus.encoders.split import Split
from isthmus.encoders.tower import Inputs, Tower, accumulator
from isthmus.methods.opening import Opening, independent
from isthmus.methods.slope import mended, scales_of
from isthmus.methods.vectors import resolved


@dataclass(frozen=True, eq=False)
class PositionProducts:
    """Embeddings of B inputs of T positions, taken apart along K directions each.

    Attributes:
        products: `(B, K, T)` the part of each position, along each direction.
        closed: `(B, D)` the embedding of the closed state.
        open: `(B, D)` the embedding, not normalised.
        options: options as resolved.
    """

    products: Tensor
    closed: Tensor
    open: Tensor
    options: dict[str, Any]


def position_products(
    tower: Tower,
    inputs: Inputs,
    directions: Tensor,
    *,
    layer: float = 0,
    steps: int | str = 10,
    rule: str = "gauss-legendre",
    closed: str | Tensor = "mean",
    floor: float | None = None,
    tolerance: float = 0.01,
    limit: int = 40,
    memory: int | None = None,
) -> PositionProducts:
    """The products of what `position_vectors` gives with directions, at one pass back a node and direction.

    Args:
        tower, inputs: one side, B inputs of T positions.
        directions: `(B, K, D)` of any lengths. One that is zero for all inputs costs nothing.
        layer, steps, rule, closed, floor, tolerance, limit, memory: as in `position_vectors`; with `steps="auto"`
            the nodes are the same, as the delta is that of the whole vectors' sum.

    Raises:
        OptionError: an option out of its range.
        ModelError: the tower's states are no sequences of positions, or its layers give no gradient.
    """
    opening = Opening.of(tower, inputs, layer=layer, rule=rule, closed=closed, floor=floor, memory=memory)
    ends = opening.ends()
    nodes, told = resolved(opening, ends, steps, tolerance, limit)
    return PositionProducts(_integrated(opening, nodes, directions.to(opening.closing)), *ends, told)


def _integrated(opening: Opening, steps: int, directions: Tensor) -> Tensor:
    """`(B, K, T)` by a fixed rule: at each node one run forward, and one back for each direction."""
    split, batch = opening.split, len(opening.closing)
    nodes, weights = opening.nodes(steps)
    found = directions.new_zeros(*directions.shape[:2], split.hidden.shape[1])

    def run(part: slice) -> None:
        number = torch.arange(part.start, part.stop, device=found.device)
        node, rows = number // batch, number % batch
        state, change = opening.at(nodes[node], rows)
        parts = weights[node][:, None, None] * _along(split, state, change, rows, directions[rows])
        # Node by node, as a GPU adds rows of one number in any order; and last, as a chunk that fails comes again.
        for one in sorted(set(node.tolist())):
            found.index_add_(0, rows[node == one], parts[node == one])

    with torch.no_grad():
        in_chunks(run, steps * batch, rows_at_once(split, opening.memory, narrow=True))
    return found


def _along(split: Split, states: Tensor, change: Tensor, rows: Tensor, directions: Tensor) -> Tensor:
    """`(N, K, T)` slopes along directions `(N, K, D)` at states `(N, T, d)`, times their change, summed over d."""
    found: Tensor | None = None
    for scale in scales_of(split.embedding.dtype):
        rested()
        leaf = states.to(split.hidden.dtype).detach().requires_grad_(True)
        with torch.enable_grad(), pooled_only(split, rows):
            embedding = split.resume(leaf, rows)
        parts = _pulled(split, embedding, leaf, change, directions, scale)
        found = parts if found is None else mended(found, parts)
        if bool(torch.isfinite(found).all()):
            break
    assert found is not None, "there is a scale"
    return found


def _pulled(split: Split, embedding: Tensor, leaf: Tensor, change: Tensor, directions: Tensor, scale: float) -> Tensor:
    """`(N, K, T)`, see `_along`, back through one graph, for which the slopes' sizes are those of a cosine's."""
    dtype = accumulator(embedding.dtype)
    tiny = torch.finfo(dtype).tiny
    length = directions.norm(dim=-1, keepdim=True).clamp_min(tiny)
    size = embedding.detach().to(dtype).norm(dim=-1)[:, None, None].clamp_min(tiny)
    found = torch.zeros(*directions.shape[:2], leaf.shape[1], device=leaf.device, dtype=directions.dtype)
    asked = (directions != 0).any(-1).any(0).nonzero().flatten().tolist()  # without those of padding
    for k in asked:
        if k != asked[0]:
            rested()
        along = (directions[:, k] / length[:, k] / size[:, 0] * scale).to(embedding.dtype)
        (slope,) = torch.autograd.grad(embedding, leaf, along, retain_graph=k != asked[-1], allow_unused=True)
        if slope is None:
            raise independent(split.tower)
        found[:, k] = (slope.to(dtype) / scale * change).sum(-1)
    scored: Tensor = found * length * size
    return scored
