"""How the page behaves for hand and eye: what a click marks, where sight goes, what stays in reach."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.acting import Explain
from app.browsing import Visit

TEXT = "a dog on the grass"
NUMBER = r"[+\u2212]\d\.\d+"


def number(text: str) -> float:
    return float(text.replace("\u2212", "-"))


@pytest.fixture(scope="module")
def explain(stay: Callable[..., Visit], dog: Path) -> Explain:
    """The dog, explained with its words and regions; it is left with nothing chosen."""
    one = Explain(stay().page)
    one.asked(dog, TEXT, "joint")
    return one


def test_a_word_clicked_too_early_is_marked_and_answers_once_it_can(explain: Explain, dog: Path) -> None:
    """The same data as the server sends them: first without words and regions, then with them."""
    got = explain.page.evaluate(
        """() => {
          const host = document.createElement('div');
          document.querySelector('#explain-viewer').append(host);
          const joint = {scores: [[1, 0, 0, 0], [0, 0, 0, 1]], limit: 1, delta: 0};
          const words = [{text: 'a', start: 0, end: 1, score: 1}, {text: 'dog', start: 2, end: 5, score: 2}];
          const early = {id: 'early', title: '', text: 'a dog', similarity: 0.1, words, wordLimit: 2, facts: [],
            notes: [], origin: [], alt: '', picture: document.querySelector('#explain-viewer img').src, width: 2,
            height: 2, rows: 2, columns: 2, scores: [1, 2, 3, 4], limit: 4, crop: [0, 0, 1, 1],
            waiting: 'Preparing \\u2026'};
          const one = window.isthmus.interactive(host, early), word = () => host.querySelectorAll('[data-word]')[1];
          const seen = () => [word().getAttribute('aria-pressed'), word().classList.contains('iv-coming'),
            host.querySelector('.iv-asked').textContent, host.querySelector('canvas').toDataURL(), word().tagName];
          word().click();
          const before = seen();
          one.update({...early, joint, waiting: ''});
          const after = seen();
          one.update({...early, waiting: 'It was not prepared.'});
          const never = seen();
          host.remove();
          return [before, after, never];
        }"""
    )
    early, after, never = got
    assert early[:2] == ["true", True]
    assert "regions for dog come as soon as" in early[2]
    assert after[:2] == ["true", False]
    assert after[2].startswith("The picture shows the regions for dog.")
    assert after[3] != early[3]
    assert never[:2] == [None, False]  # plain text, which cannot be pressed
    assert never[2] == "It was not prepared."
    assert [one[4] for one in got] == ["BUTTON", "BUTTON", "SPAN"]


def test_a_click_while_words_and_regions_are_prepared(visit: Callable[..., Visit], dog: Path) -> None:
    one = Explain(visit().page)
    one.give_picture(dog)
    one.give_text(TEXT)
    # At the frame in which the map is there, before the answer with words and regions can be.
    one.page.evaluate(
        """() => {
          const look = () => {
            const word = document.querySelector("#explain-viewer [data-word='1']");
            if (!word) return requestAnimationFrame(look);
            window.early = document.querySelector('#explain-viewer .iv').dataset.ready;
            word.click();
          };
          look();
        }"""
    )
    one.run()
    one.wait(TEXT, "joint")
    assert one.page.evaluate("() => window.early") == "map"
    assert one.words().nth(1).get_attribute("aria-pressed") == "true"
    assert "regions for dog." in one.part("viewer").locator(".iv-asked").inner_text()


def test_a_region_tells_its_own_sum(explain: Explain) -> None:
    page, box = explain.page, explain.pad().bounding_box()
    canvas = explain.part("viewer").locator("canvas").first
    rows, columns = (int(canvas.get_attribute(f"data-{name}")) for name in ("rows", "columns"))
    value = explain.part("viewer").locator(".iv-value")

    def at(row: int, column: int) -> tuple[float, float]:
        return box["x"] + (column + 0.5) / columns * box["width"], box["y"] + (row + 0.5) / rows * box["height"]

    single = []
    for row in (1, 2):
        for column in (1, 2):
            page.mouse.move(*at(row, column))
            assert value.inner_text().startswith(f"row {row + 1}, column {column + 1} ")
            single.append(number(re.findall(NUMBER, value.inner_text())[-1]))
    page.mouse.move(*at(1, 1))
    page.mouse.down()
    page.mouse.move(*at(2, 2), steps=3)
    page.mouse.up()
    assert value.inner_text().startswith("rows 2 to 3, columns 2 to 3 ")
    assert number(re.findall(NUMBER, value.inner_text())[-1]) == pytest.approx(sum(single), abs=5e-5)
    page.mouse.move(*at(0, 0))
    assert value.inner_text().startswith("row 1, column 1 ")
    explain.part("viewer").get_by_role("button", name="Clear").click()


def test_words_are_added_and_escape_lets_them_go(explain: Explain) -> None:
    plain, asked = explain.pixels(), explain.part("viewer").locator(".iv-asked")
    for place in (1, 4):
        explain.words().nth(place).focus()
        explain.page.keyboard.press("Enter")
    assert "regions for dog + grass." in asked.inner_text()
    explain.page.keyboard.press("Escape")
    assert explain.pixels() == plain
    assert "Click a word" in asked.inner_text()
    assert explain.words().nth(4).get_attribute("aria-pressed") == "false"


def test_only_what_speaks_for_it_leaves_the_rest_free(explain: Explain) -> None:
    """In every colour map: what speaks against the match is clear, at words too, and the edge of the rest is soft."""
    clear, faint = explain.page.evaluate(
        """() => [window.isthmus.maps.map(([map]) => window.isthmus.colour(0, map, true)[3]),
                  window.isthmus.maps.map(([map]) => window.isthmus.colour(0.02, map, true)[3])]"""
    )
    assert clear == [0, 0, 0]
    assert max(faint) < 0.06
    viewer = explain.part("viewer")
    viewer.get_by_text("Display", exact=True).click()
    viewer.get_by_label("Colours").select_option("cividis")
    viewer.get_by_label("Only what speaks for it").click()
    scores = [score for _, score in explain.shown(TEXT)["words"]]
    assert [back == "transparent" for back in explain.colours()] == [score <= 0 for score in scores]
    viewer.get_by_label("Only what speaks for it").click()
    viewer.get_by_label("Colours").select_option("red-blue")
    viewer.get_by_text("Display", exact=True).click()


@pytest.mark.parametrize("map_", ["red-blue", "orange-purple", "cividis"])
@pytest.mark.parametrize("paper", [(255, 255, 255), (27, 27, 31)], ids=["light", "dark"])
def test_words_are_legible_at_every_value(explain: Explain, map_: str, paper: tuple[int, int, int]) -> None:
    worst = explain.page.evaluate(
        """([map, paper]) => {
          const {colour, solid, over, ink} = window.isthmus;
          const light = (rgb) => rgb.map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
            .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
          const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
          return Math.min(...Array.from({length: 201}, (_, i) => {
            const back = over(solid(colour(i / 100 - 1, map)), paper);
            return ratio(light(back), light(ink(back) === '#fff' ? [255, 255, 255] : [0, 0, 0]));
          }));
        }""",
        [map_, list(paper)],
    )
    assert worst >= 4.5, worst


def test_saturated_words_are_written_in_white(explain: Explain) -> None:
    inks = explain.page.evaluate(
        """() => [-1, 1].map(v => {
          const {colour, solid, over, ink} = window.isthmus;
          return ink(over(solid(colour(v, 'red-blue')), [255, 255, 255]));
        })"""
    )
    assert inks == ["#fff", "#fff"]


def test_an_emoji_leaves_the_text_whole(visit: Callable[..., Visit], dog: Path) -> None:
    """Offsets count characters; JavaScript counts an emoji as two. Also where the text stands small, after an edit."""
    one = Explain(visit().page)
    texts = ("\U0001f436 a dog on the grass \U0001f600 today", "\U0001f436 a cat \U0001f600 now")
    one.give_picture(dog)
    for text in texts:
        one.give_text(text)
        one.run()
        assert " ".join(word for word, _ in one.shown(text)["words"]) == text
    card = one.part("changes").locator(".iv-card .iv-words").first
    assert [w.evaluate("w => w.firstChild.textContent") for w in card.locator(".iv-word").all()] == texts[0].split()


def test_that_the_similarity_follows_is_said_once(visit: Callable[..., Visit], dog: Path) -> None:
    """And nothing moves once it is there."""
    page = visit().page
    said = page.locator(".isthmus-live").evaluate_all(
        "all => all.map(one => getComputedStyle(one, '::before').content).filter(text => text !== 'none')"
    )
    assert said == ['"The similarity follows as you type."']
    one = Explain(page)
    one.give_picture(dog)
    before = one.part("run").bounding_box()["y"]
    one.give_text(TEXT)
    one.part("similarity").locator("b").wait_for()
    assert abs(one.part("run").bounding_box()["y"] - before) <= 1


def test_all_tabs_are_in_sight_on_a_phone_and_answer_to_arrows(visit: Callable[..., Visit]) -> None:
    page = visit(width=400, height=800).page
    page.wait_for_timeout(300)
    tabs = page.get_by_role("tab")
    assert [tab.inner_text() for tab in tabs.all()] == ["Explain", "Contrast", "Compare", "Prompts", "Folder"]
    for tab in tabs.all():
        box = tab.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 400
    assert not page.get_by_label("More tabs").count()
    margin = page.locator("#explain-run").bounding_box()["x"]
    assert margin <= 24, margin
    tabs.first.focus()
    page.keyboard.press("ArrowLeft")
    page.locator("#folder-files").wait_for()
    assert page.evaluate("() => document.activeElement.textContent") == "Folder"
    assert tabs.nth(4).get_attribute("aria-selected") == "true"
    assert not page.locator("#folder-order").is_visible()
    page.keyboard.press("ArrowRight")
    page.locator("#explain-run").wait_for()


def test_on_a_phone_the_answer_comes_into_sight(visit: Callable[..., Visit], dog: Path) -> None:
    one = Explain(visit(width=400, height=800).page)
    one.asked(dog, TEXT)
    top = "document.querySelector('#explain-viewer .iv').getBoundingClientRect().top"
    one.page.wait_for_function(f"() => {top} >= 0 && {top} < 60")


def test_messages_leave_the_number_in_sight(visit: Callable[..., Visit]) -> None:
    page = visit().page
    page.locator("#explain-run").click()
    toast: Any = page.locator(".toast-body").first
    toast.wait_for()
    page.wait_for_timeout(400)
    box = toast.bounding_box()
    assert box["y"] > 450, box
    assert box["y"] + box["height"] <= 900, box


def test_an_edit_tells_its_change_beside_the_number_and_leads_to_it(explain: Explain) -> None:
    """The last test of the session: it leaves another text."""
    before = explain.shown(TEXT)["similarity"]
    explain.give_text("a cat on the grass")
    explain.run()
    change = explain.shown("a cat on the grass")["similarity"] - before
    said = explain.part("viewer").locator(".iv-change").inner_text()
    assert re.fullmatch(rf"0\.\d{{3}} {'more' if change > 0 else 'less'} than before", said)
    assert float(said.split()[0]) == pytest.approx(abs(change), abs=1.1e-3)
    explain.part("viewer").get_by_role("button", name="See what changed").click()
    top = "document.querySelector('#explain-changes h2').getBoundingClientRect()"
    explain.page.wait_for_function(f"() => {top}.top >= 0 && {top}.bottom <= innerHeight")
