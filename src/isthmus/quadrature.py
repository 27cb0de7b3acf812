"""Nodes and weights on [0, 1]: fixed rules, and one that puts its nodes where the integrand changes.

The gate's integrand is steep near its closed end wherever a LayerNorm follows (docs/nib.md, "The closed state"),
so beside the plain rule there are two changes of variable that put more nodes there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from isthmus.errors import OptionError

# Below sqrt(eps) / std of the features a LayerNorm's output changes at once: 1e-3 to 1e-4 in trained encoders.
LAYER_NORM_SCALE = 1e-4
SMOOTH_SCALE = 0.1

_FIRST_NODES = 9
# A larger share takes fewer rounds and more nodes.
_SHARE_HALVED = 0.3


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
    if isinstance(steps, bool) or not isinstance(steps, Integral) or not 1 <= steps <= 10_000:
        raise OptionError(f'steps must be a whole number from 1 to 10000, or "auto", not {steps!r}.')
    if rule == "right":
        return torch.arange(1, steps + 1, dtype=torch.float64) / steps, torch.full((steps,), 1 / steps).double()
    if not isinstance(rule, str) or rule not in _VARIABLES:
        raise OptionError(f"There is no rule {rule!r}: choose one of {', '.join(RULES)}.")
    x, w = map(torch.from_numpy, np.polynomial.legendre.leggauss(steps))
    nodes, slope = _VARIABLES[rule]((x + 1) / 2)
    return nodes, slope * w / 2


Evaluate = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Adaptive:
    """Result of `integrate_adaptively`, on the CPU; one entry, or row, per integral.

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
    """Integrate the slope of a scalar over [0, 1], component by component, by the spline through adaptive nodes.

    The scalar itself is known at every node, so its exact change between two nodes is known too and tells where
    the sum is wrong: those intervals are halved, keeping all nodes, until the sum over components and intervals
    misses the scalar's change by less than `tolerance` of it.

    Args:
        evaluate: takes nodes `(N,)` and which integral each belongs to `(N,)`; gives the slope's components
            `(N, T)` and the scalar `(N,)`.
        batch: number of integrals.
        tolerance: largest relative error of the sum over all components.
        limit: most nodes of one integral, at least 9.
        scale: of `sinh_variable`, in which the first nodes are even.
    """
    variable = sinh_variable(scale)
    paths = [_Path() for _ in range(batch)]
    bank: list[Tensor] = []
    wanted = [(row, place) for place in np.linspace(0, 1, _FIRST_NODES).tolist() for row in range(batch)]
    while wanted:
        u = torch.tensor([place for _, place in wanted], dtype=torch.float64)
        x, dx = variable(u)
        slopes, scalars = evaluate(torch.where(u == 1, 1.0, x), torch.tensor([row for row, _ in wanted]))
        slopes = slopes.cpu().double() * dx[:, None]  # on the CPU, since MPS has no float64
        totals, start = slopes.sum(-1).tolist(), sum(map(len, bank))
        for i, ((row, place), scalar) in enumerate(zip(wanted, scalars.tolist(), strict=True)):
            paths[row].nodes.append((place, start + i, totals[i], scalar))
        bank.append(slopes)
        wanted = [(row, place) for row, path in enumerate(paths) for place in path.refined(tolerance, limit)]
    return _gathered(paths, torch.cat(bank), tolerance)


class _Path:
    """The nodes of one integral: `(place, row in the bank of slopes, sum of the slope, scalar)` each."""

    def __init__(self) -> None:
        self.nodes: list[tuple[float, int, float, float]] = []

    def solve(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], float]:
        """Weights and error of every interval, `(n - 1, n)` and `(n - 1,)`, and the scalar's whole change."""
        self.nodes.sort()
        places, _, totals, scalars = map(np.array, zip(*self.nodes, strict=True))
        weights = spline_weights(places)
        return weights, weights @ totals - np.diff(scalars), float(scalars[-1] - scalars[0])

    def refined(self, tolerance: float, limit: int) -> list[float]:
        """The middles of the fewest intervals that hold a share of the error; none once the sum is right."""
        _, errors, change = self.solve()
        room, sizes = limit - len(self.nodes), np.abs(errors)
        if room < 1 or abs(errors.sum()) <= tolerance * abs(change):
            return []
        order = np.argsort(-sizes, kind="stable")
        count = int(np.searchsorted(np.cumsum(sizes[order]), _SHARE_HALVED * sizes.sum())) + 1
        return [(self.nodes[i][0] + self.nodes[i + 1][0]) / 2 for i in order[: min(count, room)]]


def spline_weights(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Weights `(n - 1, n)`: row i integrates the not-a-knot cubic spline through values at x over `x[i]..x[i+1]`.

    The spline's second derivatives M solve de Boor's tridiagonal system (A Practical Guide to Splines, ch. IV);
    an interval of length h holds `h (y_i + y_{i+1}) / 2 - h^3 (M_i + M_{i+1}) / 24`.
    """
    h, one = np.diff(x), np.eye(len(x))
    system, right = np.zeros_like(one), np.zeros_like(one)
    for i in range(1, len(x) - 1):
        a, b = h[i - 1], h[i]
        system[i, i - 1 : i + 2] = a, 2 * (a + b), b
        right[i, i - 1 : i + 2] = 6 / a, -6 / a - 6 / b, 6 / b
    system[0, :3] = h[1], -(h[0] + h[1]), h[0]
    system[-1, -3:] = h[-1], -(h[-2] + h[-1]), h[-2]
    bend = np.linalg.solve(system, right)
    width = h[:, None]
    return width / 2 * (one[:-1] + one[1:]) - width**3 / 24 * (bend[:-1] + bend[1:])


def _gathered(paths: Sequence[_Path], slopes: Tensor, tolerance: float) -> Adaptive:
    integral, converged = [], []
    for path in paths:
        parts, errors, change = path.solve()
        integral.append(torch.from_numpy(parts.sum(0)) @ slopes[[node[1] for node in path.nodes]])
        converged.append(bool(abs(errors.sum()) <= tolerance * abs(change)))
    first, last = (torch.tensor([path.nodes[i][3] for path in paths], dtype=torch.float64) for i in (0, -1))
    return Adaptive(
        integral=torch.stack(integral),
        first=first,
        last=last,
        nodes=tuple(len(path.nodes) for path in paths),
        converged=tuple(converged),
    )
