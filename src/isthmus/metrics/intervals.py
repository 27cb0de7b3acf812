"""Bootstrap intervals over pairs, and calibration between chance and the oracle.

Pairs of one picture are no independent draws: given `clusters`, whole clusters are drawn (Davison & Hinkley, Bootstrap
Methods and their Application, 1997, section 3.8), and the mean stays that of the pairs.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from isthmus.errors import OptionError
from isthmus.extras import needed
from isthmus.frozen import Array

_AT_ONCE = 1 << 22  # numbers drawn in one go


@dataclass(frozen=True)
class Calibrated:
    """A mean placed between chance (0) and the oracle (1), with its interval; NaN where that is undefined."""

    score: float
    low: float
    high: float
    pairs: int


def bootstrap_interval(
    values: npt.ArrayLike,
    *,
    clusters: npt.ArrayLike | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over pairs (Efron, Annals of Statistics 1979).

    Args:
        values: `(N,)`; what is not finite is dropped.
        clusters: `(N,)` labels; whole clusters are drawn. None: each pair is one of its own.
        level: coverage, between 0 and 1.
        resamples: how often as many clusters as there are get drawn with replacement.
        seed: of the draws.

    Returns:
        Lower and upper bound in the unit of the values; NaN for fewer than two clusters.

    Raises:
        OptionError: a level outside (0, 1), no resamples, labels that are not one a pair, or no scipy.
    """
    given = np.asarray(values, dtype=np.float64).reshape(-1)
    there = np.isfinite(given)
    labels = None if clusters is None else np.asarray(clusters)[there]
    low, high = mean_intervals(given[there], clusters=labels, level=level, resamples=resamples, seed=seed)
    return float(low), float(high)


def mean_intervals(
    values: npt.ArrayLike,
    *,
    clusters: npt.ArrayLike | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[Array, Array]:
    """Intervals as `bootstrap_interval` gives, for many rows of finite values that are resampled together.

    Args:
        values: `(..., N)` finite values; the mean is over the last axis.
        clusters, level, resamples, seed: see `bootstrap_interval`.

    Returns:
        Lower and upper bounds, `(...)` each.
    """
    given, counts = clustered(values, clusters)
    if given.shape[-1] < 2:
        check_draws(level, resamples)
        return np.full(given.shape[:-1], np.nan), np.full(given.shape[:-1], np.nan)
    options: dict[str, Any] = {"level": level, "resamples": resamples, "seed": seed}
    if counts is None:
        return _bootstrap((given,), np.mean, **options)
    return _bootstrap((given, np.broadcast_to(counts, given.shape)), _mean_of_clusters, paired=True, **options)


def calibrated(
    method: npt.ArrayLike,
    random: npt.ArrayLike,
    oracle: npt.ArrayLike | None = None,
    *,
    clusters: npt.ArrayLike | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Calibrated:
    """`(mean(method) - mean(random)) / (mean(oracle) - mean(random))`: 0 is chance, 1 the greedy oracle.

    Means are over the pairs that all three have. The interval resamples pairs, so that it knows that the three are
    measured on the same ones.

    Args:
        method, random, oracle: `(N,)` values of the same pairs in the same order; a pair is left out where one of
            them is not finite. Without an oracle there is no score.
        clusters, level, resamples, seed: see `bootstrap_interval`.

    Returns:
        The score; NaN where the interval of oracle minus random includes 0, since the ratio then means nothing.

    Raises:
        OptionError: arrays of different lengths; see `bootstrap_interval` for others.
    """
    check_draws(level, resamples)
    if oracle is None:
        return Calibrated(np.nan, np.nan, np.nan, 0)
    given = [np.asarray(one, dtype=np.float64).reshape(-1) for one in (method, random, oracle)]
    if len({len(one) for one in given}) > 1:
        raise OptionError("Values of the same pairs are needed: give arrays of one length, NaN where a pair has none.")
    shared = np.isfinite(given).all(0)
    first, chance, best = (one[shared] for one in given)
    options: dict[str, Any] = {"level": level, "resamples": resamples, "seed": seed}
    labels = None if clusters is None else np.asarray(clusters)[shared]
    low, high = mean_intervals(best - chance, clusters=labels, **options)
    if not (low > 0 or high < 0):
        return Calibrated(np.nan, np.nan, np.nan, int(shared.sum()))
    sums = clustered(np.stack([first, chance, best]), labels)[0]  # their counts are the same, and cancel
    bounds = _bootstrap(tuple(sums), _placed, paired=True, **options)
    return Calibrated(float(_placed(first, chance, best)), float(bounds[0]), float(bounds[1]), int(shared.sum()))


def clustered(values: npt.ArrayLike, clusters: npt.ArrayLike | None) -> tuple[Array, Array | None]:
    """Sums over the pairs of each cluster, and how many pairs it has.

    Args:
        values: `(..., N)`.
        clusters: `(N,)` labels of any kind that can be sorted; None: each pair is one of its own.

    Returns:
        `(..., M)` sums in the order of the labels, and `(M,)` counts; the values and None where no two pairs share one.

    Raises:
        OptionError: not one label for each pair.
    """
    given = np.asarray(values, dtype=np.float64)
    if clusters is None:
        return given, None
    labels = np.asarray(clusters)
    if labels.shape != given.shape[-1:]:
        raise OptionError(f"clusters must name the cluster of each of {given.shape[-1]} pairs, not of {labels.size}.")
    first, place, counts = np.unique(labels, return_inverse=True, return_counts=True)[:3]
    if len(first) == len(labels):
        return given, None
    rows = given.reshape(-1, len(labels))
    sums = np.stack([np.bincount(place, row, minlength=len(first)) for row in rows]) if len(rows) else rows[:, :0]
    return sums.reshape(*given.shape[:-1], len(first)), counts.astype(np.float64)


def _placed(method: Array, random: Array, oracle: Array, axis: int = -1) -> Array:
    chance = random.mean(axis=axis)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((method.mean(axis=axis) - chance) / (oracle.mean(axis=axis) - chance))


def _bootstrap(
    data: Sequence[Array], statistic: Any, *, level: float, resamples: int, seed: int, paired: bool = False
) -> tuple[Array, Array]:
    check_draws(level, resamples)
    stats = needed("scipy.stats")
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        warnings.simplefilter("ignore")  # of values that are all the same, whose interval is a point
        found = stats.bootstrap(
            data,
            statistic,
            axis=-1,
            vectorized=True,
            paired=paired,
            method="percentile",  # never undefined, and within the values' range
            confidence_level=level,
            n_resamples=resamples,
            batch=max(1, _AT_ONCE // max(1, data[0].size)),
            random_state=np.random.default_rng(seed),
        ).confidence_interval
    return np.asarray(found.low), np.asarray(found.high)


def _mean_of_clusters(sums: Array, counts: Array, axis: int = -1) -> Array:
    return np.asarray(sums.sum(axis=axis) / counts.sum(axis=axis))


def check_draws(level: float, resamples: int) -> None:
    """Raise OptionError for a level outside (0, 1), or no resamples."""
    if not 0 < level < 1:
        raise OptionError(f"level must lie between 0 and 1, such as 0.95, not {level!r}.")
    if resamples < 1:
        raise OptionError(f"resamples must be at least 1, such as 2000, not {resamples!r}.")
