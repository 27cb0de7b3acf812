"""How maps are stored, and how they come back: float32, half precision, 8 bit with a scale, or prompt-free vectors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from isthmus.errors import OptionError, SaveError
from isthmus.frozen import Array
from isthmus.scale.schema import FORMAT, FORMS, columns

_STEPS = 127  # of an 8 bit map on each side of zero; -128 is not used
_OF_A_PICTURE = ("vectors", "vectors_rest", "vectors_closed", "vectors_open")


def stored(rows: Sequence[Mapping[str, Any]], form: str) -> list[dict[str, Any]]:
    """Rows with their maps in a form. Raises OptionError where they cannot be put into it."""
    columns(form)
    if form == "vectors":
        return _once_a_picture(rows)
    return [{**row, **_encoded(row.get("image_scores"), form)} for row in rows]


def _encoded(scores: Any, form: str) -> dict[str, Any]:
    if scores is None:
        return {}
    scores = np.asarray(scores, dtype=np.float32)
    if form == "float32":
        return {"image_scores": scores}
    if form == "float16":
        return {"image_scores": scores.astype(np.float16)}
    steps, scale = quantised(scores)
    return {"image_scores": steps, "image_scale": scale}


def quantised(scores: Array) -> tuple[Array, float]:
    """A float32 map as int8 and what a step is worth: off by half a step at most, zero stays zero, signs stay."""
    scores = np.asarray(scores, dtype=np.float32)
    scale = np.float32(np.abs(scores).max(initial=0) / _STEPS)
    if not (np.isfinite(scale) and scale >= np.finfo(np.float32).tiny):  # all zero, or too small for a step
        return np.zeros(scores.shape, dtype=np.int8), 0.0
    return np.clip(np.rint(scores / scale), -_STEPS, _STEPS).astype(np.int8), float(scale)


def _once_a_picture(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    above = None
    for row in rows:
        if row.get("vectors") is None:
            raise OptionError("These rows have no vectors: store their maps as float32, float16 or int8.")
        same = dict.fromkeys(_OF_A_PICTURE) if row["picture"] == above else {}
        half = {} if same else {"vectors": np.asarray(row["vectors"]).astype(np.float16)}
        found.append({**row, **half, **same})
        above = row["picture"]
    return found


def form_of(schema: Any) -> str:
    """The form of a part, by its `pyarrow.Schema`. Raises SaveError where it is no part, or of a newer Isthmus."""
    try:
        about = json.loads((schema.metadata or {})[b"isthmus"])
        form, number = str(about["form"]), int(about["format"])
    except (KeyError, ValueError, TypeError) as error:
        raise SaveError("This Parquet file was not written by isthmus map: give its output folder.") from error
    if number > FORMAT or form not in FORMS:
        raise SaveError("These rows were written by a newer Isthmus: update with pip install -U isthmus.")
    return form


class Maps:
    """Gives the maps of a part back, batch by batch from its first row; one object for each part.

    Args:
        form: see `form_of`.
    """

    def __init__(self, form: str) -> None:
        """See the class."""
        self.form = form
        self._above: tuple[Array, Array] | None = None

    def of(self, batch: Any) -> list[Array | None]:
        """Maps `(rows, columns)` float32 of a `pyarrow` table or batch; None where a row has no picture's side."""
        shapes = zip(batch.column("image_rows").to_pylist(), batch.column("image_columns").to_pylist(), strict=True)
        if self.form == "vectors":
            flat: list[Array | None] = [self._product(batch, i) for i in range(batch.num_rows)]
        else:
            flat = lists(batch.column("image_scores"))
            if self.form == "int8":
                scales = batch.column("image_scale").to_pylist()
                flat = [
                    None if one is None else one.astype(np.float32) * np.float32(scale)
                    for one, scale in zip(flat, scales, strict=True)
                ]
        return [
            None if one is None else one.astype(np.float32, copy=False).reshape(shape)
            for one, shape in zip(flat, shapes, strict=True)
        ]

    def _product(self, batch: Any, i: int) -> Array:
        found, embedding = batch.column("vectors")[i], np.asarray(batch.column("text_embedding")[i].values)
        if found.is_valid:
            opened = np.asarray(batch.column("vectors_open")[i].values, dtype=np.float32)
            vectors = np.asarray(found.values.to_numpy(zero_copy_only=False), dtype=np.float32)
            self._above = vectors.reshape(-1, len(opened)), opened
        if self._above is None:
            raise SaveError("The vectors of a picture are not above its row: read a part from its first row on.")
        vectors, opened = self._above
        return np.asarray(vectors @ embedding / np.linalg.norm(opened), dtype=np.float32)


def scores_of(table: Any) -> list[Array | None]:
    """The maps `(rows, columns)` float32 of a whole part, or of a batch that begins one; see `Maps`."""
    return Maps(form_of(table.schema)).of(table)


def lists(column: Any) -> list[Array | None]:
    """A column of lists as one array a row, None where it is null; numbers never become Python's."""
    found: list[Array | None] = []
    for chunk in column.chunks if hasattr(column, "chunks") else (column,):
        values = chunk.values.to_numpy(zero_copy_only=False)
        offsets, missing = chunk.offsets.to_numpy(), chunk.is_null().to_numpy(zero_copy_only=False)
        found += [
            None if none else values[start:end]
            for start, end, none in zip(offsets[:-1], offsets[1:], missing, strict=True)
        ]
    return found
