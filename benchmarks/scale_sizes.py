"""What a pair takes on the disk in each stored form: rows of real captions, all different, with maps of several grids.

    python benchmarks/scale_sizes.py OUTPUT      measures, into results/scale-sizes.json
    python benchmarks/scale_doc.py               puts what is there into docs/scale-output.md and docs/scale-cluster.md

OUTPUT is a run of `isthmus map` over 512 pairs or more. Its rows are taken as they are, but for their numbers: scores
are noise of float32 precision to a compressor, so that their grid alone matters. A caption that comes again costs less
than a new one, so that each is taken once.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np

from isthmus.scale.packing import packed
from isthmus.scale.rows import table_of
from isthmus.scale.schema import FORMS
from isthmus.scale.store import Store
from scale_plan import RESULTS, SIZES, gigabytes

GRIDS = {  # title, side, and width of vectors
    "b32": ("B/32", 7, 512),
    "b16": ("B/16", 14, 512),
    "l14": ("L/14", 16, 768),
    "l14-336": ("L/14 at 336", 24, 768),
}
PIECE = 512


def rows_of(output: str, count: int = PIECE) -> list[dict[str, Any]]:
    """Rows of a run, of which no two have the same caption."""
    store, found = Store(output), dict[str, dict[str, Any]]()
    for name in store.parts():
        with store.read_part(name) as part:
            for row in part.read().to_pylist():
                found.setdefault(row["text"], row)
        if len(found) >= count:
            return list(found.values())[:count]
    sys.exit(f"{output} has {len(found)} different captions: {count} are needed.")


def sized(rows: list[dict[str, Any]], side: int, width: int, *, vectors: bool) -> list[dict[str, Any]]:
    """The rows with random numbers, and random maps or vectors of a grid; each has a picture of its own."""
    rng, found = np.random.default_rng(0), []
    for i, own in enumerate(rows):
        row = own | {"image_rows": side, "image_columns": side}
        row["image_scores"] = rng.normal(0, 0.01, side * side).astype(np.float32)
        for name in ("token_scores", "word_scores"):
            row[name] = rng.normal(0, 0.01, len(row[name])).astype(np.float32)
        for name in [n for n in row if n.endswith(("_rest", "_open", "_closed", "_total", "_delta"))]:
            row[name] = float(rng.normal())
        if vectors:
            row["picture"] = f"{i}"
            row["vectors"] = rng.normal(0, 0.1, side * side * width).astype(np.float16)
            for name in ("vectors_rest", "vectors_closed", "vectors_open", "text_embedding"):
                row[name] = rng.normal(0, 1, width).astype(np.float32)
        found.append(row)
    return found


def size_of(rows: list[dict[str, Any]], form: str) -> float:
    """Bytes a pair of a file of the rows."""
    return len(packed(table_of(rows, form))) / len(rows)


def end_of(rows: list[dict[str, Any]]) -> int:
    """Bytes of what a file says of itself, at its end."""
    import pyarrow as arrow
    from pyarrow import parquet

    return int(parquet.read_metadata(arrow.BufferReader(packed(table_of(rows)))).serialized_size)


def main() -> None:
    """Measure, keep and print."""
    rows, points = rows_of(sys.argv[1]), dict[str, dict[str, float]]()
    words = sum(len(row["words"]) for row in rows) / len(rows)
    without = [row | {"image_scores": None} for row in sized(rows, 1, 1, vectors=False)]
    points["rest"] = {"bytes": size_of(without, "float32")}
    for model, (_, side, width) in GRIDS.items():
        for form in FORMS:
            points[f"{model}/{form}"] = {"bytes": size_of(sized(rows, side, width, vectors=form == "vectors"), form)}
    for key, point in points.items():
        print(f"{key:<16} {point['bytes']:>10,.0f} bytes a pair, {gigabytes(point['bytes']):>5} GB a million")
    whole = {"rows": {"pairs": len(rows), "words": words, "end": end_of(rows)}, "points": points}
    (RESULTS / SIZES).write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
