"""Intervals, calibration and tests against hand-computed values, plain numpy, scipy and full enumeration."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from isthmus.errors import OptionError
from isthmus.metrics.intervals import bootstrap_interval, calibrated, mean_intervals
from isthmus.metrics.statistics import holm, paired_tests, sign_flip_p


def _sample(n: int = 80, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).exponential(2.0, n)


class TestBootstrap:
    def test_close_to_a_plain_numpy_bootstrap(self):
        values = _sample()
        rng = np.random.default_rng(99)
        means = values[rng.integers(0, len(values), (40000, len(values)))].mean(1)
        expected = np.percentile(means, [2.5, 97.5])
        found = bootstrap_interval(values, resamples=20000)
        assert found == pytest.approx(expected, abs=0.02)
        wide = bootstrap_interval(values, resamples=20000, level=0.99)
        assert wide[0] < found[0] < found[1] < wide[1]
        assert wide == pytest.approx(np.percentile(means, [0.5, 99.5]), abs=0.04)

    def test_every_resample_of_two_values(self):
        # Of two values, the means are 0, 1/2 and 1 with probabilities 1/4, 1/2 and 1/4.
        assert bootstrap_interval([0.0, 1.0]) == (0.0, 1.0)
        assert bootstrap_interval([0.0, 1.0], level=0.4) == (0.5, 0.5)

    def test_covers_the_mean_as_often_as_it_says(self):
        samples = np.random.default_rng(5).normal(3.0, 2.0, (400, 50))
        bounds = [bootstrap_interval(row, resamples=600, seed=i) for i, row in enumerate(samples)]
        covered = np.mean([low <= 3.0 <= high for low, high in bounds])
        assert 0.90 <= covered <= 0.98  # three standard errors about 0.94
        width = np.mean([high - low for low, high in bounds])
        assert width == pytest.approx(2 * 1.96 * 2.0 / math.sqrt(50), rel=0.05)

    def test_what_is_not_finite_is_dropped(self):
        values = _sample(20)
        with_holes = np.insert(values, [0, 7, 20], [np.nan, np.inf, -np.inf])
        assert bootstrap_interval(with_holes) == bootstrap_interval(values)

    @pytest.mark.parametrize("values", [[], [1.0], [np.nan, 2.0, np.nan]])
    def test_fewer_than_two_values_have_no_interval(self, values):
        assert all(map(math.isnan, bootstrap_interval(values)))

    def test_a_constant_has_an_interval_without_width(self):
        low, high = bootstrap_interval([0.1] * 17)
        assert low == high == pytest.approx(0.1)

    def test_repeats_to_the_bit_and_depends_on_the_seed(self):
        values = _sample()
        assert bootstrap_interval(values) == bootstrap_interval(values)
        assert bootstrap_interval(values) != bootstrap_interval(values, seed=1)

    def test_rows_together_are_rows_alone(self):
        rows = np.random.default_rng(1).normal(size=(5, 30))
        low, high = mean_intervals(rows)
        assert np.allclose(np.stack([low, high], 1), [bootstrap_interval(row) for row in rows], atol=1e-12)

    @pytest.mark.parametrize("option", [{"level": 0}, {"level": 1.0}, {"level": 95}, {"resamples": 0}])
    def test_bad_options(self, option):
        for values in ([1.0, 2.0], [1.0]):
            with pytest.raises(OptionError, match=next(iter(option))):
                bootstrap_interval(values, **option)


def test_without_scipy_the_error_names_the_extra(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    with pytest.raises(OptionError, match=r"isthmus\[evaluate\]"):
        bootstrap_interval([1.0, 2.0])


class TestCalibrated:
    random = np.array([1.0, 2.0, 3.0, 2.0])
    oracle = np.array([5.0, 6.0, 9.0, 8.0])  # mean 7, random 2

    def test_by_hand(self):
        found = calibrated([3.0, 3.0, 4.0, 4.0], self.random, self.oracle)  # mean 3.5
        assert found.score == pytest.approx(1.5 / 5)
        assert found.low <= found.score <= found.high
        assert found.pairs == 4

    def test_chance_is_0_and_the_oracle_1(self):
        for values, expected in ((self.random, 0.0), (self.oracle, 1.0)):
            found = calibrated(values, self.random, self.oracle)
            assert (found.score, found.low, found.high) == pytest.approx((expected,) * 3, abs=1e-12)

    def test_where_lower_is_better(self):
        found = calibrated([-3.0, -3.0, -4.0, -4.0], -self.random, -self.oracle)
        assert found.score == pytest.approx(0.3)

    def test_interval_by_plain_numpy_resampling_whole_pairs(self):
        rng = np.random.default_rng(3)
        base = rng.normal(0, 5, 60)  # common to a pair: wide for each mean, without effect on the ratio's parts
        random, oracle, method = base + rng.normal(0, 1, 60), base + rng.normal(6, 1, 60), base + rng.normal(3, 1, 60)
        found = calibrated(method, random, oracle, resamples=5000)
        draws = np.random.default_rng(11).integers(0, 60, (20000, 60))
        m, r, o = (one[draws].mean(1) for one in (method, random, oracle))
        assert (found.low, found.high) == pytest.approx(np.percentile((m - r) / (o - r), [2.5, 97.5]), abs=0.01)
        assert found.high - found.low < 0.15

    def test_only_pairs_that_all_three_have(self):
        found = calibrated([3.0, np.nan, 4.0, 4.0], self.random, np.array([5.0, 6.0, 9.0, np.inf]))
        assert found.pairs == 2
        assert found.score == pytest.approx((3.5 - 2) / (7 - 2))

    @pytest.mark.parametrize(
        "oracle",
        [
            None,
            np.array([1.0, 2.0, 3.0, 2.0]),  # the random map itself
            np.array([-9.0, 12.0, -7.0, 15.0]),  # not told apart from it
            np.full(4, np.nan),
        ],
    )
    def test_undefined(self, oracle):
        found = calibrated([3.0, 3.0, 4.0, 4.0], self.random, oracle)
        assert all(map(math.isnan, (found.score, found.low, found.high)))

    def test_lengths_must_agree(self):
        with pytest.raises(OptionError, match="one length"):
            calibrated([1.0], self.random, self.oracle)


class TestSignFlip:
    def test_exact_for_six_pairs_by_enumeration(self):
        values = np.array([1.0, 2.5, -0.5, 3.0, 0.25, 1.75])
        flips = np.array(list(itertools.product((-1, 1), repeat=6)))
        expected = np.mean(np.abs((flips * values).mean(1)) >= abs(values.mean()) - 1e-12)
        assert sign_flip_p(values) == pytest.approx(expected)
        assert sign_flip_p([1.0] * 6) == 2 / 64  # only all plus and all minus are as far from 0

    def test_ties_by_rounding_count(self):
        # Flipping 0.1 + 0.2 against 0.3 gives sums that tie but for rounding: |s| is 0.6 or 0.
        assert sign_flip_p([0.1, 0.2, 0.3]) == 2 / 8
        assert sign_flip_p([0.1, 0.2, -0.3]) == 1

    def test_close_to_scipy_for_many_pairs(self):
        from scipy import stats

        rows = np.random.default_rng(2).normal(0.15, 1, (3, 60))
        expected = stats.permutation_test(
            (rows,), lambda x, axis: x.mean(axis), permutation_type="samples", axis=-1, vectorized=True,
            n_resamples=9999, random_state=np.random.default_rng(7),
        ).pvalue  # fmt: skip
        assert sign_flip_p(rows) == pytest.approx(expected, abs=0.02)
        assert sign_flip_p(rows) == pytest.approx(np.array([sign_flip_p(row) for row in rows]))

    def test_exact_and_random_agree(self):
        values = np.random.default_rng(4).normal(0.5, 1, 12)
        assert sign_flip_p(values, permutations=4000) == pytest.approx(sign_flip_p(values, permutations=4096), abs=0.02)

    def test_is_even_under_no_difference(self):
        rows = np.random.default_rng(6).normal(size=(600, 25))
        p = sign_flip_p(rows, permutations=999)
        assert np.mean(p < 0.05) == pytest.approx(0.05, abs=0.027)
        assert np.mean(p) == pytest.approx(0.5, abs=0.04)

    def test_is_never_zero_and_repeats(self):
        far = np.full(50, 3.0)
        assert sign_flip_p(far) == 1 / 10000
        values = _sample(40) - 1.7
        assert sign_flip_p(values) == sign_flip_p(values)
        with pytest.raises(OptionError, match="permutations"):
            sign_flip_p(values, permutations=0)


class TestHolm:
    def test_by_hand(self):
        # Sorted .005 .01 .03 .04 times 4 3 2 1 is .02 .03 .06 .04, of which the last is raised to .06.
        assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])

    def test_at_most_one_and_ties(self):
        assert holm([0.6, 0.9, 0.02, 0.02]) == pytest.approx([1, 1, 0.08, 0.08])

    def test_nan_is_no_test(self):
        found = holm([0.02, np.nan, 0.03])
        assert np.isnan(found[1])
        assert found[[0, 2]] == pytest.approx([0.04, 0.04])
        assert holm([]).shape == (0,)


class TestPaired:
    def test_mappings_by_shared_pairs(self):
        a = {"p1": 1.0, "p2": 5.0, "p3": 3.0, "p4": float("nan")}
        b = {"p2": 4.0, "p1": 3.0, "p5": 9.0, "p4": 2.0}
        (test,) = paired_tests({"a": a, "b": b})
        assert (test.first, test.second, test.pairs) == ("a", "b", 2)
        assert test.difference == pytest.approx((-2 + 1) / 2)
        assert (test.low, test.high) == bootstrap_interval([-2.0, 1.0])
        assert test.p == 1.0  # the flips' sums are 1 and 3 in size; all are as far as 1

    def test_each_two_with_correction(self):
        rng = np.random.default_rng(8)
        base = rng.normal(0, 10, 40)
        values = {"a": base, "b": base + rng.normal(0.02, 1, 40), "c": base + rng.normal(2, 1, 40)}
        tests = paired_tests(values)
        assert [(t.first, t.second) for t in tests] == [("a", "b"), ("a", "c"), ("b", "c")]
        assert [t.p_corrected for t in tests] == pytest.approx(holm([t.p for t in tests]))
        assert tests[1].difference == pytest.approx((values["a"] - values["c"]).mean())
        assert tests[0].p_corrected > 0.05 > tests[1].p_corrected
        assert tests[1].high < 0  # though the methods' own intervals overlap widely
        for test in tests:
            assert test.p == pytest.approx(sign_flip_p(values[test.first] - values[test.second]))

    def test_against_a_reference_only(self):
        values = {"a": [1.0, 2.0, 3.0], "r": [0.0, 1.0, 1.5], "b": [5.0, 2.0, 1.0]}
        tests = paired_tests(values, reference="r")
        assert [(t.first, t.second) for t in tests] == [("a", "r"), ("b", "r")]
        assert tests[0].difference == pytest.approx(3.5 / 3)
        with pytest.raises(OptionError, match="'x'"):
            paired_tests(values, reference="x")

    def test_identical_methods(self):
        (test,) = paired_tests({"a": _sample(30), "b": _sample(30)})
        assert (test.difference, test.low, test.high, test.p, test.p_corrected) == (0, 0, 0, 1, 1)

    def test_missing_pairs_change_no_other_comparison(self):
        a, b, c = (_sample(30, seed) for seed in range(3))
        holed = np.where(np.arange(30) % 3 == 0, np.nan, c)
        whole, some = paired_tests({"a": a, "b": b, "c": c}), paired_tests({"a": a, "b": b, "c": holed})
        assert some[0].p == whole[0].p
        assert [t.pairs for t in some] == [30, 20, 20]
        assert some[1].difference == pytest.approx(np.nanmean(a - holed))

    def test_no_shared_pair_is_no_test(self):
        tests = paired_tests({"a": {"1": 1.0, "2": 2.0}, "b": {"3": 1.0}, "c": {"1": 0.0, "2": 1.5}})
        assert [t.pairs for t in tests] == [0, 2, 0]
        assert math.isnan(tests[0].p)
        assert math.isnan(tests[0].p_corrected)
        assert tests[1].p == tests[1].p_corrected == 0.5  # one comparison alone is not corrected

    def test_the_order_of_the_pairs_changes_nothing(self):
        values = {name: {f"p{i}": v for i, v in enumerate(_sample(40, seed))} for seed, name in enumerate("ab")}
        turned = {name: dict(reversed(own.items())) for name, own in values.items()}
        assert paired_tests(values) == paired_tests(turned)
        assert paired_tests(values) != paired_tests(values, seed=1)

    def test_nothing_to_compare(self):
        assert paired_tests({}) == []
        assert paired_tests({"a": [1.0, 2.0]}) == []
        with pytest.raises(OptionError, match="one length"):
            paired_tests({"a": [1.0], "b": [1.0, 2.0]})


def test_a_sign_flip_test_of_many_pairs_does_not_overflow() -> None:
    for count in (1023, 1024, 5000):
        drawn = np.random.default_rng(0).normal(0.2, 1.0, count)
        assert 0 < float(sign_flip_p(drawn, permutations=99)) <= 0.05
