"""Narrowing Information Bottleneck attribution (NIB), ICLR 2025, equations 3 to 11.

A scalar gate closes the features h of a layer on the straight path z(g) = c + g (h - c) from open (g = 1) to the
closed state c (g = 0). A position's importance is its share of the score lost on the way,

    A_i = sum over channels of (h - c) * integral over g in [0, 1] of df/dz at z(g),

which is Integrated Gradients on the hidden state with baseline c. The paper closes to zero; c may also be another
state, see `closed`. The scores of all positions sum to f(h) - f(c) up to the quadrature's error, which is reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from isthmus.encoders.memory import in_chunks, rows_at_once
from isthmus.encoders.tower import Inputs, Split, Tower, accumulator
from isthmus.errors import OptionError
from isthmus.methods.closed import closed_state
from isthmus.methods.registry import Attribution, Method, register
from isthmus.methods.slope import score_of, slope
from isthmus.quadrature import (
    LAYER_NORM_SCALE,
    SMOOTH_SCALE,
    Adaptive,
    integrate_adaptively,
    nodes_and_weights,
)

_DEFAULT = {"layer": 0, "steps": 10, "rule": "gauss-legendre-cubic", "closed": "mean"}
_PAPER = {"layer": 9, "steps": 10, "rule": "right", "closed": "zero"}


def nib(
    tower: Tower,
    inputs: Inputs,
    target: Tensor,
    *,
    layer: float | None = None,
    steps: int | str | None = None,
    rule: str | None = None,
    closed: str | Tensor | None = None,
    floor: float | None = None,
    tolerance: float | None = None,
    limit: int | None = None,
    preset: str | None = None,
    memory: int | None = None,
) -> Attribution:
    """Attribute the score `<unit(g(h)), target>` to the positions of the hidden state h that enters `layer`.

    Args:
        tower, inputs: the explained side, B inputs of T positions.
        target: `(B, D)` fixed vectors, see `isthmus.targets`.
        layer: the cut, as `Tower.resolve` reads it; default 0, where words and patches have not mixed yet.
        steps: number of nodes, default 10; "auto" adds nodes until the relative convergence delta is under
            `tolerance` or there are `limit` of them.
        rule: one of `isthmus.quadrature.RULES`; default "gauss-legendre-cubic". With `steps="auto"` the default
            is "adaptive" (a spline through nodes that are added where the sum is wrong, all kept); another doubles
            its number of nodes instead, keeping those that it has where the rule nests.
        closed: the state c. "zero" (the paper's; a LayerNorm is singular there, so the integral is hard),
            "floor" (`floor` times h), "mean" (default: the mean patch or word of the reference set, for every
            position), or a tensor that broadcasts to `(B, T, d)`.
        floor: what is left of h in the closed state "floor", default 0.1.
        tolerance, limit: see `steps`; default 0.01 and 64.
        preset: "paper" gives what the published code gives, with its quirks:
            layer 9 means the state that enters block 9; the closed state is zero; the sum is a right Riemann
            sum from 1/n to 1, which misses the steep start; the *text's* target is the mean over the batch's
            pictures, so a text map depends on the batch; image scores carry a factor 1/B; the map is
            resized bilinearly and min-max normalised, the text's over all tokens with BOS and EOS, which loses
            the sign (`published` of the result). Options given beside it still apply.
        memory: budget in bytes, see `isthmus.encoders.memory.rows_at_once`.

    Returns:
        Signed scores of all positions, the score open and closed. With `steps="auto"` the number of nodes and
        whether the tolerance was reached are among the options.

    Raises:
        OptionError: an option out of its range, or one that does not apply.
    """
    chosen = _chosen(preset, layer=layer, steps=steps, rule=rule, closed=closed)
    if chosen["steps"] == "auto" and rule is None:
        chosen["rule"] = "adaptive"
    if preset == "paper" and tower.side == "text":
        target = target.mean(0, keepdim=True).expand_as(target)
    _check_applies(chosen, floor=floor, tolerance=tolerance, limit=limit)
    split = tower.split(inputs, chosen["layer"])
    floor = 0.1 if floor is None else floor
    closing, name = closed_state(split, chosen["closed"], floor)
    slopes = _Slopes(split, closing, target, memory)
    used = {"layer": split.layer, "closed": name} | ({"floor": floor} if name == "floor" else {})
    if chosen["steps"] == "auto":
        tolerance, limit = 0.01 if tolerance is None else tolerance, 64 if limit is None else limit
        result = _automatic(slopes, used, rule=chosen["rule"], tolerance=tolerance, limit=limit)
    else:
        result = _fixed(slopes, used, rule=chosen["rule"], steps=chosen["steps"])
    if preset == "paper":
        scores = result.scores / len(target) if tower.side == "image" else result.scores
        return Attribution(
            scores, result.open, result.closed, result.options, result.passes, result.notes, published=True
        )
    return result


def _fixed(slopes: _Slopes, used: dict[str, Any], *, rule: str, steps: int) -> Attribution:
    """Equation 10 by a fixed rule: all nodes of all inputs in one batch."""
    nodes, weights = nodes_and_weights(rule, steps)
    batch = len(slopes.target)
    parts, _ = slopes(nodes.repeat_interleave(batch), torch.arange(batch).repeat(steps))
    scores = torch.einsum("n,nbt->bt", weights.to(parts), parts.view(steps, batch, -1))
    options = tuple({**used, "steps": steps, "rule": rule} for _ in range(batch))
    return Attribution(
        scores,
        slopes.score(slopes.hidden),
        slopes.score(slopes.closing),
        options,
        slopes.passes(2),
        ((),) * batch,
    )


def _automatic(slopes: _Slopes, used: dict[str, Any], *, rule: str, tolerance: float, limit: int) -> Attribution:
    if not isinstance(tolerance, Real) or not 0 < tolerance < 1:
        raise OptionError(f"tolerance must lie between 0 and 1, not {tolerance!r}.")
    if isinstance(limit, bool) or not isinstance(limit, Integral) or limit < 9:
        raise OptionError(f"limit must be a whole number of at least 9 nodes, not {limit!r}.")
    if rule == "adaptive":
        scale = LAYER_NORM_SCALE if used["closed"] == "zero" else SMOOTH_SCALE
        found = integrate_adaptively(slopes, len(slopes.target), tolerance=tolerance, limit=limit, scale=scale)
        extra = 0
    else:
        found = _doubled(slopes, rule, tolerance=tolerance, limit=limit)
        extra = 2
    options, notes = [], []
    for nodes, converged in zip(found.nodes, found.converged, strict=True):
        options.append(
            {
                **used,
                "steps": nodes,
                "rule": rule,
                "tolerance": tolerance,
                "limit": limit,
                "converged": converged,
            }
        )
        missed = f"the delta is over the tolerance of {tolerance:g} at the limit of {limit} nodes"
        notes.append(() if converged else (missed,))
    scores = found.integral.to(slopes.hidden.dtype)
    return Attribution(scores, found.last, found.first, tuple(options), slopes.passes(extra), tuple(notes))


def _doubled(slopes: _Slopes, rule: str, *, tolerance: float, limit: int) -> Adaptive:
    """Double the nodes of a fixed rule for the inputs whose delta is over the tolerance."""
    first, last = (slopes.score(state).cpu().double() for state in (slopes.closing, slopes.hidden))
    batch, steps = len(first), 4
    scores = torch.zeros(slopes.hidden.shape[:2], dtype=torch.float64)
    used, rows = [0] * batch, torch.arange(batch)
    known: dict[float, Tensor] = {}
    while len(rows) and steps <= limit:
        nodes, weights = nodes_and_weights(rule, steps)
        new = [node for node in nodes.tolist() if node not in known]
        parts, _ = slopes(torch.tensor(new).double().repeat_interleave(len(rows)), rows.repeat(len(new)))
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


class _Slopes:
    """df/dg on the path, split by position: at gates `(N,)` of inputs `(N,)`, slopes `(N, T)` and scores `(N,)`."""

    def __init__(self, split: Split, closing: Tensor, target: Tensor, memory: int | None) -> None:
        self.split, self.target = split, target.to(split.hidden.device)
        self.hidden = split.hidden.to(accumulator(split.hidden.dtype))
        self.closing = closing
        self._chunk = rows_at_once(split, memory)
        self._evaluations = 0

    def __call__(self, gates: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        device, dtype = self.hidden.device, self.hidden.dtype
        gates, rows = gates.to(device, dtype), rows.to(device)
        slopes = torch.empty(len(rows), self.hidden.shape[1], device=device, dtype=dtype)
        scores = torch.empty(len(rows), device=device, dtype=dtype)

        def run(part: slice) -> None:
            change = (self.hidden - self.closing)[rows[part]]
            state = self.closing[rows[part]] + gates[part, None, None] * change
            state = state.to(self.split.hidden.dtype)
            (gradient,), scores[part] = slope(self.split, state, rows[part], self.target)
            slopes[part] = (change * gradient).sum(-1)

        in_chunks(run, len(rows), self._chunk)
        self._evaluations += len(rows)
        return slopes, scores

    def score(self, state: Tensor) -> Tensor:
        """`(B,)` scores of one state for each input, without gradient."""
        rows = torch.arange(len(self.target), device=self.hidden.device)
        scores = torch.empty(len(rows), device=self.hidden.device, dtype=self.hidden.dtype)

        def run(part: slice) -> None:
            scores[part] = score_of(self.split, state[part].to(self.split.hidden.dtype), rows[part], self.target)

        with torch.no_grad():
            in_chunks(run, len(rows), self._chunk)
        return scores

    def passes(self, extra: int) -> dict[str, int]:
        """Passes so far: one for the split, `extra` forward for each input, and both ways for each evaluation."""
        return {
            "forward": (1 + extra) * len(self.target) + self._evaluations,
            "backward": self._evaluations,
        }


def _check_applies(chosen: Mapping[str, Any], *, floor: Any, tolerance: Any, limit: Any) -> None:
    """Refuse what would be ignored."""
    if floor is not None and not (isinstance(chosen["closed"], str) and chosen["closed"] == "floor"):
        raise OptionError('floor applies to closed="floor" alone.')
    for name, value in (("tolerance", tolerance), ("limit", limit)):
        if value is not None and chosen["steps"] != "auto":
            raise OptionError(f'{name} applies to steps="auto" alone.')


def _chosen(preset: str | None, **given: Any) -> dict[str, Any]:
    if preset not in (None, "paper"):
        raise OptionError(f'There is no preset {preset!r} of nib: choose "paper", or leave it out.')
    base = _PAPER if preset == "paper" else _DEFAULT
    return {name: base[name] if value is None else value for name, value in given.items()}


register(
    Method(
        name="nib",
        title="Narrowing Information Bottleneck",
        paper="Zhu et al., Narrowing Information Bottleneck Theory, ICLR 2025 (arXiv:2502.14889)",
        function=nib,
        options={
            "layer": "the block whose input is gated: 0..depth, negative from the end, or a fraction of the depth",
            "steps": 'nodes of the integral, or "auto" to add them until the delta is under the tolerance',
            "rule": "gauss-legendre, gauss-legendre-cubic, gauss-legendre-sinh or right",
            "closed": "the closed state: zero, floor, mean, or a tensor",
            "floor": 'what the closed state "floor" leaves of the features',
            "tolerance": 'largest relative delta with steps="auto"',
            "limit": 'most nodes with steps="auto"',
            "memory": "memory budget in bytes",
        },
        presets={"paper": "the published code, its quirks included"},
    )
)
