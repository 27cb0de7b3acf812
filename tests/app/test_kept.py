"""What the page keeps in memory: pictures as their files, all visits within a bound, and nothing shown is lost."""

from __future__ import annotations

import gc
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import EXAMPLES
from isthmus.app import history
from isthmus.app.gallery import Gallery
from isthmus.app.models import Models, Served
from isthmus.app.question import Answer, Question, ask
from isthmus.app.saving import Shown
from isthmus.app.stored import Recent, Stored, stored_in
from isthmus.app.uploads import Upload, read_picture
from isthmus.app.weighing import lighten, weigh
from isthmus.app.work import Visit
from isthmus.errors import InputError

DATA = (EXAMPLES / "dog.jpg").read_bytes()


def given(data: bytes = DATA) -> Image.Image:
    """A picture as the page reads it."""
    picture = read_picture(data)
    Stored(picture, data)
    return picture


def noise(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing stays decoded for the next look."""
    from isthmus.app import stored

    monkeypatch.setattr(stored, "_recent", Recent(0))


@pytest.fixture(scope="module")
def answer(mini: Any) -> Answer:
    question = Question("mini", given(), "a dog", options={"steps": 1})
    return ask(Models([Served(mini)]), question)


@pytest.mark.usefixtures("forgetful")
def test_a_picture_is_kept_as_its_file_and_is_the_same_when_it_is_looked_at_again() -> None:
    picture = given()
    pixels = picture.tobytes()
    question, other = (Question("mini", picture, text) for text in ("a dog", "a cat"))
    shown = Shown((), (), picture=picture)
    assert question.picture is other.picture is shown.picture is picture
    kept = stored_in(question)
    assert kept is not None
    assert kept.weight == len(DATA)
    del picture
    gc.collect()
    assert kept._seen() is None, "somebody has it decoded still"
    assert question.picture is other.picture, "which is how the page tells that two results are of one picture"
    assert question.picture.tobytes() == pixels
    assert question.picture.mode == "RGB"


@pytest.mark.usefixtures("forgetful")
def test_what_the_model_made_of_a_picture_does_not_keep_it_decoded(mini: Any) -> None:
    visit, models = Visit(), Models([Served(mini)])
    question = Question("mini", given(), "a dog", options={"steps": 1})
    first = ask(models, question, store=visit.store)
    kept = stored_in(question)
    gc.collect()
    assert kept is not None
    assert kept._seen() is None
    again = ask(models, question, store=visit.store)
    assert again.explanation.image == first.explanation.image
    assert stored_in(again.question) is kept


@pytest.mark.usefixtures("forgetful")
def test_the_same_pixels_are_one_picture_whatever_file_they_come_from(answer: Answer) -> None:
    visit, buffer = Visit(), io.BytesIO()
    history.keep(visit, answer, 3)
    given().save(buffer, "PNG")
    again = given(buffer.getvalue())
    found = history.same_picture(visit, again)
    assert Stored.of(found) is stored_in(answer.question)
    other = given(noise(1))
    assert history.same_picture(visit, other) is other


@pytest.mark.usefixtures("forgetful")
def test_an_opened_picture_of_a_folder_is_kept_as_its_file() -> None:
    kept = stored_in(Gallery("mini", "a dog").question(Upload("dog.jpg", DATA)))
    assert kept is not None
    assert kept.weight == len(DATA)


def test_decoded_pictures_stay_for_a_while_and_within_a_bound() -> None:
    pictures = [Image.new("RGB", (10, 10)) for _ in range(4)]
    recent = Recent(1000)
    for place in (0, 1, 0, 2):
        recent.use(pictures[place])
    assert [*recent._kept] == [id(pictures[0]), id(pictures[2])]
    assert not recent.forget(before=0)
    assert len(recent._kept) == 2
    assert recent.forget(before=float("inf"))
    assert not recent._kept
    recent.use(pictures[3])
    assert len(recent._kept) == 1


def visit_of(answer: Answer, count: int, seed: int) -> Visit:
    visit = Visit()
    for place in range(count):
        question = Question("mini", given(noise(seed + place)), f"text {place}")
        history.keep(visit, Answer(question, answer.explanation, 0.0), 12)
    return visit


def test_what_weighs_too_much_is_let_go_of_the_oldest_first(answer: Answer) -> None:
    visits = {name: [visit_of(answer, 5, 10 * place), None] for place, name in enumerate("abc")}
    a, b, c = (values[0] for values in visits.values())
    picture, whole, gone = len(noise(0)), sum(map(weigh, visits.values())), []
    lighten(visits, whole, gone.append)
    assert [len([*filter(None, one.answers)]) for one in (a, b, c)] == [5, 5, 5]
    lighten(visits, whole - 4 * picture, gone.append)
    assert [len([*filter(None, one.answers)]) for one in (a, b, c)] == [2, 2, 5]
    assert not gone
    lighten(visits, whole - 10 * picture, gone.append)
    assert [len([*filter(None, one.answers)]) for one in (a, b, c)] == [2, 2, 2]
    assert gone == ["a"]
    lighten(visits, 0, gone.append)
    assert gone == ["a", "a", "b"], "whoever is at work now is never forgotten"


def test_a_visitor_is_told_that_a_result_was_let_go_of(answer: Answer) -> None:
    visit = visit_of(answer, 5, 0)
    history.listed(visit)
    shown, former = history.shown(visit), history.before(visit)
    history.thin(visit)
    assert (history.shown(visit), history.before(visit)) == (shown, former)
    with pytest.raises(InputError, match="has let go of this one: explain it again"):
        history.move(visit, 2)
    assert history.move(visit, 3) is former, "the places of the others are as the page shows them"
    assert history.before(visit) is None
    assert history.same_picture(visit, given(noise(1))).tobytes() == given(noise(1)).tobytes()
    now = history.listed(visit)
    assert now is not None
    assert [(one["text"], one["now"]) for one in now["items"]] == [("text 3", True), ("text 4", False)]
    assert history.move(visit, 1) is shown
    with pytest.raises(InputError, match="has let go of this one"):
        history.move(Visit(), 3)  # nothing is left of the visit, while the page still shows its history
