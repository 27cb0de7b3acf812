"""Rules against integrals that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from isthmus.errors import OptionError
from isthmus.quadrature import RULES, integrate_adaptively, nodes_and_weights, spline_weights


@pytest.mark.parametrize("rule", RULES)
def test_rules_integrate_an_exponential(rule: str) -> None:
    nodes, weights = nodes_and_weights(rule, 48)
    tolerance = 0.02 if rule == "right" else 1e-6
    assert float((weights * nodes.exp()).sum()) == pytest.approx(math.e - 1, rel=tolerance)
    assert nodes.min() > 0
    assert nodes.max() <= 1


@pytest.mark.parametrize("steps", [1, 2, 5, 12])
def test_gauss_legendre_is_exact_to_its_degree(steps: int) -> None:
    nodes, weights = nodes_and_weights("gauss-legendre", steps)
    degree = 2 * steps - 1
    assert float((weights * nodes**degree).sum()) == pytest.approx(1 / (degree + 1), rel=1e-12)


def test_right_rule_is_the_published_one() -> None:
    nodes, weights = nodes_and_weights("right", 10)
    torch.testing.assert_close(nodes, torch.arange(1, 11).double() / 10)
    torch.testing.assert_close(weights, torch.full((10,), 0.1).double())


@pytest.mark.parametrize(("rule", "steps"), [("simpson", 5), ("right", 0), ("right", True), ("right", 2.5)])
def test_nonsense_is_refused(rule: str, steps: object) -> None:
    with pytest.raises(OptionError, match=r"choose one of|whole number"):
        nodes_and_weights(rule, steps)  # type: ignore[arg-type]


def test_change_of_variable_resolves_a_boundary_layer() -> None:
    """The gate through a LayerNorm: g / sqrt(g^2 + eps), whose slope is eps / (g^2 + eps)^1.5."""

    def error(rule: str) -> float:
        nodes, weights = nodes_and_weights(rule, 24)
        slope = 1e-6 / (nodes**2 + 1e-6) ** 1.5
        return abs(float((weights * slope).sum()) - 1 / math.sqrt(1 + 1e-6))

    assert error("gauss-legendre") > 0.5
    assert error("gauss-legendre-sinh") < 1e-3


class _Steps:
    """Slopes of tanh(k x) split over three components, for several steepnesses k."""

    def __init__(self, steepness: list[float], shift: float = 0.0) -> None:
        self.steepness, self.shift, self.calls = torch.tensor(steepness).double(), shift, 0
        self.seen: list[tuple[int, float]] = []
        self.share = torch.tensor([0.5, 0.7, -0.2]).double()

    def __call__(self, x: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.calls += 1
        self.seen += list(zip(rows.tolist(), x.tolist(), strict=True))
        k = self.steepness[rows]
        y = torch.tanh(k * (x - self.shift))
        return (k * (1 - y**2))[:, None] * self.share, y


def test_adaptive_integral_reaches_its_tolerance_and_keeps_its_nodes() -> None:
    steps = _Steps([1.0, 300.0, 30_000.0])
    found = integrate_adaptively(steps, 3, tolerance=1e-3, limit=200, scale=1e-4)
    exact = torch.tanh(steps.steepness)[:, None] * steps.share
    torch.testing.assert_close(found.integral, exact, rtol=2e-3, atol=0)
    assert all(found.converged)
    assert len(steps.seen) == len(set(steps.seen)) == sum(found.nodes)  # nothing is evaluated twice
    torch.testing.assert_close(found.first, torch.zeros(3).double())
    torch.testing.assert_close(found.last, torch.tanh(steps.steepness))


def test_adaptive_integral_finds_a_step_inside() -> None:
    steps = _Steps([400.0], shift=0.37)
    found = integrate_adaptively(steps, 1, tolerance=0.01, limit=100, scale=0.1)
    assert found.converged == (True,)
    assert float(found.integral.sum()) == pytest.approx(2.0, rel=0.01)


def test_a_row_that_is_not_finite_spoils_no_other() -> None:
    def evaluate(x: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        bad = torch.where(rows == 1, torch.nan, 1.0)
        return (bad * torch.ones_like(x))[:, None].repeat(1, 2) / 2, bad * x

    found = integrate_adaptively(evaluate, 2, tolerance=0.01, limit=12, scale=0.1)
    torch.testing.assert_close(found.integral[0], torch.full((2,), 0.5).double(), rtol=1e-3, atol=0)
    assert found.converged == (True, False)


def test_adaptive_integral_stops_at_its_limit_and_says_so() -> None:
    found = integrate_adaptively(_Steps([1e7], shift=0.5), 1, tolerance=1e-6, limit=15, scale=0.1)
    assert found.converged == (False,)
    assert found.nodes[0] <= 15


def test_spline_weights_are_those_of_scipy() -> None:
    interpolate = pytest.importorskip("scipy.interpolate")
    rng = np.random.default_rng(0)
    x = np.sort(np.concatenate([[0, 1], rng.uniform(size=11)]))
    y = rng.normal(size=13)
    whole = interpolate.CubicSpline(x, y).antiderivative()
    np.testing.assert_allclose(spline_weights(x) @ y, np.diff(whole(x)), rtol=1e-9, atol=1e-12)
