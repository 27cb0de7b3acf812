"""Confidence Drop and Increase: the published figures, the published quirks, and the sound protocol by hand."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from linear_toy import BASE, TERMS, TEXTS, WORDS, A, B, given, linear_pairs, linear_toy, picture, true_maps

import isthmus
from conftest import EXAMPLES
from isthmus.encoders.counting import counted
from isthmus.encoders.tower import unit
from isthmus.errors import OptionError
from isthmus.metrics.confidence import confidence_drop, confidence_increase
from isthmus.metrics.maps import Map
from isthmus.metrics.pairs import Judged, Pairs, judged, pairs_of
from isthmus.metrics.registry import METRICS
from isthmus.metrics.trivial import trivial

SIDES = ("image", "text")
SOUND: dict[str, Any] = {"protocol": "sound", "replacement": "zero"}
CAPTIONS = ["a dog and a cat and a bird", "two brown bears"]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def toy() -> Pairs:
    return linear_pairs()


@pytest.fixture(scope="module")
def pair(mini: Any) -> Pairs:
    return pairs_of(mini, [EXAMPLES / "dog.jpg", EXAMPLES / "bear.jpg"], CAPTIONS)


def numbers(values: torch.Tensor) -> Any:
    assert values.dtype == torch.float64
    return pytest.approx(values.tolist(), abs=1e-5, nan_ok=True)


# The published figures


@pytest.fixture(scope="module")
def published(mini: Any, reference: Any) -> Any:
    """The paper's maps of the 16 pairs in batches of 8, as published, and a flat map of them."""
    arrays, pairs = reference
    prepared = [isthmus.PreparedImage(p) for p in torch.from_numpy(arrays["pixel_values"].astype(np.float32))]
    texts = [one["caption"] for one in pairs]
    found: dict[str, dict[tuple[str, Any], list[float]]] = {"nib_b8": {}, "flat99": {}}
    for part in (slice(0, 8), slice(8, 16)):
        explanations = isthmus.explain(mini, prepared[part], texts[part], preset="paper", batch_size=8)
        maps = judged(explanations, mini, prepared[part])
        for name, one in (("nib_b8", maps), ("flat99", trivial(maps.pairs, "flat"))):
            for side in SIDES:
                for function in (confidence_drop, confidence_increase):
                    key = (function.__name__, side)
                    found[name].setdefault(key, []).extend(function(one, side).tolist())
    return found


@pytest.mark.parametrize("name", ["nib_b8", "flat99"])
@pytest.mark.parametrize(("side", "letter"), [("image", "v"), ("text", "t")])
def test_the_paper_protocol_gives_the_published_figures(
    published: Any, reference: Any, name: str, side: Any, letter: str
) -> None:
    arrays, _ = reference
    drop = np.array(published[name]["confidence_drop", side])
    assert len(drop) == 16
    np.testing.assert_allclose(drop, arrays[f"{name}_{letter}drop"], atol=1e-3)
    np.testing.assert_array_equal(published[name]["confidence_increase", side], arrays[f"{name}_{letter}incr"])


def test_the_flat_map_beats_the_method(published: Any) -> None:
    for side in SIDES:
        flat, own = (np.mean(published[name]["confidence_drop", side]) for name in ("flat99", "nib_b8"))
        assert flat < 0.3 * own


# The published quirks


def test_paper_pixels_are_multiplied_by_the_stretched_map(toy: Pairs) -> None:
    # Min-max of 2 x 2 scores, bilinear to 4 x 4 pixels: the lines lie at 0, 1/4, 3/4 and 1 of the way.
    maps = given(toy, "image", [0, 0, 2, 2], [3, 5, 3, 5], [1, 1, 1, 1])
    line = np.array([0, 0.25, 0.75, 1])
    shown = [np.tile(line[:, None], (1, 4)), np.tile(line[None], (4, 1))]
    for row, share in enumerate(shown):
        of_patches = share.reshape(2, 2, 2, 2).mean((1, 3)).flatten()
        score = B[row] * (BASE + of_patches @ np.array(TERMS[row]))
        drop = 100 * max(0.0, A[row] * B[row] - score)
        assert numbers(confidence_drop(maps, "image")[row : row + 1]) == [drop]
        assert float(confidence_increase(maps, "image")[row]) == (100 if score > A[row] * B[row] else 0)
    assert bool(confidence_drop(maps, "image")[2].isnan())  # a map without differences has no min-max
    flat = given(toy, "image", *([1, 1, 1, 1],) * 3)
    fixed = Judged(toy, {"image": tuple(Map(0.5 * one.scores, fixed=True) for one in flat.of("image"))})
    halves = [100 * max(0.0, B[i] * (A[i] - BASE) / 2) for i in range(3)]
    assert numbers(confidence_drop(fixed, "image")) == halves
    assert numbers(confidence_increase(fixed, "image")) == [0, 0, 100]


def test_paper_rows_of_the_toy_by_hand(toy: Pairs) -> None:
    scores = ([0.2, 1.0, 0.4], [2.0, -2.0], [0.0, 1.0, 2.0, 5.0])
    special = ({0: 0.0, 4: 0.6}, {0: 0.0, 3: 1.0}, {0: 10.0, 5: -10.0})
    # Min-max over all tokens, BOS and EOS among them, which are then cut off with their terms.
    shares = [[0.2, 1.0, 0.4], [1.0, 0.0], [0.5, 0.55, 0.6, 0.75]]
    maps = tuple(Map(np.array(one), more) for one, more in zip(scores, special, strict=True))
    found = Judged(toy, {"text": maps})
    drops, rises = [], []
    for row, text in enumerate(TEXTS):
        terms = np.array([WORDS[word] for word in text.split()])
        whole, part = A[row] * (BASE + terms.sum()), A[row] * (BASE + terms @ np.array(shares[row]))
        drops.append(100 * max(0.0, whole - part))
        rises.append(100.0 * (part > whole))
    assert numbers(confidence_drop(found, "text")) == drops
    assert numbers(confidence_increase(found, "text")) == rises
    assert drops[0] > 0
    assert 100.0 in rises


def test_paper_rows_of_a_repeated_token_are_scaled_at_every_occurrence() -> None:
    pairs = pairs_of(linear_toy(), [picture(TERMS[0])], ["cat dog cat cat"])
    maps = Judged(pairs, {"text": (Map(np.array([0.5, 1.0, 0.25, 0.8]), {0: 0.0, 5: 0.0}),)})
    # Each "cat" is worth 0.2 x (0.5 x 0.25 x 0.8), the dog all of its -0.1.
    part = 0.7 * (0.1 - 0.1 + 3 * 0.2 * 0.1)
    assert numbers(confidence_drop(maps, "text")) == [100 * (0.7 * (0.1 - 0.1 + 0.6) - part)]


def test_paper_rows_equal_a_copied_model_whose_table_is_scaled_row_by_row(mini: Any, pair: Pairs) -> None:
    generator = torch.Generator().manual_seed(0)
    maps, drops = [], []
    for row, layout in enumerate(pair.layouts["text"]):
        values = torch.rand(len(layout.content) + 2, generator=generator) + 0.2
        values[[0, -1]] = torch.tensor([0.0, 1.5])  # BOS and EOS set the ends of the min-max
        maps.append(Map(values[1:-1].numpy(), {0: float(values[0]), len(values) - 1: float(values[-1])}))
        ids = pair.inputs["text"]["input_ids"][row, 1 : len(values) - 1]
        assert (len(set(ids.tolist())) < len(ids)) == (row == 0)  # the first caption repeats tokens
        scaled = copy.deepcopy(mini.model)
        for token, share in zip(ids.tolist(), (values / 1.5)[1:-1].tolist(), strict=True):
            with torch.no_grad():
                scaled.text_model.embeddings.token_embedding.weight[token] *= share
        whole, part = (_cosine(model, ids, pair.embeddings["image"][row]) for model in (mini.model, scaled))
        drops.append(100 * max(0.0, whole - part))
    found = confidence_drop(Judged(pair, {"text": tuple(maps)}), "text")
    np.testing.assert_allclose(found, drops, atol=1e-3)
    assert min(drops) > 1


def _cosine(model: Any, ids: torch.Tensor, target: torch.Tensor) -> float:
    with torch.no_grad():
        pooled = model.text_model(input_ids=ids[None]).pooler_output
        return float(unit(model.text_projection(pooled))[0] @ target)


# The sound protocol


def test_sound_keeps_the_highest_positions_by_hand(toy: Pairs) -> None:
    maps = true_maps(toy, "image")
    # Wholes of 35, 6 and -9 points over empty pictures of 5, 2 and 9; one, then two patches are kept.
    assert numbers(confidence_drop(maps, "image", mass=0.25, **SOUND)) == [35 - 25, 0, 0]
    assert numbers(confidence_increase(maps, "image", mass=0.25, **SOUND)) == [0, 100, 100]
    assert numbers(confidence_drop(maps, "image", mass=0.5, **SOUND)) == [0, 0, 0]
    assert numbers(confidence_drop(maps, "image", mass=0.35, **SOUND)) == [35 - 25, 0, 0]  # 1.4 of 4 patches is one
    turned = true_maps(toy, "image", factor=-1)
    assert numbers(confidence_drop(turned, "image", mass=0.5, **SOUND)) == [35 - 5, 6 + 4, -9 + 45]
    assert numbers(confidence_drop(turned, "image", mass=0.01, **SOUND)) == [35 - 0, 6 + 2, -9 + 27]


def test_sound_keeps_special_tokens_and_length_by_hand(toy: Pairs) -> None:
    # BOS and EOS stay: an emptied text is worth A x 0.2. Half of 3, 2 and 4 tokens is 2, 1 and 2.
    turned = true_maps(toy, "text", factor=-1)
    kept = [14 - 7 + 10.5, 6 - 6, -2 - 2.5 - 2]
    for replacement in ("zero", "remove"):
        options = {"protocol": "sound", "mass": 0.5, "replacement": replacement}
        drop = confidence_drop(turned, "text", **options)
        assert numbers(drop) == [max(0, whole - part) for whole, part in zip((35, 6, -9), kept, strict=True)]
    # The mean word of the reference set, cat, big and far, is worth 1 / 30.
    drop = confidence_drop(turned, "text", protocol="sound", mass=0.5, replacement="mean")
    assert numbers(drop) == [35 - (17.5 + 7 / 3), 6 - (0 + 1), 0]


def test_sound_with_everything_kept_is_no_change_at_all(pair: Pairs, toy: Pairs) -> None:
    for pairs in (pair, toy):
        for side in SIDES:
            maps = trivial(pairs, "random")
            options: dict[str, Any] = {"protocol": "sound", "mass": 1}
            assert confidence_drop(maps, side, **options).tolist() == [0] * len(pairs)
            assert confidence_increase(maps, side, **options).tolist() == [0] * len(pairs)


def test_special_scores_do_not_count_in_the_sound_protocol(toy: Pairs) -> None:
    maps = true_maps(toy, "text")
    loud = tuple(Map(one.scores, {0: 99.0, len(one.scores) + 1: -99.0}) for one in maps.of("text"))
    for mass in (0.25, 0.5):
        found = confidence_drop(Judged(toy, {"text": loud}), "text", mass=mass, **SOUND)
        assert torch.equal(found, confidence_drop(maps, "text", mass=mass, **SOUND))


# Both


@pytest.mark.parametrize(
    ("side", "variant"),
    [
        ("image", "paper"),
        ("image", "sound 25% mean"),
        ("image", "sound 50% blur"),
        ("text", "paper"),
        ("text", "sound 25% mean"),
        ("text", "sound 10% remove"),
    ],
)
def test_a_batch_gives_what_each_pair_gives_alone(mini: Any, pair: Pairs, side: Any, variant: str) -> None:
    options = METRICS["confidence-drop"].variants_of(side)[variant]
    drawn = trivial(pair, "random").of(side)
    maps = [Map(one.scores**6, dict.fromkeys(one.special, 0.5), fixed=True) for one in drawn]
    both = Judged(pair, {side: tuple(maps)})
    drops, rises = (function(both, side, **options) for function in (confidence_drop, confidence_increase))
    assert float(drops.max()) > 0.5
    for row, name in enumerate(("dog.jpg", "bear.jpg")):
        alone = Judged(pairs_of(mini, [EXAMPLES / name], [CAPTIONS[row]]), {side: (maps[row],)})
        assert float(confidence_drop(alone, side, **options)) == pytest.approx(float(drops[row]), abs=2e-4)
        assert float(confidence_increase(alone, side, **options)) == float(rises[row])


@pytest.mark.parametrize("options", [{}, {"mass": 0.25, **SOUND}])
@pytest.mark.parametrize("side", SIDES)
def test_a_map_that_is_not_finite_has_no_value(toy: Pairs, side: Any, options: Any) -> None:
    maps = true_maps(toy, side).of(side)
    special = {0: 0.0, len(maps[2].scores) + 1: 0.0} if side == "text" else {}
    broken = (Map(np.full(maps[0].scores.shape, np.nan)), maps[1], Map(maps[2].scores, special))
    for function in (confidence_drop, confidence_increase):
        found = function(Judged(toy, {side: broken}), side, **options)
        whole = function(Judged(toy, {side: maps}), side, **options)
        assert torch.isfinite(found).tolist() == [False, True, True]
        assert numbers(found[1:2]) == whole[1:2].tolist()


def test_drop_and_increase_share_their_passes(pair: Pairs) -> None:
    for options in ({}, {"protocol": "sound", "mass": 0.25}):
        maps = trivial(pair, "random")
        for side in SIDES:
            with counted() as passes:
                confidence_drop(maps, side, **options)
                confidence_increase(maps, side, **options)
            assert passes["forward"] <= 2 * len(pair)


def test_what_cannot_be_is_said_in_one_sentence(toy: Pairs) -> None:
    maps = trivial(toy, "flat")
    wrong: list[tuple[str, dict[str, Any], str]] = [
        ("image", {"protocol": "official"}, 'protocol must be "paper" or "sound"'),
        ("image", {"protocol": "sound", "mass": 0}, "mass must be above 0 and at most 1, not 0"),
        ("text", {"protocol": "sound", "mass": 1.5}, "mass must be above 0 and at most 1, not 1.5"),
        ("text", {"protocol": "sound", "mass": float("nan")}, "mass must be above 0"),
        ("image", {"protocol": "sound", "replacement": "remove"}, "no replacement 'remove' for the image: choose mean"),
        ("text", {"protocol": "sound", "replacement": "blur"}, "no replacement 'blur' for the text: choose mean"),
    ]
    for side, options, words in wrong:
        for function in (confidence_drop, confidence_increase):
            with pytest.raises(OptionError, match=words) as caught:
                function(maps, side, **options)  # type: ignore[arg-type]
            assert str(caught.value).endswith(".")
            assert ". " not in str(caught.value)
