"""The page for every eye and hand: axe-core, the keyboard alone, a phone's width, dark and light."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.acting import Compare, Contrast, Explain, Folder, Prompts
from app.browsing import Visit, axe_findings

TEXT = "a dog on the grass"
TABS = ("Explain", "Contrast", "Compare", "Prompts", "Folder")


def tabs(page: Any) -> list[str]:
    return [tab.inner_text().strip() for tab in page.get_by_role("tab").all()]


def test_the_tabs_are_those_that_are_tested(visit: Callable[..., Visit]) -> None:
    assert tabs(visit().page) == list(TABS)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing_serious(visit: Callable[..., Visit], dog: Path, axe: Path, dark: bool) -> None:
    """On each tab as it opens, and on Explain with an answer and its settings open."""
    page = visit(dark=dark).page
    explain = Explain(page)
    explain.asked(dog, TEXT)
    explain.part("settings").get_by_role("button").first.click()
    found = {}
    for name in tabs(page):
        page.get_by_role("tab", name=name, exact=True).click()
        page.wait_for_timeout(300)
        found[name] = axe_findings(page, axe)
    assert not any(found.values()), found


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing_serious_about_results(visit: Callable[..., Visit], dog: Path, axe: Path, dark: bool) -> None:
    """On each tab with a result, and on Explain after an edit, with its code shown and the display's controls open."""
    page, found = visit(dark=dark).page, {}
    for name, one in results(page, dog):
        page.mouse.move(0, 0)
        page.wait_for_timeout(400)
        found[name] = axe_findings(page, axe)
        if name == "Folder":
            one.cards().nth(0).locator("h3 button").click()
            page.locator("#folder-viewer .iv-number").wait_for()
            page.wait_for_timeout(400)
            found["opened"] = axe_findings(page, axe)
    assert len(found) == len(TABS) + 1
    assert not any(found.values()), found


def results(page: Any, dog: Path) -> Iterator[tuple[str, Any]]:
    """Give each tab a result, one after the other."""
    explain = Explain(page)
    explain.asked(dog, TEXT)
    explain.part("viewer").get_by_text("Display", exact=True).click()
    explain.give_text("a cat on the grass")
    explain.run()
    explain.shown("a cat on the grass", "joint")
    explain.part("python").click()
    explain.part("code").locator(".cm-content").wait_for()
    yield explain.name, explain
    contrast, compare, prompts, folder = Contrast(page), Compare(page), Prompts(page), Folder(page)
    contrast.open()
    contrast.give_picture(dog)
    contrast.give_text("a dog")
    contrast.give_text("a cat", "against")
    contrast.run()
    contrast.part("viewer").locator(".iv-number").wait_for()
    yield contrast.name, contrast
    several = "a dog\na cat\na plate of food\na dog on the grass\na bird"
    for one, text, count in ((compare, TEXT, 6), (prompts, several, 5)):
        one.open()
        one.give_picture(dog)
        one.give_text(text)
        one.run()
        one.wait(count)
        yield one.name, one
    folder.open()
    folder.give_files([dog, *(dog.with_name(f"{name}.jpg") for name in ("pizza", "bear", "bird"))])
    folder.give_text(TEXT)
    folder.run()
    folder.wait(4)
    yield folder.name, folder


def test_what_removes_is_named_by_what_it_removes(visit: Callable[..., Visit], dog: Path) -> None:
    """Methods and files, also after one of them has gone; and the button that takes more files still takes them."""
    page = visit().page
    compare, folder = Compare(page), Folder(page)
    compare.open()
    methods = compare.part("methods")
    methods.get_by_role("button", name="Remove m2ib", exact=True).click()
    names = [token.inner_text().strip() for token in methods.locator(".token").all()]
    assert names == ["nib", "gradcam", "grad-eclip", "chefer", "clip-surgery"]
    for name in names:
        assert methods.get_by_role("button", name=f"Remove {name}", exact=True).count() == 1
    folder.open()
    folder.give_files([dog, dog.with_name("pizza.jpg")])
    files = folder.part("files")
    assert files.get_by_role("button", name="Remove pizza.jpg", exact=True).count() == 1
    with page.expect_file_chooser() as chooser:
        files.get_by_role("button", name="Add files", exact=True).click()
    chooser.value.set_files(dog.with_name("bear.jpg"))
    files.get_by_role("button", name="Remove bear.jpg", exact=True).wait_for()
    files.get_by_role("button", name="Remove dog.jpg", exact=True).click()
    files.get_by_role("button", name="Remove dog.jpg", exact=True).wait_for(state="detached")
    assert files.get_by_role("button", name="Remove", exact=False).count() == 2


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_is_wider_than_the_window(visit: Callable[..., Visit], dog: Path, width: int, dark: bool) -> None:
    one = visit(width=width, dark=dark)
    page = one.page
    explain = Explain(page)
    explain.asked(dog, f"{TEXT} {'dog' * 14}")  # one word, wider than a phone
    for name in tabs(page):
        page.get_by_role("tab", name=name, exact=True).click()
        page.wait_for_timeout(200)
        beyond, what = one.width_beyond()
        assert beyond <= 0, (name, beyond, what)
        assert not what, (name, what)


def test_a_phone_in_the_dark(visit: Callable[..., Visit], dog: Path, shot: Callable[..., None]) -> None:
    page = visit(width=400, height=820, dark=True, has_touch=True, device_scale_factor=2).page
    explain = Explain(page)
    explain.asked(dog, TEXT, "joint")
    background = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    assert sum(map(int, re.findall(r"\d+", background)[:3])) < 150, background
    explain.words().nth(1).tap()
    assert explain.words().nth(1).get_attribute("aria-pressed") == "true"
    explain.part("viewer").scroll_into_view_if_needed()
    shot("phone", page, width=480)


def focused(page: Any) -> str:
    """What has the focus, as a screen reader would name it."""
    return str(
        page.evaluate(
            "() => { const e = document.activeElement, label = e.getAttribute('aria-label') || e.innerText || '';"
            " return [e.tagName, e.id, e.type || '', e.getAttribute('role') || '', label.slice(0, 40)].join('|'); }"
        )
    )


def tab_until(page: Any, reached: Callable[[], bool], *, most: int = 60) -> list[str]:
    """Press Tab until something is reached; what was passed on the way."""
    passed = []
    for _ in range(most):
        page.keyboard.press("Tab")
        passed.append(focused(page))
        if reached():
            return passed
    raise AssertionError(f"not reached by {most} Tabs: {passed}")


def within(page: Any, selector: str) -> Callable[[], bool]:
    return lambda: bool(page.evaluate("s => document.activeElement.closest(s) !== null", selector))


def test_everything_by_the_keyboard(visit: Callable[..., Visit], dog: Path) -> None:
    """Picture, text, explain, words, regions: in this order, each with a focus that is seen."""
    page = visit().page
    # Playwright takes the browser's dialog over while somebody listens, and from some moment after: so listen first.
    page.on("filechooser", lambda chooser: chooser.set_files(dog))
    explain = Explain(page)
    tab_until(page, within(page, "#explain-picture"))
    page.keyboard.press("Enter")
    explain.part("picture").locator("img").first.wait_for()
    tab_until(page, within(page, "#explain-text"))
    page.keyboard.type(TEXT)
    tab_until(page, within(page, "#explain-run"))
    assert page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle") != "none" or page.evaluate(
        "() => getComputedStyle(document.activeElement).boxShadow"
    ) not in ("none", "")
    page.keyboard.press("Enter")
    explain.wait(TEXT, "joint")
    tab_until(page, within(page, "#explain-viewer .iv-pad"))
    label = page.evaluate("() => document.activeElement.getAttribute('aria-label')")
    assert "dog" in label
    assert re.search(r"row \d+, column \d+", label)
    assert re.search(r"[+-]0\.\d+", label)
    for key in ("ArrowDown", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    value = explain.part("viewer").locator(".iv-value")
    assert re.match(r"row \d+, column \d+ [+\u2212]0\.\d+", value.inner_text())
    assert value.get_attribute("aria-live") == "polite"
    before = explain.colours()
    page.keyboard.press("Enter")
    assert explain.colours() != before
    page.keyboard.press("Escape")
    assert explain.colours() == before
    tab_until(page, within(page, "#explain-viewer [data-word='1']"))
    assert re.match(r"dog, [+\u2212]0\.\d+", page.evaluate("() => document.activeElement.getAttribute('aria-label')"))
    assert value.inner_text().startswith("dog")
    drawn = explain.pixels()
    page.keyboard.press("Enter")
    assert explain.pixels() != drawn
    assert page.evaluate("() => document.activeElement.getAttribute('aria-pressed')") == "true"


def test_enter_in_the_text_explains(visit: Callable[..., Visit], dog: Path) -> None:
    explain = Explain(visit().page)
    explain.give_picture(dog)
    explain.give_text(TEXT)
    explain.part("text").locator("textarea").press("Enter")
    shown = explain.shown(TEXT, "map")
    assert " ".join(word for word, _ in shown["words"]) == TEXT


def test_colours_for_and_against_differ_for_colour_blind_eyes(visit: Callable[..., Visit], dog: Path) -> None:
    """The two ends of the scale as a deuteranope and a protanope see them (Vienot, Brettel and Mollon, 1999)."""
    page = visit().page
    Explain(page).asked(dog, TEXT)
    ends = page.evaluate(
        "() => [-1, 1].map(value => window.isthmus.colour(value, 'red-blue').slice(0, 3))",
    )
    for seen in (DEUTERANOPE, PROTANOPE):
        one, two = ([sum(w * c for w, c in zip(row, end, strict=True)) for row in seen] for end in ends)
        assert max(abs(a - b) for a, b in zip(one, two, strict=True)) > 60, (one, two)


DEUTERANOPE = ((0.29275, 0.70725, 0.0), (0.29275, 0.70725, 0.0), (-0.02234, 0.02234, 1.0))
PROTANOPE = ((0.11238, 0.88762, 0.0), (0.11238, 0.88762, 0.0), (0.00401, -0.00401, 1.0))
