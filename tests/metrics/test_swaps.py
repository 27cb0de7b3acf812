"""Swapped words: captions made wrong, and how their words score."""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import EXAMPLES
from isthmus.errors import InputError, OptionError
from isthmus.metrics import swap_words
from isthmus.metrics.maps import Map
from isthmus.metrics.pairs import Judged, Pairs, pairs_of
from isthmus.metrics.registry import METRICS
from isthmus.metrics.swaps import Swap, swap_lowest, swap_negative, swap_rank, wrong_captions

CAPTIONS = [
    "A dog tied to a fire hydrant.",
    "an elephant beside two horses, and a man",
    "A BIG DOG AND AN ELEPHANT",
    "Traffic Lights over a red bus",
    "three sheep, 4 cows and a white sheep",
    "People with skis; scissors and knives on the table",
    "A TV on a wooden table in front of a couch",
    "an orange cat, an orange and a yellow umbrella",
    "8 mice at an oven: 10 apples\nand eight buses",
    "a man's hot dog\tand a girl’s teddy bear",
    "Ein Äffchen 🐒 und a car",
    "",
]
ARTICLE = re.compile(r"\b(an?)\b", re.IGNORECASE)


def swaps(text: str, *, kind: str = "", seed: int = 0, **more: Any) -> list[Swap]:
    found = wrong_captions(text, seed=seed, id="a", all=True, **more)
    return [swap for swap in found if kind in ("", swap.kind)]


def outcomes(text: str, right: str, **more: Any) -> set[str]:
    """All that a word is swapped for, over many seeds."""
    found = [swap for seed in range(150) for swap in swaps(text, seed=seed, **more)]
    return {swap.wrong for swap in found if swap.right == right}


def check(text: str, swap: Swap) -> None:
    """The wrong word is where it is said to be, and but for an article the rest is as it was."""
    assert swap.text[swap.start : swap.end] == swap.wrong
    assert swap.wrong.casefold() != swap.right.casefold()
    back = swap.text[: swap.start] + swap.right + swap.text[swap.end :]
    assert ARTICLE.sub("a", back) == ARTICLE.sub("a", text)
    assert abs(len(back) - len(text)) <= 1
    assert swap.kind in ("object", "colour", "number")


@pytest.mark.parametrize("text", CAPTIONS)
def test_one_word_changes_and_the_rest_stays(text: str) -> None:
    for seed in range(20):
        for swap in swaps(text, seed=seed):
            check(text, swap)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from(["a", "An", "two", "7", "red", "ORANGE", "orange", "dog", "Hot Dog", "skis", "–", "é", ","])
    )
)
def test_any_words_in_any_order(parts: list[str]) -> None:
    text = " ".join(parts)
    for swap in swaps(text):
        check(text, swap)


@pytest.mark.parametrize(
    "text", ["", "people in a room", "a red-haired girl", "black and white photo", "3.14 on the 2nd"]
)
def test_nothing_to_swap(text: str) -> None:
    assert swaps(text) == []


def test_a_thing_is_swapped_within_its_supercategory() -> None:
    animals = {"bird", "cat", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe"}
    assert outcomes("the dog", "dog") == animals
    assert outcomes("the dog and the cats", "dog") == animals - {"cat"}
    assert outcomes("the dog", "dog", present=["Cat", "cow", "tv", "unheard of"]) == animals - {"cat", "cow"}
    assert outcomes("a dog", "dog", present=animals) == set()
    assert outcomes("the bike", "bike") == {"car", "airplane", "bus", "train", "truck", "boat"}  # or a motorcycle
    assert outcomes("the sofa", "sofa", present=["chair"]) == {"potted plant", "bed", "dining table", "toilet"}
    assert "surfboard" not in outcomes("a surfer flies a kite", "kite")


@pytest.mark.parametrize(
    ("text", "right", "allowed"),
    [
        ("two dogs", "dogs", {"birds", "cats", "horses", "sheep", "cows", "elephants", "bears", "zebras", "giraffes"}),
        ("knives", "knives", {"bottles", "wine glasses", "cups", "forks", "spoons", "bowls"}),
        ("some scissors", "scissors", {"books", "clocks", "vases", "teddy bears", "hair driers", "toothbrushes"}),
        ("the toothbrush", "toothbrush", {"book", "clock", "vase", "teddy bear", "hair drier"}),
        ("mice", "mice", {"TVs", "laptops", "remotes", "keyboards", "cell phones"}),
        ("the phone", "phone", {"TV", "laptop", "mouse", "remote", "keyboard"}),
        ("cars", "cars", {"bicycles", "motorcycles", "airplanes", "buses", "trains", "trucks", "boats"}),
        ("benches", "benches", {"traffic lights", "fire hydrants", "stop signs", "parking meters"}),
    ],
)
def test_number_is_kept(text: str, right: str, allowed: set[str]) -> None:
    assert outcomes(text, right) == allowed


@pytest.mark.parametrize(
    ("text", "plural"),
    [
        ("a sheep", False),
        ("one big white sheep", False),
        ("the sheep is old", False),
        ("two sheep", True),
        ("a herd of sheep", True),
        ("the sheep are old", True),
        ("sheep", True),
    ],
)
def test_sheep_are_one_or_many(text: str, plural: bool) -> None:
    assert all(word.endswith("s") == plural for word in outcomes(text, "sheep"))
    assert len(outcomes(text, "sheep")) == 9


def test_skis_are_put_in_for_many_only() -> None:
    assert "skis" in outcomes("kites", "kites")
    assert "skis" not in outcomes("a kite", "kite")
    assert "broccoli" not in outcomes("bananas", "bananas") | outcomes("a banana", "banana")
    assert "bananas" in outcomes("broccoli", "broccoli")


def test_the_article_follows_the_sound() -> None:
    def texts(text: str, **more: Any) -> set[str]:
        return {swap.text for seed in range(150) for swap in swaps(text, seed=seed, **more)}

    others = ["bird", "cat", "sheep", "cow", "bear", "zebra", "giraffe"]
    assert texts("A dog", present=others) == {"A horse", "An elephant"}
    assert texts("an elephant", present=others) == {"a dog", "a horse"}
    assert texts("AN ELEPHANT", present=others) == {"A DOG", "A HORSE"}
    assert texts("A DOG", present=others) == {"A HORSE", "AN ELEPHANT"}
    assert texts("the dog", present=others) == {"the horse", "the elephant"}
    assert texts("a old dog", present=others) == {"a old horse", "a old elephant"}
    assert {"an 8 m boat", "a 3 m boat"} <= texts("a 2 m boat")
    assert {"an eight m boat", "a ten m boat"} <= texts("a two m boat")
    assert {"an orange hat"} <= texts("a green hat")


def test_capitals_are_kept() -> None:
    assert outcomes("Dog", "Dog", present=["bird", "cat"]) >= {"Horse", "Sheep"}
    assert outcomes("Traffic Light", "Traffic Light") == {"Fire Hydrant", "Stop Sign", "Parking Meter", "Bench"}
    assert outcomes("Traffic light", "Traffic light") == {"Fire hydrant", "Stop sign", "Parking meter", "Bench"}
    assert outcomes("TV", "TV") == {"laptop", "mouse", "remote", "keyboard", "cell phone"}
    assert outcomes("TWO", "TWO") >= {"THREE", "TEN"}


def test_names_of_several_words_are_one() -> None:
    assert [swap.right for swap in swaps("a hot dog and a teddy  bear")] == ["hot dog", "teddy  bear"]
    assert [swap.right for swap in swaps("a tennis racket, fire-hydrant")] == ["tennis racket", "fire-hydrant"]


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("an orange cat", {"cat": "object", "orange": "colour"}),
        ("an orange and white cat", {"cat": "object", "orange": "colour", "white": "colour"}),
        ("an orange on a plate", {"orange": "object"}),
        ("oranges", {"oranges": "object"}),
        ("a glass of orange juice", {}),
        ("a man dressed in orange", {}),
        ("a train station", {}),
        ("a remote island", {}),
        ("the remote on a bed", {"remote": "object", "bed": "object"}),
        ("ten o'clock at gate 4", {}),
    ],
)
def test_words_with_two_meanings(text: str, kinds: dict[str, str]) -> None:
    assert {swap.right: swap.kind for swap in swaps(text)} == kinds


def test_colours_and_numbers() -> None:
    assert outcomes("a red car by a blue wall", "red") == {"green", "yellow", "black", "white", "gray"}
    assert "gray" not in outcomes("a grey wall, red", "red")
    assert outcomes("two dogs and 3 cats", "two") == set(swap_words.NUMBERS) - {"two", "three"}
    assert outcomes("two dogs and 3 cats", "3") == {"4", "5", "6", "7", "8", "9", "10"}
    assert swaps("an orange on a green plate", kind="colour", present=["orange"])[0].wrong != "orange"
    assert "orange" not in outcomes("a green plate", "green", present=["orange"])


def test_draws_follow_from_seed_id_and_text_alone() -> None:
    text = "two dogs, three cats and a red bus on a blue road with four cars"

    def draw(**changes: Any) -> list[Swap]:
        return wrong_captions(text, **{"seed": 0, "id": "a", **changes})

    assert draw() == draw()
    assert any(draw() != draw(seed=seed) for seed in range(1, 4))
    assert any(draw() != draw(id=id) for id in "bcd")
    assert [swap.kind for swap in draw()] == ["object", "colour", "number"]
    assert set(draw()) <= set(draw(all=True))
    assert len(draw(all=True)) == 9
    assert {draw(seed=seed)[0].right for seed in range(30)} == {"dogs", "cats", "bus", "cars"}
    # The same in another process, with other hashes, and in other versions: an earlier table stays repeatable.
    assert [(swap.right, swap.wrong) for swap in draw()] == [("bus", "boat"), ("red", "green"), ("four", "six")]


def test_the_words_are_cocos() -> None:
    names = [name for group in swap_words.SUPERCATEGORIES.values() for name in group]
    assert len(names) == len(set(names)) == 80
    assert len(swap_words.SUPERCATEGORIES) == 12
    known = set(names)
    assert set(swap_words.SYNONYMS) <= known
    assert {name for some in swap_words.HINTS.values() for name in some} <= known
    assert set(swap_words.CLOSE) == set(swap_words.COLOURS)
    assert all(a in swap_words.CLOSE[b] for a in swap_words.COLOURS for b in swap_words.CLOSE[a])


# How the words score.

TEXT = "a dog, sits near a bus"  # six words and a comma


@functools.cache
def read(mini: Any, texts: tuple[str, ...]) -> Pairs:
    return pairs_of(mini, [EXAMPLES / "dog.jpg"] * len(texts), texts)


def judge(mini: Any, scores: list[Any], wrong: Any, texts: list[str] | None = None) -> Judged:
    texts = texts or [TEXT] * len(scores)
    pairs = dataclasses.replace(read(mini, tuple(texts)), wrong=None if wrong is None else tuple(wrong), _kept={})
    return Judged(pairs, {"text": tuple(Map(np.asarray(one, dtype=np.float32)) for one in scores)})


def values(judged: Judged) -> list[list[float]]:
    found = [function(judged, "text") for function in (swap_lowest, swap_negative, swap_rank)]
    assert all(one.dtype == torch.float64 for one in found)
    return [one.tolist() for one in found]


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([1, -2, -9, 3, 4, 5, 6], (1, 1, 1)),  # the comma's score is no word's
        ([1, 2, 0, 3, 4, 5, 6], (0, 0, 4 / 5)),
        ([5, 2, 0, 3, 4, 5, 6], (1, 0, 1)),
        ([1, 9, 0, 3, 4, 5, 6], (0, 0, 0)),
        ([-1, -1, 0, -1, 4, 5, 6], (1 / 3, 1, (3 + 1) / 5)),
        ([0, 0, 0, 0, 0, 0, 0], (1 / 6, 0, 1 / 2)),
        ([-3, -1, 0, -1, 4, 5, 6], (0, 1, (3 + 1 / 2) / 5)),
    ],
)
def test_scores_by_hand(mini: Any, scores: list[float], expected: tuple[float, float, float]) -> None:
    found = values(judge(mini, [scores], [(2, 5)]))
    assert [value for (value,) in found] == pytest.approx(list(expected), rel=1e-12)


def test_tokens_are_summed_to_words(mini: Any) -> None:
    text = "a cat with a fire hydrant and gizmology"
    layout = read(mini, (text,)).layouts["text"][0]
    tokens = [len(word.positions) for word in layout.words]
    assert tokens[7] > 1
    sums = [0, -3, 0, 0, -2, -2, 1, -5]
    each = [value / count for value, count in zip(sums, tokens, strict=True) for _ in range(count)]
    name = (text.index("fire"), text.index("fire") + len("fire hydrant"))
    found = values(judge(mini, [each, each, each], [name, (2, 5), (name[1] + 5, len(text))], [text] * 3))
    # -4 for "fire hydrant", one word among 7; -3 for "cat", one among 8; -5 for the last.
    assert found[0] == [0, 0, 1]
    assert found[1] == [1, 1, 1]
    assert found[2] == pytest.approx([5 / 6, 6 / 7, 1])


def test_only_the_swapped_part_of_a_word_counts(mini: Any) -> None:
    text = "the dog's bone"
    pieces = read(mini, (text,)).layouts["text"][0].pieces
    assert [text[piece.start : piece.end] for piece in pieces] == ["the", "dog", "'s", "bone"]
    found = values(judge(mini, [[1, -1, 7, 2], [1, 3, -7, 2]], [(4, 7)] * 2, [text] * 2))
    assert found == [[1, 0], [1, 0], [1, 0]]


def test_texts_of_a_batch_do_not_meet(mini: Any) -> None:
    texts = ["a dog", TEXT, "one red dog near"]
    scores = [[2, 1], [3, 2, 0, 1, 4, 5, 6], [1, -1, 2, -2]]
    spans = [(2, 5), (2, 5), (4, 7)]
    together = values(judge(mini, scores, spans, texts))
    alone = [values(judge(mini, [s], [w], [t])) for s, w, t in zip(scores, spans, texts, strict=True)]
    assert together == [[one[i][0] for one in alone] for i in range(3)]
    assert together == [[1, 0, 0], [0, 0, 1], [1, pytest.approx(4 / 5), pytest.approx(2 / 3)]]


def test_where_there_is_nothing_to_compare(mini: Any) -> None:
    texts = ["dog", "a dog", "a dog", "a dog"]
    scores = [[-1], [float("nan"), 1], [1, float("inf")], [1, -1]]
    found = values(judge(mini, scores, [(0, 3), (2, 5), (2, 5), (50, 60)], texts))
    assert np.isnan(found[0]).tolist() == [True] * 4
    assert np.isnan(found[1]).tolist() == [False, True, True, True]  # one word alone can be negative
    assert np.isnan(found[2]).tolist() == [True] * 4
    assert found[1][0] == 1


def test_spans_of_made_captions_are_found(mini: Any) -> None:
    made = [swap for text in CAPTIONS[:4] for swap in wrong_captions(text, seed=0, id="a")]
    texts, spans = [swap.text for swap in made], [(swap.start, swap.end) for swap in made]
    layouts = read(mini, tuple(texts)).layouts["text"]
    scores = []
    for layout, (start, end) in zip(layouts, spans, strict=True):
        scores.append([-1.0 if start <= piece.start and piece.end <= end else 1.0 for piece in layout.pieces])
    assert values(judge(mini, scores, spans, texts)) == [[1] * len(made)] * 3


def test_chance_is_a_half(mini: Any) -> None:
    drawn = np.random.default_rng(0).normal(size=(400, 7))
    pairs = judge(mini, [[0] * 7], [(2, 5)]).pairs
    found = [float(swap_rank(Judged(pairs, {"text": (Map(one),)}), "text")) for one in drawn]
    assert np.mean(found) == pytest.approx(0.5, abs=4 * 0.35 / 20)
    assert set(np.round(np.array(found) * 5)) == {0, 1, 2, 3, 4, 5}


def test_what_cannot_be_judged_is_said(mini: Any) -> None:
    scores = [[1, 2, 0, 3, 4, 5, 6]]
    for function in (swap_lowest, swap_negative, swap_rank):
        with pytest.raises(InputError, match="which word of each caption is wrong"):
            function(judge(mini, scores, None), "text")
        with pytest.raises(InputError, match="2 spans of wrong words for 1 captions"):
            function(judge(mini, scores, [(2, 5), (0, 1)]), "text")
        with pytest.raises(OptionError, match="none in the image"):
            function(judge(mini, scores, [(2, 5)]), "image")
        with pytest.raises(InputError, match="text was not explained"):
            function(Judged(judge(mini, scores, [(2, 5)]).pairs, {}), "text")


def test_the_registry_has_them() -> None:
    for name in ("swap-lowest", "swap-negative", "swap-rank"):
        metric = METRICS[name]
        assert (metric.question, metric.sides, metric.better) == ("swap", ("text",), "higher")
