"""The integral of the score's slope along a straight path of states, split by position.

On the path `z(g) = c + g (x - c)` from a closed state or baseline c (g = 0) to the open state x (g = 1), position i
gets `A_i = sum over channels of (x - c) * integral over g of df/dz at z(g)`, so that the scores sum to f(x) - f(c) up
to the quadrature's error (Sundararajan et al., Integrated Gradients, ICML 2017; on a hidden state: NIB, eq. 10, 11).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from isthmus.encoders.memory import in_chunks, rows_at_once
from isthmus.encoders.split import Entrance, Split
from isthmus.encoders.tower import accumulator, unit
from isthmus.errors import OptionError
from isthmus.methods.registry import Attribution
from isthmus.methods.slope import by_position, grid_of, positions_of, score_of, slope
from isthmus.quadrature import LAYER_NORM_SCALE, SMOOTH_SCALE, Adaptive, integrate_adaptively, nodes_and_weights

# Sums products `(N, ...)` of change and gradient, of inputs `(N,)`, to scores `(N, T)`.
Gather = Callable[[Tensor, Tensor], Tensor]


def over_channels(products: Tensor, _: Tensor) -> Tensor:
    """`(N, T, d)`, or `(N, C, H, W)`, to `(N, T)`."""
    return by_position(products).sum(-1)


@dataclass(frozen=True, eq=False)
class StraightPath:
    """A path of states for each of B inputs.

    Attributes:
        split: the cut at which states are replaced.
        closing: `(B, ...)` the state c, in float32 or better.
        target: `(B, D)` fixed vectors.
        memory: budget in bytes.
        gather: turns products of change and gradient into scores of positions.
    """

    split: Split
    closing: Tensor
    target: Tensor
    memory: int | None = None
    gather: Gather = over_channels

    def slopes(self, gates: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """df/dg at gates `(N,)` of inputs `(N,)`, by position `(N, T)`, and the scores there `(N,)`."""
        hidden = self.split.hidden
        dtype = accumulator(self.split.embedding.dtype)
        gates, rows = gates.to(hidden.device, dtype), rows.to(hidden.device)
        slopes = torch.empty(len(rows), positions_of(self.split), device=hidden.device, dtype=dtype)
        scores = torch.empty(len(rows), device=hidden.device, dtype=dtype)
        target = self.target.to(hidden.device)

        def run(part: slice) -> None:
            closing = self.closing[rows[part]]
            change = hidden[rows[part]].to(closing.dtype) - closing
            state = closing + gates[part].view(-1, *[1] * (hidden.ndim - 1)) * change
            (gradient,), scores[part] = slope(self.split, state.to(hidden.dtype), rows[part], target, narrow=True)
            slopes[part] = self.gather(change * gradient, rows[part])

        in_chunks(run, len(rows), rows_at_once(self.split, self.memory, narrow=True))
        return slopes, scores

    def ends(self) -> tuple[Tensor, Tensor]:
        """Scores `(B,)` of the closed and the open states, without gradient; the open one needs no run."""
        hidden, target = self.split.hidden, self.target.to(self.split.hidden.device)
        opened = (unit(self.split.embedding) * target.to(accumulator(self.split.embedding.dtype))).sum(-1)
        closed = torch.empty_like(opened)

        def run(part: slice) -> None:
            rows = torch.arange(part.start, part.stop, device=hidden.device)
            closed[part] = score_of(self.split, self.closing[part].to(hidden.dtype), rows, target, narrow=True)

        with torch.no_grad():
            in_chunks(run, len(hidden), rows_at_once(self.split, self.memory, narrow=True))
        return closed, opened

    def integrate(
        self, used: dict[str, Any], *, steps: int | str, rule: str, tolerance: float | None, limit: int | None
    ) -> Attribution:
        """The scores, by a fixed rule or, with `steps="auto"`, until the delta is under the tolerance.

        Args:
            used: options that the result states beside those of the quadrature.
            steps, rule, tolerance, limit: see `isthmus.methods.nib.nib`.
        """
        if steps != "auto":
            for name, value in (("tolerance", tolerance), ("limit", limit)):
                if value is not None:
                    raise OptionError(f'{name} applies to steps="auto" alone.')
            return self._fixed({**used, "steps": steps, "rule": rule}, steps=steps, rule=rule)
        tolerance, limit = 0.01 if tolerance is None else tolerance, 64 if limit is None else limit
        if not isinstance(tolerance, Real) or not 0 < tolerance < 1:
            raise OptionError(f"tolerance must lie between 0 and 1, not {tolerance!r}.")
        if isinstance(limit, bool) or not isinstance(limit, Integral) or limit < 9:
            raise OptionError(f"limit must be a whole number of at least 9 nodes, not {limit!r}.")
        return self._automatic(used, rule=rule, tolerance=tolerance, limit=limit)

    @property
    def _grid(self) -> tuple[int, int] | None:
        """What enters a tower is gathered to the input's patches; a state inside a convolutional one has its own."""
        return None if isinstance(self.split, Entrance) else grid_of(self.split)

    def _fixed(self, used: dict[str, Any], *, steps: Any, rule: str) -> Attribution:
        """All nodes of all inputs in one batch."""
        nodes, weights = nodes_and_weights(rule, steps)
        batch = len(self.closing)
        parts, _ = self.slopes(nodes.repeat_interleave(batch), torch.arange(batch).repeat(steps))
        scores = torch.einsum("n,nbt->bt", weights.to(parts), parts.view(steps, batch, -1))
        closed, opened = self.ends()
        return Attribution(scores, opened, closed, (used,) * batch, grid=self._grid)

    def _automatic(self, used: dict[str, Any], *, rule: str, tolerance: float, limit: int) -> Attribution:
        batch = len(self.closing)
        if rule == "adaptive":
            scale = LAYER_NORM_SCALE if used.get("closed") == "zero" else SMOOTH_SCALE
            found = integrate_adaptively(self.slopes, batch, tolerance=tolerance, limit=limit, scale=scale)
        else:
            found = self._doubled(rule, tolerance=tolerance, limit=limit)
        stated = {**used, "rule": rule, "tolerance": tolerance, "limit": limit}
        options = tuple(
            {**stated, "steps": nodes, "converged": converged}
            for nodes, converged in zip(found.nodes, found.converged, strict=True)
        )
        missed = f"the delta is over the tolerance of {tolerance:g} at the limit of {limit} nodes"
        notes = tuple(() if converged else (missed,) for converged in found.converged)
        scores = found.integral.to(accumulator(self.split.embedding.dtype))
        return Attribution(scores, found.last, found.first, options, notes, grid=self._grid)

    def _doubled(self, rule: str, *, tolerance: float, limit: int) -> Adaptive:
        """Double the nodes of a fixed rule for the inputs whose delta is over the tolerance."""
        first, last = (ends.cpu().double() for ends in self.ends())
        batch, steps = len(first), 4
        scores = torch.zeros(batch, positions_of(self.split), dtype=torch.float64)
        used, rows = [0] * batch, torch.arange(batch)
        known: dict[float, Tensor] = {}
        while len(rows) and steps <= limit:
            nodes, weights = nodes_and_weights(rule, steps)
            new = [node for node in nodes.tolist() if node not in known]
            parts, _ = self.slopes(torch.tensor(new).double().repeat_interleave(len(rows)), rows.repeat(len(new)))
            for node, part in zip(new, parts.cpu().double().view(len(new), len(rows), -1), strict=True):
                known[node] = torch.zeros_like(scores).index_copy_(0, rows, part)
            total = sum(w * known[node] for node, w in zip(nodes.tolist(), weights.tolist(), strict=True))
            scores[rows] = total[rows]
            for row in rows.tolist():
                used[row] = steps
            error = (scores.sum(-1) - (last - first)).abs()
            rows = torch.nonzero(error > tolerance * (last - first).abs()).flatten()
            steps *= 2
        left = set(rows.tolist())
        return Adaptive(scores, first, last, tuple(used), tuple(row not in left for row in range(batch)))


@dataclass(frozen=True, eq=False)
class RememberedPath(StraightPath):
    """A path that keeps the slopes of its nodes, for several fixed rules over all of its inputs."""

    known: dict[float, Tensor] = field(default_factory=dict)
    both: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def slopes(self, gates: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002 (as the base has it)
        """See `StraightPath.slopes`; every gate comes for all inputs in turn. The scores are not kept: zeros."""
        batch = len(self.closing)
        nodes = gates.view(-1, batch)[:, 0].tolist()
        new = [node for node in dict.fromkeys(nodes) if node not in self.known]
        if new:
            again = torch.tensor(new, dtype=gates.dtype).repeat_interleave(batch)
            parts, _ = super().slopes(again, torch.arange(batch).repeat(len(new)))
            self.known.update(zip(new, parts.view(len(new), batch, -1), strict=True))
        found = torch.cat([self.known[node] for node in nodes])
        return found, found.new_zeros(len(found))

    def ends(self) -> tuple[Tensor, Tensor]:
        """See `StraightPath.ends`; computed once."""
        if not self.both:
            self.both.append(super().ends())
        return self.both[0]
