"""compare(): rows, agreement against scipy, methods that refuse, and what the figure, the page and the files say."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch

import isthmus
from conftest import picture
from isthmus import comparison
from isthmus.comparison import CompareRow, Comparison, chosen, spearman
from isthmus.drawing import compared, compared_page
from isthmus.drawing.compared_words import figures_of, how_to_read, written
from isthmus.drawing.scale import Scale
from isthmus.errors import InputError, ModelError, OptionError, SaveError
from isthmus.explanation import Box
from isthmus.methods import METHODS, Attribution, Method
from samples import image_side, sample, text_side

TEXT = "a dog runs on the wide beach"


@pytest.fixture(scope="module")
def tiny(make_tiny: Callable[..., Any]) -> Any:
    return make_tiny()


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Registers a method for this test; gives the sides that it was called for, in turn."""

    def add(name: str, give: Any = None, **more: Any) -> list[str]:
        calls: list[str] = []

        def function(tower: Any, inputs: Any, target: Any, *, memory: int | None = None) -> Attribution:
            calls.append(tower.side)
            if isinstance(give, Exception):
                raise give
            split = tower.split(inputs, 1)
            scores = torch.zeros(split.hidden.shape[:2]) if give is None else give(split.hidden)
            return Attribution(scores, torch.zeros(len(scores)), None, ({},) * len(scores))

        monkeypatch.setitem(METHODS, name, Method(name, f"Title of {name}", "", function, **more))
        return calls

    return add


def row(method: str = "nib", explanation: Any = None, **more: Any) -> CompareRow:
    figures = {"seconds": 0.25, "forward": 12.0, "backward": 10.0, "agreement_image": 1.0, "agreement_text": 0.5}
    return CompareRow(method, f"Title of {method}", "score", explanation or sample(), **{**figures, **more})


def refused(method: str = "chefer", reason: str = "This model has no attention: choose another method.") -> CompareRow:
    return CompareRow(method, f"Title of {method}", "score", reason=reason)


@pytest.mark.parametrize("seed", range(30))
def test_agreement_is_scipys_with_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(2, 8)), int(rng.integers(1, 8)))
    high = int(rng.integers(2, 9))  # few values, so many ties
    a, b = (rng.integers(0, high, shape).astype(np.float32) if seed % 2 else rng.normal(size=shape) for _ in range(2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = scipy.stats.spearmanr(a.ravel(), b.ravel()).statistic
    found = spearman(a, b)
    if np.isnan(expected):
        assert found is None
    else:
        assert found == pytest.approx(expected, abs=1e-12)


def test_agreement_is_none_where_it_is_not_defined() -> None:
    a = np.arange(4.0)
    assert spearman(a, a**3) == 1.0
    assert spearman(a, -a) == -1.0
    for other in (None, np.ones(4), np.arange(3.0), np.array([1.0, np.nan, 2, 3]), np.array([1.0, np.inf, 2, 3])):
        assert spearman(a, other) is None
        assert spearman(other, a) is None
    assert spearman(np.ones(1), np.ones(1)) is None


def test_rows_are_the_methods_own_explanations_in_order(tiny: Any) -> None:
    names = ("hirescam", "chefer", "nib")
    done: list[tuple[int, int]] = []
    found = isthmus.compare(tiny, picture(), TEXT, methods=names, progress=lambda *at: done.append(at))
    assert tuple(one.method for one in found.rows) == names
    assert done == [(1, 3), (2, 3), (3, 3)]
    first = found.rows[0].explanation
    for one in found.rows:
        alone = isthmus.explain(tiny, picture(), TEXT, method=one.method)
        assert one.title == METHODS[one.method].title
        assert one.explanation.image == alone.image
        assert one.explanation.text == alone.text
        assert one.seconds == one.explanation.provenance.seconds > 0
        assert (one.forward, one.backward) == tuple(alone.provenance.passes[k] for k in ("forward", "backward"))
        expected = scipy.stats.spearmanr(first.image.scores.ravel(), alone.image.scores.ravel()).statistic
        assert one.agreement_image == pytest.approx(expected, abs=1e-12)
        words = [[word.score for word in side.words] for side in (first.text, alone.text)]
        assert one.agreement_text == pytest.approx(scipy.stats.spearmanr(*words).statistic, abs=1e-12)
    assert found.rows[0].agreement_image == pytest.approx(1.0)
    assert len({one.agreement_image for one in found.rows}) == 3


def test_the_methods_to_compare() -> None:
    usual = chosen(None)
    assert usual[0] == "nib"
    assert set(usual) <= set(METHODS)
    assert chosen("all")[: len(usual)] == usual
    assert sorted(chosen("all")) == sorted(METHODS)
    assert chosen("chefer") == ("chefer",)
    assert chosen(["chefer", "nib", "chefer"]) == ("chefer", "nib")
    with pytest.raises(OptionError, match="no method to compare"):
        chosen([])


def test_a_method_that_comes_later_is_in_all(register: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    register("newer")
    assert chosen("all")[-1] == "newer" or "newer" in chosen("all")
    monkeypatch.delitem(METHODS, "gradcam")
    assert "gradcam" not in chosen(None)


def test_what_cannot_be_is_refused_before_anything_runs(tiny: Any, register: Any) -> None:
    calls = register("watched")
    for error, sentence, image, text, more in (
        (OptionError, "There is no method 'magic'", picture(), TEXT, {"methods": ["watched", "magic"]}),
        (OptionError, "options for 'nib', which is not", picture(), TEXT, {"options": {"nib": {"layer": 1}}}),
        (OptionError, "watched has no option 'layer'", picture(), TEXT, {"options": {"watched": {"layer": 1}}}),
        (InputError, "The text is empty", picture(), "", {}),
        (InputError, "no picture 'gone.jpg'", "gone.jpg", TEXT, {}),
        (InputError, "tokens", picture(), "dog " * 99, {}),
        (InputError, "not a list", [picture()], TEXT, {}),
        (InputError, "not a list", picture(), [TEXT], {}),
    ):
        with pytest.raises(error, match=re.escape(sentence)):
            isthmus.compare(tiny, image, text, **{"methods": ["watched"], **more})
    assert calls == []


def test_a_method_that_refuses_is_a_row_with_its_sentence(tiny: Any, register: Any) -> None:
    register("broken", ModelError("This model has no attention: choose another method."))
    found = isthmus.compare(tiny, picture(), TEXT, methods=["broken", "hirescam"], options={"hirescam": {"layer": 1}})
    broken, cam = found.rows
    assert broken.reason == "This model has no attention: choose another method."
    assert (broken.explanation, broken.seconds, broken.agreement_image) == (None, None, None)
    assert cam.agreement_image == pytest.approx(1.0)  # it is the first that has the side
    assert found.first("image") is cam
    assert cam.explanation.image.options["layer"] == 1
    assert found.explanations == (cam.explanation,)


def test_a_wrong_value_of_an_option_is_a_row(tiny: Any) -> None:
    found = isthmus.compare(tiny, picture(), TEXT, methods=["nib", "hirescam"], options={"nib": {"layer": 99}})
    assert "layer=99 is out of range" in (found.rows[0].reason or "")
    assert found.rows[1].explanation is not None


def test_where_all_refuse_the_comparison_does(tiny: Any, register: Any) -> None:
    register("broken", ModelError("One sentence."))
    register("same", ModelError("One sentence."))
    register("other", OptionError("Another sentence."))
    with pytest.raises(ModelError, match=r"^One sentence\.$"):
        isthmus.compare(tiny, picture(), TEXT, methods=["broken", "same"])
    with pytest.raises(OptionError, match=r"^None of these methods .* other says: Another sentence\.$"):
        isthmus.compare(tiny, picture(), TEXT, methods=["other", "broken"])
    with pytest.raises(OptionError, match="at least one"):
        Comparison((refused(),))


def test_methods_of_one_side(tiny: Any, register: Any) -> None:
    register("seeing", lambda hidden: hidden.sum(-1), sides=("image",))
    found = isthmus.compare(tiny, picture(), TEXT, methods=["seeing", "hirescam"])
    seeing, cam = found.rows
    assert seeing.explanation.text is None
    assert (seeing.agreement_image, seeing.agreement_text) == (pytest.approx(1.0), None)
    assert cam.agreement_text == pytest.approx(1.0)
    assert (found.first("image"), found.first("text")) == (seeing, cam)
    assert "with seeing over patches, and with hirescam over words" in " ".join(how_to_read(found))
    text = isthmus.compare(tiny, picture(), TEXT, methods=["seeing", "hirescam"], sides="text")
    assert "not defined for the text side" in (text.rows[0].reason or "")
    assert text.rows[1].explanation.image is None
    both = isthmus.compare(tiny, picture(), TEXT, methods=["seeing"], sides=("image", "text"))
    assert both.rows[0].explanation.image is not None


def test_a_map_that_is_the_same_everywhere_agrees_with_nothing(tiny: Any, register: Any) -> None:
    register("flat")
    found = isthmus.compare(tiny, picture(), TEXT, methods=["hirescam", "flat"])
    assert (found.rows[1].agreement_image, found.rows[1].agreement_text) == (None, None)
    assert ("agreement", "image undefined") in figures_of(found, found.rows[1])
    assert "zero everywhere" in compared_page.page(found)
    assert "zero everywhere" in {text.get_text() for text in compared.figure(found).texts}


def test_cheap_methods_are_timed_on_a_second_run(tiny: Any, register: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = register("watched")
    isthmus.compare(tiny, picture(), TEXT, methods=["watched"])
    assert calls == ["image", "text"] * 2
    monkeypatch.setattr(comparison, "_CHEAP", 3)  # it takes four: the similarity's, and one split a side
    calls.clear()
    isthmus.compare(tiny, picture(), TEXT, methods=["watched"])
    assert calls == ["image", "text"]


def test_targets_and_presets_reach_every_method(tiny: Any) -> None:
    preset = {"hirescam": {"preset": "paper", "layer": 2}}
    found = isthmus.compare(tiny, picture(), TEXT, methods=["hirescam", "gradcam"], against="a cat", options=preset)
    for one in found.explanations:
        assert one.image.target == f"cosine with {TEXT!r} rather than with 'a cat'"
    assert [one.image.published is not None for one in found.explanations] == [True, False]
    direction = isthmus.Direction(torch.ones(16))
    alone = isthmus.compare(tiny, picture(), methods="hirescam", target=direction)
    assert alone.rows[0].explanation.text is None
    assert "It does not" not in compared_page.page(alone)


def texts_of(found: Comparison) -> list[str]:
    return [text.get_text() for text in compared.figure(found).texts]


def test_the_figure_and_the_page_tell_every_row() -> None:
    rows = (
        row(),
        row("rise", seconds=131.4, forward=6000.0, backward=0.0, agreement_image=-0.333, agreement_text=None),
        refused(),
    )
    found = Comparison(rows)
    shown = texts_of(found)
    reader = Reader.of(compared_page.page(found))
    for part in ("nib", "Title of rise", "0.25 s", "131 s", "6000 forward, 0 backward", "image reference"):
        assert part in shown
        assert part in reader.text
    for part in ("image -0.33", "text undefined", "This model has no attention: choose another method."):
        assert part in shown
        assert part in reader.text
    assert reader.text.index("nib") < reader.text.index("rise") < reader.text.index("chefer")
    assert [a["class"] for t, a in reader.tags if t == "li"] == ["method"] * 3
    table = reader.text[reader.text.index("All figures in one table") :]
    assert table.count("refused") == 1
    assert "-0.33" in table


def test_each_row_has_scales_of_its_own() -> None:
    """A row whose scores are a hundredth of another's looks the same, and its bars say so."""
    scores = np.array([[0.5, -0.25], [0.125, 0.0]])
    rows = [
        row(name, sample(TEXT[:5], image=image_side(scores * k), text=text_side("a dog", [0.4 * k, -0.1 * k])))
        for name, k in (("nib", 1.0), ("rise", 0.01))
    ]
    found = Comparison(tuple(rows))
    fig = compared.figure(found)
    boxes = [text.get_bbox_patch().get_facecolor() for text in fig.texts if text.get_text() in ("a", "dog")]
    assert len(boxes) == 4
    np.testing.assert_allclose(boxes[:2], boxes[2:])
    maps = [ax.images[0].get_array() for ax in fig.axes if ax.images and ax.images[0].get_array().shape[0] > 1]
    np.testing.assert_array_equal(maps[1], maps[2])  # the first one is the plain picture
    assert not np.array_equal(maps[0], maps[1])
    labels = [text.get_text() for text in fig.texts]
    for label in ("-0.5", "+0.5  score per patch", "+0.005  score per patch", "+0.4  score per word", "-0.004"):
        assert label in labels
    page = compared_page.page(found)
    colours = re.findall(r"class='word'[^>]*background:(#\w+)", page)
    assert colours[:2] == colours[2:] == [Scale(0.4, "").colour(0.4), Scale(0.4, "").colour(-0.1)]
    values = [a["data-score"] for t, a in Reader.of(page).tags if a.get("class") == "word"]
    assert values == ["+0.4000", "-0.1000", "+0.004000", "-0.001000"]


def test_scores_without_a_sign_show_one_colour() -> None:
    positive = sample(image=image_side([[0.5, 0.0]]), text=text_side("a dog", [0.1, 0.2]))
    page = compared_page.page(Comparison((row("chefer", positive),)))
    assert "class='against'" not in page
    stops = [re.findall(r"#\w{6}", ramp) for ramp in re.findall(r"linear-gradient\(90deg, ([^)]*)\)", page)]
    assert len(stops) == 2
    for ramp in stops:  # from white to red: red never falls below blue
        assert all(int(colour[1:3], 16) >= int(colour[5:7], 16) - 1 for colour in ramp)
    assert compared_page.page(Comparison((row(),))).count("class='against'") == 1
    labels = texts_of(Comparison((row("chefer", positive),)))
    assert "0" in labels
    assert "-0.5" not in labels


def test_units_are_the_methods_own() -> None:
    found = Comparison((replace(row("iba"), units="bits"), replace(row("chefer"), units="")))
    shown = " ".join(texts_of(found))
    assert "bits per patch" in shown
    assert "bits per word" in shown
    assert "  per patch" in shown


def test_scores_are_written_with_the_digits_of_the_largest() -> None:
    assert written(0.1, 0.5) == "+0.100"
    assert written(-0.00012, 0.0065, 2) == "-0.0001"
    assert written(3.0, 4200.0) == "+3"
    assert written(5.2e-9, 3e-8) == "+5.20e-09"
    assert written(0.0, 3e-8) == "0"


LONG = " ".join(f"word{i}" for i in range(60))
CASES: dict[str, Any] = {
    "two sides": (row(), row("rise")),
    "refused": (row(), refused(reason="A long sentence that goes on. " * 30)),
    "text alone": (row("nib", sample(image=None, picture=None)),),
    "image alone": (row("nib", sample("", similarity=None)),),
    "sides apart": (row("nib", sample(text=None)), row("rise", sample(image=None))),
    "no picture": (row("nib", sample(picture=None)),),
    "wide": (row("nib", sample(picture=np.zeros((20, 900, 3), np.uint8))),),
    "tall": (row("nib", sample(picture=np.zeros((900, 20, 3), np.uint8))),),
    "sixty words": (row("nib", sample(LONG)), row("rise", sample(LONG, text=text_side(LONG, [1e-4] * 60)))),
    "one long word": (row("nib", sample("x" * 300)), row("y" * 60)),
    "maths": (row("nib", sample(r"$x_1$ ^2 \frac{a} 100% $")), refused(reason="$x_1$")),
    "tiny scores": (row("nib", sample(image=image_side([[-4.9e-7, 3e-7]]), text=text_side("a b", [-4e-7, 1e-7]))),),
    "whole crop": (row("nib", sample(image=image_side(crop=Box(0, 0, 60, 80)))),),
    "twenty-five": tuple(row(f"method-{i}") for i in range(25)),
}


@pytest.mark.parametrize("name", CASES)
def test_everything_can_be_drawn_and_nothing_is_clipped(name: str) -> None:
    found = Comparison(CASES[name])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compared.to_png(found, dpi=30).startswith(b"\x89PNG")
        compared_page.page(found)
    fig = compared.figure(found)
    renderer = fig.canvas.get_renderer()
    for text in fig.texts:
        x0, y0, x1, y1 = text.get_window_extent(renderer).extents
        assert x0 >= 0, text.get_text()
        assert y0 >= 0, text.get_text()
        assert x1 <= fig.bbox.width, text.get_text()
        assert y1 <= fig.bbox.height, text.get_text()


@pytest.mark.parametrize("name", ["two sides", "sixty words", "tiny scores", "refused", "twenty-five"])
def test_no_writing_lies_on_another(name: str) -> None:
    fig = compared.figure(Comparison(CASES[name]))
    renderer = fig.canvas.get_renderer()
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in fig.texts if text.get_text()]
    for i, (text, box) in enumerate(boxes):
        for other, second in boxes[i + 1 :]:
            across = min(box.x1, second.x1) - max(box.x0, second.x0)
            down = min(box.y1, second.y1) - max(box.y0, second.y0)
            assert across <= 1 or down <= 2, (text, other)  # pixels


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.text = ""

    @classmethod
    def of(cls, page: str) -> Reader:
        reader = cls()
        reader.feed(page)
        return reader

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


HOSTILE = '</script><script>alert(1)</script> "\' onmouseover="x <img src=x onerror=y> &amp; a'


def test_hostile_text_stays_text_and_the_network_is_not_asked() -> None:
    one = sample(HOSTILE, source="<b>'\".jpg", image=image_side(notes=(HOSTILE,)))
    rows = (
        replace(row(explanation=one), title=HOSTILE),
        row(HOSTILE, explanation=sample("x")),
        refused(reason=HOSTILE),
    )
    page = compared_page.page(Comparison(rows))
    reader = Reader.of(page)
    assert "script" not in {tag for tag, _ in reader.tags}
    images = [attributes for tag, attributes in reader.tags if tag == "img"]
    assert all(str(attributes["src"]).startswith("data:image/") for attributes in images)
    handlers = {name for _, attributes in reader.tags for name in attributes if name.startswith("on")}
    assert handlers == {"oninput", "onchange"}
    assert reader.text.count("<script>alert(1)</script>") >= 6
    plain = compared_page.page(Comparison((row(),)))
    assert not re.search(r"https?:|//[a-z]|url\(|@import|<link|<script", plain)


def test_the_page_has_raw_values_and_words_for_the_map() -> None:
    one = sample("a  dog,\nrun", image=image_side([[0.5, -0.25]]))
    page = compared_page.page(Comparison((row("nib", one),)))
    reader = Reader.of(page)
    assert [a["title"] for t, a in reader.tags if t == "i"] == ["row 1, column 1: +0.5000", "row 1, column 2: -0.2500"]
    labels = [a["aria-label"] for _, a in reader.tags if a.get("role") == "img"]
    assert labels == [
        "nib: heat map of 1 by 2 regions; highest: row 1, column 1 (+0.5000); lowest: row 1, column 2 (-0.2500)"
    ]
    shown = re.search(r"<p class='words'[^>]*>(.*?)</p>", page, re.DOTALL)
    assert shown is not None
    assert re.sub(r"<span class='spoken'>.*?</span>|<[^>]+>", "", shown.group(1)) == "a  dog,\nrun"
    assert "mini (abc), float32 on cpu" in reader.text


def test_notes_of_all_rows_are_told_once() -> None:
    def noted(*notes: str) -> Any:
        return sample(text=text_side("a dog", notes=notes))

    found = Comparison((row("nib", noted("cut from 9 to 5 tokens")), row("rise", noted("cut from 9 to 5 tokens", "x"))))
    page = Reader.of(compared_page.page(found))
    assert page.text.count("cut from 9 to 5 tokens") == 1
    assert "Note: cut from 9 to 5 tokens." in texts_of(found)
    assert [a for t, a in page.tags if t == "p" and a.get("class") == "note"] == [{"class": "note"}]


def test_saved_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Comparison((row(), row("rise", agreement_text=None), refused()))
    paths = found.save(tmp_path / "deep" / "out")
    assert [path.name for path in paths] == ["index.html", "comparison.png", "comparison.json"]
    assert paths[0].read_text(encoding="utf-8") == compared_page.page(found)
    data = json.loads(paths[2].read_text(encoding="utf-8"))
    assert (data["caption"], data["source"], data["similarity"]) == ("a dog", "dog.jpg", 0.3)
    assert [one["method"] for one in data["rows"]] == ["nib", "rise", "chefer"]
    first, second, third = data["rows"]
    assert (first["seconds"], first["forward"], first["agreement_text"]) == (0.25, 12.0, 0.5)
    assert second["agreement_text"] is None
    assert (third["reason"], third["explanation"]) == (found.rows[2].reason, None)
    assert first["explanation"]["provenance"]["model"] == "mini"
    scores = np.array(first["explanation"]["image"]["scores"]["values"])
    np.testing.assert_allclose(scores, sample().image.scores)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("isthmus.export.to_json", full)
    with pytest.raises(SaveError, match="No space left"):
        found.save(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_it_shows_itself() -> None:
    found = Comparison((row(), refused()))
    assert repr(found) == "<Comparison of nib, chefer: 'a dog', similarity 0.300, on mini>"
    assert found._repr_html_() == compared_page.fragment(found)
    assert compared_page.fragment(found).startswith("<div class='isthmus'>")
    assert "<body" not in found._repr_html_()
