"""The greedy oracle, and the order that it, methods and chance stand in on a linear toy whose truth is known."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from linear_toy import TERMS, TEXTS, given, linear_pairs, picture, truths

import isthmus
from conftest import EXAMPLES
from isthmus.errors import OptionError
from isthmus.metrics.oracle import oracle
from isthmus.metrics.pairs import Judged, Pairs, judged, pairs_of
from isthmus.metrics.ranking import deletion, insertion, insertion_deletion
from isthmus.metrics.trivial import trivial

SIDES = ("image", "text")
ZERO: dict[str, Any] = {"replacement": "zero"}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def toy() -> Pairs:
    return linear_pairs()


def numbers(values: torch.Tensor) -> Any:
    return pytest.approx(values.tolist(), abs=1e-5)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("row", [0, 1, 2])
def test_the_oracle_finds_the_best_of_all_orders(side: Any, row: int) -> None:
    orders = list(itertools.permutations(range(len(truths(side, row)))))
    every = given(linear_pairs((row,) * len(orders)), side, *orders)
    pairs = linear_pairs((row,))
    best = oracle(pairs, side, insert=True, groups=None, **ZERO)
    assert numbers(insertion(best, side, **ZERO)) == [float(insertion(every, side, **ZERO).max())]
    worst = oracle(pairs, side, insert=False, groups=None, **ZERO)
    assert numbers(deletion(worst, side, **ZERO)) == [float(deletion(every, side, **ZERO).min())]


def test_the_oracle_in_groups_and_by_the_margin(toy: Pairs) -> None:
    halves = oracle(toy, "image", insert=True, groups=2, **ZERO)
    assert halves.scores("image").tolist() == [[0, 0, -1, -1], [-1, 0, -1, 0], [0, -1, 0, -1]]
    at_once = oracle(toy, "image", insert=True, groups=1, **ZERO)
    assert float(at_once.scores("image").abs().max()) == 0
    # The margin of pair 1 is negative where its cosine is positive: the best order is the worst one.
    turned = oracle(toy, "image", insert=True, groups=None, score="margin", **ZERO)
    assert turned.scores("image")[:2].tolist() == [[0, -1, -3, -2], [-1, -3, 0, -2]]
    assert [len(one.scores) for one in oracle(toy, "text", insert=True, **ZERO).of("text")] == [3, 2, 4]
    with pytest.raises(OptionError, match="groups must be at least 1"):
        oracle(toy, "image", insert=True, groups=0)
    with pytest.raises(OptionError, match="no score 'x'"):
        oracle(toy, "image", insert=True, score="x")


def test_the_oracle_of_the_bundled_model_beats_every_order_that_it_could_have_taken(mini: Any) -> None:
    pairs = pairs_of(mini, [EXAMPLES / "bear.jpg"], ["a bear"])
    for insert, area, sign in ((True, insertion, 1), (False, deletion, -1)):
        best = area(oracle(pairs, "text", insert=insert, groups=None), "text")
        # "a bear" has two tokens, of which greedy tries both orders.
        both = [area(given(pairs, "text", order), "text") for order in ([1, 0], [0, 1])]
        assert float(best) == pytest.approx(sign * max(sign * float(one) for one in both), abs=1e-4)
        assert float(both[0]) != pytest.approx(float(both[1]), abs=0.1)


@pytest.fixture(scope="module")
def methods(toy: Pairs) -> dict[str, Judged]:
    """Methods' maps of the toy: those that know its zero are exact, the others compare with a mean or with nothing."""
    pictures = [picture(one) for one in TERMS]
    options: dict[str, dict[str, Any]] = {
        "nib": {"closed": "zero"},
        "integrated-gradients": {},
        "occlusion": {},
        "shapley": {},
        "gradcam": {},
        "rise": {"samples": 40},
    }
    found = {
        name: judged(isthmus.explain(toy.model, pictures, list(TEXTS), method=name, **more), toy.model, pictures)
        for name, more in options.items()
    }
    return {**found, "by hand": _imperfect(toy)}


def _imperfect(toy: Pairs) -> Judged:
    """The true maps with a neighbour's share mixed in."""
    maps = {}
    for side in ("image", "text"):
        true = [np.array(truths(side, row)) for row in range(3)]
        maps.update(given(toy, side, *(one + 0.8 * np.roll(one, 1) for one in true)).maps)
    return Judged(toy, maps, "by hand")


@pytest.mark.parametrize("side", SIDES)
def test_oracle_over_any_method_over_random(toy: Pairs, methods: dict[str, Judged], side: Any) -> None:
    ceiling = insertion(oracle(toy, side, insert=True, groups=None, **ZERO), side, **ZERO) - deletion(
        oracle(toy, side, insert=False, groups=None, **ZERO), side, **ZERO
    )
    found = {name: insertion_deletion(one, side, **ZERO) for name, one in methods.items()}
    for name, values in found.items():
        assert bool((values <= ceiling + 1e-5).all()), name
        assert float(values.mean()) > 1, name  # 0 is the mean of random orders, see above
    assert numbers(found["nib"]) == ceiling.tolist()  # its map is the truth
    assert float(found["by hand"].mean()) < float(ceiling.mean()) - 1
    if side == "image":
        assert max(float(found[name].mean()) for name in ("gradcam", "rise", "shapley")) < float(ceiling.mean()) - 1
    draws = torch.stack([insertion_deletion(trivial(linear_pairs(seed=i), "random"), side, **ZERO) for i in range(60)])
    assert abs(float(draws.mean())) < 0.25 * float(ceiling.mean())
    assert float(draws.mean()) < min(float(values.mean()) for values in found.values())
