"""What `evaluate` returns, and the numbers in it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from mainspring.verbs.output import json_line, told

if TYPE_CHECKING:
    from mainspring.metrics import Metric, Statistics
    from mainspring.metrics.intervals import Difference


@dataclass(frozen=True)
class Evaluation:
    """How well a model does on some rows.

    `scores` are means over the rows, 0..100 for ROUGE; `interval` is the 95 % bootstrap interval
    of each; `baseline` what predictions without a model reach; `signature` says exactly what was
    computed. `hit_limit` is the share of outputs that ended at the length limit, `sources_cut`
    that of inputs longer than the model reads; `megabytes` is what the weights take in memory in
    this `precision`. `against` compares with another model's scores, `report` is what the metric
    says beyond scores (a table of the labels). `counts` are things that happened in predicting,
    such as tags that had to be repaired.
    """

    task: str
    model: str
    rows: int
    skipped: int
    scores: dict[str, float]
    interval: dict[str, tuple[float, float]]
    baseline: dict[str, dict[str, float]]
    signature: str
    hit_limit: float
    sources_cut: float
    tokens_per_second: float
    precision: str
    megabytes: float
    predictions: str | None = None
    against: dict[str, Any] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    exit_code: int = 0

    def lines(self, as_json: bool) -> Iterator[str]:
        if as_json:
            yield json_line(self)
            return
        width = max(10, *map(len, self.scores))
        for name, value in self.scores.items():
            low, high = self.interval[name]
            line = f"{name:{width}} {value:6.2f}  [{low:.2f}, {high:.2f}]"
            for base, scores in self.baseline.items():
                line += f"   {base} {scores[name]:.2f}" if name in scores else ""
            if self.against:
                score, p = self.against["scores"][name], self.against["p"][name]
                line += f"   against {score:.2f} (p={p:.3f})"
            yield line
        if self.against:
            other = self.against
            mine = _cost(self.megabytes, self.tokens_per_second)
            others = _cost(other["megabytes"], other["tokens_per_second"])
            yield f"{self.precision}: {mine} | {other['model']} in {other['precision']}: {others}"
        parts = [f"{self.rows} rows, {self.skipped} skipped", self.signature]
        if self.tokens_per_second:  # where something was generated
            parts.append(f"{self.hit_limit:.1%} hit the length limit")
        parts.append(f"{self.sources_cut:.1%} of sources longer than the model reads")
        if self.tokens_per_second:
            parts.append(f"{self.tokens_per_second:.0f} tokens/s")
        yield " | ".join(parts)
        if self.counts:
            yield told(self.counts)


def _cost(megabytes: float, speed: float) -> str:
    """The size, and the speed where something was generated."""
    return f"{megabytes:.0f} MB" + (f", {speed:.0f} tokens/s" if speed else "")


class Measured(Protocol):
    """What is known of one model on the rows: their statistics, and at what cost."""

    precision: str
    megabytes: float

    @property
    def rows(self) -> "Sequence[Statistics]":
        """A row's numbers."""

    @property
    def speed(self) -> float:
        """Tokens a second."""


def rounded(scores: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in scores.items()}


def intervals(
    metric: "Metric", rows: "Sequence[Statistics]", seed: int
) -> dict[str, tuple[float, float]]:
    """The 95 % bootstrap interval of each score, rounded."""
    from mainspring.metrics.intervals import interval, score_intervals

    if metric.combine is not None:
        found = score_intervals(rows, metric.combine, seed=seed)
    else:
        found = {name: interval([row[name] for row in rows], seed=seed) for name in rows[0]}
    return {name: (round(low, 4), round(high, 4)) for name, (low, high) in found.items()}


def comparison(
    metric: "Metric", model: str, first: Measured, other: Measured, seed: int
) -> dict[str, Any]:
    """How `other`, of the name `model`, did on the rows of `first`: what `Evaluation.against`
    holds, with the paired test of each score."""
    tests = _tests(metric, first.rows, other.rows, seed)
    return {
        "model": model,
        "precision": other.precision,
        "megabytes": round(other.megabytes, 1),
        "tokens_per_second": round(other.speed, 1),
        "scores": rounded(metric.scores(other.rows)),
        "difference": {n: round(test.mean, 4) for n, test in tests.items()},
        "interval": {n: (round(t.low, 4), round(t.high, 4)) for n, t in tests.items()},
        "p": {n: round(test.p, 5) for n, test in tests.items()},
    }


def _tests(
    metric: "Metric", a: "Sequence[Statistics]", b: "Sequence[Statistics]", seed: int
) -> "dict[str, Difference]":
    from mainspring.metrics.intervals import compare, compare_scores

    if metric.combine is not None:
        return compare_scores(a, b, metric.combine, seed=seed)
    return {n: compare([row[n] for row in a], [row[n] for row in b], seed=seed) for n in a[0]}
