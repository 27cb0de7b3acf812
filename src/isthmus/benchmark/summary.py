"""The summary of a run: for each method the mean over pairs, its interval and its place between chance and oracle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from isthmus.frozen import Array
from isthmus.metrics.registry import METRICS
from isthmus.metrics.statistics import Calibrated, bootstrap_interval, calibrated, paired_tests

TRIVIAL = ("random", "flat", "centre", "oracle")
SPEED = "seconds"  # the metric of a pair's explanation time
COSTS = (SPEED, "forward", "backward")  # what an explanation takes; no metric of how good it is
Key = tuple[str, str, str, str]  # dataset, metric, side, variant
_KEY = ("dataset", "metric", "side", "variant")


class Rows(Protocol):
    """What is used of a `pyarrow.Table` with the columns dataset, pair, method, metric, side, variant, value, curve."""

    def column(self, name: str, /) -> Any:
        """A column, which has `to_pylist`."""


@dataclass(frozen=True)
class SummaryRow:
    """One method on one metric.

    Attributes:
        dataset, metric, side, variant, method: what was measured.
        pairs: how many pairs have a finite value.
        missing: how many pairs of this dataset, metric, side and variant have none for this method.
        mean, low, high: over pairs, with the bootstrap interval; NaN where it is undefined.
        score, score_low, score_high: the mean between the random map (0) and the oracle (1); None where there is no
            oracle, NaN where the oracle cannot be told from the random map.
        better: "higher", "lower", or "" where neither speaks for the method.
        unit: of mean, low and high.
    """

    dataset: str
    metric: str
    side: str
    variant: str
    method: str
    pairs: int
    missing: int
    mean: float
    low: float
    high: float
    score: float | None
    score_low: float | None
    score_high: float | None
    better: str
    unit: str

    @property
    def key(self) -> Key:
        """Dataset, metric, side and variant."""
        return self.dataset, self.metric, self.side, self.variant


@dataclass(frozen=True)
class PairedTestRow:
    """A paired test of two methods on one metric; see `isthmus.metrics.statistics.PairedTest`."""

    dataset: str
    metric: str
    side: str
    variant: str
    first: str
    second: str
    pairs: int
    difference: float
    low: float
    high: float
    p: float
    p_corrected: float

    @property
    def key(self) -> Key:
        """Dataset, metric, side and variant."""
        return self.dataset, self.metric, self.side, self.variant


def summarise(rows: Rows, *, level: float = 0.95, seed: int = 0) -> list[SummaryRow]:
    """Mean, interval and calibrated score of each method on each metric.

    A pair counts once. The order in which rows came changes no figure, so a run that was interrupted and gone on with
    has the same summary; it only sets the order of the lines.

    Args:
        rows: of a run, see `Rows`; values that are not finite are missing.
        level: coverage of the intervals.
        seed: of the bootstrap.

    Returns:
        A row for each (dataset, metric, side, variant, method), in the order in which each was first seen.
    """
    found = []
    for key, values in grouped(rows).items():
        chance, best = values.get("random"), values.get("oracle")
        for method, own in values.items():
            placed = None
            if chance is not None and best is not None:
                placed = calibrated(own, chance, best, level=level, seed=seed)
            found.append(_row(key, method, own, placed, bootstrap_interval(own, level=level, seed=seed)))
    return found


def _row(key: Key, method: str, values: Array, placed: Calibrated | None, interval: tuple[float, float]) -> SummaryRow:
    dataset, metric, side, variant = key
    there, known = values[np.isfinite(values)], METRICS.get(metric)
    return SummaryRow(
        dataset=dataset,
        metric=metric,
        side=side,
        variant=variant,
        method=method,
        pairs=len(there),
        missing=len(values) - len(there),
        mean=float(there.mean()) if len(there) else float("nan"),
        low=interval[0],
        high=interval[1],
        score=None if placed is None else placed.score,
        score_low=None if placed is None else placed.low,
        score_high=None if placed is None else placed.high,
        better="" if known is None else known.better,
        unit="" if known is None else known.unit_of(variant),
    )


def paired_tests_of(
    rows: Rows, *, reference: str | None = None, level: float = 0.95, seed: int = 0
) -> list[PairedTestRow]:
    """Paired tests of all methods, and the random map, within each (dataset, metric, side, variant).

    Args:
        rows: of a run, see `Rows`.
        reference: compare with this method only; where it was not run, nothing is tested.
        level: coverage of the intervals of the differences.
        seed: of the draws.

    Returns:
        The tests; Holm's correction is over those of one (dataset, metric, side, variant).
    """
    found = []
    for key, values in grouped(rows).items():
        tested = {name: own for name, own in values.items() if name == "random" or name not in TRIVIAL}
        if key[1] in COSTS or (reference is not None and reference not in tested):
            continue
        for one in paired_tests(tested, reference=reference, level=level, seed=seed):
            figures = one.difference, one.low, one.high, one.p, one.p_corrected
            found.append(PairedTestRow(*key, one.first, one.second, one.pairs, *figures))
    return found


def grouped(rows: Rows) -> dict[Key, dict[str, Array]]:
    """Values of each method on the pairs of each (dataset, metric, side, variant): `(N,)`, NaN where it has none.

    The pairs are in the order of their ids, those of the methods in the order in which they were first seen.
    """
    columns = [rows.column(name).to_pylist() for name in (*_KEY, "method", "pair", "value")]
    seen: dict[Key, dict[str, dict[str, float]]] = {}
    for dataset, metric, side, variant, method, pair, value in zip(*columns, strict=True):
        key = dataset, metric, side, variant
        seen.setdefault(key, {}).setdefault(method, {})[pair] = float("nan") if value is None else value
    found = {}
    for key, methods in seen.items():
        pairs = sorted(set().union(*methods.values()))
        found[key] = {
            name: np.array([own.get(pair, float("nan")) for pair in pairs], dtype=np.float64)
            for name, own in methods.items()
        }
    return found
