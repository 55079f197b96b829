"""How sure a score is: intervals of a mean, and whether one system beats another."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mainspring.errors import BadOption

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
