"""Where things are: run-length masks, polygons and boxes, and what is refused among them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from isthmus.datasets.regions import inclusive_box, object_region, segmentation_shape
from isthmus.datasets.rle import RunShape, decode_counts, run_shape
from isthmus.datasets.values import BadRecordError, natural, relative_name, texts_of
from isthmus.errors import InputError


def encode(runs: list[int]) -> str:
    """COCO's string of some runs, by the rule turned round."""
    text = ""
    for n, run in enumerate(runs):
        value = run - runs[n - 2] if n > 2 else run
        while True:
            group, value = value & 31, value >> 5
            more = not (value == 0 and not group & 16) and not (value == -1 and group & 16)
            text += chr(48 + group + (32 if more else 0))
            if not more:
                break
    return text


def runs_of(mask: Any) -> list[int]:
    flat = np.concatenate([[False], np.asarray(mask, dtype=bool).T.ravel()])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff([0, *edges, flat.size - 1]).tolist()


@pytest.mark.parametrize(
    ("boxes", "size", "counts"),  # the strings are what pycocotools 2.0.11 writes
    [
        ([(1, 3, 1, 4)], (5, 4), "5220003"),
        ([(10, 30, 5, 9), (3, 5, 2, 4)], (12, 40), "c22V10_1b0oM00000^3"),
        ([(100, 250, 20, 22)], (200, 300), "dn5f4f40dQd1"),
    ],
)
def test_strings_of_cocos_own_library(boxes: list[tuple[int, ...]], size: tuple[int, int], counts: str) -> None:
    mask = np.zeros((size[1], size[0]), dtype=bool)
    for top, bottom, left, right in boxes:
        mask[top:bottom, left:right] = True
    assert encode(runs_of(mask)) == counts
    assert np.array_equal(RunShape(size[1], size[0], counts).mask(size), mask)


def test_runs_and_their_strings_give_back_any_mask() -> None:
    rng = np.random.default_rng(0)
    for side in (1, 3, 17, 80):
        for share in (0.0, 0.02, 0.5, 1.0):
            mask = rng.random((side, 2 * side + 1)) < share
            runs = runs_of(mask)
            assert decode_counts(encode(runs)) == runs
            for counts in (runs, encode(runs), encode(runs).encode()):
                shape = run_shape({"size": list(mask.shape), "counts": counts})
                assert np.array_equal(shape.mask((mask.shape[1], mask.shape[0])), mask)


def test_a_mask_of_another_size_than_its_picture_is_scaled() -> None:
    shape = RunShape(2, 2, (2, 2))  # the right half
    assert shape.mask((4, 6)).tolist() == [[False, False, True, True]] * 6


@pytest.mark.parametrize("counts", [(1, 2), (5, -1), "52", "5220003~", "o"])
def test_broken_runs_are_told(counts: Any) -> None:
    with pytest.raises(InputError, match="run-length mask"):
        RunShape(4, 5, counts).mask((5, 4))


@pytest.mark.parametrize(
    "segmentation",
    [5, "abc", None, [["x"]], [5], {"counts": [1]}, {"size": [1], "counts": [1]}, {"size": [1, 1], "counts": 5}],
)
def test_broken_segmentations_are_told(segmentation: Any) -> None:
    with pytest.raises(BadRecordError, match="mend the annotation"):
        segmentation_shape(segmentation)


def test_boxes_and_objects() -> None:
    assert inclusive_box(["0", "0", "1", "0"]).mask((4, 4)).sum() == 2
    for box in (None, [1, 2, 3], [1, 2, 3, "x"], [3, 0, 1, 1]):
        with pytest.raises(BadRecordError, match="mend the annotation"):
            inclusive_box(box)
    assert object_region({"name": "cup", "segmentation": [[1, 2]]}, None) is None  # type: ignore[arg-type]
    with pytest.raises(BadRecordError, match="no name"):
        object_region({"box": [0, 0, 1, 1]}, None)  # type: ignore[arg-type]


def test_texts_and_names() -> None:
    assert texts_of([" a ", None, float("nan"), {"raw": "b"}, [["c"]], 7, ""]) == ("a", "b", "c", "7")
    for value in (None, "", [], [{"x": 1}], True, b"a"):
        with pytest.raises(BadRecordError):
            texts_of(value)
    assert relative_name("a\\b.jpg") == "a/b.jpg"
    assert relative_name("C:\\x\\b.jpg") == relative_name("/x/b.jpg") == relative_name("../x/b.jpg") == "b.jpg"
    assert relative_name("zip://p/b.jpg::/x/pictures.zip") == "p/b.jpg"
    assert relative_name("hf://datasets/a/b@main/p/b.jpg") == "b.jpg"
    assert relative_name("https://x.org/p/b.jpg?size=1#top") == "b.jpg"
    assert sorted(["a10b", "a9c", "a9b", "²", "b1"], key=natural) == ["a9b", "a9c", "a10b", "b1", "²"]
