"""From the user's path to encoded rows: columns matched, broken rows listed, rows split.

The data is read as often as needed (once to check and split it, once for a new tokenizer, once to
encode it) instead of being held: what stays in memory are token ids and the validation texts.
"""

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mainspring.checkpoints.tokenizer import Tokenizer
from mainspring.data.readers import Source, sources
from mainspring.data.skipped import SkipLog
from mainspring.data.splits import Splits, row_id, split_rows
from mainspring.errors import BadData
from mainspring.events import Progress, emit
from mainspring.formulations import EncodedRow, Formulation, Setup, Values
from mainspring.formulations.inputs import in_chunks
from mainspring.tasks import Task
from mainspring.tasks.reading import Matched, checked, match
from mainspring.training.rows import EncodedRows

AT_ONCE = 1000


@dataclass(frozen=True)
class DataSet:
    """The user's data, checked and split, ready to be read again.

    `matched` is for each of the sources how its columns become the task's fields, `given` what
    every row gets besides; `skipped` are the reasons and counts of broken rows, `mended` says what
    was put right in others.
    """

    task: Task
    sources: tuple[tuple[Source, str | None], ...]
    matched: tuple[Matched, ...]
    splits: Splits
    given: Values = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    mended: str = ""

    def values(self) -> Iterator[Values]:
        """The usable rows, in the order that the splits count them."""
        for (source, _), matched in zip(self.sources, self.matched, strict=True):
            with SkipLog() as unlisted:
                for example in checked(self.task, source, matched, unlisted, self.given):
                    yield example.values

    @property
    def conversations(self) -> bool:
        """Whether there are conversations among the rows."""
        fields = [field_ for layout, _ in self.matched for field_ in layout.fields]
        return any(field_.kind == "messages" for field_ in fields)

    def rows(self, numbers: Sequence[int] | np.ndarray) -> Iterator[Values]:
        """Some of the rows, in the order of the data."""
        wanted = np.zeros(len(self.splits.ids), dtype=bool)
        wanted[np.asarray(numbers, dtype=np.int64)] = True
        return itertools.compress(self.values(), wanted)


def open_data(
    task: Task,
    data: str | Path,
    *,
    valid: str | Path | None,
    named: dict[str, str],
    seed: int,
    skipped: SkipLog,
    given: Values | None = None,
) -> DataSet:
    """Reads all rows once: matches columns, lists broken rows, decides the split.

    Test splits are left alone. `given` are values that every row gets. Raises the errors of the
    readers and of `match_columns`.
    """
    given = given or {}
    found: list[tuple[Source, str | None]] = [(s, s.split) for s in sources(data)]
    if valid is not None:
        found = [(s, "train") for s, split in found if split in ("train", None)]
        found += [(s, "validation") for s in sources(valid) if s.split in ("validation", None)]
    found = [(s, split) for s, split in found if split != "test"] or found
    ids: list[int] = []
    splits: list[str | None] = []
    matched = tuple(match(task, source, named, given) for source, _ in found)
    for (source, split), its_columns in zip(found, matched, strict=True):
        for example in checked(task, source, its_columns, skipped, given):
            ids.append(row_id(example.values, seed))
            splits.append(split)
            if len(ids) % AT_ONCE == 0:
                emit(Progress("reading", len(ids), None, "rows"))
    emit(Progress("reading", len(ids), len(ids), "rows"))
    try:
        sides = split_rows(ids, splits, seed=seed)
    except BadData as error:  # too few rows, and here may be why
        raise BadData(f"{error}; {skipped.summary()}" if skipped.total else str(error)) from None
    counts, mended = dict(skipped.counts), skipped.mendings()
    return DataSet(task, tuple(found), matched, sides, given, counts, mended)


def encode_rows(
    data: DataSet,
    numbers: Sequence[int] | np.ndarray,
    formulation: Formulation,
    tokenizer: Tokenizer,
    setup: Setup,
    name: str,
) -> EncodedRows:
    """Token ids of some rows; `name` is what the progress bar says."""

    def encoded() -> Iterator[EncodedRow]:
        done = 0
        for rows in in_chunks(data.rows(numbers), AT_ONCE):
            yield from formulation.encode(rows, tokenizer, setup)
            done += len(rows)
            emit(Progress(name, done, len(numbers), "rows"))

    return EncodedRows(encoded())


def training_texts(data: DataSet, without: Collection[str] = ()) -> Iterator[str]:
    """All texts of the training rows, but those in fields of the kinds `without`: what a new
    tokenizer learns from."""
    fields = (*data.task.fields, *(f for layout, _ in data.matched for f in layout.fields))
    kinds = {field_.name: field_.kind for field_ in fields}
    # The words of a text are the text once more.
    names = [name for name, kind in kinds.items() if kind not in (*without, "words")]
    done, total = 0, len(data.splits.train)
    for rows in in_chunks(data.rows(data.splits.train), AT_ONCE):
        for row in rows:
            for name in names:
                yield from texts_in(row.get(name))
        done += len(rows)
        emit(Progress("reading for the tokenizer", done, total, "rows"))


def texts_in(value: Any) -> Iterator[str]:
    """The texts in a value, the words of a list of words as one."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list) and all(isinstance(item, str) for item in value):
        yield " ".join(value)
    elif isinstance(value, list):
        for item in value:
            yield from texts_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from texts_in(item)
