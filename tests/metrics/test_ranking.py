"""Insertion and deletion: by hand on a linear toy, by pictures masked by hand, and against Quantus."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import quantus
import torch
from linear_toy import TERMS, given, linear_pairs, linear_toy, picture, true_maps, truths

import isthmus
from conftest import EXAMPLES
from isthmus.encoders.counting import counted
from isthmus.encoders.tower import unit
from isthmus.errors import OptionError
from isthmus.metrics.maps import Map
from isthmus.metrics.pairs import Judged, Pairs, judged, pairs_of
from isthmus.metrics.ranking import curve, deletion, insertion, insertion_deletion, kept, ranks
from isthmus.metrics.trivial import trivial

SIDES = ("image", "text")
ZERO: dict[str, Any] = {"replacement": "zero"}
CAPTIONS = ["a dog tied to a fire hydrant on the grass", "a bear"]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def toy() -> Pairs:
    return linear_pairs()


def mini_pairs(mini: Any, rows: tuple[int, ...] = (0, 1)) -> Pairs:
    pictures = [EXAMPLES / ("dog.jpg", "bear.jpg")[i] for i in rows]
    return pairs_of(mini, pictures, [CAPTIONS[i] for i in rows], ids=[str(i) for i in rows])


def numbers(values: torch.Tensor) -> Any:
    assert values.dtype == torch.float64
    return pytest.approx(values.tolist(), abs=1e-5, nan_ok=True)


# By hand. In points, the patches of the three pairs are worth 20 10 -5 5, -2 6 -4 4 and 9 -36 27 -18 over an empty
# picture of 5, 2 and 9; the tokens 17.5 -7 10.5, 6 -6 and -1 -2.5 -2 -1.5 over an empty text of 14, 6 and -2.


def test_curves_of_the_image_by_hand(toy: Pairs) -> None:
    maps = true_maps(toy, "image")
    shares, values = curve(maps, "image", insert=True, **ZERO)
    assert shares.tolist() == [[0, 0.25, 0.5, 0.75, 1]] * 3
    expected = [[5, 25, 35, 40, 35], [2, 8, 12, 10, 6], [9, 36, 45, 27, -9]]
    np.testing.assert_allclose(100 * values, expected, atol=1e-9)
    shares, values = curve(maps, "image", insert=False, **ZERO)
    assert shares.tolist() == [[0, 0.25, 0.5, 0.75, 1]] * 3
    np.testing.assert_allclose(100 * values, [[35, 15, 5, 0, 5], [6, 0, -4, -2, 2], [-9, -36, -45, -27, 9]], atol=1e-9)
    _, values = curve(maps, "image", insert=True, first="least", **ZERO)
    np.testing.assert_allclose(100 * values, [[5, 0, 5, 15, 35], [2, -2, -4, 0, 6], [9, -27, -45, -36, -9]], atol=1e-9)


def test_areas_of_the_image_by_hand(toy: Pairs) -> None:
    maps = true_maps(toy, "image")
    # (5 / 2 + 25 + 35 + 40 + 35 / 2) / 4, and so on
    assert numbers(insertion(maps, "image", **ZERO)) == [30, 8.5, 27]
    assert numbers(deletion(maps, "image", **ZERO)) == [10, -0.5, -27]
    assert numbers(insertion_deletion(maps, "image", **ZERO)) == [20, 9, 54]
    assert numbers(insertion(maps, "image", first="least", **ZERO)) == [10, -0.5, -27]
    assert numbers(deletion(maps, "image", first="least", **ZERO)) == [30, 8.5, 27]


def test_areas_of_texts_of_unequal_length_by_hand(toy: Pairs) -> None:
    maps = true_maps(toy, "text")
    # (14 / 2 + 31.5 + 42 + 35 / 2) / 3; (6 / 2 + 12 + 6 / 2) / 2; (-2 / 2 - 3 - 4.5 - 6.5 - 9 / 2) / 4
    assert numbers(insertion(maps, "text", **ZERO)) == [98 / 3, 9, -4.875]
    # (35 / 2 + 17.5 + 7 + 14 / 2) / 3; (6 / 2 + 0 + 6 / 2) / 2; (-9 / 2 - 8 - 6.5 - 4.5 - 2 / 2) / 4
    assert numbers(deletion(maps, "text", **ZERO)) == [49 / 3, 3, -6.125]
    assert numbers(insertion_deletion(maps, "text", **ZERO)) == [49 / 3, 6, 1.25]
    # Out of the attention mask, a token of the toy takes the same term away.
    assert numbers(insertion(maps, "text", replacement="remove")) == [98 / 3, 9, -4.875]


def test_a_wrong_order_by_hand(toy: Pairs) -> None:
    maps = given(toy, "image", [1, 2, 4, 3], [4, 3, 2, 1], [0, 0.5, -1, -2])
    # Pair 0 in the order 2 3 1 0: 5 0 5 15 35 in, 35 40 35 25 5 out.
    # Pair 1 as it lies: 2 0 6 2 6 in, 6 8 2 6 2 out. Pair 2, 1 0 2 3: 9 -27 -18 9 -9 in, -9 27 18 -9 9 out.
    assert numbers(insertion(maps, "image", **ZERO)) == [10, 3, -9]
    assert numbers(deletion(maps, "image", **ZERO)) == [30, 5, 9]


def test_normalised_runs_from_nothing_to_all(toy: Pairs) -> None:
    maps = true_maps(toy, "image")
    # s -> (s - 5) / 30, (s - 2) / 4; the third picture's whole scores 18 points less than nothing: no share of that.
    assert numbers(insertion(maps, "image", normalised=True, **ZERO)) == [25 / 30, 6.5 / 4, np.nan]
    assert numbers(deletion(maps, "image", normalised=True, **ZERO)) == [5 / 30, -2.5 / 4, np.nan]
    _, values = curve(maps, "image", insert=True, normalised=True, **ZERO)
    np.testing.assert_allclose(values[:2, [0, -1]], [[0, 1]] * 2, atol=1e-12)
    # "cat far" is worth nothing, and the third text 7 points less than nothing; the first spans 21 points.
    words = insertion(true_maps(toy, "text"), "text", normalised=True, **ZERO)
    assert numbers(words) == [(98 / 3 - 14) / 21, np.nan, np.nan]


def test_the_margin_is_the_score_less_that_with_the_reference_set(toy: Pairs) -> None:
    # The reference texts have b = 0.4 and 0.1, so a picture's score is a (b - 0.25): 0.25, -0.05 and 0.65 for b.
    found = insertion(true_maps(toy, "image"), "image", score="margin", **ZERO)
    assert numbers(found) == [30 * 0.25 / 0.5, 8.5 * -0.05 / 0.2, 27 * 0.65 / 0.9]
    # The reference picture has a = 0.3: a text's score is b (a - 0.3): 0.4, 0 and -0.4 for a.
    found = deletion(true_maps(toy, "text"), "text", score="margin", **ZERO)
    assert numbers(found) == [49 / 3 * 0.4 / 0.7, 0, -6.125 * -0.4 / -0.1]


def test_points_take_several_positions_at_a_step(toy: Pairs) -> None:
    maps = true_maps(toy, "image")
    shares, values = curve(maps, "image", insert=True, points=2, **ZERO)
    assert shares.tolist() == [[0, 0.5, 1]] * 3
    np.testing.assert_allclose(100 * values[0], [5, 35, 35], atol=1e-9)
    assert numbers(insertion(maps, "image", points=2, **ZERO)[:1]) == [(2.5 + 35 + 17.5) / 2]
    assert numbers(insertion(maps, "image", points=1, **ZERO)[:1]) == [20]
    assert curve(maps, "image", insert=True, points=3, **ZERO)[0].tolist() == [[0, 0.25, 0.75, 1]] * 3
    assert numbers(insertion(maps, "image", points=99, **ZERO)) == [30, 8.5, 27]
    _, words = curve(true_maps(toy, "text"), "text", insert=True, points=3, **ZERO)
    np.testing.assert_allclose(100 * words[0], [14, 31.5, 42, 35], atol=1e-9)
    with pytest.raises(OptionError, match="points must be a whole number of at least 1"):
        kept(maps, "image", points=0)


@pytest.mark.parametrize("side", SIDES)
def test_deletion_is_insertion_of_the_least_important_first_backwards(toy: Pairs, side: Any) -> None:
    maps = trivial(toy, "random")
    for options in ({}, {"score": "margin"}, {"normalised": True}, {"replacement": "mean"}):
        out, back = deletion(maps, side, **options), insertion(maps, side, first="least", **options)
        assert numbers(out) == back.tolist()
        x, y = curve(maps, side, insert=False, **options)
        x_back, y_back = curve(maps, side, insert=True, first="least", **options)
        torch.testing.assert_close(y, y_back.flip(1), equal_nan=True)
        torch.testing.assert_close(x, 1 - x_back.flip(1))


@pytest.mark.parametrize("side", SIDES)
def test_over_all_orders_the_difference_is_zero_in_the_mean(side: Any) -> None:
    orders = list(itertools.permutations(range(4 if side == "image" else 3)))
    pairs = linear_pairs((0,) * len(orders))
    for replacement in ("zero", "mean"):
        found = insertion_deletion(given(pairs, side, *orders), side, replacement=replacement)
        assert float(found.mean()) == pytest.approx(0, abs=1e-6)
        assert float(found.max()) == pytest.approx(-float(found.min()), abs=1e-6)
        assert float(found.max()) > 5


@pytest.mark.parametrize("side", SIDES)
def test_ties_fall_in_an_order_drawn_for_the_pair(side: Any) -> None:
    together = linear_pairs()
    flat = ranks(trivial(together, "flat").scores(side), together, side)
    own = (together.players(side) >= 0).sum(1).tolist()
    for row, count in enumerate(own):
        assert sorted(flat[row, :count].tolist()) == list(range(count))
        assert bool((flat[row, count:] == flat.shape[1]).all())
        alone = linear_pairs((row,))
        assert ranks(trivial(alone, "flat").scores(side), alone, side)[0].tolist() == flat[row, :count].tolist()
    turned = linear_pairs((2, 1, 0))
    other = ranks(trivial(turned, "flat").scores(side), turned, side)
    assert [r[:n].tolist() for r, n in zip(other.flip(0), own, strict=True)] == [
        r[:n].tolist() for r, n in zip(flat, own, strict=True)
    ]
    drawn = []
    for i in range(30):
        seeded = linear_pairs(seed=i)
        drawn.append(ranks(trivial(seeded, "flat").scores(side), seeded, side)[2])
    places = torch.stack(drawn).double().mean(0)
    assert bool(((places - 1.5).abs() < 0.7).all())  # no place is favoured


def test_ties_stay_among_themselves(toy: Pairs) -> None:
    places = ranks(torch.tensor([[1.0, 0, 0, 2]] * 3), toy, "image")
    assert places[:, [3, 0]].tolist() == [[0, 1]] * 3
    assert sorted(places[0, 1:3].tolist()) == [2, 3]


def test_a_map_that_is_not_finite_has_no_area(toy: Pairs) -> None:
    scores = [[np.nan, 1, 2, 3], truths("image", 1), [np.inf, 1, 2, 3]]
    for area in (insertion, deletion, insertion_deletion):
        found = area(given(toy, "image", *scores), "image", **ZERO)
        assert torch.isfinite(found).tolist() == [False, True, False]
    assert numbers(found[1:2]) == [9]


def test_a_map_on_another_grid_is_resized(toy: Pairs) -> None:
    maps = given(toy, "image", *([1, 2, 3, 4],) * 3)
    large = tuple(Map(np.kron(one.scores, np.ones((3, 3)))) for one in maps.of("image"))
    resized = Judged(toy, {"image": large}).scores("image")
    assert resized.argsort(1).tolist() == maps.scores("image").argsort(1).tolist()
    whole = Judged(toy, {"image": (Map(np.full((8, 6), 7.0)),) * 3}).scores("image")
    torch.testing.assert_close(whole, torch.full_like(whole, 7))


@pytest.mark.parametrize("side", SIDES)
def test_a_batch_gives_what_each_pair_gives_alone(mini: Any, side: Any) -> None:
    together = trivial(mini_pairs(mini), "random")
    for row in (0, 1):
        alone = trivial(mini_pairs(mini, (row,)), "random")
        assert torch.equal(alone.scores(side)[0], together.scores(side)[row][: alone.scores(side).shape[1]])
        for area in (insertion, deletion):
            points = 4 if side == "image" else None
            value = float(area(together, side, points=points)[row])
            assert value == pytest.approx(float(area(alone, side, points=points)), abs=2e-4)


def test_judged_explanations_do_not_depend_on_what_is_judged_beside_them(mini: Any) -> None:
    explanations = isthmus.explain(
        mini, [EXAMPLES / "dog.jpg", EXAMPLES / "bear.jpg"], CAPTIONS, method="input-x-gradient"
    )
    both, alone = judged(explanations, mini), judged(explanations[1:], mini)
    assert both.pairs.generator(1, "x").initial_seed() == alone.pairs.generator(0, "x").initial_seed()
    assert both.pairs.generator(0, "x").initial_seed() != alone.pairs.generator(0, "x").initial_seed()
    assert float(insertion(both, "text")[1]) == pytest.approx(float(insertion(alone, "text")), abs=2e-4)


def test_again_is_the_same_bits(mini: Any) -> None:
    for side, points in (("image", 3), ("text", None)):
        first, second = (insertion_deletion(trivial(mini_pairs(mini), "random"), side, points=points) for _ in "ab")
        assert torch.equal(first, second)


def test_all_metrics_of_49_patches_take_at_most_100_passes_together(mini: Any) -> None:
    maps = trivial(mini_pairs(mini, (0,)), "random")
    assert maps.pairs.players("image").shape == (1, 49)
    with counted() as passes:
        for score in ("cosine", "margin"):
            for area in (insertion, deletion, insertion_deletion):
                assert bool(torch.isfinite(area(maps, "image", score=score)).all())
                area(maps, "image", score=score, normalised=True)
            insertion(maps, "image", first="least", score=score)
            deletion(maps, "image", first="least", score=score)
    assert 2 * 48 + 2 <= passes["forward"] <= 100
    assert passes["backward"] == 0
    tokens = int((maps.pairs.players("text") >= 0).sum())
    with counted() as passes:
        insertion_deletion(maps, "text")
        insertion_deletion(maps, "text", score="margin")
    assert passes["forward"] <= 2 * tokens + 1


def test_a_curve_of_the_bundled_model_is_that_of_pictures_masked_by_hand(mini: Any) -> None:
    pairs = mini_pairs(mini, (0,))
    scores = torch.randn(7, 7, generator=torch.Generator().manual_seed(3))
    maps = Judged(pairs, {"image": (Map(scores.numpy()),)})
    _, values = curve(maps, "image", insert=False, replacement="mean", points=7)
    pixels = pairs.inputs["image"]["pixel_values"][0]
    order = scores.flatten().argsort(descending=True).tolist()
    for step in (2, 5):
        shown = pixels.clone()
        for patch in order[: 7 * step]:
            row, column = divmod(patch, 7)
            box = np.s_[:, 32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
            shown[box] = pixels.mean((1, 2))[:, None, None]
        embedding = unit(mini.image.embed({"pixel_values": shown[None]}))[0]
        assert float(values[0, step]) == pytest.approx(float(embedding @ pairs.embeddings["text"][0]), abs=1e-5)


class _Cosine(torch.nn.Module):
    """The toy's cosine with a text, of pictures given as one value a patch: what Quantus can call."""

    def __init__(self, pairs: Pairs) -> None:
        super().__init__()
        self.toy = linear_toy()
        self.embedding = pairs.embeddings["text"][0]
        self.eval()

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        large = values.double().repeat_interleave(2, 2).repeat_interleave(2, 3)
        return (unit(self.toy.image.run({"pixel_values": large.expand(-1, 3, -1, -1)})) @ self.embedding)[:, None]


@pytest.mark.parametrize("scores", [truths("image", 0), [1.0, 2.0, 4.0, 3.0], [0.3, -0.1, 0.5, -2.0]])
def test_quantus_flips_pixels_along_the_same_curve(scores: list[float]) -> None:
    pairs = linear_pairs((0,))
    flipping = quantus.PixelFlipping(
        features_in_step=1, perturb_baseline=0.0, normalise=False, abs=False, disable_warnings=True
    )
    theirs = flipping(
        model=_Cosine(pairs),
        x_batch=picture(TERMS[0]).pixel_values[None, :1, ::2, ::2].numpy(),
        y_batch=np.zeros(1, dtype=int),
        a_batch=np.array(scores).reshape(1, 1, 2, 2),
        channel_first=True,
        softmax=False,
        device="cpu",
    )
    _, ours = curve(given(pairs, "image", scores), "image", insert=False, **ZERO)
    np.testing.assert_allclose(ours[0, 1:], theirs[0], atol=1e-6)  # theirs leaves the whole picture out


def test_what_cannot_be_is_said_in_one_sentence(toy: Pairs) -> None:
    maps = true_maps(toy, "image")
    for call, words in _refused(maps):
        with pytest.raises(isthmus.errors.IsthmusError, match=words) as caught:
            call()
        assert str(caught.value).endswith(".")
        assert ". " not in str(caught.value)


def _refused(maps: Judged) -> list[tuple[Callable[[], Any], str]]:
    return [
        (lambda: insertion(maps, "image", first="best"), 'first must be "most" or "least"'),
        (lambda: insertion(maps, "image", score="logit"), "no score 'logit': choose cosine or margin"),
        (lambda: deletion(maps, "image", replacement="remove"), "no replacement 'remove' for the image"),
        (lambda: deletion(trivial(maps.pairs, "flat"), "text", replacement="blur"), "no replacement 'blur' for the te"),
        (lambda: insertion(maps, "text"), "text was not explained"),
        (lambda: pairs_of(maps.pairs.model, [picture(TERMS[0])], []), "do not pair off"),
        (lambda: pairs_of(maps.pairs.model, [picture(TERMS[0])], ["dog"], ids=["a", "b"]), "2 ids do not fit 1 pairs"),
    ]
