"""Localisation against values by hand, plain loops in float64, and Quantus."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import quantus
import torch

from conftest import EXAMPLES
from isthmus.errors import InputError, OptionError
from isthmus.metrics.localisation import average_precision, energy_inside, iou, pointing_game
from isthmus.metrics.maps import Map
from isthmus.metrics.pairs import Judged, pairs_of
from isthmus.metrics.registry import METRICS

NAMES = ("pointing-game", "energy-inside", "iou", "average-precision")
PICTURES = ["dog.jpg", "bear.jpg", "bird.jpg", "pizza.jpg"]
SIZE = 56  # pixels of the model's input, in patches of 8
CASES = [(METRICS[name].function, options) for name in NAMES for options in METRICS[name].variants.values()]


@pytest.fixture(scope="module")
def bases(make_tiny: Callable[..., Any]) -> Any:
    """Pairs without regions, by how many there are; the model is only asked for the size of its input."""
    model = make_tiny(image_size=SIZE)
    return {n: pairs_of(model, [EXAMPLES / p for p in PICTURES[:n]], ["a thing"] * n) for n in (1, 2, 4)}


def judge(bases: Any, maps: list[Any], regions: Any) -> Judged:
    base = bases[len(maps)]
    given = {name: getattr(base, name) for name in ("model", "ids", "texts", "inputs", "embeddings", "layouts")}
    pairs = type(base)(**given, frames=base.frames, regions=None if regions is None else np.stack(regions))
    return Judged(pairs, {"image": tuple(Map(np.asarray(one, dtype=np.float32)) for one in maps)})


def nothing() -> Any:
    return np.zeros((SIZE, SIZE), dtype=bool)


def box(top: int, left: int, bottom: int, right: int) -> Any:
    found = nothing()
    found[top:bottom, left:right] = True
    return found


def noise(count: int, *, levels: int | None = None) -> list[Any]:
    """Random maps of single pixels; with few levels most pixels tie."""
    drawn = np.random.default_rng(0).normal(size=(count, SIZE, SIZE)).astype(np.float32)
    return list(drawn if levels is None else np.round(drawn * levels) / 8)


def dots(values: dict[tuple[int, int], float], rest: float = 0.0) -> Any:
    found = np.full((SIZE, SIZE), rest, dtype=np.float32)
    for at, value in values.items():
        found[at] = value
    return found


REGIONS = [box(5, 8, 22, 30), box(0, 0, 56, 25), box(50, 50, 56, 56), box(12, 12, 13, 15)]


def test_pointing_game_by_hand(bases: Any) -> None:
    region = box(10, 10, 20, 20)
    cases = [
        (dots({(12, 12): 1.0}), 1.0),  # inside
        (dots({(9, 12): 1.0}), 0.0),  # one pixel above
        (dots({(19, 19): -1.0, (20, 20): -0.5}, rest=-2.0), 0.0),  # signs do not matter
        (dots({(19, 19): 1.0, (20, 20): 1.0, (0, 0): 1.0}), 1 / 3),  # ties share
    ]
    found = pointing_game(judge(bases, [m for m, _ in cases], [region] * 4), "image")
    assert found.dtype == torch.float64
    assert found.tolist() == [value for _, value in cases]


@pytest.mark.parametrize(("tolerance", "hits"), [(2, [1, 0, 0, 0]), (2.9, [1, 1, 0, 0]), (5, [1, 1, 1, 0])])
def test_tolerance_is_a_distance(bases: Any, tolerance: float, hits: list[float]) -> None:
    places = [(8, 12), (8, 8), (24, 16), (24, 24)]  # at 2, sqrt(8), 5 and sqrt(50) pixels from the region
    maps = [dots({place: 1.0}) for place in places]
    found = pointing_game(judge(bases, maps, [box(10, 10, 20, 20)] * 4), "image", tolerance=tolerance)
    assert found.tolist() == hits


def test_pixels_are_those_of_the_resized_map(bases: Any) -> None:
    grid = np.zeros((7, 7))
    grid[2, 3] = 1.0  # its peak is at the middle of the patch: rows 16..23, columns 24..31
    judged = judge(bases, [grid, grid], [box(19, 27, 21, 29), box(16, 24, 19, 32)])
    assert pointing_game(judged, "image").tolist() == [1.0, 0.0]
    corner = np.zeros((7, 7))
    corner[0, 0] = 1.0  # beyond the middle of the outermost patch the score stays: 4 x 4 pixels tie
    assert pointing_game(judge(bases, [corner], [box(0, 0, 2, 4)]), "image").tolist() == [0.5]


def test_energy_by_hand(bases: Any) -> None:
    region = box(10, 10, 20, 20)
    maps = [
        dots({(12, 12): 3.0, (0, 0): 1.0}),
        dots({(12, 12): 3.0, (15, 15): -9.0, (0, 0): 1.0}),  # negative scores are no energy
        dots({(12, 12): -3.0}),  # nothing positive
        dots({}, rest=1.0),
    ]
    found = energy_inside(judge(bases, maps, [region] * 4), "image")
    assert found.tolist() == pytest.approx([0.75, 0.75, 0.0, 100 / SIZE**2])


def test_iou_by_hand(bases: Any) -> None:
    region = box(0, 0, 1, 4)
    values = {(0, 0): 4.0, (0, 1): 3.0, (5, 5): 2.0, (0, 2): 1.0, (0, 3): -1.0}
    judged = judge(bases, [dots(values)], [region])
    # Thresholds give 1/4, 2/4, 2/5, 3/5, and the zeros then everything but one pixel.
    assert iou(judged, "image").tolist() == [0.6]
    tied = {(0, 0): 1.0, (0, 1): 1.0, (5, 5): 1.0, (5, 6): 1.0}
    assert iou(judge(bases, [dots(tied)], [region]), "image").tolist() == pytest.approx([2 / 6])  # not 2/4
    two = dots({(0, 0): 1.0, (0, 1): 1.0, (5, 5): 1.0})
    assert iou(judge(bases, [two], [region]), "image", threshold="otsu").tolist() == pytest.approx([2 / 5])


def test_average_precision_by_hand(bases: Any) -> None:
    region = box(0, 0, 1, 2)
    ranked = dots({(0, 0): 4.0, (5, 5): 3.0, (0, 1): 2.0})
    tied = dots({(0, 0): 4.0, (5, 5): 3.0, (0, 1): 3.0})
    found = average_precision(judge(bases, [ranked, tied], [region] * 2), "image")
    assert found.tolist() == pytest.approx([1 / 2 * 1 + 1 / 2 * 2 / 3] * 2)
    apart = dots({(0, 0): 30.0, (5, 5): 40.0, (0, 1): 50.0})  # a sigmoid would be 1 for all of them
    assert average_precision(judge(bases, [apart], [region]), "image").item() == pytest.approx(0.5 + 1 / 3)


def best_by_loop(scores: Any, region: Any) -> float:
    found = 0.0
    for value in np.unique(scores):
        taken = scores >= value
        found = max(found, (taken & region).sum() / (taken | region).sum())
    return found


def precision_by_loop(scores: Any, region: Any) -> float:
    found, before = 0.0, 0.0
    for value in np.unique(scores)[::-1]:
        taken = scores >= value
        recall = (taken & region).sum() / region.sum()
        found += (recall - before) * (taken & region).sum() / taken.sum()
        before = recall
    return found


def test_ties_against_plain_loops(bases: Any) -> None:
    maps = noise(4, levels=4)  # about 35 distinct values
    judged = judge(bases, maps, REGIONS)
    pairs = list(zip(maps, REGIONS, strict=True))
    assert iou(judged, "image").tolist() == pytest.approx([best_by_loop(*p) for p in pairs], abs=1e-12)
    assert average_precision(judged, "image").tolist() == pytest.approx([precision_by_loop(*p) for p in pairs])


def test_otsu_is_scikit_images(bases: Any) -> None:
    from skimage.filters import threshold_otsu

    maps = [one**3 for one in noise(4)]
    found = iou(judge(bases, maps, REGIONS), "image", threshold="otsu")
    for one, region, value in zip(maps, REGIONS, found.tolist(), strict=True):
        taken = one > threshold_otsu(one.astype(np.float64))
        assert value == pytest.approx((taken & region).sum() / (taken | region).sum())
        assert taken.any()
        assert not taken.all()


@pytest.mark.parametrize("grid", [(7, 7), (4, 4), (5, 9)])  # float32 would tear ties apart
@pytest.mark.parametrize("value", [0.99, 0.0])
def test_a_flat_map_gets_the_share_of_the_region(bases: Any, grid: tuple[int, int], value: float) -> None:
    judged = judge(bases, [np.full(grid, value)] * 4, REGIONS)
    share = [region.mean() for region in REGIONS]
    for found in (pointing_game(judged, "image"), iou(judged, "image"), iou(judged, "image", threshold="otsu")):
        assert found.tolist() == pytest.approx(share, rel=1e-12)
    assert average_precision(judged, "image").tolist() == pytest.approx(share)
    assert energy_inside(judged, "image").tolist() == pytest.approx(share if value > 0 else [0.0] * 4)


def test_a_perfect_map_gets_one_and_no_order_matters_but_that_of_scores(bases: Any) -> None:
    perfect = judge(bases, [region.astype(float) for region in REGIONS], REGIONS)
    for function, options in CASES:
        assert function(perfect, "image", **options).tolist() == [1.0] * 4
    maps = noise(4)
    raised = [np.exp(one) for one in maps]
    for function in (pointing_game, iou, average_precision):
        torch.testing.assert_close(
            function(judge(bases, maps, REGIONS), "image"), function(judge(bases, raised, REGIONS), "image")
        )


def test_regions_empty_and_everywhere(bases: Any) -> None:
    maps = noise(4)
    maps[3] = np.full((7, 7), np.nan)
    judged = judge(bases, maps, [nothing(), ~nothing(), REGIONS[0], REGIONS[1]])
    for function, options in CASES:
        found = function(judged, "image", **options)
        assert torch.isnan(found).tolist() == [True, False, False, True]
        if options != {"threshold": "otsu"}:
            assert found[1] == 1.0
    taken = iou(judged, "image", threshold="otsu")[1]
    assert 0 < taken < 1
    alone = judge(bases, maps[:1], [nothing()])
    assert all(torch.isnan(function(alone, "image", **options)).all() for function, options in CASES)


def test_a_batch_gives_what_each_pair_gives_alone(bases: Any) -> None:
    maps = [*noise(2), np.random.default_rng(1).normal(size=(7, 7)), np.eye(14)]
    for function, options in CASES:
        together = function(judge(bases, maps, REGIONS), "image", **options)
        alone = [
            function(judge(bases, [one], [region]), "image", **options)
            for one, region in zip(maps, REGIONS, strict=True)
        ]
        assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize(
    ("metric", "function"), [("PointingGame", pointing_game), ("RelevanceMassAccuracy", energy_inside)]
)
def test_quantus_gives_the_same(bases: Any, metric: str, function: Any) -> None:
    maps, regions = noise(4), [REGIONS[0], REGIONS[1], box(0, 0, 56, 50), REGIONS[2]]
    clamped = np.stack([one.clip(min=0) for one in maps]).astype(np.float64)
    made = getattr(quantus, metric)(abs=False, normalise=False, disable_warnings=True)
    theirs = made(
        model=torch.nn.Conv2d(3, 1, 1),
        x_batch=np.zeros((4, 3, SIZE, SIZE), dtype=np.float32),
        y_batch=np.zeros(4, dtype=int),
        a_batch=clamped[:, None],
        s_batch=np.stack(regions)[:, None],
        channel_first=True,
        device="cpu",
    )
    ours = function(judge(bases, maps, regions), "image")
    assert ours.tolist() == pytest.approx([float(value) for value in theirs], rel=1e-9)
    assert 0 < ours.sum() < 4


def test_what_cannot_be_judged_is_said(bases: Any) -> None:
    maps = noise(4)
    without = judge(bases, maps, None)
    small = judge(bases, maps, [region[:50] for region in REGIONS])
    unexplained = Judged(judge(bases, maps, REGIONS).pairs, {})
    for function, options in CASES:
        with pytest.raises(InputError, match="a dataset with masks or boxes"):
            function(without, "image", **options)
        with pytest.raises(InputError, match=r"\(4, 50, 56\): give \(4, 56, 56\)"):
            function(small, "image", **options)
        with pytest.raises(InputError, match="image was not explained"):
            function(unexplained, "image", **options)
        with pytest.raises(OptionError, match="image only"):
            function(without, "text", **options)
    judged = judge(bases, maps, REGIONS)
    with pytest.raises(OptionError, match="'best' or 'otsu', not 'mean'"):
        iou(judged, "image", threshold="mean")
    for wrong in (-1, float("nan")):
        with pytest.raises(OptionError, match="tolerance"):
            pointing_game(judged, "image", tolerance=wrong)


@pytest.mark.parametrize(
    ("module", "function", "options"),
    [
        ("torchmetrics.functional.classification", average_precision, {}),
        ("skimage.filters", iou, {"threshold": "otsu"}),
        ("scipy.ndimage", pointing_game, {"tolerance": 3}),
    ],
)
def test_a_missing_extra_is_named(
    bases: Any, monkeypatch: pytest.MonkeyPatch, module: str, function: Any, options: Any
) -> None:
    judged = judge(bases, noise(4), REGIONS)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(OptionError, match=r"pip install 'isthmus\[evaluate\]'"):
        function(judged, "image", **options)


def test_the_registry_has_them() -> None:
    for name in NAMES:
        assert METRICS[name].question == "region"
        assert METRICS[name].sides == ("image",)
        assert METRICS[name].better == "higher"
    assert set(METRICS["iou"].variants_of("image")) == {"best", "otsu"}
    assert set(METRICS["pointing-game"].variants_of("image")) == {"", "15 px"}
