"""How sure a score is: intervals of a mean, and whether one system beats another."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mainspring.errors import BadOption
from mainspring.metrics import ROWS, Table

if TYPE_CHECKING:
    from scipy.sparse import csr_array

RESAMPLES = 1000
SHUFFLES = 9999
LEVEL = 0.95
AT_ONCE = 10_000_000  # numbers held in memory by one batch of resamples


@dataclass(frozen=True)
class Difference:
    """How much better `a` is than `b`, row by row: mean, its interval, and the p value."""

    mean: float
    low: float
    high: float
    p: float


def interval(
    values: Sequence[float], *, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL
) -> tuple[float, float]:
    """The percentile bootstrap interval of the mean of `values` (scores of rows).

    The same values and seed give the same interval. One value alone gives an interval of no width.
    """
    from scipy.stats import bootstrap

    data = np.asarray(values, dtype=np.float64)
    if data.size == 0:
        raise BadOption("an interval needs at least one value")
    if data.size == 1 or np.ptp(data) == 0:
        return float(data[0]), float(data[0])
    found = bootstrap(
        (data,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, AT_ONCE // data.size),
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def compare(
    a: Sequence[float], b: Sequence[float], *, seed: int = 0, shuffles: int = SHUFFLES
) -> Difference:
    """Two systems' scores on the same rows, compared by approximate randomisation (Noreen 1989).

    p is the two-sided chance of a difference this large if a row's two scores were swapped at
    random; where the rows are so few that all swaps can be tried, all are. The interval is the
    paired bootstrap's.
    """
    from scipy.stats import permutation_test

    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise BadOption(f"a paired test needs equal rows, not {first.size} and {second.size}")
    differences = first - second
    low, high = interval(differences.tolist(), seed=seed)
    mean = float(differences.mean())
    if differences.size == 1 or not differences.any():
        return Difference(mean, low, high, 1.0)
    test = permutation_test(
        (first, second),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=shuffles,
        batch=max(1, AT_ONCE // (2 * first.size)),
        rng=np.random.default_rng(seed),
    )
    return Difference(mean, low, high, float(test.pvalue))


Combine = Callable[[Mapping[str, float]], dict[str, float]]
Rows = Sequence[Mapping[str, float]]


def score_intervals(
    rows: Rows, combine: Combine, *, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL
) -> dict[str, tuple[float, float]]:
    """As `interval`, for each score that `combine` makes of the means of the rows' statistics."""
    names, table = _sparse(rows)
    found = _combined(combine, names, _resampled_means(table, seed, resamples))
    tail = 50 * (1 - level)
    return {
        score: (float(np.percentile(values, tail)), float(np.percentile(values, 100 - tail)))
        for score, values in found.items()
    }


def compare_scores(
    a: Rows, b: Rows, combine: Combine, *, seed: int = 0, shuffles: int = SHUFFLES
) -> dict[str, Difference]:
    """As `compare`, for each score that `combine` makes of the means of the rows' statistics."""
    if len(a) != len(b):
        raise BadOption(f"a paired test needs equal rows, not {len(a)} and {len(b)}")
    names, both = _table([*a, *b], len(a))
    first, second = both[: len(a)], both[len(a) :]
    scores = [_combined(combine, names, t.mean(0, keepdims=True)) for t in (first, second)]
    resampled = [
        _combined(combine, names, _resampled_means(t, seed, RESAMPLES)) for t in (first, second)
    ]
    random = np.random.default_rng(seed)
    swapped: list[tuple[np.ndarray, np.ndarray]] = []
    step = max(1, AT_ONCE // first.size)
    for at in range(0, shuffles, step):
        swap = random.random((min(step, shuffles - at), len(first))) < 0.5
        moved = swap @ (second - first) / len(first)
        swapped.append((first.mean(0) + moved, second.mean(0) - moved))
    shuffled = [
        _combined(combine, names, np.concatenate(side)) for side in zip(*swapped, strict=True)
    ]
    found = {}
    for score in scores[0]:
        mean = float(scores[0][score][0] - scores[1][score][0])
        apart = resampled[0][score] - resampled[1][score]
        chance = np.abs(shuffled[0][score] - shuffled[1][score]) >= abs(mean) - 1e-12
        tail = 50 * (1 - LEVEL)
        low, high = (float(np.percentile(apart, mark)) for mark in (tail, 100 - tail))
        found[score] = Difference(mean, low, high, float((chance.sum() + 1) / (shuffles + 1)))
    return found


def _table(rows: Rows, count: int) -> tuple[list[str], np.ndarray]:
    """The names of the statistics, and rows x statistics; what a row does not have is 0. The last
    is the `count` of a set's rows."""
    if not rows:
        raise BadOption("an interval needs at least one row")
    names = list(dict.fromkeys(name for row in rows for name in row))
    places = {name: place for place, name in enumerate(names)}
    table = np.zeros((len(rows), len(names) + 1))
    table[:, -1] = count
    for values, row in zip(table, rows, strict=True):
        for name, value in row.items():
            values[places[name]] = value
    return [*names, ROWS], table


def _sparse(rows: Rows) -> "tuple[list[str], csr_array]":
    """As `_table`, of a set's rows, with the numbers alone that are there."""
    from scipy.sparse import csr_array

    if not rows:
        raise BadOption("an interval needs at least one row")
    kept = rows if isinstance(rows, Table) else Table(map(dict, rows))
    numbers, ends = np.asarray(kept.values), np.asarray(kept.ends)
    # Behind a row's own numbers comes the count of the rows.
    count, width = len(kept), len(kept.names)
    filled = np.insert(numbers, ends, count)
    which = np.insert(np.asarray(kept.which), ends, width)
    starts = np.concatenate([[0], ends + np.arange(1, count + 1)])
    table = csr_array((filled, which, starts), shape=(count, width + 1))
    return [*kept.names, ROWS], table


def _resampled_means(table: "np.ndarray | csr_array", seed: int, resamples: int) -> np.ndarray:
    """Means over rows drawn with replacement (resamples x statistics)."""
    random, count = np.random.default_rng(seed), table.shape[0]
    step = max(1, AT_ONCE // count)
    parts = []
    for at in range(0, resamples, step):
        size = min(step, resamples - at)
        times = random.multinomial(count, np.full(count, 1 / count), size=size)
        parts.append(times @ table / count)
    return np.concatenate(parts)


def _combined(combine: Combine, names: Sequence[str], means: np.ndarray) -> dict[str, np.ndarray]:
    """Each score for each row of `means`."""
    rows = [combine(dict(zip(names, row.tolist(), strict=True))) for row in means]
    return {score: np.array([row[score] for row in rows]) for score in rows[0]}
