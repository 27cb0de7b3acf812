"""The tabs Contrast, Compare, Prompts and Folder by real clicks, against what the library itself says."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import isthmus
from app.acting import Compare, Contrast, Folder, Prompts
from app.browsing import Visit
from isthmus.app.snippets import FOLDER, PICTURE

FINE = 6e-4  # the page shows three decimals of a similarity


def number(text: str) -> float:
    """The last number in a text of the page."""
    return float(re.findall(r"[+\u2212-]?\d+\.\d+", text)[-1].replace("\u2212", "-"))


def test_why_this_rather_than_that(
    visit: Callable[..., Visit], mini: Any, dog: Path, shot: Callable[..., None]
) -> None:
    tab = Contrast(visit().page)
    tab.open()
    tab.give_picture(dog)
    tab.give_text("a dog")
    tab.give_text("a cat", "against")
    tab.run()
    tab.page.locator("#contrast-viewer .iv-number").wait_for()
    right = isthmus.explain(mini, dog, "a dog", against="a cat", sides="image")
    assert number(tab.part("viewer").locator(".iv-number").inner_text()) == pytest.approx(
        right.image.completeness.open, abs=FINE
    )
    rows, columns = right.image.scores.shape
    box = tab.pad().bounding_box()
    tab.page.mouse.move(box["x"] + 2.5 / columns * box["width"], box["y"] + 1.5 / rows * box["height"])
    said = tab.part("viewer").locator(".iv-value").inner_text()
    assert number(said) == pytest.approx(right.image.scores[1, 2], abs=2e-5)
    cards = tab.part("both").locator(".iv-card")
    assert cards.count() == 2
    assert cards.locator("h3").all_inner_texts() == ["a dog", "a cat"]
    shown = [number(one) for one in cards.locator(".iv-number").all_inner_texts()]
    assert shown == pytest.approx([isthmus.explain(mini, dog, t).similarity for t in ("a dog", "a cat")], abs=FINE)
    shot("contrast", tab.page, full=True)


def test_methods_side_by_side(visit: Callable[..., Visit], mini: Any, dog: Path, shot: Callable[..., None]) -> None:
    tab = Compare(visit().page)
    tab.open()
    tab.give_picture(dog)
    tab.give_text("a dog on the grass")
    methods = tab.part("methods")
    for name in ("m2ib", "clip-surgery"):
        methods.locator(".token", has_text=re.compile(rf"^\s*{name}\s*$")).locator(".token-remove").click()
    tab.run()
    tab.wait(4)
    chosen = ["nib", "gradcam", "grad-eclip", "chefer"]
    assert tab.titles() == chosen
    right = isthmus.compare(mini, dog, "a dog on the grass", methods=chosen)
    for card, row in zip(tab.cards().all_inner_texts(), right.rows, strict=True):
        assert re.search(r"\d s\b", card), card
        assert "pass" in card or "forward" in card, card
        if row.method != "nib" and row.agreement_image is not None:
            assert f"{row.agreement_image:+.2f}".replace("-", "\u2212") in card, card
    shot("compare", tab.page, full=True)


def test_prompts_are_ranked(visit: Callable[..., Visit], mini: Any, dog: Path, shot: Callable[..., None]) -> None:
    prompts = ["a plate of food", "a dog on the grass", "a cat", "an animal outdoors"]
    tab = Prompts(visit().page)
    tab.open()
    tab.give_picture(dog)
    tab.give_text("\n".join(prompts))
    tab.run()
    tab.wait(4)
    right = sorted(isthmus.explain(mini, dog, prompts), key=lambda one: -one.similarity)
    shown = [number(one) for one in tab.cards().locator(".iv-number").all_inner_texts()]
    assert shown == pytest.approx([one.similarity for one in right], abs=FINE)
    words = (
        tab.cards()
        .locator(".iv-words")
        .evaluate_all(
            "lines => lines.map(l => [...l.querySelectorAll('.iv-word')].map(w => w.firstChild.textContent).join(' '))"
        )
    )
    assert words == [one.caption for one in right]
    assert tab.cards().locator("canvas").count() == 4
    shot("prompts", tab.page, full=True)


def test_a_folder_is_sorted_and_opened(
    visit: Callable[..., Visit], mini: Any, dog: Path, shot: Callable[..., None]
) -> None:
    names = ["dog.jpg", "pizza.jpg", "bear.jpg"]
    tab = Folder(visit().page)
    tab.open()
    tab.give_files([dog.with_name(name) for name in names])
    assert not tab.part("order").is_visible()
    tab.give_text("a dog on the grass")
    tab.run()
    tab.wait(3)
    found = {name: isthmus.explain(mini, dog.with_name(name), "a dog on the grass") for name in names}
    by_similarity = sorted(names, key=lambda name: -found[name].similarity)
    assert tab.titles() == by_similarity
    tab.part("order").get_by_label("delta").check()
    by_delta = sorted(names, key=lambda name: -found[name].image.completeness.relative_delta)
    tab.page.wait_for_function(
        "right => [...document.querySelectorAll('#folder-gallery h3')].map(h => h.innerText).join() === right",
        arg=",".join(by_delta),
    )
    tab.part("order").get_by_label("share in the corners").check()
    tab.page.wait_for_timeout(500)
    tab.part("order").get_by_label("similarity").check()
    tab.page.wait_for_function(
        "right => [...document.querySelectorAll('#folder-gallery h3')].map(h => h.innerText).join() === right",
        arg=",".join(by_similarity),
    )
    shot("folder", tab.page, full=True)
    tab.part("all-python").click()
    tab.part("all-code").get_by_text(FOLDER).first.wait_for()
    tab.cards().nth(0).locator("h3 button").click()
    tab.page.locator("#folder-viewer .iv-number").wait_for()
    similarity = tab.page.locator("#folder-viewer .iv-number").inner_text()
    assert number(similarity) == pytest.approx(found[by_similarity[0]].similarity, abs=FINE)
    tab.part("python").click()
    tab.part("code").get_by_text(PICTURE).first.wait_for()
    assert FOLDER not in tab.part("code").inner_text()
    tab.page.get_by_role("link", name="Back to all pictures").click()
    tab.page.wait_for_function(
        "() => Math.abs(document.querySelector('#folder-gallery').getBoundingClientRect().top) < innerHeight / 2"
    )


def test_a_zip_is_a_folder(visit: Callable[..., Visit], dog: Path, tmp_path: Path) -> None:
    """What is no picture is left out, and named."""
    archive = tmp_path / "pictures.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for name in ("dog.jpg", "bird.jpg"):
            file.write(dog.with_name(name), f"inside/{name}")
        file.writestr("broken.png", b"no picture")
    tab = Folder(visit().page)
    tab.open()
    tab.give_files([archive])
    tab.give_text("a bird")
    tab.run()
    tab.wait(2)
    assert sorted(Path(title).name for title in tab.titles()) == ["bird.jpg", "dog.jpg"]
    assert "broken.png" in tab.part("summary").inner_text()
