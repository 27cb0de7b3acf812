"""The way of a tower's states from closed to open, and the embedding's change along it, for what needs no target.

On the path `z(g) = c + g (h - c)` from a closed state c to the hidden state h, with J the Jacobian of the tower from
there on,

    u(h) - u(c) = integral over g in [0, 1] of J(z(g)) (h - c),

for the embedding u before it is made of length one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.autograd.forward_ad as forward
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from isthmus.encoders.memory import in_chunks, rows_at_once
from isthmus.encoders.split import Split
from isthmus.encoders.tower import Inputs, Tower, accumulator
from isthmus.errors import ModelError, OptionError
from isthmus.methods.checks import probability, whole
from isthmus.methods.closed import closed_state
from isthmus.quadrature import nodes_and_weights

_FIRST = 5  # nodes from which steps="auto" doubles


@dataclass(frozen=True, eq=False)
class Opening:
    """A path of states for each of B inputs of T positions.

    Attributes:
        split: the cut at which states are replaced.
        closing: `(B, T, d)` the state c, in float32 or better.
        rule: one of `isthmus.quadrature.RULES`.
        memory: budget in bytes.
        used: options as resolved.
    """

    split: Split
    closing: Tensor
    rule: str
    memory: int | None
    used: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        tower: Tower,
        inputs: Inputs,
        *,
        layer: float,
        rule: str,
        closed: str | Tensor,
        floor: float | None,
        memory: int | None,
    ) -> Opening:
        """Of one side; for its options see `isthmus.methods.vectors.position_vectors`."""
        split = tower.split(inputs, layer)
        if len(split.shape) != 2:
            raise ModelError("Joint and prompt-free maps need a tower of tokens: this one is convolutional.")
        closing, used = closed_state(split, closed, floor)
        return cls(split, closing, rule, memory, {"layer": split.layer, **used, "rule": rule})

    def ends(self) -> tuple[Tensor, Tensor]:
        """`(B, D)` embeddings of the closed state and of the features as they are."""
        with torch.no_grad():
            shut, opened = (self._embedded(state) for state in (self.closing, self.split.hidden))
        return shut, opened

    def nodes(self, steps: int) -> tuple[Tensor, Tensor]:
        """Gates `(steps,)` and their weights."""
        nodes, weights = nodes_and_weights(self.rule, steps)
        return nodes.to(self.closing), weights.to(self.closing)

    def at(self, gates: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """States `(N, T, d)` at gates `(N,)` of inputs `(N,)`, and the change h - c of each."""
        change = self.split.hidden[rows].to(self.closing.dtype) - self.closing[rows]
        return self.closing[rows] + gates[:, None, None] * change, change

    def product(self, states: Tensor, tangents: Tensor, rows: Tensor) -> Tensor:
        """`(N, D)` Jacobians of the rest of the tower at states `(N, T, d)`, times tangents of the same shape."""
        dtype = self.split.hidden.dtype
        # The fused kernels of attention have no forward-mode derivative; this one computes the same by plain products.
        with forward.dual_level(), sdpa_kernel(SDPBackend.MATH):
            dual = forward.make_dual(states.to(dtype), tangents.to(dtype))  # type: ignore[no-untyped-call]
            found = self.split.resume(dual, rows)
            tangent: Tensor | None = forward.unpack_dual(found).tangent  # type: ignore[no-untyped-call]
        if tangent is None:
            raise independent(self.split.tower)
        return tangent.to(self.closing.dtype)

    def enough(self, ends: tuple[Tensor, Tensor], tolerance: float, limit: int) -> int:
        """Nodes, doubled until the delta of every input is under `tolerance`, or there would be more than `limit`.

        The delta is that of the sum of all parts: one forward-mode product a node, whatever the parts cost.

        Args:
            ends: what `ends` gives.
            tolerance, limit: see `isthmus.methods.vectors.position_vectors`.
        """
        probability("tolerance", tolerance)
        if whole("limit", limit, 1) < _FIRST:
            raise OptionError(f"limit must be at least {_FIRST} nodes, not {limit}.")
        nodes, change = _FIRST, ends[1] - ends[0]
        while 2 * nodes <= limit:
            missed = (self._changed(nodes) - change).norm(dim=-1) / change.norm(dim=-1)
            if bool((missed <= tolerance).all()):
                break
            nodes *= 2
        return nodes

    def _changed(self, steps: int) -> Tensor:
        """`(B, D)` the embedding's change along the path, by a fixed rule."""
        batch = len(self.closing)
        nodes, weights = self.nodes(steps)
        found = self.closing.new_empty(steps * batch, self.split.embedding.shape[1])

        def run(part: slice) -> None:
            number = torch.arange(part.start, part.stop, device=found.device)
            rows = number % batch
            found[part] = self.product(*self.at(nodes[number // batch], rows), rows)

        with torch.no_grad():
            in_chunks(run, len(found), rows_at_once(self.split, self.memory))
        return torch.einsum("n,nbd->bd", weights, found.view(steps, batch, -1))

    def _embedded(self, states: Tensor) -> Tensor:
        """`(B, D)` embeddings of one state for each input."""
        split, dtype = self.split, accumulator(self.split.embedding.dtype)
        found = torch.empty(len(states), split.embedding.shape[1], device=states.device, dtype=dtype)

        def run(part: slice) -> None:
            rows = torch.arange(part.start, part.stop, device=states.device)
            found[part] = split.resume(states[part].to(split.hidden.dtype), rows).to(dtype)

        in_chunks(run, len(states), rows_at_once(split, self.memory))
        return found


def independent(tower: Tower) -> ModelError:
    """What to raise where a layer has no part in the embedding."""
    return ModelError(f"The {tower.side} tower's embedding does not depend on this layer: choose another.")
