"""Rows and forms: documented, equal after a round, and readable with the usual libraries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_rows import made_row, made_table
from schema_page import PAGE, TABLE, table

import isthmus
from conftest import EXAMPLES
from isthmus.errors import OptionError, SaveError
from isthmus.scale.rows import row_of, table_of
from isthmus.scale.schema import COLUMNS, FORMS, Where, schema
from isthmus.scale.store import Store
from isthmus.scale.stored import Maps, form_of, lists, quantised, scores_of
from isthmus.scale.vectors import picture_vectors


@pytest.mark.parametrize("form", FORMS)
def test_every_column_is_documented(form: str) -> None:
    found = schema(form)
    assert all(field.metadata[b"description"].decode().endswith(".") for field in found)
    assert len(set(found.names)) == len(found.names)
    assert form_of(found) == form
    assert set(found.names) <= {column.name for column in COLUMNS}


def test_unknown_forms_are_refused() -> None:
    with pytest.raises(OptionError, match="float32, float16, int8, vectors"):
        schema("int4")


def test_a_row_tells_what_the_explanation_tells(mini: Any, dog: Path) -> None:
    one = isthmus.explain(mini, dog, "a dog is tied to a fire hydrant", steps=2)
    row = row_of(one, id="x", picture="dog", where=Where(str(dog)))
    (back,) = table_of([row]).to_pylist()
    assert one.image is not None
    assert one.text is not None
    np.testing.assert_array_equal(np.array(back["image_scores"], np.float32).reshape(7, 7), one.image.scores)
    assert (back["image_rows"], back["image_columns"]) == one.image.scores.shape
    assert back["words"] == [word.text for word in one.text.words]
    np.testing.assert_allclose(back["word_scores"], [word.score for word in one.text.words], rtol=1e-6)
    assert [back["text"][s:e] for s, e in zip(back["word_starts"], back["word_ends"], strict=True)] == back["words"]
    assert back["similarity"] == pytest.approx(one.similarity, rel=1e-6)
    np.testing.assert_allclose(np.sum(back["image_scores"]) + back["image_rest"], back["image_total"], atol=1e-6)
    assert back["image_delta"] == pytest.approx(one.image.completeness.relative_delta, rel=1e-5)
    assert back["where"] == {"file": str(dog), "member": None, "row": None, "column": None}
    assert json.loads(back["versions"])["isthmus"] == isthmus.__version__
    assert back["image_size"] == list(one.image.size)
    again = row_of(isthmus.explain(mini, dog, one.caption, steps=2), id="x", picture="dog", where=Where(str(dog)))
    assert table_of([again]).equals(table_of([row])), "nothing in a row differs from run to run"


def test_one_side_alone_has_a_row(mini: Any, dog: Path) -> None:
    one = isthmus.explain(mini, dog, "a dog", steps=2, sides="text")
    (back,) = table_of([row_of(one, id="x", picture="dog")]).to_pylist()
    assert back["image_scores"] is None
    assert back["image_rows"] is None
    assert back["words"] == ["a", "dog"]
    assert scores_of(table_of([row_of(one, id="x", picture="dog")], "int8")) == [None]


@pytest.mark.parametrize("form", FORMS[:3])
def test_maps_come_back(form: str) -> None:
    rows = [made_row(str(i), i, grid=(3, 4 + i)) for i in range(5)] + [made_row("zero", 9, image_scores=np.zeros(49))]
    table = table_of(rows, form)
    found = scores_of(table)
    for row, scores in zip(rows, found, strict=True):
        assert scores is not None
        assert scores.dtype == np.float32
        true = np.asarray(row["image_scores"]).reshape(row["image_rows"], row["image_columns"])
        off = {"float32": 0.0, "float16": 2**-11, "int8": 0.5 / 127}[form] * np.abs(true).max() * (1 + 1e-5)
        np.testing.assert_allclose(scores, true, atol=float(off), rtol=0)
        assert np.all((scores == 0) | (np.sign(scores) == np.sign(true)))
        assert np.all(scores[true == 0] == 0)
    whole = Maps(form)
    parts = [one for batch in table.to_batches(max_chunksize=2) for one in whole.of(batch)]
    for one, other in zip(found, parts, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("scores", [[0.0, -1.0, 1.0], [1e-45, 0.0, -1e-45], [3e38, -3e38, 0.0], [0.0, 0.0]])
def test_eight_bits_are_symmetric(scores: list[float]) -> None:
    steps, scale = quantised(np.array(scores, np.float32))
    minus, same = quantised(-np.array(scores, np.float32))
    np.testing.assert_array_equal(steps, -minus)
    assert scale == same
    assert steps[np.array(scores) == 0].tolist() == [0] * scores.count(0.0)
    assert np.isfinite(steps * np.float32(scale)).all()


def test_vectors_give_the_map_of_every_text_and_are_kept_once_a_picture(mini: Any) -> None:
    pictures = [EXAMPLES / "dog.jpg", sorted(EXAMPLES.glob("*.jpg"))[-1]]
    texts = ["a dog on the grass", "a red car"]
    free = isthmus.prompt_free(mini, pictures, layer=10, steps=2)
    vectors = picture_vectors(mini, pictures, layer=10, steps=2)
    rows, true = [], []
    for i, picture in enumerate(pictures):
        for k, text in enumerate(texts):
            one = isthmus.explain(mini, picture, text, sides="text", layer=10, steps=2)
            direction = _embedded(mini, text)
            rows.append(row_of(one, id=f"{i}:{k}", picture=str(i), vectors=vectors[i], text_embedding=direction))
            true.append(free.maps([text])[i, 0])
    table = table_of(rows, "vectors")
    assert [one is None for one in lists(table.column("vectors"))] == [False, True, False, True]
    for found, expected in zip(scores_of(table), true, strict=True):
        assert found is not None
        np.testing.assert_allclose(found, expected, atol=3e-3 * np.abs(expected).max())
    np.testing.assert_allclose(table.column("similarity").to_numpy(), free.similarities(texts).ravel(), atol=1e-5)
    for row, scores in zip(table.to_pylist(), true, strict=True):
        assert scores.sum() + row["image_rest"] == pytest.approx(row["image_total"], abs=1e-5)
        change = row["image_open"] - row["image_closed"]
        assert row["image_delta"] == pytest.approx(abs(row["image_total"] - change) / abs(change), rel=1e-3)
    batches = table.to_batches(max_chunksize=1)
    maps = Maps("vectors")
    assert all(maps.of(batch)[0] is not None for batch in batches)
    with pytest.raises(SaveError, match="first row"):
        Maps("vectors").of(batches[1])


def _embedded(model: Any, text: str) -> Any:
    from isthmus.targets import embeddings_of

    return embeddings_of(model, [text], truncate=False)[0][0].cpu().numpy()


def test_rows_without_vectors_cannot_be_kept_as_vectors() -> None:
    with pytest.raises(OptionError, match="float32, float16 or int8"):
        made_table(["a"], "vectors")


def test_files_of_others_are_no_parts() -> None:
    with pytest.raises(SaveError, match="not written by isthmus map"):
        form_of(pa.schema([("id", pa.string())]))
    newer = schema().with_metadata({"isthmus": json.dumps({"format": 99, "form": "float32"})})
    with pytest.raises(SaveError, match="newer Isthmus"):
        form_of(newer)


@pytest.mark.parametrize("form", FORMS[:3])
def test_pandas_polars_duckdb_and_datasets_agree(form: str, tmp_path: Path) -> None:
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    duckdb, datasets = pytest.importorskip("duckdb"), pytest.importorskip("datasets")
    store = Store(str(tmp_path / "out"))
    store.prepare({})
    store.put(0, 0, made_table(["a", "b", "c"], form))
    store.put(0, 1, table_of([], form), last=True)
    store.put(1, 0, made_table(["d", "e"], form), last=True)
    store.finish()
    pairs = tmp_path / "out" / "pairs"
    true = pq.read_table(pairs).to_pylist()
    own = {
        "pandas": pandas.read_parquet(pairs).to_dict("records"),
        "polars": polars.read_parquet(pairs / "*.parquet").to_dicts(),
        "duckdb": duckdb.sql(f"select * from '{pairs}/*.parquet' order by id").pl().to_dicts(),
        "datasets": datasets.load_dataset(
            "parquet", data_files=f"{pairs}/*.parquet", split="train", cache_dir=str(tmp_path / "cache")
        ).to_list(),
    }
    for name, rows in own.items():
        assert [row["id"] for row in rows] == list("abcde"), name
        for row, expected in zip(rows, true, strict=True):
            assert row["where"]["file"] == expected["where"]["file"], name
            assert list(row["words"]) == expected["words"], name
            assert row["similarity"] == pytest.approx(expected["similarity"]), name
            np.testing.assert_allclose(list(row["image_scores"]), expected["image_scores"], err_msg=name)
            np.testing.assert_allclose(list(row["word_scores"]), expected["word_scores"], err_msg=name)


def test_the_table_of_the_documents_is_that_of_the_schema() -> None:
    (found,) = TABLE.findall(PAGE.read_text(encoding="utf-8"))
    assert found == table(), "run: python tests/scale/schema_page.py"
