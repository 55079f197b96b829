"""Intervals of means, and paired tests."""

import itertools

import numpy as np
import pytest
from scipy import stats

from mainspring.errors import BadOption
from mainspring.metrics.intervals import compare, interval


def test_interval_is_near_the_normal_one_and_repeatable() -> None:
    values = np.random.default_rng(0).normal(40, 10, 400)
    low, high = interval(values.tolist())
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.25)
    assert high == pytest.approx(values.mean() + half, abs=0.25)
    assert interval(values.tolist()) == (low, high)
    assert interval(values.tolist(), seed=1) != (low, high)
    wide = interval(values.tolist(), level=0.99)
    assert wide[0] < low < high < wide[1]


def test_interval_of_one_or_equal_values() -> None:
    assert interval([3.0]) == (3.0, 3.0)
    assert interval([3.0, 3.0, 3.0]) == (3.0, 3.0)
    with pytest.raises(BadOption, match="at least one value"):
        interval([])


def test_paired_test_tries_all_swaps_of_few_rows() -> None:
    a, b = np.array([5.0, 7.0, 6.0, 9.0, 4.0]), np.array([4.0, 5.0, 6.5, 7.0, 3.0])
    differences = a - b
    signs = np.array(list(itertools.product([1, -1], repeat=5)))
    means = (signs * differences).mean(axis=1)
    expected = np.mean(np.abs(means) >= abs(differences.mean()) - 1e-12)
    found = compare(a.tolist(), b.tolist())
    assert found.p == pytest.approx(expected)
    assert found.mean == pytest.approx(1.1)


def test_paired_test_agrees_with_the_t_test_on_many_rows() -> None:
    random = np.random.default_rng(1)
    base = random.normal(30, 15, 300)
    better = base + random.normal(0.5, 4, 300)
    found = compare(better.tolist(), base.tolist())
    expected = stats.ttest_rel(better, base).pvalue
    assert found.p == pytest.approx(expected, abs=0.02)
    assert found.low < found.mean < found.high
    assert (found.low > 0) == (found.p < 0.05)


def test_equal_systems_do_not_differ() -> None:
    found = compare([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert (found.mean, found.low, found.high, found.p) == (0, 0, 0, 1)
    assert compare([2.0], [1.0]).p == 1
    with pytest.raises(BadOption, match="equal rows"):
        compare([1.0], [1.0, 2.0])
