"""Sanity checks: weights drawn anew and given back, captions swapped, batches, repeats, agreement."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

import isthmus
from conftest import picture
from isthmus.encoders.weights import version_of
from isthmus.errors import InputError, OptionError
from isthmus.methods import METHODS
from isthmus.methods.registry import Attribution, Method
from isthmus.metrics import toys
from isthmus.metrics.randomised import drawn_anew
from isthmus.metrics.sanity import (
    agreement,
    batch_invariance,
    caption_swap,
    repeat_stability,
    weight_randomisation,
)

IMAGES = list(toys.pictures(3))
TEXTS = list(toys.CAPTIONS)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def toy() -> Any:
    return toys.toy()


@pytest.fixture
def method(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Registers a method that gives each position a number, `score(tower, inputs, target)` of `(B, T)`."""

    def make(score: Callable[..., torch.Tensor]) -> str:
        def function(tower: Any, inputs: Any, target: Any) -> Attribution:
            opened = (normalize(tower.embed(inputs), dim=-1) * target).sum(-1)
            return Attribution(score(tower, inputs, target), opened, None, ({},) * len(opened))

        monkeypatch.setitem(METHODS, "made-up", Method(name="made-up", title="", paper="", function=function))
        return "made-up"

    return make


def content(one: isthmus.Explanation) -> np.ndarray:
    if one.image is not None:
        return one.image.scores.ravel()
    return np.array([token.score for token in one.text.tokens])


def ranked(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman by its definition, of values that are all different."""
    x, y = (one.argsort().argsort().astype(float) for one in (a, b))
    return float(np.corrcoef(x, y)[0, 1])


def maps(model: Any, name: str, side: str) -> list[np.ndarray]:
    return [content(one) for one in isthmus.explain(model, IMAGES, TEXTS, method=name, sides=side)]


# Weights drawn anew


def test_rows_are_the_correlations_of_maps_by_hand(toy: Any) -> None:
    rows = weight_randomisation(toy, IMAGES, TEXTS, method="nib", seed=4)
    assert [(row.side, row.layer) for row in rows] == [(side, k) for side in ("image", "text") for k in (2, 1, 0)]
    for row in rows:
        before = maps(toy, "nib", row.side)
        with drawn_anew(toy.tower(row.side), range(row.layer, 3), 4):
            after = maps(toy, "nib", row.side)
        expected = [ranked(a, b) for a, b in zip(before, after, strict=True)]
        assert row.spearman == pytest.approx(expected)
        assert max(map(abs, expected)) < 0.999


def test_one_block_at_a_time_differs_from_all_behind_it(toy: Any) -> None:
    given = {"method": "nib", "sides": ("image",), "seed": 1}
    cascade = weight_randomisation(toy, IMAGES, TEXTS, **given)
    alone = weight_randomisation(toy, IMAGES, TEXTS, cascading=False, **given)
    assert cascade[0] == alone[0]  # nothing is behind the last block
    assert all(a.spearman != b.spearman for a, b in zip(cascade[1:], alone[1:], strict=True))
    with drawn_anew(toy.image, [0], 1):
        after = maps(toy, "nib", "image")
    assert alone[-1].spearman == pytest.approx(
        [ranked(a, b) for a, b in zip(maps(toy, "nib", "image"), after, strict=True)]
    )


def test_a_map_that_does_not_see_the_weights_stays(toy: Any, method: Callable[..., str]) -> None:
    """Such as an edge detector's."""

    def edges(tower: Any, inputs: Any, _: Any) -> torch.Tensor:
        return tower.split(inputs, 0).hidden.std(-1)

    for row in weight_randomisation(toy, IMAGES, TEXTS, method=method(edges)):
        assert row.spearman == pytest.approx((1.0, 1.0, 1.0))


def test_maps_without_ranks_have_no_correlation(toy: Any, method: Callable[..., str]) -> None:
    name = method(lambda tower, inputs, _: torch.ones(tower.split(inputs, 0).hidden.shape[:2], dtype=torch.float64))
    rows = weight_randomisation(toy, IMAGES, TEXTS, method=name, sides=("text",), steps=[-1])
    assert [(row.layer, row.spearman) for row in rows] == [(2, (None, None, None))]


def test_only_the_blocks_named_are_compared_from_the_last_on(toy: Any) -> None:
    found = weight_randomisation(toy, IMAGES, TEXTS, method="rollout", sides=("image",), steps=[0, -1])
    assert [row.layer for row in found] == [2, 0]
    whole = weight_randomisation(toy, IMAGES, TEXTS, method="rollout", sides=("image",))
    assert found == [whole[0], whole[2]]  # drawing a block anew does not depend on which others are compared


def test_draws_have_each_parameters_mean_and_deviation(mini: Any) -> None:
    block, before = mini.image.blocks[3], mini.image.blocks[2].mlp.fc1.weight
    own = {name: p.detach().clone() for name, p in block.named_parameters()}
    with drawn_anew(mini.image, [3], 0):
        found = {name: p.detach().clone() for name, p in block.named_parameters()}
        assert mini.image.blocks[2].mlp.fc1.weight is before
    for name in ("mlp.fc1.weight", "self_attn.q_proj.weight"):
        assert not torch.equal(own[name], found[name])
        assert float(found[name].std()) == pytest.approx(float(own[name].std()), rel=0.02)
        assert float(found[name].mean()) == pytest.approx(float(own[name].mean()), abs=0.02 * float(own[name].std()))
    assert abs(np.corrcoef(own["mlp.fc1.weight"].ravel(), found["mlp.fc1.weight"].ravel())[0, 1]) < 0.02


def _left_as_it_was(model: Any, act: Callable[[], Any]) -> None:
    """The same objects with the same values, the same version and hash, and torch's generator where it was."""
    own = dict(model.model.named_parameters())
    values = {name: p.detach().clone() for name, p in own.items()}
    version, revision, drawing = version_of(model.model), model.revision, torch.get_rng_state()
    asking = [p.requires_grad for p in own.values()]
    act()
    after = dict(model.model.named_parameters())
    assert all(after[name] is own[name] and torch.equal(after[name], values[name]) for name in own)
    assert list(after) == list(own)
    assert [p.requires_grad for p in after.values()] == asking
    assert (version_of(model.model), model.revision) == (version, revision)
    assert torch.equal(torch.get_rng_state(), drawing)


def test_nothing_is_left_behind(mini: Any) -> None:
    """Nor is the hash that the bundled model was loaded with, which results carry."""
    first = isthmus.explain(mini, picture(), "a dog", method="nib")
    for cascading in (True, False):
        _left_as_it_was(
            mini,
            lambda cascading=cascading: weight_randomisation(
                mini, [picture()], ["a dog"], sides=("text",), cascading=cascading, steps=[-1, 5]
            ),
        )
    again = isthmus.explain(mini, picture(), "a dog", method="nib")
    assert (again.image, again.text, again.provenance.revision) == (first.image, first.text, first.provenance.revision)


@pytest.mark.parametrize("failure", [RuntimeError("lost"), KeyboardInterrupt()])
def test_nothing_is_left_behind_after_an_exception(
    toy: Any, method: Callable[..., str], failure: BaseException
) -> None:
    runs: list[int] = []

    def fail(tower: Any, inputs: Any, _: Any) -> torch.Tensor:
        runs.append(1)
        if len(runs) == 3:
            raise failure
        return tower.split(inputs, 0).hidden.mean(-1)

    def act() -> None:
        with pytest.raises(type(failure)):
            weight_randomisation(toy, IMAGES, TEXTS, method=method(fail), sides=("image",))

    _left_as_it_was(toy, act)
    assert len(runs) == 3


def test_a_draw_that_fails_half_way_is_undone(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from isthmus.metrics import randomised

    like, drawn = randomised._like, []

    def fail(own: Any, generator: Any) -> Any:
        drawn.append(1)
        if len(drawn) == 5:
            raise MemoryError
        return like(own, generator)

    monkeypatch.setattr(randomised, "_like", fail)

    def act() -> None:
        with pytest.raises(MemoryError), drawn_anew(toy.image, [1], 0):
            raise AssertionError("it should not get here")

    _left_as_it_was(toy, act)


@pytest.mark.parametrize("name", ["nib", "multilayer-nib", "iba", "integrated-gradients"])
def test_what_is_kept_for_the_weights_is_made_anew_meanwhile_and_after(toy: Any, name: str) -> None:
    """Mean states and fitted noise: a fresh model with the same weights, which keeps nothing yet, gives the same."""
    options = {"steps": 4, "copies": 2} if name == "iba" else {}

    def scores(model: Any, side: str) -> np.ndarray:
        direction = isthmus.Direction(torch.eye(toys.JOINT, dtype=torch.float64)[0])
        found = isthmus.explain(model, IMAGES, TEXTS, method=name, sides=side, target=direction, **options)
        return np.concatenate([content(one) for one in found])

    for side in ("image", "text"):
        before = scores(toy, side)
        with drawn_anew(toy.tower(side), range(3), 7):
            meanwhile = scores(toy, side)
            fresh = toys.toy(seed=1)
            fresh.model.load_state_dict(toy.model.state_dict())
        np.testing.assert_allclose(meanwhile, scores(fresh, side), rtol=1e-9, atol=1e-12)
        assert not np.allclose(meanwhile, before)
        assert np.array_equal(scores(toy, side), before)


def test_seeds_and_sides_draw_apart(toy: Any) -> None:
    given = {"method": "nib", "sides": ("image",), "steps": [-1]}
    rows = [weight_randomisation(toy, IMAGES, TEXTS, seed=seed, **given) for seed in (0, 0, 1)]
    assert rows[0] == rows[1] != rows[2]
    drawn = []
    for tower in (toy.image, toy.text):
        with drawn_anew(tower, [0], 0):
            drawn.append(tower.blocks[0].mlp.fc1.weight.detach().clone())
    assert not torch.allclose(*drawn, atol=1e-2)


def test_shared_parameters_stay_shared_and_absent_ones_absent(toy: Any) -> None:
    block = toy.image.blocks[0]
    block.layer_norm2.weight = block.layer_norm1.weight
    block.mlp.fc1.bias = None
    with drawn_anew(toy.image, [0], 0):
        assert block.layer_norm2.weight is block.layer_norm1.weight
        assert block.mlp.fc1.bias is None


def test_a_trained_models_maps_change(mini: Any, dog: Path) -> None:
    (row,) = weight_randomisation(mini, [dog], ["a dog on the grass"], method="nib", sides=("image",), steps=[0])
    assert abs(row.spearman[0]) < 0.5


def test_what_cannot_be_drawn_is_refused(toy: Any) -> None:
    with pytest.raises(OptionError, match="no block 3"):
        weight_randomisation(toy, IMAGES, TEXTS, steps=[3])
    with pytest.raises(OptionError, match="at least one"):
        weight_randomisation(toy, IMAGES, TEXTS, steps=[])
    with pytest.raises(OptionError, match="no block -9: give 0 to"):
        weight_randomisation(toy, IMAGES, TEXTS, steps=[-9])
    with pytest.raises(OptionError, match="not defined for the side 'text'"):
        weight_randomisation(toy, IMAGES, TEXTS, method="gem", sides=("text",))
    for check in (weight_randomisation, caption_swap, batch_invariance, repeat_stability):
        for images, texts in ((IMAGES, TEXTS[:2]), ([], []), (IMAGES[0], TEXTS[0])):
            with pytest.raises(InputError, match="as many texts"):
                check(toy, images, texts)


# Swapped captions


def test_swaps_compare_with_the_next_pair_that_has_another_text(toy: Any) -> None:
    texts = [TEXTS[0], TEXTS[0], TEXTS[1]]
    rows = caption_swap(toy, IMAGES, texts, method="input-x-gradient")
    assert [(r.side, r.pair, r.other) for r in rows] == [
        (s, *p) for s in ("image", "text") for p in ((0, 2), (1, 2), (2, 0))
    ]
    for row in rows:
        own, other = (row.pair, row.pair), (row.pair, row.other)
        first, second = (
            content(
                isthmus.explain(
                    toy,
                    IMAGES[i if row.side == "image" else j],
                    texts[j if row.side == "image" else i],
                    method="input-x-gradient",
                    sides=row.side,
                )
            )
            for i, j in (own, other)
        )
        assert row.spearman == pytest.approx(ranked(first, second))
    assert min(row.spearman for row in rows) < 0.95


def test_maps_that_do_not_see_the_partner_stay(toy: Any) -> None:
    assert [row.spearman for row in caption_swap(toy, IMAGES, TEXTS, method="rollout")] == pytest.approx([1.0] * 6)


def test_opposite_targets_give_opposite_maps(toy: Any, method: Callable[..., str]) -> None:
    """Scores `p * first entry of the target` for position p: the correlation is the sign of the two entries."""

    def signed(tower: Any, inputs: Any, target: Any) -> torch.Tensor:
        return torch.arange(tower.split(inputs, 0).hidden.shape[1]) * target[:, :1]

    embedded = normalize(toy.text.embed(toys.base("text").read()[0]), dim=-1)[:, 0].sign().tolist()
    rows = caption_swap(toy, IMAGES, TEXTS, method=method(signed), sides=("image",))
    assert [row.spearman for row in rows] == pytest.approx(
        [embedded[i] * embedded[(i + 1) % 3] for i in range(3)], abs=1e-9
    )


def test_captions_that_are_all_one_cannot_be_swapped(toy: Any) -> None:
    with pytest.raises(InputError, match="at least two that differ"):
        caption_swap(toy, IMAGES, [TEXTS[0]] * 3)


# Batches and repeats


def test_batches_change_nothing_but_where_the_published_code_does(toy: Any) -> None:
    """The paper's text maps are taken with the mean of the batch's pictures."""
    sound = batch_invariance(toy, IMAGES, TEXTS, method="nib")
    assert set(sound) == {"image", "text"}
    assert max(*sound["image"], *sound["text"]) < 1e-9
    paper = batch_invariance(toy, IMAGES, TEXTS, method="nib", options={"preset": "paper", "layer": 1})
    assert min(paper["text"]) > 1e-3
    assert paper["image"] == pytest.approx([2 / 3] * 3)  # and those of images carry a factor 1 / 3


def test_the_difference_by_hand(toy: Any, method: Callable[..., str]) -> None:
    """A score of 8 for each position, less 2 for each further input in the batch."""

    def crowded(tower: Any, inputs: Any, _: Any) -> torch.Tensor:
        count, length = tower.split(inputs, 0).hidden.shape[:2]
        return torch.full((count, length), 8.0 - 2.0 * (count - 1), dtype=torch.float64)

    found = batch_invariance(toy, IMAGES, TEXTS, method=method(crowded))
    assert found == {"image": (0.5,) * 3, "text": (0.5,) * 3}


def test_repeats_are_the_same_bits_but_for_what_draws_without_a_seed(toy: Any, method: Callable[..., str]) -> None:
    for name, options in (("nib", {}), ("rise", {"samples": 20}), ("m2ib", {"steps": 2, "copies": 2})):
        found = repeat_stability(toy, IMAGES, TEXTS, method=name, options=options)
        assert found == {"image": (0.0,) * 3, "text": (0.0,) * 3}, name
    generator = torch.Generator().manual_seed(0)
    name = method(lambda t, x, _: torch.rand(t.split(x, 0).hidden.shape[:2], generator=generator))
    found = repeat_stability(toy, IMAGES, TEXTS, method=name, sides=("image",))
    assert set(found) == {"image"}
    assert min(found["image"]) > 0.1


# Agreement


def test_agreement_by_hand(toy: Any) -> None:
    names = ("input-x-gradient", "fast-ig", "rollout", "gem")
    found = {name: isthmus.explain(toy, IMAGES, TEXTS, method=name) for name in names}
    matrices = agreement(found)
    assert matrices.methods == names
    assert matrices.image.shape == matrices.text.shape == (4, 4)
    np.testing.assert_allclose(np.diag(matrices.image), 1)
    np.testing.assert_allclose(matrices.image, matrices.image.T)
    assert matrices.image[0, 1] == pytest.approx(1)  # here the two are the same method
    pairs = zip(found[names[0]], found[names[2]], strict=True)
    expected = np.mean([ranked(content(a), content(b)) for a, b in pairs])
    assert matrices.image[0, 2] == pytest.approx(expected)
    assert np.isnan(matrices.text[3]).all()  # gem has no text side
    assert not np.isnan(matrices.text[:3, :3]).any()


def test_a_side_that_nobody_explains_has_no_matrix(toy: Any) -> None:
    found = agreement({"gem": isthmus.explain(toy, IMAGES, TEXTS, method="gem")})
    assert found.text is None
    assert found.image.tolist() == [[pytest.approx(1)]]


def test_methods_must_explain_the_same_pairs(toy: Any) -> None:
    explained = isthmus.explain(toy, IMAGES, TEXTS, method="rollout")
    for given in ({}, {"a": []}, {"a": explained, "b": explained[:2]}):
        with pytest.raises(InputError, match="the same pairs"):
            agreement(given)
