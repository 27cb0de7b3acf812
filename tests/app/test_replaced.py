"""One question after the other: what has been replaced shows and ends nothing, and what is gone back to is whole."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from PIL import Image

from isthmus.app import tab_compare, tab_contrast, tab_explain, tab_folder, tab_prompts
from isthmus.app.limits import Limits
from isthmus.app.models import Models, Served
from isthmus.app.page import Page
from isthmus.app.sentences import Refused
from isthmus.app.uploads import Gathered, Upload
from isthmus.app.work import CancelledError, Visit

Ask = Callable[[str, int, Visit], Iterator[list[Any]]]


@pytest.fixture(scope="module")
def page(mini: Any) -> Page:
    return Page(gr, Models([Served(mini)]), Limits())


@pytest.fixture(scope="module")
def picture(dog: Path) -> Image.Image:
    return Image.open(dog).convert("RGB").resize((90, 120))


@pytest.fixture(scope="module")
def given(picture: Image.Image) -> Gathered:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return Gathered([Upload("dog.png", buffer.getvalue())])


def asked_of(page: Page, picture: Any, given: Gathered) -> dict[str, Ask]:
    """How each tab is asked: a text, steps, and whose question it is."""
    contrast, rank, compare = tab_contrast._contraster(page), tab_prompts._ranker(page), tab_compare._comparer(page)
    explain, explain_all = tab_explain._explainer(page), tab_folder._explainer(page)
    return {
        "explain": lambda text, steps, visit: explain(picture, text, "mini", "nib", 0, steps, visit),
        "contrast": lambda text, steps, visit: contrast(picture, text, "a cat", "mini", "nib", 0, steps, visit),
        "prompts": lambda text, steps, visit: rank(picture, f"{text}\na cat", "mini", "nib", 0, steps, visit),
        "compare": lambda text, steps, visit: compare(picture, text, ["gradcam", "nib"], "mini", visit),
        "folder": lambda text, steps, visit: explain_all(given, text, "mini", "nib", 0, steps, "similarity", visit),
    }


def test_a_question_whose_answer_is_on_its_way_does_not_cancel_the_next_one(page: Page, picture: Any) -> None:
    visit, explain = Visit(), tab_explain._explainer(page)
    first = explain(picture, "a dog", "mini", "nib", 0, 2, visit)
    assert next(row[0]["text"] for row in first if isinstance(row[0], dict) and "picture" in row[0]) == "a dog"
    second = explain(picture, "a cat", "mini", "nib", 0, 2, visit)
    assert "Explaining" in next(second)[6]
    assert list(first) == []  # nothing of it is shown any more, and nothing begun
    rows = list(second)
    assert "Cancelled" not in "".join(str(row[6]) for row in rows)
    assert [one.question.text for one in visit.answers] == ["a dog", "a cat"]
    assert visit.answers[1].explanation.joint is not None
    assert visit.answers[0].explanation.joint is None


@pytest.mark.parametrize("name", ["explain", "contrast", "prompts", "compare", "folder"])
def test_a_question_that_another_has_replaced_shows_nothing(
    page: Page, picture: Any, given: Gathered, name: str
) -> None:
    ask, visit = asked_of(page, picture, given)[name], Visit()
    first = ask("a dog", 40, visit)
    next(first)
    if name == "folder":
        next(first)  # the first row empties the tab
    second = ask("a bird", 2, visit)
    next(second)
    assert list(first) == []
    *_, shown = second
    assert not any("Cancelled" in str(part) for part in shown)
    assert {"scores", "grid"} & set(shown[0])


def test_what_is_gone_back_to_comes_with_its_picture(page: Page, picture: Image.Image) -> None:
    visit, explain = Visit(), tab_explain._explainer(page)
    for text in ("a dog", "a cat"):
        list(explain(picture, text, "mini", "gradcam", 0, 10, visit))
    other, skip = picture.rotate(180), gr.skip()
    for held, put in ((other, picture), (None, picture), (Refused("No."), picture), (picture.copy(), skip)):
        for to in (0, 1, 1):  # the last one is shown already, and still asked of its own picture
            row = tab_explain._moved(page, visit, to, held)
            assert row[6:8] == [("a dog", "a cat")[to], put]
    assert row[0] == skip


def test_each_view_has_a_name_of_its_own(page: Page, picture: Image.Image, given: Gathered) -> None:
    """Python gives the address of a question that is gone to the next one."""
    named = []
    *_, end = tab_folder._explainer(page)(given, "a dog", "mini", "gradcam", 0, 10, "similarity", Visit())
    for _ in range(20):
        opened = tab_folder._opener(page)(end[3], "similarity", Visit(), gr.EventData(None, {"index": 0}))
        named.append(next(opened)[1]["id"])
        opened.close()
        *_, row = tab_contrast._contraster(page)(picture, "a dog", "a cat", "mini", "gradcam", 0, 10, Visit())
        named.append(row[0]["id"])
        del row
    assert len(set(named)) == len(named)
    assert named == sorted(named), "they are counted"


def test_a_question_that_was_replaced_before_it_began_ends_nothing(
    page: Page, picture: Any, given: Gathered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both events run in threads of their own: the newer one may come between any two lines of the older one."""
    for ask in asked_of(page, picture, given).values():
        visit, begin = Visit(), Visit.begin

        def late(self: Visit, *args: Any, begin: Any = begin) -> Any:
            monkeypatch.setattr(Visit, "begin", begin)
            rows = [self.next_turn() and self.begin(lambda watch: "newer", self.turn)]
            with pytest.raises(CancelledError, match="taken the place"):
                begin(self, *args)
            assert rows[0].result() == "newer"
            raise CancelledError

        monkeypatch.setattr(Visit, "begin", late)
        assert not any("Cancelled" in str(row) for row in ask("a dog", 2, visit))
