"""Work reports, ends when it is cancelled or nobody listens, and no visitor has another's."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from PIL import Image

from isthmus.app import history
from isthmus.app.question import Answer, Question
from isthmus.app.work import CancelledError, Visit, Work


def endless(watch: Callable[[int], None]) -> None:
    while True:
        watch(2)
        time.sleep(0.005)


def test_work_reports_its_passes_and_gives_its_result() -> None:
    def count(watch: Callable[[int], None]) -> str:
        for _ in range(5):
            watch(3)
            time.sleep(0.05)
        return "done"

    work = Work(count)
    ticks = [*work.ticks()]
    assert work.result() == "done"
    assert work.passes == 15
    assert [passes for passes, _ in ticks] == sorted(passes for passes, _ in ticks)
    assert ticks[-1][1] > 0


def test_an_error_is_raised_where_the_result_is_asked_for() -> None:
    def broken(watch: Callable[[int], None]) -> None:
        raise ZeroDivisionError

    work = Work(broken)
    assert isinstance([*work.ticks()], list)
    with pytest.raises(ZeroDivisionError):
        work.result()


def test_cancelled_work_ends() -> None:
    visit = Visit()
    work = visit.begin(endless)
    visit.cancel()
    with pytest.raises(CancelledError):
        work.result()


def test_work_ends_when_nobody_listens_any_more() -> None:
    work = Work(endless)
    ticks = work.ticks()
    next(ticks)
    ticks.close()  # what Gradio does when the visitor has left
    with pytest.raises(CancelledError):
        work.result()


def test_new_work_takes_the_place_of_the_old() -> None:
    visit = Visit()
    first, second = visit.begin(endless), visit.begin(lambda watch: threading.get_ident())
    assert second.result() != threading.get_ident()
    with pytest.raises(CancelledError):
        first.result()


def test_every_visitor_begins_anew() -> None:
    first = Visit()
    first.answers.append("mine")
    second = deepcopy(first)
    assert second.answers == []
    assert second.store is not first.store
    first.close()
    assert first.answers == []


def answer(text: str, picture: Any = None) -> Answer:
    return Answer(Question("mini", picture, text), None, 0.0)  # type: ignore[arg-type]


def test_history_goes_back_and_forgets_what_was_undone() -> None:
    visit = Visit()
    for text in "abcd":
        history.keep(visit, answer(text), 3)
    assert [one.question.text for one in visit.answers] == ["b", "c", "d"]
    assert history.move(visit, 0).question.text == "b"  # type: ignore[union-attr]
    assert history.before(visit) is None
    history.keep(visit, answer("e"), 3)
    assert [one.question.text for one in visit.answers] == ["b", "e"]
    assert history.before(visit).question.text == "b"  # type: ignore[union-attr]
    assert history.shown(visit).question.text == "e"  # type: ignore[union-attr]


@pytest.mark.parametrize("to", [-1, 2, 99, None, "0", True, 0.0])
def test_a_place_that_is_not_there_changes_nothing(to: Any) -> None:
    visit = Visit()
    history.keep(visit, answer("a"), 3)
    history.keep(visit, answer("b"), 3)
    assert history.move(visit, to).question.text == "b"  # type: ignore[union-attr]


def test_a_better_answer_takes_the_place_of_the_first_one() -> None:
    visit = Visit()
    first, better = answer("a"), answer("a")
    history.keep(visit, first, 3)
    history.improve(visit, first, better)
    assert visit.answers == [better]
    history.improve(visit, first, answer("lost"))  # undone meanwhile
    assert visit.answers == [better]


def test_the_same_picture_is_kept_once() -> None:
    visit, red = Visit(), Image.new("RGB", (8, 8), "red")
    history.keep(visit, answer("a", red), 3)
    assert history.same_picture(visit, Image.new("RGB", (8, 8), "red")) is red
    blue = Image.new("RGB", (8, 8), "blue")
    assert history.same_picture(visit, blue) is blue
