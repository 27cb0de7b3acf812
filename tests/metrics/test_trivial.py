"""Maps that know nothing, and how explanations become what metrics take."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from linear_toy import linear_pairs

import isthmus
from conftest import EXAMPLES, picture
from isthmus.errors import InputError, OptionError
from isthmus.metrics.confidence import confidence_drop, confidence_increase
from isthmus.metrics.fidelity import completeness, infidelity, sensitivity_n
from isthmus.metrics.maps import Map, map_of
from isthmus.metrics.oracle import oracle
from isthmus.metrics.pairs import Judged, Pairs, judged, pairs_of
from isthmus.metrics.ranking import deletion, insertion, insertion_deletion
from isthmus.metrics.registry import METRICS, Metric, get, register
from isthmus.metrics.trivial import TRIVIAL, trivial
from state import untouched

SIDES = ("image", "text")
CAPTIONS = ["a dog tied to a fire hydrant", "a bear"]
PICTURES = [EXAMPLES / "dog.jpg", EXAMPLES / "bear.jpg"]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def mini_pairs(mini: Any, rows: tuple[int, ...] = (0, 1), *, seed: int = 0) -> Pairs:
    return pairs_of(mini, [PICTURES[i] for i in rows], [CAPTIONS[i] for i in rows], ids=list(map(str, rows)), seed=seed)


@pytest.fixture(scope="module")
def pairs(mini: Any) -> Pairs:
    return mini_pairs(mini)


# Trivial maps


@pytest.mark.parametrize("name", TRIVIAL)
def test_maps_have_the_shape_of_their_input_and_stand_as_they_are(pairs: Pairs, name: str) -> None:
    found = trivial(pairs, name)
    assert found.method == name
    assert [one.scores.shape for one in found.of("image")] == [(7, 7)] * 2
    tokens = [len(layout.pieces) for layout in pairs.layouts["text"]]
    assert tokens[0] > tokens[1] == 2
    assert [one.scores.shape for one in found.of("text")] == [(count,) for count in tokens]
    for side in SIDES:
        for one, layout in zip(found.of(side), pairs.layouts[side], strict=True):
            assert one.fixed
            assert one.scores.min() >= 0
            assert one.scores.max() <= 1
            assert set(one.special) == {position for _, position in layout.special}
            assert one.delta is None
    assert trivial(pairs, name, ("text",)).maps.keys() == {"text"}


def test_random_maps_follow_from_the_id_and_the_seed_alone(mini: Any, pairs: Pairs) -> None:
    def drawn(pairs: Pairs) -> Any:
        return [[one.scores.tolist() for one in trivial(pairs, "random").of(side)] for side in SIDES]

    image, text = drawn(pairs)
    assert drawn(pairs) == [image, text]
    for row in (0, 1):
        assert drawn(mini_pairs(mini, (row,))) == [image[row : row + 1], text[row : row + 1]]
    assert drawn(mini_pairs(mini, (1, 0))) == [image[::-1], text[::-1]]
    assert image[0] != image[1]
    for mine, other in zip((image, text), drawn(mini_pairs(mini, seed=1)), strict=True):
        assert mine[0] != other[0]


def test_random_maps_are_drawn_evenly() -> None:
    drawn = np.stack([trivial(linear_pairs((0,), seed=i), "random").of("image")[0].scores for i in range(300)])
    np.testing.assert_allclose(drawn.mean(0), 0.5, atol=0.08)
    np.testing.assert_allclose(drawn.std(0), 12**-0.5, atol=0.04)
    flat = drawn.reshape(300, 4)
    assert np.abs(np.corrcoef(flat.T) - np.eye(4)).max() < 0.2


def test_the_flat_map_is_99_hundredths_everywhere(pairs: Pairs) -> None:
    for side in SIDES:
        for one in trivial(pairs, "flat").of(side):
            assert np.all(one.scores == np.float32(0.99))
            assert set(one.special.values()) == {0.99}


def test_the_centre_map_falls_from_the_centre_alike_on_all_sides(pairs: Pairs) -> None:
    found = trivial(pairs, "centre")
    image = found.of("image")[0].scores
    assert np.unravel_index(image.argmax(), image.shape) == (3, 3)
    assert image[3, 3] == 1
    for turned in (image[::-1], image[:, ::-1], image.T):
        np.testing.assert_allclose(image, turned, atol=1e-7)
    assert np.all(np.diff(image[3, 3:]) < 0)
    # A Gaussian of a quarter of the side: three patches of seven away, exp(-((3 / 7) / 0.25)^2 / 2).
    assert image[3, 6] == pytest.approx(np.exp(-((3 / 7 / 0.25) ** 2) / 2), rel=1e-6)
    assert image[0, 0] == pytest.approx(image[3, 6] ** 2, rel=1e-6)
    words = found.of("text")[0].scores
    np.testing.assert_allclose(words, words[::-1], atol=1e-7)
    assert words.argmax() in (len(words) // 2, (len(words) - 1) // 2)
    assert words.min() == words[0] < words[1]


def test_there_is_no_other_trivial_map(pairs: Pairs) -> None:
    with pytest.raises(OptionError, match=r"^There is no trivial map 'ones': choose one of random, flat, centre\.$"):
        trivial(pairs, "ones")


# Explanations as metrics take them


def test_explanations_are_read_back_from_their_source(mini: Any, pairs: Pairs) -> None:
    found = isthmus.explain(mini, PICTURES, CAPTIONS, method="gradcam")
    read = judged(found, mini)
    assert read.method == "gradcam"
    assert torch.equal(read.pairs.inputs["image"]["pixel_values"], pairs.inputs["image"]["pixel_values"])
    assert read.pairs.texts == tuple(CAPTIONS)
    for side in SIDES:
        torch.testing.assert_close(read.pairs.embeddings[side], pairs.embeddings[side])
    for one, image, text in zip(found, read.of("image"), read.of("text"), strict=True):
        np.testing.assert_array_equal(image.scores, one.image.scores)
        np.testing.assert_array_equal(text.scores, np.array([t.score for t in one.text.tokens], dtype=np.float32))
        assert text.special == {special.position: special.score for special in one.text.special}
        assert (image.open, image.closed) == (one.image.completeness.open, one.image.completeness.closed)
        assert not image.fixed


def test_a_source_that_is_gone_is_read_from_the_copy_that_is_held(mini: Any, tmp_path: Path) -> None:
    path = tmp_path / "dog.jpg"
    shutil.copy(PICTURES[0], path)
    one = isthmus.explain(mini, path, CAPTIONS[0], method="input-x-gradient")
    whole = judged([one], mini)
    path.unlink()
    held = judged([one], mini)
    assert one.picture is not None
    assert max(one.picture.shape) < 1024
    assert torch.equal(held.pairs.inputs["image"]["pixel_values"], whole.pairs.inputs["image"]["pixel_values"])
    assert torch.equal(insertion(held, "image", points=2), insertion(whole, "image", points=2))


def test_a_large_source_is_read_rather_than_its_smaller_copy(mini: Any, tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    picture(3, (1500, 1300)).save(path)
    one = isthmus.explain(mini, path, CAPTIONS[0], method="input-x-gradient")
    found, copied = judged([one], mini), judged([one], mini, [one.picture])
    expected = pairs_of(mini, [path], [CAPTIONS[0]]).inputs["image"]["pixel_values"]
    assert torch.equal(found.pairs.inputs["image"]["pixel_values"], expected)
    assert not torch.equal(copied.pairs.inputs["image"]["pixel_values"], expected)


def test_pictures_that_are_given_come_before_the_source(mini: Any) -> None:
    one = isthmus.explain(mini, PICTURES[0], CAPTIONS[0], method="input-x-gradient")
    other = judged([one], mini, [PICTURES[1]])
    expected = mini_pairs(mini, (1,)).inputs["image"]["pixel_values"]
    assert torch.equal(other.pairs.inputs["image"]["pixel_values"], expected)


def test_a_published_map_without_differences_keeps_its_value(mini: Any) -> None:
    one = isthmus.explain(mini, PICTURES[0], CAPTIONS[0], preset="paper")
    assert np.isnan(map_of(one, "image").flat)
    level = replace(one, image=replace(one.image, published=np.full_like(one.image.published, 0.25)))
    assert map_of(level, "image").flat == 0.25


def test_what_was_explained_on_one_side_is_judged_on_it_alone(mini: Any) -> None:
    one = isthmus.explain(mini, PICTURES[0], CAPTIONS[0], method="input-x-gradient", sides="image")
    found = judged([one], mini)
    assert set(found.maps) == {"image"}
    assert bool(torch.isfinite(insertion(found, "image", points=2)).all())
    for call in (
        lambda: insertion(found, "text"),
        lambda: confidence_drop(found, "text"),
        lambda: map_of(one, "text"),
        lambda: found.scores("text"),
    ):
        with pytest.raises(InputError, match=r"^The text was not explained, .*: explain both sides\.$"):
            call()


def test_explanations_without_a_pair_are_refused(mini: Any) -> None:
    target = isthmus.Contrast(["a dog"], against=["a cat"])
    alone = isthmus.explain(mini, PICTURES[0], target=target, method="input-x-gradient", sides="image")
    pair = isthmus.explain(mini, PICTURES[0], CAPTIONS[0], method="input-x-gradient")
    for found in ([alone], [pair, alone]):
        with pytest.raises(InputError, match="needs the picture and the text of each explanation"):
            judged(found, mini)
    with pytest.raises(InputError, match="nothing to judge"):
        judged([], mini)
    one_sided = isthmus.explain(mini, PICTURES[0], CAPTIONS[0], method="input-x-gradient", sides="text")
    with pytest.raises(InputError, match="image was not explained"):
        judged([pair, one_sided], mini)


def test_maps_cannot_be_changed(pairs: Pairs) -> None:
    scores = np.zeros((7, 7), dtype=np.float32)
    one = Map(scores)
    scores[0] = 1
    assert float(one.scores.max()) == 0
    with pytest.raises(ValueError, match="read-only"):
        one.scores[0] = 1


# The registry


def test_metrics_have_names_of_their_own() -> None:
    with pytest.raises(OptionError, match="There is a metric 'deletion' already"):
        register(Metric("deletion", "", "", deletion))
    with pytest.raises(OptionError, match=r"There is no metric 'deletions': choose one of .*completeness, "):
        get("deletions")
    assert get("deletion") is METRICS["deletion"]


def test_a_side_has_the_variants_that_it_can_have(pairs: Pairs) -> None:
    metric = METRICS["confidence-drop"]
    assert {name.split()[-1] for name in metric.variants_of("image")} == {"paper", "mean", "blur"}
    assert {name.split()[-1] for name in metric.variants_of("text")} == {"paper", "mean", "remove"}
    assert METRICS["insertion"].unit_of("margin normalised") == ""
    assert METRICS["insertion"].unit_of("margin") == "points"


def test_what_no_metric_names_is_not_drawn_twice(pairs: Pairs) -> None:
    made = []
    for _ in range(2):
        assert pairs.once("a key of this test", lambda: made.append(1) or 7) == 7
    assert made == [1]


# All of them leave the model as it was


def test_the_model_is_left_as_it_was(mini: Any) -> None:
    fresh = mini_pairs(mini)
    with untouched(mini.model):
        maps = trivial(fresh, "random")
        values = []
        for side in SIDES:
            points: dict[str, Any] = {"points": 2}
            values += [insertion(maps, side, **points), deletion(maps, side, score="margin", **points)]
            values += [insertion_deletion(maps, side, replacement="zero", **points)]
            values += [confidence_drop(maps, side), confidence_increase(maps, side, protocol="sound")]
            values += [sensitivity_n(maps, side, subsets=2), infidelity(maps, side, subsets=2)]
            values += [insertion(oracle(fresh, side, insert=True, groups=1), side, **points)]
            assert bool(completeness(maps, side).isnan().all())
        values.append(confidence_drop(maps, "image", protocol="sound", replacement="blur"))
        values.append(confidence_drop(maps, "text", protocol="sound", replacement="remove"))
    assert all(bool(torch.isfinite(one).all()) for one in values)


def test_a_map_is_known_where_all_of_its_own_scores_are_finite(pairs: Pairs) -> None:
    long, short = trivial(pairs, "random").of("text")
    for broken, expected in ((short, [True, True]), (Map(np.array([np.nan, 1.0])), [True, False])):
        assert Judged(pairs, {"text": (long, broken)}).known("text").tolist() == expected
