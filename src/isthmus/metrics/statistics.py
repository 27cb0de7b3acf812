"""Paired tests between methods, with correction for many comparisons."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isthmus.errors import OptionError
from isthmus.frozen import Array
from isthmus.metrics.intervals import check_draws, clustered, mean_intervals

_AT_ONCE = 1 << 22  # numbers drawn in one go


@dataclass(frozen=True)
class PairedTest:
    """Two methods on the pairs that both have a value for.

    Attributes:
        first, second: names of the methods.
        pairs: how many pairs they share.
        difference: mean of first minus second.
        low, high: bootstrap interval of the difference.
        p: two-sided, from a sign-flip permutation test.
        p_corrected: `p` after Holm's correction over all comparisons of the same call.
    """

    first: str
    second: str
    pairs: int
    difference: float
    low: float
    high: float
    p: float
    p_corrected: float


def paired_tests(
    values: Mapping[str, Mapping[str, float] | npt.ArrayLike],
    *,
    clusters: Mapping[str, str] | npt.ArrayLike | None = None,
    reference: str | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    permutations: int = 9999,
    seed: int = 0,
) -> list[PairedTest]:
    """Compare methods two by two on the pairs that both have.

    Args:
        values: for each method the value of each pair: a mapping from the pair's id, or an array `(N,)` in the same
            order for all methods, NaN where there is none.
        clusters: the label of each pair's cluster, as the values are given; the signs of a cluster's pairs are flipped
            together, and whole clusters are drawn. None: each pair is one of its own.
        reference: compare every method with this one only, as the second; None compares each two.
        level, resamples: of the intervals, see `bootstrap_interval`.
        permutations: random sign flips of the test, see `sign_flip_p`.
        seed: of all draws.

    Returns:
        A test for each two methods, in the order of `values`. NaN where they share too few pairs.

    Raises:
        OptionError: an unknown reference, or arrays of different lengths; see `bootstrap_interval` for others.
    """
    check_draws(level, resamples)
    names, (table, labels) = list(values), _table(values, clusters)
    if reference is not None and reference not in names:
        raise OptionError(f"There is no method {reference!r} to compare with: choose one of {', '.join(names)}.")
    twos = (
        list(itertools.combinations(range(len(names)), 2))
        if reference is None
        else [(i, names.index(reference)) for i, name in enumerate(names) if name != reference]
    )
    if not twos:
        return []
    differences = np.stack([table[i] - table[j] for i, j in twos])
    groups: dict[bytes, list[int]] = {}  # comparisons on the same pairs share their draws
    for row, there in enumerate(np.isfinite(differences)):
        groups.setdefault(there.tobytes(), []).append(row)
    found = np.full((4, len(twos)), np.nan)  # difference, low, high, p
    for rows in groups.values():
        there = np.isfinite(differences[rows[0]])
        own, of = differences[rows][:, there], None if labels is None else labels[there]
        if own.shape[1]:
            low, high = mean_intervals(own, clusters=of, level=level, resamples=resamples, seed=seed)
            p = sign_flip_p(clustered(own, of)[0], permutations=permutations, seed=seed)
            found[:, rows] = own.mean(1), low, high, p
    corrected, counts = holm(found[3]), np.isfinite(differences).sum(1)
    return [
        PairedTest(names[i], names[j], int(pairs), *found_one, float(corrected_one))
        for (i, j), pairs, found_one, corrected_one in zip(twos, counts, map(_four, found.T), corrected, strict=True)
    ]


def sign_flip_p(differences: npt.ArrayLike, *, permutations: int = 9999, seed: int = 0) -> Array:
    """Two-sided p of "the two methods can be exchanged within each pair", by flipping signs of the differences.

    The test is one of the mean difference, which Wilcoxon's ranks are not. All `2^N` flips are counted where they are
    no more than `permutations`; else random ones, with the observed one among them (Phipson & Smyth, SAGMB 2010).
    `scipy.stats.permutation_test` gives the same, many times slower, since it sorts to permute.

    Args:
        differences: `(..., N)` finite differences, N at least 1.
        permutations: random flips.
        seed: of the flips.

    Returns:
        `(...)` p-values in (0, 1].

    Raises:
        OptionError: fewer than one permutation.
    """
    if permutations < 1:
        raise OptionError(f"permutations must be at least 1, not {permutations!r}.")
    given = np.asarray(differences, dtype=np.float64)
    flat = given.reshape(-1, given.shape[-1])
    n = flat.shape[1]
    exact = n < 63 and 2**n <= permutations
    observed, total = np.abs(flat.sum(1)), 2**n if exact else permutations
    least = observed - 1e-12 * np.abs(flat).sum(1)  # flips that tie but for rounding count
    rng, hits = np.random.default_rng(seed), np.zeros(len(flat), dtype=np.int64)
    each = max(1, _AT_ONCE // n)
    for start in range(0, total, each):
        rows = np.arange(start, min(start + each, total))
        bits = (rows[:, None] >> np.arange(n)) & 1 if exact else rng.integers(0, 2, (len(rows), n), dtype=np.int8)
        hits += (np.abs((2.0 * bits - 1) @ flat.T) >= least).sum(0)
    p = hits / total if exact else (hits + 1) / (total + 1)
    return np.asarray(p).reshape(given.shape[:-1])


def holm(p: npt.ArrayLike) -> Array:
    """p-values that keep the chance of any false finding below the level (Holm, Scand. J. Statist. 1979).

    Args:
        p: `(M,)` p-values; NaN stands for no test and counts as none.

    Returns:
        `(M,)` corrected p-values, at most 1, NaN where there was no test.
    """
    corrected = np.array(p, dtype=np.float64)
    tests = np.flatnonzero(np.isfinite(corrected))
    order = tests[corrected[tests].argsort(kind="stable")]
    raised = corrected[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(1, np.maximum.accumulate(raised))
    return corrected


def _four(numbers: Array) -> tuple[float, float, float, float]:
    a, b, c, d = map(float, numbers)
    return a, b, c, d


def _table(
    values: Mapping[str, Mapping[str, float] | npt.ArrayLike], clusters: Mapping[str, str] | npt.ArrayLike | None
) -> tuple[Array, Array | None]:
    """`(M, N)` values and `(N,)` labels; sorted by id, so that the order in which pairs came changes no draw."""
    ids = sorted({pair for one in values.values() if isinstance(one, Mapping) for pair in one})
    rows = [
        np.array([one.get(pair, np.nan) for pair in ids], dtype=np.float64)
        if isinstance(one, Mapping)
        else np.asarray(one, dtype=np.float64).reshape(-1)
        for one in values.values()
    ]
    if len({len(row) for row in rows}) > 1:
        raise OptionError("Values of the same pairs are needed: give arrays of one length, NaN where a pair has none.")
    table = np.stack(rows) if rows else np.zeros((0, 0))
    if isinstance(clusters, Mapping):
        clusters = [clusters.get(pair, pair) for pair in ids]
    labels = None if clusters is None else np.asarray(clusters)
    return np.where(np.isfinite(table), table, np.nan), labels
