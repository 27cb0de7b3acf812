"""The summary of a run: for each method the mean over pairs, its interval and its place between chance and oracle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from isthmus.frozen import Array
from isthmus.metrics.intervals import Calibrated, bootstrap_interval, calibrated
from isthmus.metrics.registry import METRICS
from isthmus.metrics.statistics import paired_tests

TRIVIAL = ("random", "flat", "centre", "oracle")
SPEED = "seconds"  # the metric of a pair's explanation time
COSTS = (SPEED, "forward", "backward")  # what an explanation takes; no metric of how good it is
Key = tuple[str, str, str, str]  # dataset, metric, side, variant
_KEY = ("dataset", "metric", "side", "variant")


class Rows(Protocol):
    """What is used of a `pyarrow.Table`: dataset, pair, sample, method, metric, side, variant, value, curve."""

    @property
    def column_names(self) -> list[str]:
        """Their names."""

    def column(self, name: str, /) -> Any:
        """A `pyarrow.ChunkedArray`."""

    def filter(self, mask: Any, /) -> Any:
        """The rows for which it holds."""


@dataclass(frozen=True, eq=False)
class Group:
    """The values of one (dataset, metric, side, variant).

    Attributes:
        values: for each method `(N,)`, NaN for a pair that it has no value of; pairs are in the order of their ids.
        samples: `(N,)` the picture of each pair; pairs of one picture are resampled together.
    """

    values: dict[str, Array]
    samples: npt.NDArray[np.str_]


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

    A pair counts once; the intervals draw samples, each with all of its pairs. The order in which rows came changes no
    figure, so a run that was interrupted and gone on with has the same summary; it only sets the order of the lines.

    Args:
        rows: of a run, see `Rows`; values that are not finite are missing.
        level: coverage of the intervals.
        seed: of the bootstrap.

    Returns:
        A row for each (dataset, metric, side, variant, method), in the order in which each was first seen.
    """
    found = []
    for key, group in grouped(rows).items():
        chance, best = group.values.get("random"), group.values.get("oracle")
        draws: dict[str, Any] = {"clusters": group.samples, "level": level, "seed": seed}
        for method, own in group.values.items():
            placed = None
            if chance is not None and best is not None:
                placed = calibrated(own, chance, best, **draws)
            found.append(_row(key, method, own, placed, bootstrap_interval(own, **draws)))
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
    for key, group in grouped(rows).items():
        tested = {name: own for name, own in group.values.items() if name == "random" or name not in TRIVIAL}
        if key[1] in COSTS or (reference is not None and reference not in tested):
            continue
        for one in paired_tests(tested, clusters=group.samples, reference=reference, level=level, seed=seed):
            figures = one.difference, one.low, one.high, one.p, one.p_corrected
            found.append(PairedTestRow(*key, one.first, one.second, one.pairs, *figures))
    return found


def fewer_pairs(rows: Rows) -> dict[str, tuple[int, int]]:
    """The methods that were measured on fewer pairs than another one: on how many, and of how many.

    A pair whose value is not finite was measured; the oracle has fewer pairs by intention. See `grouped` for rows.
    """
    counts: dict[Any, dict[str, int]] = {}
    columns = (rows.column(name).to_pylist() for name in (*_KEY, "method"))
    for (*key, method), count in Counter(zip(*columns, strict=True)).items():
        if method not in TRIVIAL and key[1] not in COSTS:
            counts.setdefault(tuple(key), {})[method] = count
    found: dict[str, tuple[int, int]] = {}
    for own in counts.values():
        most = max(own.values())
        for method, count in own.items():
            if count < most:
                found[method] = min(found.get(method, (count, most)), (count, most))
    return found


def grouped(rows: Rows) -> dict[Key, Group]:
    """Values of each (dataset, metric, side, variant), and within it of each method, in the order first seen.

    A row that comes twice counts as it came last.
    """
    codes, names = {}, {}
    for name in (*_KEY, "method", "pair"):
        codes[name], names[name] = _encoded(rows.column(name))
    values = rows.column("value").to_numpy().astype(np.float64)  # null becomes NaN
    keys = np.ravel_multi_index([codes[name] for name in _KEY], [max(1, len(names[name])) for name in _KEY])
    samples = _samples(rows, codes["pair"], names["pair"])
    found = {}
    for places in _runs(keys):
        key: Any = tuple(names[name][codes[name][places[0]]] for name in _KEY)
        methods = codes["method"][places]
        pairs, at = np.unique(codes["pair"][places], return_inverse=True)
        order = np.argsort([names["pair"][pair] for pair in pairs], kind="stable")
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        own = {}
        for method in _in_order(methods):
            own[names["method"][method]] = line = np.full(len(pairs), np.nan)
            line[rank[at[methods == method]]] = values[places[methods == method]]
        found[key] = Group(own, samples[pairs][order])
    return found


def _in_order(codes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The distinct codes, in the order in which each was first seen."""
    distinct, first = np.unique(codes, return_index=True)
    return np.asarray(distinct[np.argsort(first)])


def _runs(keys: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """The places of each key, in the order of the rows; keys in the order in which each was first seen."""
    order = np.argsort(keys, kind="stable")
    bounds = np.flatnonzero(np.diff(keys[order])) + 1
    return sorted((part for part in np.split(order, bounds) if len(part)), key=lambda part: int(part[0]))


def _encoded(column: Any) -> tuple[npt.NDArray[Any], list[str]]:
    """A column of strings as codes and the strings that they stand for."""
    found = column.combine_chunks().dictionary_encode()
    return found.indices.to_numpy(), found.dictionary.to_pylist()


def _samples(rows: Rows, pairs: npt.NDArray[Any], names: Sequence[str]) -> npt.NDArray[np.str_]:
    """The sample of each distinct pair; itself where rows do not tell."""
    found = np.array(names, dtype=np.str_)
    if "sample" in rows.column_names:
        codes, samples = _encoded(rows.column("sample"))
        first = np.unique(pairs, return_index=True)[1]
        found = np.array(samples, dtype=np.str_)[codes[first]]
    return found
