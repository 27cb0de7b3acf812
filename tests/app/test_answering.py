"""What a click, a key and a listener get of the interactive view, and what it says where a method gives less."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.acting import Contrast, Explain
from app.browsing import Visit, axe_findings

TEXT = "a dog on the grass"
PLACE = r"[a-z ]+ \(row \d+, column \d+\) [+\u2212]\d\.\d+"
HELD = """tab => [...document.querySelectorAll(`#${tab}-viewer .iv-display :is(select, input)`)].map(
  (one) => one.type === 'checkbox' ? one.checked : one.value)"""
NO_MAP = "This method has no map of words with regions."


@pytest.fixture(scope="module")
def explain(stay: Callable[..., Visit], dog: Path) -> Explain:
    """The dog, explained with its words and regions; it is left with nothing chosen."""
    one = Explain(stay().page)
    one.asked(dog, TEXT, "joint")
    return one


def focused(page: Any) -> Any:
    return page.evaluate_handle("() => document.activeElement")


def use(explain: Explain, method: str) -> None:
    """Explain by another method, and wait for it."""
    field = explain.part("method").locator("input")
    if not field.is_visible():
        explain.part("settings").get_by_role("button").first.click()
    field.fill(method)
    field.press("Enter")
    explain.run()
    explain.page.wait_for_function(
        "name => document.querySelector('#explain-viewer table').textContent.includes(`Method${name}`)", arg=method
    )


def test_the_regions_of_a_chosen_word_are_told(explain: Explain) -> None:
    """Below the text and as the map's label; that of the whole text comes back."""
    asked, whole = explain.part("viewer").locator(".iv-asked"), explain.pad().get_attribute("aria-label")
    assert whole.startswith("Similarity 0.")
    assert "Enter asks for the words" in whole
    explain.words().nth(1).click()
    said = asked.inner_text()
    assert re.fullmatch(rf"The picture shows the regions for dog\. Strongest: {PLACE}, {PLACE}, {PLACE}\. ?Clear", said)
    strongest = said.split("Strongest: ")[1].split(". ")[0]
    label = explain.pad().get_attribute("aria-label")
    assert label.startswith(f"Heat map of the regions for dog, strongest: {strongest}. Arrow keys")
    box = explain.pad().bounding_box()
    row, column = (int(found) - 1 for found in re.findall(r"\d+", strongest)[:2])
    canvas = explain.part("viewer").locator("canvas").first
    rows, columns = (int(canvas.get_attribute(f"data-{name}")) for name in ("rows", "columns"))
    across, down = (column + 0.5) / columns * box["width"], (row + 0.5) / rows * box["height"]
    explain.page.mouse.move(box["x"] + across, box["y"] + down)
    value = explain.part("viewer").locator(".iv-value b").inner_text().replace("\u2212", "-")
    told = re.findall(r"[+\u2212]\d\.\d+", strongest)[0].replace("\u2212", "-")
    assert float(value) == pytest.approx(float(told), abs=6e-5)
    explain.part("viewer").get_by_role("button", name="Clear").click()
    assert explain.pad().get_attribute("aria-label") == whole


def test_clear_gives_the_focus_back_to_what_was_asked(explain: Explain) -> None:
    page, clear = explain.page, explain.part("viewer").get_by_role("button", name="Clear")
    explain.words().nth(4).focus()
    page.keyboard.press("Enter")
    clear.focus()
    page.keyboard.press("Enter")
    assert focused(page).get_attribute("data-word") == "4"
    assert explain.words().nth(4).get_attribute("aria-pressed") == "false"
    explain.pad().focus()
    for key in ("ArrowDown", "Enter"):
        page.keyboard.press(key)
    clear.focus()
    page.keyboard.press("Enter")
    assert "iv-pad" in focused(page).get_attribute("class")


def test_the_controls_show_what_holds_on_each_tab(visit: Callable[..., Visit], dog: Path) -> None:
    """The look is the whole page's, so a change on one tab is seen in the controls of the others."""
    page = visit().page
    explain, contrast = Explain(page), Contrast(page)
    explain.asked(dog, TEXT)
    contrast.open()
    contrast.give_picture(dog)
    contrast.give_text("a dog")
    contrast.give_text("a cat", "against")
    contrast.run()
    viewer = contrast.part("viewer")
    viewer.locator(".iv-number").wait_for()
    assert NO_MAP not in viewer.inner_text()
    assert viewer.locator(".iv-pad").get_attribute("aria-label").endswith("Arrow keys move over the regions.")
    viewer.get_by_text("Display", exact=True).click()
    viewer.get_by_label("Opacity").fill("0.5")
    viewer.get_by_label("Outline what the model saw").click()
    assert page.evaluate(HELD, "explain") == ["0.5", "red-blue", False, False]
    viewer.get_by_label("Colours").select_option("cividis")
    viewer.get_by_label("Only what speaks for it").click()
    for tab in ("explain", "contrast"):
        assert page.evaluate(HELD, tab) == ["0.5", "cividis", True, False]


def test_enter_on_a_former_result_keeps_the_focus_in_the_list(explain: Explain) -> None:
    page = explain.page
    explain.give_text("a cat on the grass")
    explain.run()
    explain.shown("a cat on the grass", "joint")
    explain.part("history").locator(".iv-past").first.focus()
    page.keyboard.press("Enter")
    explain.shown(TEXT)
    page.wait_for_function("() => document.querySelector('#explain-history [data-index=\"0\"][aria-current]')")
    assert focused(page).get_attribute("aria-current") == "true"
    assert focused(page).get_attribute("data-index") == "0"


def test_a_method_without_words_with_regions_says_so(explain: Explain, axe: Path) -> None:
    """Its words are plain text, and its numbers are written out, with their unit. The last test of the session."""
    viewer, seen = explain.part("viewer"), "per region (cosine)"
    assert seen in viewer.inner_text()
    use(explain, "iba")
    assert viewer.locator(".iv-asked").inner_text() == NO_MAP
    assert not viewer.locator(".iv-words button, [aria-pressed]").count()
    assert explain.pad().get_attribute("aria-label").endswith(". Arrow keys move over the regions.")
    ends = viewer.locator(".iv-ends").all_inner_texts()
    assert len(ends) == 2
    assert all(re.fullmatch(r"\u2212\d{2,} against\s*for \+\d{2,}", end) for end in ends), ends
    assert "per region (bits)" in viewer.inner_text()
    assert not axe_findings(explain.page, axe)
    before = explain.pixels()
    explain.words().nth(1).click()
    assert explain.pixels() == before
    assert re.fullmatch(r"dog \+\d+\.\d", viewer.locator(".iv-value").inner_text())
