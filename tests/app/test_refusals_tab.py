"""What is refused, by real clicks: a sentence, and a page that goes on as it was."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from PIL import Image

from app.acting import Explain
from app.browsing import Visit
from app.test_work import endless
from isthmus.app import tab_compare, tab_contrast, tab_explain, tab_folder, tab_prompts
from isthmus.app.limits import Limits
from isthmus.app.models import Models, Served
from isthmus.app.page import Page
from isthmus.app.uploads import Gathered, Upload, read_picture
from isthmus.app.work import CancelledError
from isthmus.app.work import Visit as Visitor
from isthmus.errors import InputError

TEXT = "a dog on the grass"
LONG = "word " * 60
NIB = ("mini", "nib", 0, 10)


@pytest.fixture(scope="module")
def explain(stay: Callable[..., Visit], dog: Path) -> Explain:
    """One session for what is refused on the page."""
    one = Explain(stay().page)
    one.asked(dog, TEXT)
    return one


def idle(explain: Explain) -> None:
    """Wait until nothing is said to run."""
    explain.page.wait_for_function(
        "() => !document.querySelector('#explain-status p[role=status]')"
        " && document.querySelector('#explain-cancel').disabled"
    )


def test_a_refused_question_leaves_the_former_work_alone(explain: Explain) -> None:
    explain.give_text(LONG)
    explain.run()
    explain.page.get_by_text(re.compile(r"62 tokens.*reads at most 32")).first.wait_for()
    explain.shown(TEXT, "joint")
    idle(explain)
    explain.run()
    explain.page.wait_for_timeout(500)
    idle(explain)
    assert explain.part("run").is_enabled()


def test_a_refused_picture_does_not_stay_and_is_told_once(explain: Explain, dog: Path, tmp_path: Path) -> None:
    explain.give_text(TEXT)
    live, why = explain.part("similarity").locator("b"), explain.part("refused")
    live.wait_for()
    bad = tmp_path / "notes.png"
    bad.write_text("no picture")
    explain.part("picture").get_by_role("button", name="Remove Image").click()
    explain.part("picture").locator("input[type=file]").first.set_input_files(bad)
    why.get_by_text("no picture that can be read here").wait_for()
    explain.part("picture").locator("img").first.wait_for(state="detached")
    live.wait_for(state="detached")
    toasts = explain.page.locator(".toast-body")
    before = toasts.count()
    explain.give_text("a dog")
    explain.page.wait_for_timeout(500)
    assert toasts.count() == before
    assert why.is_visible()
    explain.give_picture(dog)
    live.wait_for()
    why.wait_for(state="hidden")


@pytest.fixture(scope="module")
def page(mini: Any) -> Page:
    return Page(gr, Models([Served(mini)]), Limits())


def questions(page: Page, picture: Any, upload: bytes, text: str, visit: Visitor) -> dict[str, Iterator[Any]]:
    """A question in each tab, not asked yet."""
    files = Gathered([Upload("dog.png", upload)])
    return {
        "explain": tab_explain._explainer(page)(picture, text, *NIB, visit),
        "contrast": tab_contrast._contraster(page)(picture, "a cat", text, *NIB, visit),
        "compare": tab_compare._comparer(page)(picture, text, ["gradcam"], "mini", visit),
        "prompts": tab_prompts._ranker(page)(picture, f"a cat\n{text}", *NIB, visit),
        "folder": tab_folder._explainer(page)(files, text, *NIB, "similarity", visit),
    }


TABS = ("explain", "contrast", "compare", "prompts", "folder")


@pytest.mark.parametrize("tab", TABS)
def test_a_text_that_is_too_long_ends_nothing(page: Page, dog: Path, tab: str) -> None:
    visit = Visitor()
    work = visit.begin(endless)
    with pytest.raises(InputError, match="62 tokens"):
        next(questions(page, Image.open(dog), dog.read_bytes(), LONG, visit)[tab])
    assert not work._stop.is_set()
    assert visit.turn == 0
    visit.close()
    with pytest.raises(CancelledError):
        work.result()


@pytest.mark.parametrize("tab", TABS)
def test_an_error_within_the_work_resets_the_row(
    page: Page, dog: Path, tab: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **options: Any) -> Any:
        raise ZeroDivisionError

    for module, name in (
        (tab_explain, "ask"),
        (tab_contrast, "ask"),
        (tab_compare, "compared_by"),
        (tab_prompts, "explained"),
        (tab_folder, "ask"),
    ):
        monkeypatch.setattr(module, name, broken)
    rows: list[Any] = []
    with pytest.raises(ZeroDivisionError):
        rows.extend(questions(page, Image.open(dog), dog.read_bytes(), TEXT, Visitor())[tab])
    status, cancel = rows[-1][6:8] if tab in ("explain", "folder") else rows[-1][3:5]
    assert "passes" in str(rows[-2])
    assert status == ""
    assert cancel["interactive"] is False


def test_a_picture_of_far_too_many_pixels_is_refused_in_a_whole_sentence() -> None:
    buffer = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(buffer, "PNG")
    with pytest.raises(InputError, match=r"^The picture has far too many pixels: scale it to at most 30 million"):
        read_picture(buffer.getvalue())
