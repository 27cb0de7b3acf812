"""What the tabs show, by calling their events' functions: against the library's own numbers, and what must hold."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from PIL import Image

import isthmus
from isthmus.app import tab_compare, tab_contrast, tab_folder, tab_prompts
from isthmus.app.gallery import ORDERS, corners, left_out_said
from isthmus.app.limits import Limits
from isthmus.app.models import Models, Served
from isthmus.app.page import Page
from isthmus.app.question import Question
from isthmus.app.sentences import told
from isthmus.app.uploads import LIMITS, Gathered, Upload
from isthmus.app.work import Visit
from isthmus.comparison import CompareRow
from isthmus.drawing.figure import _title
from isthmus.errors import InputError, OptionError

NIB = ("mini", "nib", 0, 10)


@pytest.fixture(scope="module")
def page(mini: Any) -> Page:
    return Page(gr, Models([Served(mini)]), Limits())


@pytest.fixture(scope="module")
def picture(dog: Path) -> Image.Image:
    return Image.open(dog).convert("RGB").resize((240, 320))


def last(rows: Iterator[Any]) -> Any:
    *_, end = rows
    return end


def scores(view: dict[str, Any]) -> Any:
    return np.array(view["scores"])


def test_a_contrast_is_the_librarys_and_its_three_maps_share_one_scale(page: Page, picture: Any, mini: Any) -> None:
    contrast = tab_contrast._contraster(page)
    main, both, shown, status, _ = last(contrast(picture, " a dog ", "a cat", *NIB, Visit()))
    wanted = isthmus.explain(mini, picture, "a dog", against="a cat", sides="image")
    alone = [isthmus.explain(mini, picture, text) for text in ("a dog", "a cat")]
    first, second = both["grid"]
    assert [first["title"], second["title"]] == ["a dog", "a cat"]
    difference = alone[0].similarity - alone[1].similarity
    assert _title(shown.explanations[0]) == f"difference of similarities {difference:+.3f}"
    assert [_title(one) for one in shown.explanations[1:]] == [f"similarity {one.similarity:.3f}" for one in alone]
    assert shown.picture is picture
    np.testing.assert_allclose(scores(main), wanted.image.scores.ravel(), rtol=1e-6)
    for card, one in zip((first, second), alone, strict=True):
        np.testing.assert_allclose(scores(card), one.image.scores.ravel(), rtol=1e-5, atol=1e-7)
    largest = max(np.abs(one.image.scores).max() for one in (wanted, *alone))
    assert main["limit"] == first["limit"] == second["limit"] == pytest.approx(largest, rel=1e-5)
    assert main["similarity"] == pytest.approx(alone[0].similarity - alone[1].similarity, abs=1e-5)
    assert "rather than 'a cat'" in main["alt"]
    assert status == ""
    assert [call.against for call in shown.calls] == ["a cat", "", ""]


def test_a_contrast_the_other_way_round_is_its_negative(page: Page, picture: Any) -> None:
    contrast = tab_contrast._contraster(page)
    one = last(contrast(picture, "a dog", "a cat", *NIB, Visit()))[0]
    other = last(contrast(picture, "a cat", "a dog", *NIB, Visit()))[0]
    np.testing.assert_allclose(scores(one), -scores(other), rtol=1e-4, atol=1e-6)


def test_prompts_are_ranked_on_one_scale_with_shares_that_sum_to_one(page: Page, picture: Any, mini: Any) -> None:
    prompts = ["a cat", "a dog", "a plate of pizza", "a <b>car</b>", "a dog on a street"]
    rank = tab_prompts._ranker(page)
    cards, shown, said, status, _ = last(rank(picture, "\n".join([*prompts, "", "a dog"]), *NIB, Visit()))
    alone = {text: isthmus.explain(mini, picture, text) for text in prompts}
    order = sorted(prompts, key=lambda text: -alone[text].similarity)
    assert [card["text"] for card in cards["grid"]] == order
    assert [card["title"] for card in cards["grid"]] == ["1", "2", "3", "4", "5"]
    assert len({card["limit"] for card in cards["grid"]}) == len({card["wordLimit"] for card in cards["grid"]}) == 1
    for card in cards["grid"]:
        np.testing.assert_allclose(scores(card), alone[card["text"]].image.scores.ravel(), rtol=1e-3, atol=1e-6)
    assert sum(card["probability"] for card in cards["grid"]) == pytest.approx(1, abs=1e-5)
    assert [one.caption for one in shown.explanations] == order
    assert shown.calls[0].texts == tuple(prompts)
    assert "<b>car</b>" not in said
    assert "5 prompts · 1 line left out, given more than once" in said
    assert status == ""


def test_methods_are_compared_each_on_its_own_scale_and_in_its_own_unit(page: Page, picture: Any, mini: Any) -> None:
    names = ["nib", "gradcam", "clip-surgery"]
    compare = tab_compare._comparer(page)
    cards, shown, said, _, _ = last(compare(picture, "a dog", [*names, "nib"], "mini", Visit()))
    wanted = isthmus.compare(mini, picture, "a dog", methods=names)
    assert [card["title"] for card in cards["grid"]] == names
    for card, row in zip(cards["grid"], wanted.rows, strict=True):
        np.testing.assert_allclose(scores(card), row.explanation.image.scores.ravel(), rtol=1e-5, atol=1e-8)
        largest = float(np.abs(row.explanation.image.scores).max())
        assert card["limit"] == pytest.approx(largest or 1.0, rel=1e-5)
        assert card["cardFacts"][0].startswith(f"regions ±{largest:.3g}" if largest else "regions zero everywhere")
    units = [card["cardFacts"][1] for card in cards["grid"]]
    assert units == ["unit: that of the similarity", "unit: that of the similarity", "unit: none"]
    assert cards["grid"][0]["cardFacts"][-1] == "the reference"
    assert cards["grid"][2]["absent"] == "It does not explain the text."
    assert f"{wanted.explanations[0].similarity:.3f}" in said
    assert shown.comparison is not None
    assert shown.calls[0].methods == tuple(names)


def test_a_method_that_refuses_says_why_without_internals(picture: Any) -> None:
    row = CompareRow("x", "A method", reason="The model in /root/secret/model has no attention: choose another method.")
    card = tab_compare._card(Question("mini", picture, "a dog"), row, False)
    assert card["absent"] == "No result: The model in … has no attention: choose another method."
    assert card["words"] == []
    assert card["similarity"] is None


def test_methods_are_bounded_and_known(page: Page, picture: Any) -> None:
    assert tab_compare.chosen_of(["nib", "nib", 3, "m2ib"]) == ["nib", "m2ib"]
    for bad in (None, [], [3], "nib", [str(i) for i in range(LIMITS.methods + 1)]):
        with pytest.raises(InputError):
            tab_compare.chosen_of(bad)
    with pytest.raises(OptionError, match="no method"):
        last(tab_compare._comparer(page)(picture, "a dog", ["../../etc"], "mini", Visit()))
    with pytest.raises(OptionError, match="no such model"):
        last(tab_compare._comparer(page)(picture, "a dog", ["nib"], "some/other-model", Visit()))


def upload(name: str, image: Image.Image) -> Upload:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return Upload(name, buffer.getvalue())


@pytest.fixture(scope="module")
def given(dog: Path) -> Gathered:
    names = ("dog", "bird", "pizza")
    files = [upload(f"{n}.png", Image.open(dog.parent / f"{n}.jpg").convert("RGB").resize((96, 72))) for n in names]
    return Gathered([*files, Upload("broken.png", b"\x89PNG....")], [("notes.txt", "no picture by its name")])


def test_a_folder_is_sorted_each_way_and_opened(page: Page, given: Gathered, mini: Any) -> None:
    explain_all = tab_folder._explainer(page)
    end = last(explain_all(given, "a dog", "mini", "nib", 2, 5, "similarity", Visit()))
    cards, _, opened, gallery, shown, said = end[:6]
    assert opened is None
    assert shown is None
    assert "3 pictures" in said
    assert "2 left out" in said
    wanted = {one.name: isthmus.explain(mini, one.picture(), "a dog", layer=2, steps=5) for one in given.uploads[:3]}
    by = {
        "similarity": lambda one: one.similarity,
        "delta": lambda one: one.image.completeness.relative_delta,
        "share in the corners": lambda one: corners(one.image.scores)[0],
    }
    assert set(by) == set(ORDERS)
    for order, value in by.items():
        names = sorted(wanted, key=lambda name, value=value: -value(wanted[name]))
        shown_cards = tab_folder._sorted(gallery, order)["grid"]
        assert [card["title"] for card in shown_cards] == names
    assert len({card["limit"] for card in cards["grid"]}) == 1
    assert cards["select"] is True
    assert all(item.explanation.picture is None for item in gallery.items)
    whole, order = end[8], end[9]
    assert order["visible"] is True
    assert whole.calls[0].pictures == tuple(item.upload.name for item in gallery.items)
    assert [one.source for one in whole.explanations] == list(whole.calls[0].pictures)
    for one in whole.explanations:
        assert np.array_equal(one.picture, wanted[one.source].picture)
    best = gallery.ordered("similarity")[0]
    answer = best.answer(gallery.question(best.upload))
    assert np.array_equal(answer.explanation.image.scores, wanted[best.upload.name].image.scores)
    assert np.array_equal(answer.explanation.picture, wanted[best.upload.name].picture)


def test_an_opened_picture_is_that_of_the_card(page: Page, given: Gathered) -> None:
    _, _, _, gallery, *_ = last(tab_folder._explainer(page)(given, "a dog", "mini", "gradcam", 0, 10, "delta", Visit()))
    open_one = tab_folder._opener(page)
    cards = gallery.view("similarity")["grid"]
    for place, card in enumerate(cards):
        heading, view, shown, status, _ = last(
            open_one(gallery, "similarity", Visit(), gr.EventData(None, {"index": place}))
        )
        assert heading.startswith(f"<h2>{card['title']}</h2>")
        assert shown.calls[0].pictures == ()  # what is copied is of this picture, as what is saved
        assert view["scores"] == card["scores"]
        assert shown.explanations[0].picture is not None
        assert status == ""
    for place in (-1, len(cards), "0", None, 99):
        with pytest.raises(gr.Error, match="no longer here"):
            last(told(open_one)(gallery, "similarity", Visit(), gr.EventData(None, {"index": place})))
    with pytest.raises(InputError, match="no such order"):
        tab_folder._sorted(gallery, "__class__")


def test_work_on_many_pictures_is_cancelled(page: Page, given: Gathered) -> None:
    visit = Visit()
    rows = tab_folder._explainer(page)(given, "a dog", "mini", "nib", 0, 40, "similarity", visit)
    assert next(rows)[0] is None  # a former gallery is no longer shown
    assert "Picture 1 of 4" in next(rows)[6]
    visit.cancel()
    end = last(rows)
    assert "Cancelled. No picture was explained." in end[5]
    assert end[0] is None
    assert end[7]["interactive"] is False


def test_nothing_given_is_a_sentence(page: Page, picture: Any) -> None:
    calls = [
        tab_contrast._contraster(page)(None, "a", "b", *NIB, Visit()),
        tab_contrast._contraster(page)(picture, "a", " ", *NIB, Visit()),
        tab_contrast._contraster(page)(picture, "a" * 2000, "b", *NIB, Visit()),
        tab_prompts._ranker(page)(picture, "\n".join(map(str, range(99))), *NIB, Visit()),
        tab_prompts._ranker(page)(picture, "", *NIB, Visit()),
        tab_compare._comparer(page)(picture, "a dog", [], "mini", Visit()),
        tab_folder._explainer(page)(None, "a dog", *NIB, "similarity", Visit()),
        tab_folder._explainer(page)(Gathered([Upload("x", b"x")]), "a dog", *NIB, "similarity", Visit()),
    ]
    for call in calls:
        with pytest.raises(InputError) as error:
            last(call)
        assert str(error.value).endswith(".")


def test_the_share_of_the_corners() -> None:
    share, area = corners(np.ones((8, 8)))
    assert share == area == pytest.approx(16 / 64)
    one = np.zeros((7, 7))
    one[0, 6] = 2.0
    one[3, 3] = -5.0  # what speaks against it does not count
    assert corners(one) == (1.0, pytest.approx(4 / 49))
    one[3, 3] = 6.0
    assert corners(one)[0] == pytest.approx(0.25)
    assert corners(-np.ones((3, 5)))[0] is None
    assert corners(np.full((4, 4), np.nan))[0] is None


def test_what_was_left_out_is_one_line() -> None:
    assert left_out_said([]) == ""
    assert left_out_said([("a", "x."), ("b", "y")]) == "2 left out (a: x; b: y)."
    assert left_out_said([(c, "x") for c in "abcde"]).endswith("c: x; and 2 more).")
