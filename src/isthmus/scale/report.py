"""The report of a run: statistics as JSON, and a page with the pairs that stand out on their pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from isthmus.drawing.corpus import Example, corpus_page
from isthmus.explanation import Box, Completeness, ImageAttribution, TextAttribution, Token, Word
from isthmus.export import write_files
from isthmus.frozen import Array
from isthmus.scale.again import picture_again
from isthmus.scale.store import Store
from isthmus.scale.summary import OUTLIERS, Summary

_LONGEST = 360  # pixels of a picture on the page


def page_of(summary: Summary, *, pictures: bool = True) -> str:
    """The page, self-contained HTML.

    Args:
        summary: see `isthmus.scale.summary.summarise`.
        pictures: open them again by where they were; without, or where one is gone, a grey field is under its map.
    """
    seen: dict[str, Array | None] = {}

    def again(row: Mapping[str, Any]) -> Array | None:
        key = repr(row["where"])
        if key not in seen:
            seen[key] = picture_again(row["where"], _LONGEST) if pictures else None
        return seen[key]

    examples = {
        method: {
            OUTLIERS[kind]: [
                _example(row, scores, kind, one["figure"], again(row))
                for (row, scores), one in zip(rows, summary.told["methods"][method]["outliers"][kind], strict=True)
            ]
            for kind, rows in kinds.items()
        }
        for method, kinds in summary.rows.items()
    }
    name = PurePosixPath(str(summary.told["output"]).rstrip("/")).name or "Isthmus"
    return corpus_page(summary.told, examples, f"What passes in {name}")


def write_report(
    summary: Summary,
    page: str | Path | None = None,
    *,
    storage_options: Mapping[str, Any] | None = None,
    pictures: bool = True,
) -> tuple[str, str]:
    """Write the page, and the statistics as JSON beside it under the same name.

    Args:
        summary: see `isthmus.scale.summary.summarise`.
        page: a local path; without it `summary.html` in the run's output, wherever that is.
        storage_options: for the output's file system.
        pictures: see `page_of`.

    Returns:
        Where both are.

    Raises:
        SaveError: they cannot be written.
    """
    contents = {"html": page_of(summary, pictures=pictures).encode(), "json": summary.json().encode()}
    if page is None:
        store = Store(str(summary.told["output"]), storage_options=storage_options)
        for kind, content in contents.items():
            store.files.write(f"summary.{kind}", content)
        base = store.url.rstrip("/")
        return f"{base}/summary.html", f"{base}/summary.json"
    place = Path(page)
    names = {place.name: contents["html"], f"{place.stem}.json": contents["json"]}
    written = write_files(
        place.parent,
        {name: lambda path, content=content: path.write_bytes(content) for name, content in names.items()},  # type: ignore[misc]
    )
    return str(written[0]), str(written[1])


def _example(row: Mapping[str, Any], scores: Array | None, kind: str, figure: float, picture: Array | None) -> Example:
    said = {
        "lowest_similarity": f"similarity {figure:.3f}",
        "highest_similarity": f"similarity {figure:.3f}",
        "largest_image_delta": f"delta {figure:.1%}",
        "largest_text_delta": f"delta {figure:.1%}",
        "most_corner_mass": f"{figure:.1%} in one corner",
    }
    return Example(row["id"], row["text"], said[kind], picture, _image(row, scores), _text(row))


def _completeness(row: Mapping[str, Any], side: str) -> Completeness:
    return Completeness(row[f"{side}_open"] or 0.0, row[f"{side}_closed"], row[f"{side}_total"] or 0.0)


def _image(row: Mapping[str, Any], scores: Array | None) -> ImageAttribution | None:
    if scores is None or not np.isfinite(scores).all():
        return None
    width, height = row["image_size"]
    height_in, width_in = row["image_input"]
    return ImageAttribution(
        scores, (), Box(*row["image_crop"]), (width, height), (height_in, width_in), _completeness(row, "image"), ""
    )


def _text(row: Mapping[str, Any]) -> TextAttribution | None:
    if row["words"] is None:
        return None
    spans = zip(row["words"], row["word_starts"], row["word_ends"], row["word_scores"], strict=True)
    words = tuple(Word(text, start, end, score, ()) for text, start, end, score in spans)
    pieces = zip(row["tokens"], row["token_starts"], row["token_ends"], row["token_scores"], strict=True)
    tokens = tuple(Token(text, start, end, i, score) for i, (text, start, end, score) in enumerate(pieces))
    return TextAttribution(row["text"], tokens, words, (), _completeness(row, "text"), "")
