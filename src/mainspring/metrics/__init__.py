"""Thin adapters over the field's standard metric libraries, and the statistics around them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Statistics = dict[str, float]

ROWS = "rows"

Report = Callable[[Sequence[Any], Sequence[Any], Sequence[str], Path | None], dict[str, Any]]


@dataclass(frozen=True)
class Metric:
    """How predictions are scored.

    `score_rows(predictions, references, kind)` gives for each row its statistics by name: numbers
    whose means over a set, and the number of its rows, are all that its scores depend on.
    `combine(means)` makes the scores of them (the number is the entry `rows`), 0..100 where they
    are shares; where the statistics are scores themselves (a mean of rows) there is none. `kind`
    names the way texts are compared, which `choose_kind(references)` picks for a data set, and
    `signature(kind)` says exactly what was computed. `baselines` are predictions that need no
    model: functions of a row's inputs and of what the setup of a model says of its training data,
    by name; None where that says too little. `judged(value, details)` is what is scored of a
    prediction. `report(predictions, references, labels, out)` says more of a whole set than its
    scores do: tables, also as files in the folder `out` if there is one. `errors` are the scores
    that fall as answers get better.
    """

    score_rows: Callable[[Sequence[Any], Sequence[Any], str], list[Statistics]]
    signature: Callable[[str], str]
    combine: Callable[[Mapping[str, float]], Statistics] | None = None
    choose_kind: Callable[[Sequence[Any]], str] = lambda references: ""
    baselines: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any]], Any]] = field(
        default_factory=dict
    )
    judged: Callable[[Any, Mapping[str, Any]], Any] = lambda value, details: value
    report: Report | None = None
    errors: tuple[str, ...] = ()

    def scores(self, rows: Sequence[Statistics]) -> Statistics:
        """The scores of a set of rows."""
        names = dict.fromkeys(name for row in rows for name in row)
        means = {name: sum(row.get(name, 0.0) for row in rows) / len(rows) for name in names}
        return means if self.combine is None else self.combine({**means, ROWS: len(rows)})
