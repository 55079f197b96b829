"""From the user's path to encoded rows: columns matched, broken rows listed, rows split.

The data is read as often as needed (once to check and split it, once for a new tokenizer, once to
encode it) instead of being held: what stays in memory are token ids and the validation texts.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mainspring.checkpoints.tokenizer import Tokenizer
from mainspring.data import schema
from mainspring.data.readers import Source, columns, read_rows, sources
from mainspring.data.skipped import SkipLog
from mainspring.data.splits import Splits, row_id, split_rows
from mainspring.events import Progress, emit
from mainspring.formulations import EncodedRow, Formulation, Limits
from mainspring.tasks import Task
from mainspring.training.rows import EncodedRows

AT_ONCE = 1000
PIECE = 2_000  # characters of a plain text that are read as one row

T = TypeVar("T")


@dataclass(frozen=True)
class Texts:
    """Rows as texts: sources, and targets where the task learns from them."""

    sources: list[str]
    targets: list[str] | None

    def __len__(self) -> int:
        return len(self.sources)


@dataclass(frozen=True)
class DataSet:
    """The user's data, checked and split, ready to be read again.

    `columns` are field -> column for each of the sources; `skipped` the reasons and counts of
    broken rows.
    """

    task: Task
    sources: tuple[tuple[Source, str | None], ...]
    columns: tuple[dict[str, str], ...]
    splits: Splits
    skipped: dict[str, int] = field(default_factory=dict)

    @property
    def has_targets(self) -> bool:
        return len(self.task.fields) > 1

    def values(self) -> Iterator[dict[str, Any]]:
        """The usable rows, in the order that the splits count them."""
        for (source, _), matched in zip(self.sources, self.columns, strict=True):
            with SkipLog() as unlisted:
                for example in _checked(source, self.task, matched, unlisted):
                    yield example.values

    def texts(self, rows: Sequence[int] | np.ndarray) -> Iterator[Texts]:
        """The texts of some rows, about a thousand at a time, in the order of the data."""
        wanted = np.zeros(len(self.splits.ids), dtype=bool)
        wanted[np.asarray(rows, dtype=np.int64)] = True
        chosen = itertools.compress(self.values(), wanted)
        first = self.task.fields[0].name
        for chunk in chunks(chosen, AT_ONCE):
            targets = None
            if self.has_targets:
                targets = [values[self.task.fields[1].name] for values in chunk]
            yield Texts([values[first] for values in chunk], targets)


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk


def _checked(
    source: Source, task: Task, matched: dict[str, str], skipped: SkipLog
) -> Iterator[schema.Example]:
    piece = PIECE if len(task.fields) == 1 else None  # a text without a target may be cut anywhere
    return schema.examples(read_rows(source, skipped, piece=piece), task.fields, matched, skipped)


def _place(source: Source) -> str | None:
    return next((str(file) for file in source.files if file is not None), None)


def open_data(
    task: Task,
    data: str | Path,
    *,
    valid: str | Path | None,
    named: dict[str, str],
    seed: int,
    skipped: SkipLog,
) -> DataSet:
    """Reads all rows once: matches columns, lists broken rows, decides the split.

    Test splits are left alone. Raises the errors of the readers and of `match_columns`.
    """
    found: list[tuple[Source, str | None]] = [(s, s.split) for s in sources(data)]
    if valid is not None:
        found = [(s, "train") for s, split in found if split in ("train", None)]
        found += [(s, "validation") for s in sources(valid) if s.split in ("validation", None)]
    found = [(s, split) for s, split in found if split != "test"] or found
    ids: list[int] = []
    given: list[str | None] = []
    matched = tuple(
        schema.match_columns(task.fields, columns(source), named, file=_place(source))
        for source, _ in found
    )
    for (source, split), its_columns in zip(found, matched, strict=True):
        for example in _checked(source, task, its_columns, skipped):
            ids.append(row_id(example.values, seed))
            given.append(split)
            if len(ids) % AT_ONCE == 0:
                emit(Progress("reading", len(ids), None, "rows"))
    emit(Progress("reading", len(ids), len(ids), "rows"))
    splits = split_rows(ids, given, seed=seed)
    return DataSet(task, tuple(found), matched, splits, dict(skipped.counts))


def encode_rows(
    data: DataSet,
    rows: Sequence[int] | np.ndarray,
    formulation: Formulation,
    tokenizer: Tokenizer,
    limits: Limits,
    prefix: str,
    name: str,
) -> EncodedRows:
    """Token ids of some rows; `name` is what the progress bar says."""

    def encoded() -> Iterator[EncodedRow]:
        done = 0
        for texts in data.texts(rows):
            yield from formulation.encode(texts.sources, texts.targets, tokenizer, limits, prefix)
            done += len(texts)
            emit(Progress(name, done, len(rows), "rows"))

    return EncodedRows(encoded())


def training_texts(data: DataSet) -> Iterator[str]:
    """All training texts, sources and targets: what a new tokenizer learns from."""
    for texts in data.texts(data.splits.train):
        yield from texts.sources
        yield from texts.targets or ()


def first_texts(data: DataSet, rows: np.ndarray) -> Texts:
    """The texts of some rows, at once: for the few that are generated and scored."""
    parts = list(data.texts(rows))
    found = [text for part in parts for text in part.sources]
    targets = [text for part in parts for text in part.targets or ()]
    return Texts(found, targets if data.has_targets else None)
