"""Shapley and Banzhaf values against enumeration by their textbook formulas, and captum."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import ShapleyValues
from torch.nn.functional import normalize

from conftest import picture
from isthmus.encoders.pictures import open_picture
from isthmus.masking import masking
from isthmus.methods import METHODS


@pytest.fixture(scope="module")
def model(make_tiny: Callable[..., Any]) -> Any:
    return make_tiny(dtype=torch.float64, load_size=(24, 16))  # 6 patches


def parts(model: Any, side: str) -> tuple[Any, Any, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    target = normalize(torch.randn(2, 16, generator=generator, dtype=torch.float64), dim=-1)
    if side == "text":
        inputs, layouts, _ = model.processing.texts(["a dog runs home", "a cat"], truncate=False)
        return inputs, layouts, target
    inputs, _, layouts = model.processing.pictures([open_picture(picture(i, (32, 48))) for i in range(2)])
    inputs["pixel_values"] = inputs["pixel_values"].double()
    return inputs, layouts, target


def worths(model: Any, side: str, row: int) -> tuple[int, Callable[[frozenset[int]], float]]:
    inputs, layouts, target = parts(model, side)
    engine, positions = masking(model.tower(side), inputs, layouts), layouts[row].content
    known: dict[frozenset[int], float] = {}

    def worth(coalition: frozenset[int]) -> float:
        if coalition not in known:
            keep = torch.zeros(1, engine.positions, dtype=torch.float64)
            keep[0, [positions[i] for i in coalition]] = 1
            known[coalition] = float(engine.scores(keep, torch.tensor([row]), target))
        return known[coalition]

    return len(positions), worth


def subsets(players: list[int]) -> Any:
    return (frozenset(s) for r in range(len(players) + 1) for s in itertools.combinations(players, r))


@pytest.mark.parametrize(("side", "players"), [("image", 6), ("text", 4)])
def test_exact_values_are_those_of_the_textbook(model: Any, side: str, players: int) -> None:
    inputs, layouts, target = parts(model, side)
    n, worth = worths(model, side, 0)
    assert n == players
    shapley, banzhaf, weighted = np.zeros(n), np.zeros(n), np.zeros(n)
    for i in range(n):
        for s in subsets([j for j in range(n) if j != i]):
            added = worth(s | {i}) - worth(s)
            shapley[i] += math.factorial(len(s)) * math.factorial(n - len(s) - 1) / math.factorial(n) * added
            banzhaf[i] += added / 2 ** (n - 1)
            weighted[i] += 0.3 ** len(s) * 0.7 ** (n - 1 - len(s)) * added
    content = list(layouts[0].content)
    for name, options, expected in (
        ("shapley", {}, shapley),
        ("banzhaf", {}, banzhaf),
        ("banzhaf", {"keep": 0.3}, weighted),
    ):
        found = METHODS[name].function(model.tower(side), inputs, target, layouts=layouts, samples=64, **options)
        assert found.options[0]["exact"]
        np.testing.assert_allclose(found.scores[0, content], expected, atol=1e-9)
        assert float(found.closed[0]) == pytest.approx(worth(frozenset()), abs=1e-9)


def test_shapley_values_of_words_are_captums(model: Any) -> None:
    inputs, layouts, target = parts(model, "text")
    n, worth = worths(model, "text", 0)

    def score(coalition: torch.Tensor) -> torch.Tensor:
        return torch.tensor([worth(frozenset(torch.nonzero(row)[:, 0].tolist())) for row in coalition])

    expected = ShapleyValues(score).attribute(torch.ones(1, n))
    found = METHODS["shapley"].function(model.text, inputs, target, layouts=layouts)
    np.testing.assert_allclose(found.scores[0, list(layouts[0].content)], expected[0], atol=1e-6)


def test_drawn_orders_sum_exactly_and_converge(model: Any) -> None:
    inputs, layouts, target = parts(model, "image")
    content = list(layouts[0].content)
    exact = METHODS["shapley"].function(model.image, inputs, target, layouts=layouts, samples=64)
    errors = []
    for samples in (22, 63):
        off = []
        for seed in range(12):
            found = METHODS["shapley"].function(
                model.image, inputs, target, layouts=layouts, samples=samples, seed=seed
            )
            assert not found.options[0]["exact"]
            assert found.options[0]["samples"] <= samples
            np.testing.assert_allclose(found.scores.sum(1), found.open - found.closed, atol=1e-9)
            off.append((found.scores - exact.scores)[0, content])
        errors.append(float(torch.stack(off).std()))
        mean, noise = torch.stack(off).mean(0).abs().max(), torch.stack(off).std(0).max() / 12**0.5
        assert mean < 4 * noise, "drawn orders are unbiased"
    assert errors[1] < 0.8 * errors[0]


def test_drawn_orders_equal_a_loop_over_them(model: Any) -> None:
    inputs, layouts, target = parts(model, "image")
    n, worth = worths(model, "image", 0)
    found = METHODS["shapley"].function(model.image, inputs, target, layouts=layouts, samples=22, seed=4)
    generator, expected = torch.Generator().manual_seed(4), np.zeros(n)
    for _ in range(2):
        rank = torch.randperm(n, generator=generator).tolist()
        for order in (sorted(range(n), key=lambda i: rank[i]), sorted(range(n), key=lambda i: -rank[i])):
            inside: frozenset[int] = frozenset()
            for player in order:
                expected[player] += (worth(inside | {player}) - worth(inside)) / 4
                inside |= {player}
    np.testing.assert_allclose(found.scores[0, list(layouts[0].content)], expected, atol=1e-9)


def test_drawn_banzhaf_values_converge_and_state_their_error(model: Any) -> None:
    inputs, layouts, target = parts(model, "image")
    content = list(layouts[0].content)
    exact = METHODS["banzhaf"].function(model.image, inputs, target, layouts=layouts, samples=64, keep=0.4)
    off, stated = [], []
    for seed in range(16):
        found = METHODS["banzhaf"].function(
            model.image, inputs, target, layouts=layouts, samples=60, seed=seed, keep=0.4
        )
        off.append((found.scores - exact.scores)[0, content])
        stated.append(found.options[0]["standard_error"])
    spread = float(torch.stack(off).std(0).median())
    assert torch.stack(off).mean(0).abs().max() < 4 * spread / 16**0.5
    assert 0.5 < spread / np.mean(stated) < 1.8


def test_a_single_player_takes_all(model: Any) -> None:
    inputs, layouts, _ = model.processing.texts(["dog"], truncate=False)
    target = normalize(torch.ones(1, 16, dtype=torch.float64), dim=-1)
    for name in ("shapley", "banzhaf"):
        found = METHODS[name].function(model.text, inputs, target, layouts=layouts)
        (player,) = layouts[0].content
        assert float(found.scores[0, player]) == pytest.approx(float(found.open[0] - found.closed[0]), abs=1e-9)
