"""The functions of benchmarks/two_objects.py: masks in the crop, the pointing game, intervals, the reverse."""

from __future__ import annotations

import importlib
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import isthmus
from conftest import ROOT
from isthmus.explanation import Box

sys.path.append(str(ROOT / "benchmarks"))
game: Any = importlib.import_module("two_objects")
drawn: Any = importlib.import_module("two_objects_figure")

GRID = game.GRID
SQUARE = Box(35, 0, 105, 70)  # what a model sees of a picture of 140 x 70: patches of 10 pixels


def rectangle(left: float, top: float, right: float, bottom: float) -> list[float]:
    return [left, top, right, top, right, bottom, left, bottom]


def thing(rows: slice, columns: slice) -> Any:
    """A category that fills these patches of the grid."""
    mask = np.zeros((70, 140), dtype=bool)
    mask[10 * (rows.start or 0) : 10 * rows.stop, 35 + 10 * (columns.start or 0) : 35 + 10 * columns.stop] = True
    return game.things_of({"it": mask}, SQUARE)["it"]


def test_a_category_is_the_union_of_its_polygons() -> None:
    objects = [
        {"name": "cat", "segmentation": [rectangle(0, 0, 39, 70), rectangle(45, 10, 54, 19)]},
        {"name": "dog", "segmentation": [rectangle(75, 30, 104, 69)]},
        {"name": "cat", "segmentation": [rectangle(120, 0, 139, 69)]},
    ]
    masks = game.masks_of(objects, (140, 70), Path("none.png"))
    assert set(masks) == {"cat", "dog"}
    assert masks["cat"].shape == (70, 140)
    assert masks["cat"][15, 50]
    assert masks["cat"][0, 139]
    assert not masks["cat"][15, 70]
    centres = game.sampled(masks["cat"], SQUARE, GRID)
    assert centres[1, 1]
    assert centres.sum() == 1, "what lies outside the crop, or short of a patch's centre, is not there"
    np.testing.assert_array_equal(np.argwhere(game.sampled(masks["dog"], SQUARE, GRID))[[0, -1]], [[3, 4], [6, 6]])


def test_a_category_is_the_union_of_its_panoptic_segments(tmp_path: Path) -> None:
    colours = np.zeros((70, 140, 3), dtype=np.uint8)
    colours[:, 35:45] = (1, 2, 3)
    colours[60:, 95:105] = (0, 0, 200)
    colours[:10, 95:105] = (1, 2, 0)
    Image.fromarray(colours).save(tmp_path / "panoptic.png")
    ids = {"cat": [1 + 256 * 2 + 65536 * 3, 65536 * 200], "dog": [1 + 256 * 2]}
    objects = [{"name": name, "panoptic_id": i} for name, some in ids.items() for i in some]
    masks = game.masks_of(objects, (140, 70), tmp_path / "panoptic.png")
    expected = np.zeros((GRID, GRID), dtype=bool)
    expected[:, 0] = expected[6, 6] = True
    np.testing.assert_array_equal(game.sampled(masks["cat"], SQUARE, GRID), expected)
    np.testing.assert_array_equal(np.argwhere(game.sampled(masks["dog"], SQUARE, GRID)), [[0, 6]])


def test_nothing_is_outside_the_picture() -> None:
    """A crop may reach over the edge, where the model sees padding."""
    found = game.sampled(np.ones((70, 50), dtype=bool), Box(-10, 0, 60, 70), GRID)
    np.testing.assert_array_equal(found, np.tile([False, *[True] * 5, False], (GRID, 1)))


def test_categories_that_are_too_small_or_too_large_do_not_count() -> None:
    masks = {name: np.zeros((70, 140), dtype=bool) for name in ("speck", "patch", "beside", "most", "sky")}
    masks["speck"][0:9, 35:45] = True
    masks["patch"][0:10, 35:45] = True
    masks["beside"][:, :35] = True
    masks["most"][:48] = True
    masks["sky"][:50] = True
    found = game.things_of(masks, SQUARE)
    assert set(found) == {"patch", "most"}
    assert found["patch"].cover[0, 0] == 1
    assert found["patch"].cover.sum() == 1
    assert found["most"].middle
    assert not found["patch"].middle


def test_hits() -> None:
    centres = thing(slice(2), slice(3)).centres  # 6 of 49
    scores = np.zeros((GRID, GRID))
    scores[1, 2] = 2.0
    assert game.hit(scores, centres) == 1
    scores[1, 2], scores[5, 5] = -2.0, 0.5
    assert game.hit(scores, centres) == 0
    scores[0, 0] = scores[0, 1] = 0.5
    assert game.hit(scores, centres) == pytest.approx(2 / 3), "the mean of tied patches"
    scores[0, 0] *= 1 - 1e-8
    assert game.hit(scores, centres) == pytest.approx(2 / 3), "rounding decides nothing"


@pytest.mark.parametrize("value", [0.0, 0.3, -2.0])
def test_a_constant_map_hits_as_chance_does(value: float) -> None:
    centres = thing(slice(2), slice(3)).centres
    assert game.hit(np.full((GRID, GRID), value), centres) == pytest.approx(6 / 49)


def test_told_apart() -> None:
    first, second = thing(slice(2), slice(7)), thing(slice(4, 6), slice(2))
    towards = np.where(first.cover > 0, 1.0, 0.0)
    assert game.separated(towards, -towards, first, second) == 1
    assert game.separated(-towards, towards, first, second) == 0
    assert game.separated(towards, towards, first, second) == 0.5
    assert game.separated(towards + 5, towards + np.where(second.cover > 0, 0.5, 0), first, second) == 1
    assert game.alike(towards, 3 - 2 * towards) == pytest.approx(-1)
    assert np.isnan(game.alike(towards, np.ones_like(towards)))


def test_the_interval_is_over_pictures() -> None:
    values = [0.0, 1.0] * 50
    together, alone = [i // 25 for i in range(100)], list(range(100))
    assert game.interval(values, alone) == pytest.approx((0.4, 0.6), abs=0.021)
    assert game.interval([1.0] * 9, [1, 1, 1, 2, 2, 3, 3, 3, 3]) == (1, 1)
    assert game.interval([float(i % 2) for i in together], together)[0] == 0, "25 equal answers of a picture are one"
    assert game.interval(values, alone) == game.interval(values, alone)


def test_chance_has_the_middle_of_the_table() -> None:
    scenes = {7: game.Scene(Path("a.jpg"), {"cat": thing(slice(2), slice(7)), "dog": thing(slice(3, 7), slice(3, 7))})}
    asked = game.questions_of(scenes)
    assert Counter(asked) == {(7, "cat", "dog"): 1, (7, "dog", "cat"): 1}
    right = {(i, a, b): scenes[i].things[a].cover for i, a, b in asked}
    wrong = {(i, a, b): scenes[i].things[b].cover for i, a, b in asked}
    lines = list(game.table_of("rev", scenes, {"worse": wrong, "better": right}, ["`other` refuses: no."]))
    names = [line.split(" | ")[0] for line in lines if line.startswith("| ")][1:]
    assert names == ["| `better`", "| *centre point*", "| *chance*", "| `worse`"]
    assert "| *chance* | 30.6 %" in "\n".join(lines)
    assert lines[-1] == "`other` refuses: no."


def test_prompts_have_their_article() -> None:
    assert game.photo("dog") == "a photo of a dog"
    assert game.photo("umbrella") == "a photo of an umbrella"


def test_against_is_the_contrast(mini: Any, dog: Path) -> None:
    texts = [game.photo("dog"), game.photo("fire hydrant")]
    one = isthmus.explain(mini, dog, texts[0], against=texts[1], sides="image", method="hirescam")
    contrast = isthmus.Contrast(for_=texts[:1], against=texts[1:])
    other = isthmus.explain(mini, dog, target=contrast, sides="image", method="hirescam")
    np.testing.assert_allclose(one.image.scores, other.image.scores, atol=1e-6)
    assert one.image.target == other.image.target


@pytest.mark.parametrize("method", game.LINEAR)
def test_the_reverse_is_the_negative(mini: Any, dog: Path, method: str) -> None:
    few: dict[str, Any] = {
        "occlusion": {},
        "integrated-gradients": {"steps": 4},
        "rise": {"samples": 20},
        "banzhaf": {"samples": 98},
    }
    options = few.get(method, {"samples": 60})
    texts = [game.photo("dog"), game.photo("fire hydrant")]
    there, back = (
        isthmus.explain(mini, dog, a, against=b, sides="image", method=method, **options).image.scores
        for a, b in (texts, texts[::-1])
    )
    np.testing.assert_allclose(there, -back, atol=2e-5 * np.abs(there).max())


def test_maps_are_kept(mini: Any, dog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = {1: game.Scene(dog, {"dog": thing(slice(2), slice(2)), "fire hydrant": thing(slice(3), slice(3))})}
    cache = tmp_path / "maps.jsonl"
    asked = game.questions_of(scenes)
    first = game.Maps(mini, scenes, cache).of("gradcam", asked)
    monkeypatch.setattr("isthmus.explain", lambda *_, **__: pytest.fail("it was there already"))
    again = game.Maps(mini, scenes, cache).of("gradcam", asked)
    assert set(first) == set(again) == set(asked)
    assert all(np.array_equal(first[q], again[q]) for q in asked)


def test_the_figure_is_drawn(mini: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawn, "FIGURE", tmp_path / "figure.png")
    scores = np.linspace(-1, 1, GRID**2).reshape(GRID, GRID)
    mask = np.zeros((game.FINE, game.FINE), dtype=bool)
    mask[50:90, 20:60] = True
    drawn.write_figure(mini, {"one": (scores, -scores), "flat": (0 * scores, 0 * scores)}, [mask, mask])
    with Image.open(tmp_path / "figure.png") as image:
        assert image.width > 1000


def test_the_dog_of_the_figure_is_there(mini: Any, shared: Path) -> None:
    entries = json.loads((shared / "data" / "coco.json").read_text(encoding="utf-8"))
    entry = next(one for one in entries if one["id"] == drawn.DOG)
    picture = game.open_picture(ROOT / "examples" / "dog.jpg")
    crop = mini.processing.pictures([picture])[1][0].crop
    found = game.things_of(game.masks_of(entry["objects"], picture.image.size, Path("none.png")), crop)
    assert set(found) == set(drawn.PAIR)
    assert found["dog"].centres[3, 2]
    assert not found["fire hydrant"].centres[3, 2]
