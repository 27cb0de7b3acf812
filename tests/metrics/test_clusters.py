"""Pairs of one picture are drawn together: against a plain loop, and against the same pairs said once."""

from __future__ import annotations

import numpy as np
import pytest

from isthmus.errors import OptionError
from isthmus.metrics.intervals import bootstrap_interval, calibrated, clustered, mean_intervals
from isthmus.metrics.statistics import paired_tests, sign_flip_p

SIZES = np.array([1, 4, 2, 7, 3, 1, 5, 2, 6, 3, 2, 8])


def _clustered(seed=0):
    """Pairs of twelve pictures, with a share that all pairs of a picture have in common."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([f"picture {i}" for i in range(len(SIZES))], SIZES)
    return np.repeat(rng.normal(size=len(SIZES)), SIZES) + 0.2 * rng.normal(size=SIZES.sum()), labels


def test_close_to_a_plain_loop_over_clusters():
    values, labels = _clustered()
    own = [values[labels == name] for name in sorted(set(labels))]
    rng = np.random.default_rng(7)
    draws = rng.integers(0, len(own), (20000, len(own)))
    means = [np.concatenate([own[i] for i in draw]).mean() for draw in draws]
    found = bootstrap_interval(values, clusters=labels, resamples=20000)
    assert np.allclose(found, np.quantile(means, [0.025, 0.975]), atol=0.02)
    low, high = bootstrap_interval(values, resamples=20000)
    assert found[1] - found[0] > 1.5 * (high - low)


def test_a_pair_said_thrice_tells_no_more_than_said_once():
    once = np.random.default_rng(1).exponential(size=20)
    labels = np.repeat([f"{i:02d}" for i in range(20)], 3)
    thrice = np.repeat(once, 3)
    assert np.allclose(bootstrap_interval(thrice, clusters=labels), bootstrap_interval(once))
    (test,) = paired_tests({"a": thrice, "b": 0 * thrice - 0.3}, clusters=labels)
    (same,) = paired_tests({"a": once, "b": 0 * once - 0.3})
    assert (test.p, test.pairs) == (same.p, 60)
    assert np.allclose([test.difference, test.low, test.high], [same.difference, same.low, same.high])
    placed = calibrated(thrice, 0 * thrice, 0 * thrice + 5, clusters=labels)
    alone = calibrated(once, 0 * once, 0 * once + 5)
    assert np.allclose([placed.score, placed.low, placed.high], [alone.score, alone.low, alone.high])


def test_signs_of_a_cluster_are_flipped_together():
    values, labels = _clustered()
    sums = [values[labels == name].sum() for name in sorted(set(labels))]
    (test,) = paired_tests({"a": values, "b": 0 * values}, clusters=labels)
    assert test.p == sign_flip_p(sums) > paired_tests({"a": values, "b": 0 * values})[0].p


def test_clusters_by_id_and_by_place_are_the_same():
    values, labels = _clustered()
    ids = [f"{i:03d}" for i in range(len(values))]
    by_id = {"a": dict(zip(ids, values, strict=True)), "b": dict.fromkeys(ids, 0.1)}
    found = paired_tests(by_id, clusters=dict(zip(ids, labels, strict=True)))
    assert found == paired_tests({"a": values, "b": 0 * values + 0.1}, clusters=labels)


def test_labels_that_all_differ_change_nothing():
    values, _ = _clustered()
    labels = [f"{i * 7 % 101}" for i in range(len(values))]
    assert bootstrap_interval(values, clusters=labels) == bootstrap_interval(values)


def test_missing_values_leave_their_cluster_smaller():
    values, labels = _clustered()
    holed = np.where(np.arange(len(values)) % 5 == 0, np.nan, values)
    there = np.isfinite(holed)
    assert bootstrap_interval(holed, clusters=labels) == bootstrap_interval(holed[there], clusters=labels[there])


def test_sums_and_counts():
    sums, counts = clustered([[1.0, 2.0, 4.0], [1.0, 1.0, 1.0]], ["b", "a", "b"])
    assert sums.tolist() == [[2.0, 5.0], [1.0, 2.0]]
    assert counts.tolist() == [1, 2]
    assert all(np.isnan(mean_intervals([1.0, 2.0], clusters=["a", "a"])))
    with pytest.raises(OptionError, match="each of 2 pairs"):
        clustered([1.0, 2.0], ["a"])
