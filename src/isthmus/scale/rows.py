"""The row of an explanation, and the table of many rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from isthmus.explanation import Explanation, ImageAttribution, TextAttribution
from isthmus.extras import needed
from isthmus.scale.schema import Where, completeness_row, schema
from isthmus.scale.stored import stored
from isthmus.scale.vectors import PictureVectors


def row_of(
    explanation: Explanation,
    *,
    id: str,
    picture: str,
    where: Where | None = None,
    vectors: PictureVectors | None = None,
    text_embedding: Any = None,
) -> dict[str, Any]:
    """The row of an explanation: plain values and float32 arrays, nothing that differs from run to run.

    Args:
        explanation: of one pair, or of one side of it.
        id, picture, where: see `COLUMNS`.
        vectors, text_embedding: for the form "vectors" alone: the picture's, and `(D,)` of length one. What the rows
            tell of the picture's side then follows from them; the explanation needs the text's side alone.
    """
    told = explanation.provenance
    row: dict[str, Any] = {
        "id": id,
        "text": explanation.caption,
        "picture": picture,
        "where": None if where is None else vars(where),
        "method": told.method,
        "model": told.model,
        "revision": told.revision,
        "similarity": explanation.similarity,
        "probability": explanation.probability,
        "versions": json.dumps(dict(told.versions)),
    }
    sides = (explanation.image, explanation.text)
    row["notes"] = list(dict.fromkeys(note for side in sides if side is not None for note in side.notes))
    row |= _image(explanation.image) if explanation.image is not None else {}
    row |= _text(explanation.text) if explanation.text is not None else {}
    if vectors is not None:
        row |= vectors.row(np.asarray(text_embedding, dtype=np.float32))
    return row


def _image(image: ImageAttribution) -> dict[str, Any]:
    rows, grid_columns = image.scores.shape
    crop = image.crop
    return {
        "image_scores": np.asarray(image.scores, dtype=np.float32).ravel(),
        "image_rows": rows,
        "image_columns": grid_columns,
        "image_crop": [crop.left, crop.top, crop.right, crop.bottom],
        "image_size": list(image.size),
        "image_input": list(image.input_size),
        "image_rest": sum(one.score for one in image.special),
        **completeness_row("image", image.completeness),
    }


def _text(text: TextAttribution) -> dict[str, Any]:
    return {
        "tokens": [one.text for one in text.tokens],
        "token_starts": [one.start for one in text.tokens],
        "token_ends": [one.end for one in text.tokens],
        "token_scores": np.array([one.score for one in text.tokens], dtype=np.float32),
        "words": [one.text for one in text.words],
        "word_starts": [one.start for one in text.words],
        "word_ends": [one.end for one in text.words],
        "word_scores": np.array([one.score for one in text.words], dtype=np.float32),
        "text_rest": sum(one.score for one in text.special),
        **completeness_row("text", text.completeness),
    }


def table_of(rows: Sequence[Mapping[str, Any]], form: str = "float32") -> Any:
    """The rows as a `pyarrow.Table` of a form, in the same order; none give an empty table of the same schema.

    In the form "vectors" those of a picture are kept in the first of its rows that follow each other.

    Raises:
        OptionError: there is no such form, rows without vectors are to be kept as vectors, or pyarrow is missing.
    """
    arrow, kinds = needed("pyarrow"), schema(form)
    kept = stored(rows, form)
    arrays = [arrow.array([row.get(kind.name) for row in kept], type=kind.type, from_pandas=False) for kind in kinds]
    return arrow.Table.from_arrays(arrays, schema=kinds)
