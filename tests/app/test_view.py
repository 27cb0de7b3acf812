"""What the browser draws are the raw scores, on one scale where they stand side by side, with words for all of it."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import isthmus
from conftest import EXAMPLES
from isthmus.app.difference import before_and_after, changed, word_changes
from isthmus.app.question import Answer, Question
from isthmus.app.view import alternative, grid, payload, place, strongest, strongest_words
from isthmus.methods import METHODS


@pytest.fixture(scope="module")
def dog() -> Image.Image:
    return Image.open(EXAMPLES / "dog.jpg").convert("RGB")


def answered(mini: Any, dog: Image.Image, text: str, **more: Any) -> Answer:
    found = isthmus.explain(mini, dog, text, steps=2, **more)
    assert isinstance(found, isthmus.Explanation)
    return Answer(Question("mini", dog, text, options={"steps": 2}), found, 0.5)


@pytest.fixture(scope="module")
def answer(mini: Any, dog: Image.Image) -> Answer:
    return answered(mini, dog, "a dog on the grass", joint=True)


@pytest.fixture(scope="module")
def other(mini: Any, dog: Image.Image) -> Answer:
    return answered(mini, dog, "a cat on the grass")


def test_scores_are_the_raw_ones_as_json_has_them(answer: Answer) -> None:
    view, one = json.loads(json.dumps(payload(answer), allow_nan=False)), answer.explanation
    assert one.image is not None
    assert one.text is not None
    assert one.joint is not None
    np.testing.assert_allclose(np.reshape(view["scores"], one.image.scores.shape), one.image.scores, rtol=1e-6)
    assert (view["rows"], view["columns"]) == one.image.scores.shape
    assert view["limit"] == pytest.approx(np.abs(one.image.scores).max(), rel=1e-6)
    assert [view["text"][word["start"] : word["end"]] for word in view["words"]] == ["a", "dog", "on", "the", "grass"]
    assert [word["score"] for word in view["words"]] == pytest.approx([w.score for w in one.text.words], rel=1e-6)
    assert view["wordLimit"] == pytest.approx(max(abs(w.score) for w in one.text.words), rel=1e-6)
    assert view["similarity"] == pytest.approx(one.similarity, rel=1e-6)
    np.testing.assert_allclose(view["joint"]["scores"], one.joint.scores.reshape(5, -1), rtol=1e-6)
    assert view["joint"]["limit"] == pytest.approx(np.abs(one.joint.scores).max(), rel=1e-6)


def test_the_crop_is_given_in_shares_of_the_original(answer: Answer) -> None:
    view = payload(answer)  # the model sees the middle square of 426 x 640 pixels
    assert view["crop"] == pytest.approx([0, (640 - 426) / 2 / 640, 1, (640 + 426) / 2 / 640], abs=1e-3)
    assert view["outlined"]
    assert view["original"] == [426, 640]


def test_the_picture_is_within_and_small_where_asked(answer: Answer, dog: Image.Image) -> None:
    for small, longest in ((False, 640), (True, 384)):
        view = payload(answer, small=small)
        kind, data = view["picture"].split(",", 1)
        shown = Image.open(io.BytesIO(base64.b64decode(data)))
        assert kind == "data:image/jpeg;base64"
        assert shown.size == (view["width"], view["height"])
        assert max(shown.size) == longest
        near = np.asarray(dog.resize(shown.size)).astype(float) - np.asarray(shown)
        assert np.abs(near).mean() < 8


def test_views_side_by_side_share_one_scale(answer: Answer, other: Answer) -> None:
    views = [payload(one, with_scale=(answer, other)) for one in (answer, other)]
    alone = [payload(one) for one in (answer, other)]
    for limit in ("limit", "wordLimit"):
        assert views[0][limit] == views[1][limit] == max(view[limit] for view in alone)
    assert grid(views) == {"grid": views}


def test_the_text_alternative_has_the_strongest_words_and_regions(answer: Answer) -> None:
    said, one = alternative(answer.explanation), answer.explanation
    assert one.image is not None
    assert one.text is not None
    row, column = np.unravel_index(np.abs(one.image.scores).argmax(), one.image.scores.shape)
    assert f"(row {row + 1}, column {column + 1}) {one.image.scores[row, column]:+.4f}" in said
    strongest = max(one.text.words, key=lambda word: abs(word.score))
    assert f"Strongest words: {strongest.text} {strongest.score:+.3f}" in said
    assert f"Similarity {one.similarity:.3f} with 'a dog on the grass'" in said


def test_places_are_told_in_words() -> None:
    assert place(0, 0, (7, 7)) == "top left (row 1, column 1)"
    assert place(3, 3, (7, 7)) == "centre (row 4, column 4)"
    assert place(6, 3, (7, 7)) == "bottom centre (row 7, column 4)"
    assert place(3, 9, (7, 10)) == "middle right (row 4, column 10)"
    assert place(0, 0, (1, 1)) == "top left (row 1, column 1)"


def test_values_that_json_cannot_write_are_none(answer: Answer) -> None:
    image = answer.explanation.image
    assert image is not None
    scores = image.scores.copy()
    scores[0, 0] = np.nan
    view = payload(replace(answer, explanation=replace(answer.explanation, image=replace(image, scores=scores))))
    assert view["scores"][0] is None
    json.dumps(view, allow_nan=False)


def test_a_side_that_is_not_explained_is_left_out(mini: Any, dog: Image.Image) -> None:
    view = payload(answered(mini, dog, "a dog", sides="text"))
    assert "scores" not in view
    assert len(view["words"]) == 2
    assert view["picture"]


def test_facts_tell_delta_time_and_passes(answer: Answer) -> None:
    one, facts = answer.explanation, payload(answer)["facts"]
    assert one.image is not None
    assert any(f"delta {one.image.completeness.relative_delta:.2%}" in fact for fact in facts)
    total = sum(one.provenance.passes.values())
    assert f"{total:g} passes in 0.5 s" in facts


def test_a_difference_is_now_less_before(answer: Answer, other: Answer) -> None:
    view, one, two = changed(answer, other), answer.explanation, other.explanation
    assert one.image is not None
    assert two.image is not None
    expected = two.image.scores.astype(float) - one.image.scores
    np.testing.assert_allclose(np.reshape(view["scores"], expected.shape), expected, rtol=1e-6)
    assert view["similarity"] == pytest.approx((two.similarity or 0) - (one.similarity or 0))
    json.dumps(view, allow_nan=False)


def test_the_alternative_of_a_difference_has_what_changed_most(answer: Answer, other: Answer) -> None:
    view = changed(answer, other)
    scores = np.reshape(view["scores"], (view["rows"], view["columns"]))
    row, column = np.unravel_index(np.abs(scores).argmax(), scores.shape)
    where = place(int(row), int(column), scores.shape)
    assert f"Regions that changed most: {where} {scores[row, column]:+.4f}, " in view["alt"]
    most = max(view["words"], key=lambda word: abs(word["score"]))
    name = f"{most['text']} (was {most['was']})" if "was" in most else most["text"]
    assert f"Words that changed most: {name} {most['score']:+.4f}, " in view["alt"]


def test_scores_are_written_with_digits_that_say_something() -> None:
    assert strongest_words([("a", 297.123), ("b", -3.5)]) == "a +297.1, b -3.5"
    assert strongest_words([("a", 0.1234567), ("b", -0.00004)]) == "a +0.123, b -0.000"
    assert strongest_words([("a", 0.00001234)]) == "a +0.0000123"
    assert strongest_words([("a", 0.0)]) == "a +0.000"
    said = strongest(np.array([[0.0, -250.04]]))
    assert said == "top centre (row 1, column 2) -250.0, top left (row 1, column 1) +0.0"


def test_a_unit_is_named_where_scores_have_one(answer: Answer) -> None:
    units = {name: payload(replace(answer, question=replace(answer.question, method=name)))["unit"] for name in METHODS}
    assert units["nib"] == units["integrated-gradients"] == "cosine"
    assert units["iba"] == "bits"
    assert units["m2ib"] == units["rollout"] == units["saliency"] == ""


def test_words_are_paired_by_their_place(mini: Any, dog: Image.Image, answer: Answer, other: Answer) -> None:
    found = word_changes(answer.explanation, other.explanation)
    old, new = (one.explanation.text.words for one in (answer, other))  # type: ignore[union-attr]
    assert [word.get("was") for word in found] == [None, "dog", None, None, None]
    assert [w["score"] for w in found] == pytest.approx([n.score - o.score for o, n in zip(old, new, strict=True)])
    longer = answered(mini, dog, "a big dog on the grass")
    words = word_changes(answer.explanation, longer.explanation)
    assert words[1]["text"] == "big"
    assert "was" not in words[1]
    assert words[1]["score"] == longer.explanation.text.words[1].score  # type: ignore[union-attr]
    assert words[2]["score"] == pytest.approx(longer.explanation.text.words[2].score - old[1].score)  # type: ignore[union-attr]


def test_only_what_compares_stands_side_by_side(mini: Any, dog: Image.Image, answer: Answer, other: Answer) -> None:
    both = before_and_after(answer, other)
    assert both is not None
    assert [view["title"] for view in both["grid"]] == ["Before", "Now", "Difference"]
    assert both["grid"][0]["limit"] == both["grid"][1]["limit"]
    assert before_and_after(None, other) is None
    elsewhere = replace(other, question=replace(other.question, picture=dog.copy()))
    assert before_and_after(answer, elsewhere) is None
    assert before_and_after(answer, replace(other, question=replace(other.question, method="gradcam"))) is None
    assert before_and_after(answer, replace(other, question=replace(other.question, options={}))) is None


def test_a_large_delta_is_told_in_a_sentence_and_specials_in_words(answer: Answer) -> None:
    """At two steps the scores miss much; where they do not, nothing is said."""
    view, one = payload(answer), answer.explanation
    assert one.image is not None
    delta = one.image.completeness.relative_delta
    assert delta is not None
    assert delta > 0.05
    assert view["notes"][0].startswith(f"The scores miss the similarity's change by {delta:.1%} (regions)")
    assert "more steps" in view["notes"][0]
    assert not any("BOS" in fact or "EOS" in fact for fact in view["facts"])
    assert any("start mark" in fact for fact in view["facts"])
    exact = [
        replace(side, completeness=replace(side.completeness, total=1.0, closed=0.0, open=1.0))
        for side in (one.image, one.text)
        if side
    ]
    assert payload(replace(answer, explanation=replace(one, image=exact[0], text=exact[1])))["notes"] == []
    none = replace(one.image, completeness=replace(one.image.completeness, closed=1.0, open=1.0, total=0.5))
    view = payload(replace(answer, explanation=replace(one, image=none)))
    assert "all of it (regions)" in view["notes"][0]
    assert any("delta undefined" in fact for fact in view["facts"])
