"""The tab Explain by real clicks: explain, ask back, edit and see, long work."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import isthmus
from app.acting import Explain
from app.browsing import Visit

TEXT = "a dog on the grass"
AT_ONCE = 200  # milliseconds in which a click must answer
FINE = 1e-4  # the page shows four decimals of a word


@pytest.fixture(scope="module")
def right(mini: Any) -> Any:
    """What the library itself says of the dog."""
    from conftest import EXAMPLES

    return isthmus.explain(mini, EXAMPLES / "dog.jpg", TEXT, joint=True)


@pytest.fixture(scope="module")
def kept(stay: Callable[..., Visit], dog: Path) -> Explain:
    """The dog, explained with its words and regions: one session for the tests that only look and ask back."""
    explain = Explain(stay().page)
    explain.asked(dog, TEXT, "joint")
    return explain


@pytest.fixture
def asked(kept: Explain) -> Explain:
    """That session, with nothing chosen."""
    clear = kept.part("viewer").get_by_role("button", name="Clear")
    if clear.count():
        clear.first.click()
    kept.page.mouse.move(0, 0)
    return kept


@pytest.fixture
def fresh(visit: Callable[..., Visit], dog: Path) -> Explain:
    """A session of its own, with the dog explained."""
    explain = Explain(visit().page)
    explain.asked(dog, TEXT)
    return explain


def number(text: str) -> float:
    return float(text.replace("\u2212", "-"))


def test_a_picture_and_a_text_are_explained(asked: Explain, right: Any, shot: Callable[..., None]) -> None:
    shown = asked.shown(TEXT)
    assert shown["similarity"] == pytest.approx(right.similarity, abs=6e-4)
    assert [text for text, _ in shown["words"]] == [word.text for word in right.text.words]
    assert [score for _, score in shown["words"]] == pytest.approx([w.score for w in right.text.words], abs=FINE)
    small = asked.part("viewer").inner_text()
    assert re.search(r"delta", small)
    assert re.search(r"\d s\b", small)
    assert re.search(r"pass", small)
    shot("explain", asked.page)


def test_the_similarity_follows_the_text(visit: Callable[..., Visit], dog: Path, mini: Any) -> None:
    explain = Explain(visit().page)
    explain.give_picture(dog)
    values = []
    for text in ("a dog", "a plate of food"):
        explain.give_text(text)
        similarity = isthmus.explain(mini, dog, text, sides="text", steps=1).similarity
        explain.page.wait_for_function(
            "value => document.querySelector('#explain-similarity').innerText.includes(value)", arg=f"{similarity:.3f}"
        )
        values.append(similarity)
    assert values[0] > values[1]


def test_the_raw_value_under_the_pointer_and_of_a_word(asked: Explain, right: Any) -> None:
    rows, columns = right.image.scores.shape
    box = asked.pad().bounding_box()
    row, column = rows // 2, columns // 3
    x = box["x"] + (column + 0.5) / columns * box["width"]
    y = box["y"] + (row + 0.5) / rows * box["height"]
    asked.page.mouse.move(x, y)
    said = asked.part("viewer").locator(".iv-value").inner_text()
    assert number(re.findall(r"[+\u2212][\d.]+", said)[-1]) == pytest.approx(right.image.scores[row, column], abs=1e-5)
    asked.words().nth(1).hover()
    said = asked.part("viewer").locator(".iv-value").inner_text()
    assert said.startswith("dog")
    assert number(re.findall(r"[+\u2212][\d.]+", said)[-1]) == pytest.approx(right.text.words[1].score, abs=FINE)


def test_switches_change_the_drawing_and_nothing_else(asked: Explain) -> None:
    viewer = asked.part("viewer")
    before, words = asked.pixels(), asked.shown(TEXT)
    summary = viewer.get_by_text("Display", exact=True)
    summary.click()
    assert viewer.get_by_label("Outline").is_checked()
    seen = {before}
    for control in ("Only what speaks for it", "Only what speaks for it"):
        viewer.get_by_label(control).click()
        seen.add(asked.pixels())
    assert asked.pixels() == before
    viewer.get_by_label("Colours").select_option(index=1)
    seen.add(asked.pixels())
    assert len(seen) == 3
    opacity = viewer.locator(".iv").evaluate("e => getComputedStyle(e.querySelector('canvas')).opacity")
    viewer.get_by_label("Opacity").press("Home")
    assert viewer.locator(".iv").evaluate("e => getComputedStyle(e.querySelector('canvas')).opacity") != opacity
    assert asked.shown(TEXT) == words
    viewer.get_by_label("Opacity").press("End")
    viewer.get_by_label("Colours").select_option(index=0)
    summary.click()
    assert asked.pixels() == before


def test_the_map_lies_over_what_the_model_saw(asked: Explain, right: Any) -> None:
    viewer, crop, (width, height) = asked.part("viewer"), right.image.crop, right.image.size
    picture, canvas = viewer.locator("img").first.bounding_box(), viewer.locator("canvas").first.bounding_box()
    scale = picture["width"] / width
    assert picture["height"] == pytest.approx(height * scale, abs=2)
    assert canvas["x"] - picture["x"] == pytest.approx(crop.left * scale, abs=2)
    assert canvas["y"] - picture["y"] == pytest.approx(crop.top * scale, abs=2)
    assert canvas["width"] == pytest.approx((crop.right - crop.left) * scale, abs=2)
    assert canvas["height"] == pytest.approx((crop.bottom - crop.top) * scale, abs=2)


def quickest(explain: Explain, what: str, presses: list[Callable[[], Any]]) -> float:
    """Milliseconds of the quickest answer: what else the machine does is no fault of the page."""
    times = []
    for press in presses:
        explain.clock(what)
        press()
        times.append(explain.clocked())
    return min(times)


def test_a_word_answers_with_its_regions_at_once(asked: Explain, right: Any, shot: Callable[..., None]) -> None:
    before = asked.pixels()
    assert quickest(asked, "map", [asked.words().nth(1).click] * 3) < AT_ONCE  # chosen, not, and chosen
    asked.page.mouse.move(0, 0)
    rows, columns = right.image.scores.shape
    best = int(right.joint.scores[1].reshape(-1).argmax())
    box = asked.pad().bounding_box()
    asked.page.mouse.move(
        box["x"] + (best % columns + 0.5) / columns * box["width"],
        box["y"] + (best // columns + 0.5) / rows * box["height"],
    )
    said = asked.part("viewer").locator(".iv-value").inner_text()
    assert number(re.findall(r"[+\u2212][\d.]+", said)[-1]) == pytest.approx(right.joint.scores[1].max(), abs=1e-4)
    shot("ask-back", asked.page)
    one = asked.pixels()
    asked.words().nth(4).click()
    assert len({before, one, asked.pixels()}) == 3
    assert [w.get_attribute("aria-pressed") for w in asked.words().all()] == ["false", "true", "false", "false", "true"]
    asked.words().nth(4).click()
    asked.words().nth(1).click()
    assert asked.pixels() == before


def test_a_region_answers_with_its_words_at_once(asked: Explain, right: Any) -> None:
    rows, columns = right.image.scores.shape
    box = asked.pad().bounding_box()
    before = asked.colours()

    def centre(row: int, column: int) -> tuple[float, float]:
        return box["x"] + (column + 0.5) / columns * box["width"], box["y"] + (row + 0.5) / rows * box["height"]

    places = [centre(*place) for place in ((1, 1), (3, 4), (2, 3))]
    assert quickest(asked, "words", [partial(asked.page.mouse.click, *place) for place in places]) < AT_ONCE
    expected = right.joint.scores.reshape(len(before), rows, columns)
    assert [score for _, score in asked.shown(TEXT)["words"]] == pytest.approx(list(expected[:, 2, 3]), abs=FINE)
    asked.page.mouse.move(*centre(1, 1))
    asked.page.mouse.down()
    asked.page.mouse.move(*centre(2, 2), steps=3)
    asked.page.mouse.move(*centre(3, 4), steps=3)
    asked.page.mouse.up()
    together = expected[:, 1:4, 1:5].sum((1, 2))
    assert [score for _, score in asked.shown(TEXT)["words"]] == pytest.approx(list(together), abs=FINE)
    asked.part("viewer").get_by_role("button", name="Clear").click()
    assert asked.colours() == before


def test_an_edit_is_shown_beside_what_was_and_undone(
    fresh: Explain, mini: Any, dog: Path, shot: Callable[..., None]
) -> None:
    first, edited = fresh.shown(TEXT), "a cat on the grass"
    assert fresh.part("undo").is_disabled()
    fresh.give_text(edited)
    fresh.run()
    second = fresh.shown(edited)
    former, now = (isthmus.explain(mini, dog, text).similarity for text in (TEXT, edited))
    assert second["similarity"] == pytest.approx(now, abs=6e-4)
    changed = fresh.part("viewer").locator(".iv-change").inner_text()
    assert changed.endswith("than before")
    assert number(changed.split()[0]) == pytest.approx(abs(now - former), abs=6e-4)
    assert ("more" if now > former else "less") in changed
    changes = fresh.part("changes")
    changes.locator(".iv-card").first.wait_for()
    said = changes.inner_text()
    assert f"{former:.3f}" in said
    assert f"{abs(now - former):.3f}" in said
    shot("edit", fresh.page, full=True)
    fresh.part("undo").click()
    assert fresh.shown(TEXT) == first
    assert fresh.part("text").locator("textarea").input_value() == TEXT
    fresh.part("redo").click()
    assert fresh.shown(edited) == second


def test_undo_puts_the_picture_back_that_was_explained(fresh: Explain, mini: Any, dog: Path) -> None:
    edited = "a cat on the grass"
    fresh.give_text(edited)
    fresh.run()
    fresh.wait(edited)
    similar = "value => document.querySelector('#explain-similarity').innerText.includes(value)"
    pizza, first = (isthmus.explain(mini, dog.with_name(name), TEXT) for name in ("pizza.jpg", "dog.jpg"))
    fresh.give_picture(dog.with_name("pizza.jpg"))
    fresh.give_text(TEXT)
    fresh.page.wait_for_function(similar, arg=f"{pizza.similarity:.3f}".replace("-", ""))
    fresh.part("undo").click()
    assert fresh.shown(TEXT)["similarity"] == pytest.approx(first.similarity, abs=6e-4)
    fresh.page.wait_for_function(similar, arg=f"{first.similarity:.3f}")
    fresh.give_text("a dog")
    fresh.run()
    wanted = isthmus.explain(mini, dog, "a dog").similarity
    assert fresh.shown("a dog")["similarity"] == pytest.approx(wanted, abs=6e-4)


def test_a_tiff_is_drawn_and_explained_as_it_is(visit: Callable[..., Visit], dog: Path, tmp_path: Path) -> None:
    """Browsers draw none: the box gets the same pixels as a PNG."""
    path = tmp_path / "dog.tiff"
    with Image.open(dog) as picture:
        picture.resize((150, 200)).save(path)
    explain = Explain(visit().page)
    explain.give_picture(path)
    drawn = "() => document.querySelector('#explain-picture img')?.naturalWidth"
    explain.page.wait_for_function(f"({drawn})() === 150")
    assert not explain.part("refused").is_visible()
    explain.give_text(TEXT)
    explain.run()
    wanted = isthmus.explain("mini", path, TEXT)
    shown = explain.shown(TEXT)
    assert shown["similarity"] == pytest.approx(wanted.similarity, abs=6e-4)
    assert [score for _, score in shown["words"]] == pytest.approx([w.score for w in wanted.text.words], abs=FINE)
    with explain.page.expect_download() as download:
        explain.part("save-picture").click()
    with Image.open(download.value.path()) as saved, Image.open(path) as given:
        assert saved.tobytes() == given.tobytes()


def test_layer_and_steps_are_used_and_their_defaults_marked(fresh: Explain, mini: Any, dog: Path) -> None:
    fresh.part("settings").get_by_role("button").first.click()
    for name, value in (("layer", 2), ("steps", 5)):
        assert "default" in fresh.part(name).inner_text()
        fresh.part(name).locator("input[type=number]").fill(str(value))
        fresh.part(name).locator("input[type=number]").press("Tab")
    before = fresh.pixels()
    fresh.run()
    fresh.page.wait_for_function(
        "before => document.querySelector('#explain-viewer canvas').toDataURL() !== before", arg=before
    )
    right = isthmus.explain(mini, dog, TEXT, layer=2, steps=5)
    assert [score for _, score in fresh.shown(TEXT)["words"]] == pytest.approx(
        [w.score for w in right.text.words], abs=FINE
    )


def test_long_work_is_told_and_cancelled(fresh: Explain) -> None:
    """Occlusion of every patch takes many passes; it ends at the next one."""
    before = fresh.pixels()
    fresh.part("settings").get_by_role("button").first.click()
    fresh.part("method").locator("input").fill("rise")
    fresh.part("method").locator("input").press("Enter")
    fresh.run()
    # Of this question: words and regions of the former one may be prepared still, and Cancel would end those.
    fresh.page.wait_for_function(
        "() => /Explaining.*\\d+ passes/.test(document.querySelector('#explain-status').innerText)"
    )
    fresh.part("cancel").click()
    fresh.page.wait_for_function("() => /ancelled/.test(document.querySelector('#explain-status').innerText)")
    assert fresh.pixels() == before
    assert fresh.part("run").is_enabled()


def test_two_sessions_see_their_own(visit: Callable[..., Visit], dog: Path, mini: Any) -> None:
    one, two = Explain(visit().page), Explain(visit().page)
    asked = ((one, dog, "a dog"), (two, dog.with_name("pizza.jpg"), "a plate of food"))
    for explain, picture, text in asked:
        explain.give_picture(picture)
        explain.give_text(text)
    for explain, _, _ in asked:
        explain.run()
    for explain, picture, text in asked:
        right = isthmus.explain(mini, picture, text)
        shown = explain.shown(text)
        assert shown["similarity"] == pytest.approx(right.similarity, abs=6e-4)
        assert [score for _, score in shown["words"]] == pytest.approx([w.score for w in right.text.words], abs=FINE)


def test_a_session_that_ends_leaves_another_with_the_same_picture_alone(visit: Callable[..., Visit], dog: Path) -> None:
    """Gradio names an upload by its content, so that both share a file."""
    one, two = visit(), visit()
    for each in (one, two):
        Explain(each.page).give_picture(dog)
    one.page.close()
    two.page.wait_for_timeout(2500)
    explain = Explain(two.page)
    explain.give_text(TEXT)
    explain.run()
    shown = explain.shown(TEXT)
    assert " ".join(word for word, _ in shown["words"]) == TEXT
