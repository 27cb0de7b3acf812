"""Nodes and weights on [0, 1]: fixed rules, and one that puts its nodes where the integrand changes.

The gate's integrand is steep near its closed end wherever a LayerNorm follows (METHODS of the docs, "closed
state"), so beside the plain rule there are two changes of variable that put more nodes there.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from isthmus.errors import OptionError

# Below sqrt(eps) / std of the features a LayerNorm's output changes at once: 1e-3 to 1e-4 in trained encoders.
LAYER_NORM_SCALE = 1e-4
SMOOTH_SCALE = 0.1

_PANELS = 4


def _plain(u: Tensor) -> tuple[Tensor, Tensor]:
    return u, torch.ones_like(u)


def _cubic(u: Tensor) -> tuple[Tensor, Tensor]:
    return u**3, 3 * u**2


def sinh_variable(scale: float) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """The change `x = scale sinh(a u)` of [0, 1]: even below `scale`, even in the logarithm above it."""
    a = math.asinh(1 / scale)
    return lambda u: (scale * torch.sinh(a * u), scale * a * torch.cosh(a * u))


_VARIABLES = {
    "gauss-legendre": _plain,
    "gauss-legendre-cubic": _cubic,
    "gauss-legendre-sinh": sinh_variable(LAYER_NORM_SCALE),
}
RULES = (*_VARIABLES, "right")


def nodes_and_weights(rule: str, steps: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of a fixed rule on [0, 1], each `(steps,)` in float64.

    `gauss-legendre` is exact for polynomials up to degree `2 steps - 1`; `-cubic` is the same in u with
    x = u^3; `-sinh` the same in u with x = s sinh(u asinh(1/s)), s = 1e-4; `right` is the right Riemann sum
    from 1/steps to 1.

    Raises:
        OptionError: no such rule, or fewer than one step.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= 10_000:
        raise OptionError(f'steps must be a whole number from 1 to 10000, or "auto", not {steps!r}.')
    if rule == "right":
        return torch.arange(1, steps + 1, dtype=torch.float64) / steps, torch.full((steps,), 1 / steps).double()
    if rule not in _VARIABLES:
        raise OptionError(f"There is no rule {rule!r}: choose one of {', '.join(RULES)}.")
    x, w = map(torch.from_numpy, np.polynomial.legendre.leggauss(steps))
    nodes, slope = _VARIABLES[rule]((x + 1) / 2)
    return nodes, slope * w / 2


Evaluate = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass
class _Pair:
    """Nodes of one integral: their place `u`, value `f`, and the index of their row in the bank of slopes."""

    places: dict[float, int] = field(default_factory=dict)
    panels: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Adaptive:
    """Result of `integrate_adaptively`; one entry, or row, per integral.

    Attributes:
        integral: `(B, T)` the integral of each component.
        first, last: `(B,)` the scalar at 0 and at 1.
        nodes: `(B,)` nodes used.
        converged: `(B,)` whether the tolerance was reached.
    """

    integral: Tensor
    first: Tensor
    last: Tensor
    nodes: tuple[int, ...]
    converged: tuple[bool, ...]


def integrate_adaptively(evaluate: Evaluate, batch: int, *, tolerance: float, limit: int, scale: float) -> Adaptive:
    """Integrate the slope of a scalar over [0, 1], component by component, by adaptive Simpson panels.

    The scalar itself is known at every node, so the exact change over a panel is known too and tells where the
    sum is wrong: the worst panels are halved, keeping all nodes, until the sum over components and panels
    misses the scalar's change by less than `tolerance` of it.

    Args:
        evaluate: takes nodes `(N,)` and which integral each belongs to `(N,)`; gives the slope's components
            `(N, T)` and the scalar `(N,)`.
        batch: number of integrals.
        tolerance: largest relative error of the sum over all components.
        limit: most nodes of one integral.
        scale: of `sinh_variable`, in which the panels are even.
    """
    variable = sinh_variable(scale)
    pairs = [_Pair() for _ in range(batch)]
    slopes: list[Tensor] = []  # (N, T) of every round; a node's row counts through all of them
    totals: list[float] = []
    scalars: list[float] = []

    def add(wanted: Sequence[tuple[int, float]]) -> None:
        u = torch.tensor([place for _, place in wanted], dtype=torch.float64)
        x, dx = variable(u)
        x = torch.where(u == 1, torch.ones_like(x), x)
        slope, scalar = evaluate(x, torch.tensor([row for row, _ in wanted]))
        slope = slope * dx.to(slope)[:, None]
        for i, (row, place) in enumerate(wanted):
            pairs[row].places[place] = len(totals) + i
        slopes.append(slope)
        totals.extend(slope.double().sum(-1).tolist())
        scalars.extend(scalar.double().tolist())

    edges = [i / _PANELS for i in range(_PANELS + 1)]
    start = sorted({*edges, *((a + b) / 2 for a, b in itertools.pairwise(edges))})
    add([(row, place) for place in start for row in range(batch)])
    for pair in pairs:
        pair.panels = list(itertools.pairwise(edges))
    while wanted := [
        (row, place) for row, pair in enumerate(pairs) for place in _refined(pair, totals, scalars, tolerance, limit)
    ]:
        add(wanted)
    return _gathered(pairs, torch.cat(slopes), totals, scalars, tolerance)


def _error(pair: _Pair, panel: tuple[float, float], totals: list[float], scalars: list[float]) -> float:
    """Simpson's sum over a panel, less the scalar's exact change."""
    a, b = panel
    i, j, k = (pair.places[p] for p in (a, (a + b) / 2, b))
    return (b - a) / 6 * (totals[i] + 4 * totals[j] + totals[k]) - (scalars[k] - scalars[i])


def _reached(pair: _Pair, totals: list[float], scalars: list[float], tolerance: float) -> bool:
    change = scalars[pair.places[1.0]] - scalars[pair.places[0.0]]
    return abs(sum(_error(pair, p, totals, scalars) for p in pair.panels)) <= tolerance * abs(change)


def _refined(pair: _Pair, totals: list[float], scalars: list[float], tolerance: float, limit: int) -> list[float]:
    """Halve the fewest panels that hold half of the error; return the places of the new nodes."""
    room = (limit - len(pair.places)) // 2
    if room < 1 or _reached(pair, totals, scalars, tolerance):
        return []
    errors = {panel: abs(_error(pair, panel, totals, scalars)) for panel in pair.panels}
    worst, held = [], 0.0
    for panel in sorted(errors, key=lambda p: -errors[p])[:room]:
        worst.append(panel)
        held += errors[panel]
        if held >= sum(errors.values()) / 2:
            break
    places = []
    for a, b in worst:
        middle = (a + b) / 2
        pair.panels.remove((a, b))
        pair.panels += [(a, middle), (middle, b)]
        places += [(a + middle) / 2, (middle + b) / 2]
    return places


def _gathered(
    pairs: Sequence[_Pair], slopes: Tensor, totals: list[float], scalars: list[float], tolerance: float
) -> Adaptive:
    weights = torch.zeros(len(pairs), len(slopes), dtype=torch.float64)
    for row, pair in enumerate(pairs):
        for a, b in pair.panels:
            for place, weight in ((a, 1), ((a + b) / 2, 4), (b, 1)):
                weights[row, pair.places[place]] += weight * (b - a) / 6
    end = [torch.tensor([scalars[pair.places[p]] for pair in pairs], dtype=torch.float64) for p in (0.0, 1.0)]
    return Adaptive(
        integral=(weights.to(slopes.device) @ slopes.double()).to(slopes.dtype),
        first=end[0],
        last=end[1],
        nodes=tuple(len(pair.places) for pair in pairs),
        converged=tuple(_reached(pair, totals, scalars, tolerance) for pair in pairs),
    )
