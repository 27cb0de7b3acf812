"""The insertion and deletion curves in the rows of a run, read off at the same shares."""

from __future__ import annotations

from typing import Any

import numpy as np

from isthmus.benchmark.summary import Rows
from isthmus.extras import needed
from isthmus.frozen import Array

GRID = np.linspace(0, 1, 101)  # shares at which curves of different lengths are compared
Curves = dict[str, dict[str, tuple[Array, list[str]]]]


def with_curves(rows: Rows) -> list[tuple[str, str, str]]:
    """Metric, side and variant of what has a curve."""
    there = _curved(rows)
    columns = [there.column(name).to_pylist() for name in ("metric", "side", "variant")]
    return list(dict.fromkeys(zip(*columns, strict=True)))


def curves_of(rows: Rows, metric: str, side: str, variant: str) -> Curves:
    """For each dataset and method the curves at `GRID`, `(N, 101)`, and the sample that each is of.

    Pairs are in the order of their ids, methods in the order in which the rows have them. Empty where none has a curve.
    """
    compute = needed("pyarrow.compute")
    own = _curved(rows)
    for name, value in (("metric", metric), ("side", side), ("variant", variant)):
        own = own.filter(compute.equal(own.column(name), value))
    sample = "sample" if "sample" in own.column_names else "pair"
    found: dict[str, dict[str, tuple[list[Array], list[str]]]] = {}
    for row in own.sort_by("pair").select(["dataset", "method", sample, "curve"]).to_pylist():
        values = np.array(row["curve"], dtype=np.float64)
        read, samples = found.setdefault(row["dataset"], {}).setdefault(row["method"], ([], []))
        read.append(np.interp(GRID, np.linspace(0, 1, len(values)), values))
        samples.append(row[sample])
    seen = rows.column("method").unique().to_pylist()
    return {
        dataset: {name: (np.stack(methods[name][0]), methods[name][1]) for name in seen if name in methods}
        for dataset, methods in found.items()
    }


def _curved(rows: Rows) -> Any:
    """The rows with a curve that is finite: normalised ones are undefined where the whole scores too little."""
    column = rows.column("curve").combine_chunks()
    offsets, values = column.offsets.to_numpy(), column.values.to_numpy(zero_copy_only=False)
    undefined = np.concatenate([[0], np.cumsum(~np.isfinite(values))])
    return rows.filter((np.diff(offsets) > 1) & (np.diff(undefined[offsets]) == 0))
