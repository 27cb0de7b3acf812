"""The summary against a plain pass of numpy over all rows at once; a planted watermark shows."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_rows import made_row

from isthmus.datasets.records import Failure
from isthmus.drawing.corpus import corpus_page
from isthmus.errors import InputError, OptionError, SaveError
from isthmus.scale.positions import Positions
from isthmus.scale.rows import table_of
from isthmus.scale.store import Store
from isthmus.scale.summary import summarise
from isthmus.scale.tallies import Histogram, Kept, WordTally, plain_word


def written(folder: Path, rows: list[dict[str, Any]], form: str = "float32", size: int = 100) -> str:
    store = Store(str(folder / "out"))
    store.prepare({"model": "mini"})
    for k, start in enumerate(range(0, len(rows), size)):
        store.put(0, k, table_of(rows[start : start + size], form), [Failure(f"bad{k}", "It is broken.")])
    store.finish()
    return store.url


def corpus(count: int = 450, **given: Any) -> list[dict[str, Any]]:
    return [made_row(f"p{i:05d}", i, **given) for i in range(count)]


@pytest.mark.parametrize("form", ["float32", "float16", "int8"])
def test_it_agrees_with_a_plain_pass(form: str, tmp_path: Path) -> None:
    rows = corpus() + corpus(130, grid=(3, 5), method="gradcam")
    summary = summarise(written(tmp_path, rows, form), least=3, words=6, outliers=4)
    told = summary.told
    assert told["rows"] == 580
    assert told["failures"]["count"] == 6
    assert list(told["methods"]) == ["nib", "gradcam"]
    off = {"float32": 1e-6, "float16": 2e-4, "int8": 5e-3}[form]
    for method, found in told["methods"].items():
        own = [row for row in rows if row["method"] == method]
        assert found["rows"] == len(own)
        for name in ("similarity", "image_delta", "text_delta"):
            values = np.array([row[name] for row in own])
            assert found[name]["mean"] == pytest.approx(values.mean(), rel=1e-5)
            assert found[name]["deviation"] == pytest.approx(values.std(), rel=1e-4)
            assert (found[name]["least"], found[name]["most"]) == pytest.approx((values.min(), values.max()))
            assert sum(found[name]["bins"]) == len(own)
            for share, value in found[name]["quantiles"].items():
                true = np.quantile(values, float(share), method="inverted_cdf")
                step = found[name]["resolution"]
                assert value == pytest.approx(true, **({"rel": step} if found[name]["log"] else {"abs": step}))
        (grid,) = found["grids"]
        maps = np.stack([row["image_scores"].reshape(row["image_rows"], -1) for row in own]).astype(float)
        shares = maps / np.abs(maps).sum((1, 2), keepdims=True)
        assert (grid["rows"], grid["columns"], grid["count"]) == (*maps.shape[1:], len(own))
        np.testing.assert_allclose(grid["mean_score"], maps.mean(0), atol=off * np.abs(maps).max())
        np.testing.assert_allclose(grid["mean_share"], shares.mean(0), atol=off)
        np.testing.assert_allclose(grid["mean_mass"], np.abs(shares).mean(0), atol=off)
        corner = np.abs(shares)[:, 0, 0].mean()
        assert grid["corners"]["top left"]["mass"] == pytest.approx(corner, abs=off)
        assert not any(grid["corners"][name]["beyond"] for name in ("top left", "bottom right"))
        _check_words(found["words"], own)
        low = sorted((row["similarity"], row["id"]) for row in own)[:4]
        assert [one["id"] for one in found["outliers"]["lowest_similarity"]] == [id for _, id in low]
        assert found["outliers"]["lowest_similarity"][0]["figure"] == pytest.approx(low[0][0])
        large = sorted((-row["text_delta"], row["id"]) for row in own)[:4]
        assert [one["id"] for one in found["outliers"]["largest_text_delta"]] == [id for _, id in large]
    row, scores = summary.rows["gradcam"]["highest_similarity"][0]
    assert scores is not None
    assert scores.shape == (3, 5)
    assert row["words"]
    json.loads(summary.json())


def _check_words(found: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    sums: dict[str, list[float]] = defaultdict(lambda: [0, 0.0, 0.0])
    for row in rows:
        whole = np.abs(row["word_scores"]).sum()
        for word, score in zip(row["words"], row["word_scores"], strict=True):
            sums[word][0] += 1
            sums[word][1] += float(score)
            sums[word][2] += float(score / whole)
    order = sorted((-total / count, word) for word, (count, total, _) in sums.items() if count >= 3)
    assert [one["word"] for one in found["most"]] == [word for _, word in order[:6]]
    assert [one["word"] for one in found["least"]] == [word for _, word in order[6:][::-1]][:6]
    for one in (*found["most"], *found["least"], *found["largest_sum"]):
        count, total, share = sums[one["word"]]
        assert one["count"] == count
        assert one["mean_score"] == pytest.approx(total / count, rel=1e-5, abs=1e-9)
        assert one["sum_share"] == pytest.approx(share, rel=1e-5, abs=1e-7)
    assert found["occurrences"] == sum(len(row["words"]) for row in rows)


@pytest.mark.parametrize(("grid", "cells"), [((7, 7), 1), ((14, 14), 2), ((16, 12), 2)])
@pytest.mark.parametrize("share", [1.0, 0.15])
def test_a_watermark_shows_in_its_corner(grid: tuple[int, int], cells: int, share: float, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = corpus(300, grid=grid)
    for row in rows:
        if rng.random() < share:
            scores = row["image_scores"].reshape(grid).copy()
            scores[-cells:, -cells:] += 0.2
            row["image_scores"] = scores.ravel()
    (found,) = summarise(written(tmp_path, rows)).told["methods"]["nib"]["grids"]
    beyond = [name for name, told in found["corners"].items() if isinstance(told, dict) and told["beyond"]]
    assert beyond == ["bottom right"]
    assert found["corners"]["cells"] == [cells, cells]


def prompted(pictures: int, prompts: int, strong: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of pictures with several prompts each, whose maps lie much alike; of some most is in the top left corner."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(pictures):
        own = np.abs(rng.normal(0, 1, 49))
        own[0] += 40 * (i % pictures < strong)
        for k in range(prompts):
            scores = (own * rng.uniform(0.9, 1.1, 49)).astype(np.float32)
            rows.append(made_row(f"p{i:03d}-{k}", i, picture=f"p{i:03d}", image_scores=scores))
    return rows


def hinted(folder: Path, rows: list[dict[str, Any]], **given: Any) -> tuple[list[str], dict[str, Any]]:
    """The corners that are hinted at, and what is told of the grid."""
    (found,) = summarise(written(folder, rows, **given)).told["methods"]["nib"]["grids"]
    return [name for name, one in found["corners"].items() if isinstance(one, dict) and one["beyond"]], found


@pytest.mark.parametrize("pictures", [1, 3, 29])
@pytest.mark.parametrize("prompts", [1, 12])
def test_few_pictures_have_no_hint_however_many_prompts(pictures: int, prompts: int, tmp_path: Path) -> None:
    rows = prompted(pictures, prompts, pictures)
    corners, found = hinted(tmp_path / "one", rows)
    assert corners == [], "though all of them have the mark"
    assert (found["pictures"], found["count"]) == (pictures, pictures * prompts)
    corners, found = hinted(tmp_path / "two", sorted(rows, key=lambda row: row["id"][-2:]))
    assert (corners, found["pictures"]) == ([], pictures), "also where its rows do not follow each other"


@pytest.mark.parametrize("size", [7, 100])
def test_prompts_of_a_picture_are_no_evidence_of_their_own(size: int, tmp_path: Path) -> None:
    rows = prompted(35, 20, 4)
    corners, found = hinted(tmp_path / "few", rows, size=size)
    assert corners == [], "four of 35 pictures are chance"
    assert (found["pictures"], found["count"]) == (35, 700)
    alone = [{**row, "picture": row["id"]} for row in rows]
    assert hinted(tmp_path / "alone", alone)[0] == ["top left"], "eighty of 700 are not"
    corners, found = hinted(tmp_path / "marked", prompted(40, 20, 40), size=size)
    assert (corners, found["pictures"]) == (["top left"], 40)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_every_picture_counts_alike(size: int, tmp_path: Path) -> None:
    rows = [row for i in range(40) for row in prompted(1, 1 + i % 5, i % 2, seed=i)]
    numbers = np.repeat(np.arange(40), [1 + i % 5 for i in range(40)])
    for number, row in zip(numbers, rows, strict=True):
        row |= {"id": f"{number}-{row['id']}", "picture": f"{number}"}
    _, found = hinted(tmp_path, rows, size=size)
    maps = np.stack([row["image_scores"].reshape(7, 7) for row in rows]).astype(float)
    shares = maps / np.abs(maps).sum((1, 2), keepdims=True)
    for name, values in (("mean_score", maps), ("mean_share", shares), ("mean_mass", np.abs(shares))):
        means = np.stack([values[numbers == number].mean(0) for number in range(40)])
        np.testing.assert_allclose(found[name], means.mean(0), rtol=1e-9)
    assert (found["pictures"], found["count"]) == (40, len(rows))


def test_a_plain_corpus_has_no_watermark_nor_one_with_strong_corners_all_round(tmp_path: Path) -> None:
    grid = Positions((7, 7))
    rng = np.random.default_rng(0)
    maps = rng.normal(0, 1, (2000, 7, 7))
    names = [f"{i}" for i in range(2000)]
    grid.add(maps, names)
    assert not any(one["beyond"] for one in grid.told()["corners"].values() if isinstance(one, dict))
    for rows in (0, -1):
        for columns in (0, -1):
            maps[:, rows, columns] *= 4
    strong = Positions((7, 7))
    strong.add(maps, names)
    assert not any(one["beyond"] for one in strong.told()["corners"].values() if isinstance(one, dict))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 2), (3, 3), (40, 2)])
def test_grids_of_any_shape(shape: tuple[int, int]) -> None:
    grid = Positions(shape)
    assert grid.add(np.zeros((2, *shape)), ["a", "b"]).tolist() == [0, 0]
    json.dumps(grid.told(), allow_nan=False)


def test_memory_of_words_has_a_bound_that_is_told() -> None:
    tally = WordTally(limit=100)
    for i in range(40):
        words = [f"rare{i * 50 + k}" for k in range(50)] + ["often"] * 20
        tally.add(words, np.ones(70), np.ones(70) / 70)
        assert len(tally._found) <= 100
    told = tally.told(5, 3)
    assert told["most"][0]["word"] == "often"
    assert told["most"][0]["count"] == 800
    assert told["forgotten"] > 1000
    assert told["missed_at_most"] > 0


def test_words_are_alike_in_any_case_and_without_marks() -> None:
    assert [plain_word(one) for one in ("Dog,", "«dog»", "DOG", "it's", "7.", "犬。")] == ["dog"] * 3 + [
        "it's",
        "7",
        "犬",
    ]


def test_marks_alone_are_no_words() -> None:
    assert [plain_word(one) for one in (",", ".", "--", "...", "…", "&", "")] == [""] * 7
    tally = WordTally()
    tally.add([",", "Dog", ".", "dog", "--"], np.array([9.0, 1, 8, 3, 7]), np.array([0.9, 0.1, 0.8, 0.3, 0.7]))
    tally.add([".", ","], np.ones(2), np.ones(2))
    tally.add([], np.ones(0), np.ones(0))
    told = tally.told(1, 5)
    assert [(one["word"], one["count"], one["sum_score"]) for one in told["most"]] == [("dog", 2, 4.0)]
    assert told["least"] == []
    assert (told["occurrences"], told["words"]) == (2, 1)


def test_histograms_of_hard_numbers() -> None:
    log = Histogram(1e-6, 1e4, 1000, log=True)
    log.add(np.array([0.0, 0.0, 1e-12, 0.5, np.inf, np.nan, 1e9]))
    told = log.told()
    assert (told["count"], told["zeros"], told["infinite"]) == (6, 2, 1)
    assert (told["least"], told["most"]) == (0.0, 1e9)
    assert log.quantile(0.1) == 0
    assert log.quantile(1.0) == np.inf
    assert Histogram(0, 1, 10).told() is None
    one = Histogram(-1, 1, 2000)
    one.add(np.array([0.25] * 9))
    assert one.quantile(0.5) == 0.25


def test_outliers_are_one_a_picture_and_do_not_depend_on_batches() -> None:
    rng = np.random.default_rng(1)
    figures = rng.integers(0, 30, 500).astype(float)
    figures[::17] = np.nan
    pictures = [f"p{n}" for n in rng.integers(0, 40, 500)]
    ids = [f"{n:03d}" for n in range(500)]
    best: dict[str, tuple[float, str]] = {}
    for figure, id, picture in zip(figures, ids, pictures, strict=True):
        if np.isfinite(figure):
            best[picture] = min(best.get(picture, (np.inf, "")), (-figure, id))
    expected = [id for _, id in sorted(best.values())[:7]]
    for size in (1, 13, 500):
        kept = Kept(7)
        for start in range(0, 500, size):
            own = slice(start, start + size)
            kept.offer(figures[own], ids[own], pictures[own], lambda i, s=start: {"picture": pictures[s + i]})
        assert [id for _, id, _ in kept.rows] == expected


def test_what_cannot_be_summarised_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no output of isthmus map"):
        summarise(tmp_path)
    with pytest.raises(InputError, match="has no rows, and no errors: look whether"):
        summarise(written(tmp_path, []))
    with pytest.raises(OptionError, match="outliers must be at least 0"):
        summarise(tmp_path, outliers=-1)
    (tmp_path / "out" / "pairs" / "part-00000-00000.parquet").write_bytes(b"PAR1")
    with pytest.raises(SaveError, match="is damaged"):
        summarise(tmp_path / "out")


def test_a_run_without_rows_says_so_and_how_many_errors_it_has(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "out"))
    store.prepare({"model": "mini"})
    with pytest.raises(InputError, match="has no rows yet: wait for it"):
        summarise(store.url)
    store.finish("interrupted")
    with pytest.raises(InputError, match="no rows, and no errors: go on with the same isthmus map"):
        summarise(store.url)
    for piece, said in ((0, "1 error"), (1, "2 errors")):
        store.put(0, piece, table_of([]), [Failure(f"bad{piece}", "It is broken.")])
        store.finish()
        with pytest.raises(InputError, match=rf"no rows, and {said}: its errors\.parquet says why") as caught:
            summarise(store.url)
        assert "isthmus map" not in str(caught.value), "it was run"


def test_pairs_are_not_rows(tmp_path: Path) -> None:
    rows = [*corpus(20), *corpus(20, method="gradcam")]
    for name, some, pairs, said in (
        ("even", rows, 20, "<b>20</b> pairs</span><span><b>40</b> rows</span>"),
        ("uneven", rows[3:], 20, "<b>at least 20</b> pairs</span><span><b>37</b> rows</span>"),
        ("one", rows[:20], 20, "<b>20</b> pairs</span><span><b>1</b> failed</span>"),
    ):
        told = summarise(written(tmp_path / name, some)).told
        assert (told["pairs"], told["rows"]) == (pairs, len(some))
        assert said in corpus_page(told, {method: {} for method in told["methods"]}, "")


def test_rows_with_one_side_and_many_grids(tmp_path: Path) -> None:
    rows = [made_row(f"a{i}", i, grid=(2, 2 + i)) for i in range(70)]
    for row in rows[:3]:
        row.update(image_scores=None, image_rows=None, image_columns=None, image_delta=None)
    rows.append(made_row("b", 1, words=None, word_scores=None, text_delta=None, similarity=None))
    found = summarise(written(tmp_path, rows)).told["methods"]["nib"]
    assert len(found["grids"]) == 64
    assert found["other_grids"] == 4
    assert found["image_delta"]["count"] == 68
    assert found["similarity"]["count"] == 70
