"""What a million pairs take on the disk in each stored form: rows of real captions, with maps of several grids.

    python benchmarks/scale_sizes.py OUTPUT

OUTPUT is a run of `isthmus map`, whose rows are repeated with other numbers: scores are noise of float32 precision to a
compressor, so that their grid alone matters. Prints a line for each grid and form: bytes a pair, GB a million pairs.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from isthmus.scale.packing import packed
from isthmus.scale.rows import table_of
from isthmus.scale.schema import FORMS
from isthmus.scale.store import Store

GRIDS = {"B/32": (7, 512), "B/16": (14, 512), "L/14": (16, 768), "L/14 at 336": (24, 768)}
PIECE = 512


def rows_of(output: str, side: int, width: int, *, vectors: bool, count: int = PIECE) -> list[dict[str, Any]]:
    """Rows with the captions, words and ids of a run, and random maps or vectors of a grid."""
    store, rng = Store(output), np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for name in store.parts():
        with store.read_part(name) as part:
            rows += part.read().to_pylist()
        if len(rows) >= count:
            break
    rows = [dict(rows[i % len(rows)]) for i in range(count)]
    for i, row in enumerate(rows):
        row |= {"id": f"{row['id']}{i}", "image_rows": side, "image_columns": side}
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
    return rows


def main() -> None:
    """Print the table."""
    print(f"{'model':<12} {'form':<8} {'bytes a pair':>12} {'GB a million':>12}")
    for model, (side, width) in GRIDS.items():
        for form in FORMS:
            rows = rows_of(sys.argv[1], side, width, vectors=form == "vectors")
            size = len(packed(table_of(rows, form))) / len(rows)
            print(f"{model:<12} {form:<8} {size:>12,.0f} {size / 1e3:>12,.2f}", flush=True)


if __name__ == "__main__":
    main()
