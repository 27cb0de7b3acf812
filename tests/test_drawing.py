"""Drawing: where the map lies, what colour means, and that hostile captions stay text."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib import rcParams

from isthmus.drawing import figure, fragment, page, to_png, to_svg
from isthmus.drawing.heatmap import calmed, layer, outlined, overlay, resized_scores
from isthmus.drawing.scale import Scale, ink, region_scale, word_scale
from isthmus.explanation import Box, Special
from samples import image_side, sample, text_side


def test_the_map_is_resized_as_torch_does_it() -> None:
    side = image_side(np.random.default_rng(3).normal(size=(7, 5)), size=(50, 70), crop=Box(0, 0, 50, 70))
    expected = torch.nn.functional.interpolate(
        torch.tensor(side.scores)[None, None], size=(70, 50), mode="bilinear", align_corners=False
    )[0, 0]
    np.testing.assert_allclose(side.heatmap(), expected.numpy(), atol=1e-6)


def test_the_map_lies_in_the_crop_and_nothing_is_said_outside() -> None:
    side = image_side(size=(60, 80), crop=Box(0, 10, 60, 70))
    found = side.heatmap()
    assert found.shape == (80, 60)
    assert np.isnan(found[:10]).all()
    assert np.isnan(found[70:]).all()
    expected = torch.nn.functional.interpolate(
        torch.tensor(side.scores)[None, None], size=(60, 60), mode="bilinear", align_corners=False
    )[0, 0]
    np.testing.assert_allclose(found[10:70], expected.numpy(), atol=1e-6)


def test_a_crop_that_reaches_outside_shows_the_middle() -> None:
    side = image_side(np.arange(16.0).reshape(4, 4), size=(20, 20), crop=Box(-10, -10, 30, 30))
    found = side.heatmap()
    assert not np.isnan(found).any()
    assert found[10, 10] == pytest.approx(7.5 + 0.05 + 0.2, abs=0.01)


def test_smaller_copies_scale_the_crop_and_one_patch_is_flat() -> None:
    side = image_side([[2.0]], size=(60, 80), crop=Box(0, 10, 60, 70))
    found = resized_scores(side, (30, 40))
    assert np.isnan(found[:5]).all()
    assert (found[5:35] == 2.0).all()


def test_zero_is_the_picture_and_signs_have_their_colours() -> None:
    side = image_side([[1.0, 0.0], [0.0, -1.0]], size=(40, 40), crop=Box(0, 0, 40, 40))
    picture = np.full((40, 40, 3), 128, np.uint8)
    shown = overlay(picture, side, Scale(1.0, "")).astype(int)
    assert shown[2, 2, 0] > shown[2, 2, 2] + 40
    assert shown[37, 37, 2] > shown[37, 37, 0] + 40
    zero = overlay(picture, replace(side, scores=np.zeros((2, 2))), Scale(1.0, ""))
    np.testing.assert_array_equal(zero, calmed(picture))
    only = layer(side, (40, 40), Scale(1.0, ""), sign=1)
    assert only[2, 2, 3] > 200
    assert only[37, 37, 3] == 0


def test_the_scale_is_shared_and_survives_zeros_and_nan() -> None:
    a, b = sample(image=image_side([[0.5, -2.0]])), sample(image=image_side([[0.1, np.nan]]))
    assert region_scale([a, b]).limit == 2.0
    assert region_scale([sample(image=image_side([[0.0]]))]).limit == 1.0
    assert word_scale([sample(""), sample("x y")]).limit == 0.02
    assert ink(Scale(2.0, "").colour(0)) == "#000000"
    assert Scale(2.0, "").normalised(np.array([-4.0, 1.0])).tolist() == [-1.0, 0.5]


@pytest.mark.parametrize("value", np.linspace(-1, 1, 21))
def test_words_are_legible_on_every_colour(value: float) -> None:
    colour = Scale(1.0, "").colour(value)

    def luminance(code: str) -> float:
        channels = [int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return float(np.dot([0.2126, 0.7152, 0.0722], linear))

    light, dark = sorted([luminance(colour), luminance(ink(colour))], reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_the_outline_is_drawn_only_where_something_is_cut_off() -> None:
    assert outlined(image_side())
    assert not outlined(image_side(crop=Box(0, 0, 60.2, 80)))


CASES: dict[str, Any] = {
    "plain": sample(),
    "probability": sample(probability=0.5),
    "text alone": sample(image=None, picture=None),
    "image alone": sample("", similarity=None),
    "no picture": sample(picture=None),
    "caption alone": sample("a dog", text=None),
    "wide": sample(picture=np.zeros((20, 900, 3), np.uint8)),
    "tall": sample(picture=np.zeros((900, 20, 3), np.uint8)),
    "sixty words": sample(" ".join(f"word{i}" for i in range(60))),
    "one long word": sample("x" * 300),
    "maths": sample(r"$x_1$ ^2 \frac{a} 100% $"),
    "scripts": sample("emoji 🐕 漢字 كلب"),
    "notes": sample(image=image_side(notes=("cut from 82 to 32 tokens",))),
    "nan": sample(image=image_side(np.full((2, 2), np.nan))),
}


@pytest.mark.parametrize("name", CASES)
def test_everything_can_be_drawn_without_a_warning(name: str) -> None:
    before = dict(rcParams)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert to_png(CASES[name], dpi=40).startswith(b"\x89PNG")
        assert b"</svg>" in to_svg(CASES[name])
        assert "</html>" in page(CASES[name], name)
    assert dict(rcParams) == before


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("names", [["sixty words"], ["one long word"], ["plain", "probability", "maths", "scripts"]])
def test_nothing_is_clipped_in_the_figure(names: list[str]) -> None:
    fig = figure([CASES[name] for name in names])
    width, height = fig.get_size_inches() * fig.dpi
    renderer = fig.canvas.get_renderer()
    for text in fig.texts:
        box = text.get_window_extent(renderer)
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width + 1
        assert box.y1 <= height + 1


def test_words_of_a_line_do_not_overlap() -> None:
    fig = figure(CASES["sixty words"])
    renderer = fig.canvas.get_renderer()
    boxes = [t.get_window_extent(renderer) for t in fig.texts if re.fullmatch(r"word\d+", t.get_text())]
    assert len(boxes) == 60
    for i, a in enumerate(boxes):
        for b in boxes[i + 1 :]:
            assert not a.overlaps(b)


def test_a_picture_is_shown_once_for_several_texts() -> None:
    many = [sample("a"), sample("b"), sample("c")]
    titles = [t.get_text() for t in figure(many).texts]
    assert titles.count("Picture") == 1
    assert sum(title.startswith("similarity") for title in titles) == 3


def test_svg_is_the_same_every_time() -> None:
    assert to_svg(sample()) == to_svg(sample())


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


HOSTILE = '</script><script>alert(1)</script> "\' onmouseover="x <img src=x onerror=y> &amp; a'


def test_captions_stay_text() -> None:
    found = page(
        [
            sample(HOSTILE, source="<b>'\".jpg", image=image_side(notes=(HOSTILE,))),
            sample("x", text=None, caption=HOSTILE),
        ],
        HOSTILE,
    )
    reader = _Reader()
    reader.feed(found)
    assert "script" not in {tag for tag, _ in reader.tags}
    images = [attributes for tag, attributes in reader.tags if tag == "img"]
    assert all(str(attributes["src"]).startswith("data:image/") for attributes in images)
    handlers = {name for _, attributes in reader.tags for name in attributes if name.startswith("on")}
    assert handlers == {"oninput", "onchange"}
    assert reader.text.count("<script>alert(1)</script>") >= 3


def test_pages_ask_the_network_for_nothing() -> None:
    found = page([sample(), sample("b")])
    assert not re.search(r"https?:|//[a-z]|url\(|@import|<link|<script", found)


def test_words_tell_their_values_and_keep_the_text() -> None:
    reader = _Reader()
    text = "a  dog,\nrun"
    found = fragment(sample(text))
    reader.feed(found)
    words = [attributes for tag, attributes in reader.tags if attributes.get("class") == "word"]
    assert [w["data-score"] for w in words] == ["+0.0100", "-0.0200", "+0.0300"]
    assert all(w["tabindex"] == "0" for w in words)
    shown = re.search(r"<p class='words'[^>]*>(.*?)</p>", found, re.DOTALL)
    assert shown is not None
    without_values = re.sub(r"<span class='spoken'>.*?</span>|<[^>]+>", "", shown.group(1))
    assert without_values == text


def test_cells_tell_raw_scores_and_the_map_has_words() -> None:
    reader = _Reader()
    reader.feed(fragment(sample(image=image_side([[0.5, -0.25]]))))
    assert [a["title"] for t, a in reader.tags if t == "i"] == [
        "row 1, column 1: +0.50000",
        "row 1, column 2: -0.25000",
    ]
    labels = [a.get("aria-label") for _, a in reader.tags if a.get("role") == "img"]
    assert labels == [
        "Heat map of 1 by 2 regions; most for: row 1, column 1 (+0.5000); most against: row 1, column 2 (-0.2500)"
    ]


def test_provenance_is_on_the_page() -> None:
    reader = _Reader()
    reader.feed(page(sample()))
    for part in ("mini (abc), float32 on cpu", "0.3000 open, -0.1000 closed", "2.50%", "CLS +0.1250", "isthmus 0"):
        assert part in reader.text
    assert text_side().top(1)[0].text == "dog"


def test_a_map_without_words_says_what_it_explains() -> None:
    one = sample(text=None)
    assert any("cosine with" in text.get_text() for text in figure(one).texts)
    assert "cosine with &#x27;a dog&#x27;</p>" in page(one)


def test_words_of_a_script_from_the_right_begin_at_the_right() -> None:
    def places(text: str) -> list[float]:
        drawn = {t.get_text(): t.get_position()[0] for t in figure(sample(text=text_side(text))).texts}
        return [drawn[word] for word in text.split()]

    assert places("a dog runs") == sorted(places("a dog runs"))
    arabic = "كلب على الشاطئ"
    assert places(arabic) == sorted(places(arabic), reverse=True)


def test_the_bar_shows_the_colours_of_the_map() -> None:
    """On white, a pixel of the map has the colour that the bar has at its value."""
    side = image_side(np.array([[-0.04, 0.02], [0.0, 0.04]], np.float32), size=(2, 2), crop=Box(0, 0, 2, 2))
    scale = region_scale([sample(image=side)])
    rgba = layer(side, (2, 2), scale).astype(float)
    seen = rgba[..., :3] * rgba[..., 3:] / 255 + 255 - rgba[..., 3:]
    ramp = scale.ramp(101)
    for value, colour in zip((-0.04, 0.02, 0.0, 0.04), seen.reshape(4, 3), strict=True):
        bar = ramp[round(50 + 50 * value / 0.04)]
        np.testing.assert_allclose(colour, [int(bar[i : i + 2], 16) for i in (1, 3, 5)], atol=2)


def test_special_positions_of_one_name_are_drawn_as_their_sum() -> None:
    """SigLIP reads dozens of padding tokens: the raw scores stay, the small print tells one number."""
    padding = tuple(Special("PAD", 5 + i, 0.01) for i in range(58))
    side = replace(text_side(), special=(Special("EOS", 4, 0.02), *padding))
    one = sample(text=side)
    assert len(one.text.special) == 59
    small = [text.get_text() for text in figure(one).texts if text.get_text().startswith("text:")]
    assert len(small) == 1
    assert "EOS +0.020, PAD ×58 +0.580" in small[0]
    reader = _Reader()
    reader.feed(page(one))
    assert "EOS +0.0200, PAD ×58 +0.5800" in reader.text
    assert reader.text.count("PAD") == 2  # the small print, and the details
