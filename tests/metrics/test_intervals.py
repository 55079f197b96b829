"""Intervals of means, and paired tests."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mainspring.errors import BadOption
from mainspring.metrics import ROWS, Table
from mainspring.metrics.intervals import RESAMPLES, compare, interval, score_intervals


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


NUMBERS = st.dictionaries(st.sampled_from("abc"), st.floats(-9, 9), max_size=3)


@given(st.lists(NUMBERS, max_size=12))
def test_a_table_gives_its_rows_back(rows: list[dict[str, float]]) -> None:
    table = Table(rows)
    assert list(table) == [table[at] for at in range(len(table))] == rows
    assert list(table[1:4]) == rows[1:4] and len(table) == len(rows)
    if rows:
        assert table[-1] == rows[-1]


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.lists(NUMBERS, min_size=1, max_size=9))
def test_intervals_of_scores_are_those_of_resampled_rows(rows: list[dict[str, float]]) -> None:
    """Row by row, by the same draws."""

    def score(means: dict[str, float]) -> dict[str, float]:
        return {"it": means.get("a", 0.0) - 2 * means.get("c", 0.0) + means[ROWS]}

    count = len(rows)
    times = np.random.default_rng(3).multinomial(count, [1 / count] * count, size=RESAMPLES)
    found = []
    for drawn in times:
        chosen = [row for row, often in zip(rows, drawn, strict=True) for _ in range(often)]
        means = {name: sum(row.get(name, 0.0) for row in chosen) / count for name in "abc"}
        found.append(score({**means, ROWS: count})["it"])
    wanted = (np.percentile(found, 2.5), np.percentile(found, 97.5))
    assert score_intervals(rows, score, seed=3)["it"] == pytest.approx(wanted, abs=1e-9)
    assert score_intervals(Table(rows), score, seed=3) == score_intervals(rows, score, seed=3)
