"""Sensitivity-n, infidelity and completeness: by hand on a linear toy, by plain loops, and by Quantus and Captum."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import quantus
import torch
from captum.metrics import infidelity as captum_infidelity
from linear_toy import TERMS, given, linear_pairs, picture, true_maps, truths

import isthmus
from conftest import EXAMPLES
from isthmus.encoders.counting import counted
from isthmus.encoders.tower import unit
from isthmus.errors import IsthmusError
from isthmus.metrics.fidelity import SHARES, SUBSETS, completeness, infidelity, removals, sensitivity_n
from isthmus.metrics.maps import Map
from isthmus.metrics.pairs import Judged, Pairs, pairs_of
from isthmus.metrics.trivial import trivial

SIDES = ("image", "text")
ZERO: dict[str, Any] = {"replacement": "zero"}
WRONG = [1.0, 2.0, -4.0, 3.0]  # of the picture of pair 0, whose truth is 0.2 0.1 -0.05 0.05
CAPTIONS = ["a dog tied to a fire hydrant", "a brown bear walks over the grass"]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def toy() -> Pairs:
    return linear_pairs()


def mini_pairs(mini: Any, rows: tuple[int, ...] = (0, 1), *, seed: int = 0) -> Pairs:
    pictures = [EXAMPLES / ("dog.jpg", "bear.jpg")[i] for i in rows]
    return pairs_of(mini, pictures, [CAPTIONS[i] for i in rows], ids=[str(i) for i in rows], seed=seed)


def numbers(values: torch.Tensor) -> Any:
    assert values.dtype == torch.float64
    return pytest.approx(values.tolist(), abs=1e-9, nan_ok=True)


# The truth, its opposite, and nothing


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("factor", [1.0, 1e-6, 1e6])
def test_the_truth_is_perfect_and_its_opposite_is_not(toy: Pairs, side: Any, factor: float) -> None:
    true, turned = (true_maps(toy, side, factor=sign * factor) for sign in (1, -1))
    assert numbers(sensitivity_n(true, side, **ZERO)) == [1, 1, 1]
    assert numbers(sensitivity_n(turned, side, **ZERO)) == [-1, -1, -1]
    assert numbers(infidelity(true, side, **ZERO)) == [0, 0, 0]
    assert numbers(infidelity(turned, side, **ZERO)) == [1, 1, 1]


@pytest.mark.parametrize("side", SIDES)
def test_unscaled_the_unit_of_the_map_counts(toy: Pairs, side: Any) -> None:
    assert numbers(infidelity(true_maps(toy, side), side, scaled=False, **ZERO)) == [0, 0, 0]
    double, turned = (true_maps(toy, side, factor=factor) for factor in (2, -1))
    costs = 1e4 * removals(toy, side, **ZERO).drops.square().mean(1)
    assert bool((costs > 0.1).all())
    assert numbers(infidelity(double, side, scaled=False, **ZERO)) == costs.tolist()
    assert numbers(infidelity(turned, side, scaled=False, **ZERO)) == (4 * costs).tolist()


@pytest.mark.parametrize("side", SIDES)
def test_a_map_of_zeros(toy: Pairs, side: Any) -> None:
    zeros = true_maps(toy, side, factor=0)
    costs = 1e4 * removals(toy, side, **ZERO).drops.square().mean(1)
    assert numbers(infidelity(zeros, side, **ZERO)) == [1, 1, 1]
    assert numbers(infidelity(zeros, side, scaled=False, **ZERO)) == costs.tolist()
    for maps in (zeros, trivial(toy, "flat")):  # within a size all subsets sum to the same
        assert bool(sensitivity_n(maps, side, **ZERO).isnan().all())


def test_a_text_of_one_token_has_no_correlation(toy: Pairs) -> None:
    pairs = pairs_of(toy.model, [picture(TERMS[0])], ["dog"])
    maps = given(pairs, "text", [-0.07])
    assert bool(sensitivity_n(maps, "text", **ZERO).isnan())
    assert numbers(infidelity(maps, "text", **ZERO)) == [0]


def test_a_map_that_is_not_finite_has_no_value(toy: Pairs) -> None:
    scores = [np.nan, 1, 1, 1], truths("image", 1), [np.inf, 1, 2, 3]
    maps = given(toy, "image", *scores)
    for values in (
        sensitivity_n(maps, "image", **ZERO),
        infidelity(maps, "image", **ZERO),
        infidelity(maps, "image", scaled=False, **ZERO),
    ):
        assert torch.isfinite(values).tolist() == [False, True, False]


# The same by plain loops, and by others


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("score", ["cosine", "margin"])
def test_both_are_what_plain_loops_give(mini: Any, side: Any, score: str) -> None:
    pairs = mini_pairs(mini)
    maps = trivial(pairs, "random")
    found = removals(pairs, side, subsets=3, score=score)
    given_scores = maps.scores(side).numpy()
    correlations, squares = [], []
    for row in range(len(pairs)):
        per_size, errors = [], []
        for size in range(len(SHARES)):
            sums, drops = [], []
            for subset in range(3 * size, 3 * size + 3):
                taken = found.taken[row, subset].numpy()
                sums.append(sum(value for value, gone in zip(given_scores[row], taken, strict=True) if gone))
                drops.append(_cost(pairs, side, row, taken, score))
            per_size.append(np.corrcoef(sums, drops)[0, 1])
            errors += [(100 * (a - b)) ** 2 for a, b in zip(sums, drops, strict=True)]
        correlations.append(np.mean(per_size))
        squares.append(np.mean(errors))
    ours = sensitivity_n(maps, side, subsets=3, score=score)
    assert ours.tolist() == pytest.approx(correlations, abs=2e-3)
    raw = infidelity(maps, side, subsets=3, score=score, scaled=False)
    assert raw.tolist() == pytest.approx(squares, rel=1e-4)


def _cost(pairs: Pairs, side: Any, row: int, taken: Any, score: str) -> float:
    """What taking positions away costs, one copy at a time, through the pairs' own masking."""
    keep = torch.ones(1, pairs.masking(side, "mean").positions)
    for position, gone in zip(pairs.players(side)[row].tolist(), taken, strict=True):
        if gone:
            keep[0, position] = 0
    part = pairs.masking(side, "mean").embeddings(keep, torch.tensor([row]))[0]
    return float((pairs.embeddings[side][row] - part) @ pairs.target(side, score)[row])


class _Cosine(torch.nn.Module):
    """The toy's cosine with a text, of pictures given as one value a patch: what others can call."""

    def __init__(self, pairs: Pairs) -> None:
        super().__init__()
        self.toy, self.embedding = pairs.model, pairs.embeddings["text"][0]
        self.eval()

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        large = values.double().repeat_interleave(2, 2).repeat_interleave(2, 3)
        return (unit(self.toy.image.run({"pixel_values": large.expand(-1, 3, -1, -1)})) @ self.embedding)[:, None]


@pytest.mark.parametrize("scores", [WRONG, truths("image", 0), [0.1, 0.2, 0.3, -0.4]])
def test_captum_gives_the_same_infidelity_of_the_same_removals(scores: list[float]) -> None:
    pairs = linear_pairs((0,))
    maps, found = given(pairs, "image", scores), removals(pairs, "image", **ZERO)
    taken = found.taken[0].double().view(-1, 1, 2, 2)

    def perturb(inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert len(inputs) == len(taken)
        return taken, inputs * (1 - taken)

    def theirs(*, normalize: bool) -> float:
        values = picture(TERMS[0]).pixel_values[None, :1, ::2, ::2]
        attributions = torch.tensor(scores, dtype=torch.float64).view(1, 1, 2, 2)
        forward = _Cosine(pairs)
        return float(
            captum_infidelity(
                lambda shown: forward(shown)[:, 0],
                perturb,
                values,
                attributions,
                n_perturb_samples=len(taken),
                max_examples_per_batch=len(taken),
                normalize=normalize,
            )
        )

    assert numbers(infidelity(maps, "image", scaled=False, **ZERO)) == [1e4 * theirs(normalize=False)]
    # Captum's best factor may be negative, which would call a map of the wrong sign perfect.
    sums = found.taken[0].double() @ torch.tensor(scores, dtype=torch.float64)
    assert float(sums @ found.drops[0]) > 0
    scaled = theirs(normalize=True) / float(found.drops.square().mean())
    assert float(infidelity(maps, "image", **ZERO)) == pytest.approx(scaled, abs=1e-6)


def test_quantus_gives_the_same_correlation_of_the_same_removals(monkeypatch: pytest.MonkeyPatch) -> None:
    # Quantus' SensitivityN takes positions in the map's order and correlates over pictures, which is another thing;
    # its FaithfulnessCorrelation is the correlation of one size.
    pairs = linear_pairs((0,))
    found = removals(pairs, "image", **ZERO)
    theirs = []
    for size, part in enumerate(found.taken[0].view(len(SHARES), SUBSETS, 4)):
        queue = [np.flatnonzero(taken) for taken in part.numpy()]
        monkeypatch.setattr(np.random, "choice", lambda *_, queue=queue, **__: queue.pop(0))
        correlation = quantus.FaithfulnessCorrelation(
            nr_runs=SUBSETS,
            subset_size=len(queue[0]),
            perturb_baseline=0.0,
            normalise=False,
            abs=False,
            return_aggregate=False,
            disable_warnings=True,
        )
        theirs += correlation(
            model=_Cosine(pairs),
            x_batch=picture(TERMS[0]).pixel_values[None, :1, ::2, ::2].numpy(),
            y_batch=np.zeros(1, dtype=int),
            a_batch=np.array(WRONG).reshape(1, 1, 2, 2),
            channel_first=True,
            softmax=False,
            device="cpu",
        )
        assert not queue, size
    ours = float(sensitivity_n(given(pairs, "image", WRONG), "image", **ZERO))
    assert ours == pytest.approx(np.mean(theirs), abs=1e-6)
    assert 0.1 < ours < 0.99


# The subsets


@pytest.mark.parametrize("side", SIDES)
def test_subsets_are_of_the_sizes_that_they_should_be(mini: Any, side: Any) -> None:
    pairs = mini_pairs(mini)
    taken, own = removals(pairs, side, subsets=3).taken, (pairs.players(side) >= 0).sum(1)
    assert taken.shape == (2, 12, int(own.max()))
    for row, count in enumerate(own.tolist()):
        expected = [max(1, round(share * count)) for share in (0.1, 0.25, 0.5, 0.75) for _ in range(3)]
        assert taken[row].sum(1).tolist() == expected
        assert not bool(taken[row, :, count:].any())
        assert len({tuple(one) for one in taken[row].tolist()}) > 6


def test_every_method_is_asked_about_the_same_subsets(mini: Any) -> None:
    pairs = mini_pairs(mini)
    first, second = trivial(pairs, "random"), trivial(pairs, "centre")
    with counted() as passes:
        sensitivity_n(first, "image", subsets=2)
    assert passes["forward"] == 2 * (1 + 2 * len(SHARES))
    with counted() as passes:
        for score in ("cosine", "margin"):
            for maps in (first, second):
                sensitivity_n(maps, "image", subsets=2, score=score)
                infidelity(maps, "image", subsets=2, score=score)
    assert passes["forward"] == 0
    assert removals(pairs, "image", subsets=2) is removals(pairs, "image", subsets=2)


@pytest.mark.parametrize("side", SIDES)
def test_subsets_follow_from_the_id_and_the_seed_alone(side: Any) -> None:
    taken = removals(linear_pairs(), side, **ZERO).taken
    own = (linear_pairs().players(side) >= 0).sum(1).tolist()
    turned = removals(linear_pairs((2, 0)), side, **ZERO).taken
    for row, other in ((0, turned[1]), (2, turned[0])):
        assert torch.equal(taken[row, :, : own[row]], other[:, : own[row]])
    assert not torch.equal(taken[2], removals(linear_pairs(seed=1), side, **ZERO).taken[2])
    assert not torch.equal(taken[0, :, :2], taken[1, :, :2])


@pytest.mark.parametrize("side", SIDES)
def test_a_batch_gives_what_each_pair_gives_alone_and_again_the_same_bits(mini: Any, side: Any) -> None:
    options: dict[str, Any] = {"subsets": 3}
    together, again = (trivial(mini_pairs(mini), "random") for _ in "ab")
    for function in (sensitivity_n, infidelity):
        values = function(together, side, **options)
        assert torch.equal(values, function(again, side, **options))
        for row in (0, 1):
            alone = function(trivial(mini_pairs(mini, (row,)), "random"), side, **options)
            assert float(alone) == pytest.approx(float(values[row]), abs=2e-3)


# Completeness


def test_completeness_by_hand(toy: Pairs) -> None:
    scores = np.zeros((2, 2))
    maps = (
        Map(scores, open=0.5, closed=0.1, total=0.38),  # 0.02 of 0.4 missing
        Map(scores, open=-0.2, closed=0.3, total=-0.6),  # 0.1 of 0.5 too much
        Map(scores, open=0.5, closed=None, total=0.38),
    )
    found = Judged(toy, {"image": maps})
    assert numbers(completeness(found, "image")) == [0.05, 0.2, np.nan]
    assert numbers(completeness(found, "image", relative=False)) == [2, 10, np.nan]
    same = Judged(toy, {"image": (Map(scores, open=0.5, closed=0.5, total=0.01), maps[0], Map(scores))})
    assert numbers(completeness(same, "image")) == [np.nan, 0.05, np.nan]
    assert numbers(completeness(same, "image", relative=False)) == [1, 2, np.nan]


def test_completeness_of_an_explanation_is_its_own_delta(mini: Any) -> None:
    pairs = [EXAMPLES / "dog.jpg", EXAMPLES / "bear.jpg"], CAPTIONS
    found = isthmus.explain(mini, *pairs, steps=3)
    maps = isthmus.metrics.judged(found, mini)
    for side in SIDES:
        own = [getattr(one, side).completeness for one in found]
        relative = completeness(maps, side)
        assert relative.tolist() == pytest.approx([abs(c.delta) / abs(c.open - c.closed) for c in own], rel=1e-6)
        assert completeness(maps, side, relative=False).tolist() == pytest.approx([100 * abs(c.delta) for c in own])
        assert bool((relative > 0).all())
    single = isthmus.metrics.judged(isthmus.explain(mini, *pairs, method="saliency"), mini)
    assert bool(completeness(single, "image").isnan().all())


def test_what_cannot_be_is_said_in_one_sentence(toy: Pairs) -> None:
    maps = true_maps(toy, "image")
    wrong: list[tuple[Callable[[], Any], str]] = [
        (lambda: sensitivity_n(maps, "image", subsets=1), "subsets must be at least 2, not 1"),
        (lambda: infidelity(maps, "image", replacement="noise"), "no replacement 'noise' for the image"),
        (lambda: infidelity(maps, "image", score="logit"), "no score 'logit'"),
        (lambda: sensitivity_n(maps, "text"), "text was not explained"),
        (lambda: completeness(maps, "text"), "text was not explained"),
    ]
    for call, words in wrong:
        with pytest.raises(IsthmusError, match=words) as caught:
            call()
        assert str(caught.value).endswith(".")
        assert ". " not in str(caught.value)
