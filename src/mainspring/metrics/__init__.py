"""Thin adapters over the field's standard metric libraries, and the statistics around them."""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mainspring.extras import Extra

Statistics = dict[str, float]

ROWS = "rows"


class Table(Sequence[Statistics]):
    """The statistics of many rows in little memory: of each number its value, and the place of its
    name in `names`. The numbers of row i end at `ends[i]`."""

    def __init__(self, rows: Iterable[Statistics] = ()) -> None:
        self.names: dict[str, int] = {}
        self.values, self.which, self.ends = array("d"), array("l"), array("l")
        for row in rows:
            self.append(row)

    def append(self, row: Mapping[str, float]) -> None:
        for name, value in row.items():
            self.which.append(self.names.setdefault(name, len(self.names)))
            self.values.append(value)
        self.ends.append(len(self.values))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return Table(self[place] for place in range(*at.indices(len(self))))
        place = range(len(self))[at]
        names, begin = list(self.names), self.ends[place - 1] if place else 0
        numbers = range(begin, self.ends[place])
        return {names[self.which[number]]: self.values[number] for number in numbers}

    def __iter__(self) -> Iterator[Statistics]:
        names, begin = list(self.names), 0
        for end in self.ends:
            yield {names[self.which[i]]: self.values[i] for i in range(begin, end)}
            begin = end


@dataclass
class Classes:
    """What is counted of rows whose answers are classes: how often references name each, and for
    rows of one label how often each (reference, prediction) came."""

    wanted: Counter[str] = field(default_factory=Counter)
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, names: Iterable[str], reference: Any, prediction: Any) -> None:
        """One row more, whose reference `names` these classes."""
        self.wanted.update(names)
        if isinstance(reference, str) and isinstance(prediction, str):
            self.pairs[reference, prediction] += 1


Report = Callable[[Sequence[Statistics], Classes, Sequence[str], Path | None], dict[str, Any]]


@dataclass(frozen=True)
class Metric:
    """How predictions are scored.

    `score_rows(predictions, references, kind)` gives for each row its statistics by name: numbers
    whose means over a set, and the number of its rows, are all that its scores depend on.
    `combine(means)` makes the scores of them (the number is the entry `rows`), 0..100 where they
    are shares; where the statistics are scores themselves (a mean of rows) there is none. `kind`
    names the way texts are compared, which `choose_kind(references)` picks for a data set, of
    which it sees each row once and holds few; `signature(kind)` says exactly what was computed.
    `baselines` are predictions that need no model: functions of a row's inputs and of what the
    setup of a model says of its training data, by name; None where that says too little.
    `judged(value, details)` is what is scored of a prediction, and `needs` the extra without which
    nothing is. Where answers are classes, `classes(reference)` names those of a row, and
    `report(rows, classes, labels, out)` says more of a whole set than its scores do: tables, also
    as files in the folder `out` if there is one. `errors` are the scores that fall as answers get
    better.
    """

    score_rows: Callable[[Sequence[Any], Sequence[Any], str], list[Statistics]]
    signature: Callable[[str], str]
    combine: Callable[[Mapping[str, float]], Statistics] | None = None
    choose_kind: Callable[[Iterable[Any]], str] = lambda references: ""
    baselines: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any]], Any]] = field(
        default_factory=dict
    )
    judged: Callable[[Any, Mapping[str, Any]], Any] = lambda value, details: value
    classes: Callable[[Any], Iterable[str]] = lambda reference: ()
    needs: Extra | None = None
    report: Report | None = None
    errors: tuple[str, ...] = ()

    def scores(self, rows: Sequence[Statistics]) -> Statistics:
        """The scores of a set of rows."""
        names = dict.fromkeys(name for row in rows for name in row)
        means = {name: sum(row.get(name, 0.0) for row in rows) / len(rows) for name in names}
        return means if self.combine is None else self.combine({**means, ROWS: len(rows)})
