"""From a source of the user's data to checked rows in a task's terms."""

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal

from mainspring import events
from mainspring.data import schema
from mainspring.data.conll import is_conll
from mainspring.data.kinds import Flaw, as_list
from mainspring.data.readers import COLUMNS_FROM, Source, read_rows
from mainspring.data.rows import Row
from mainspring.data.skipped import SkipLog
from mainspring.errors import BadData
from mainspring.tasks import Task
from mainspring.text import listed

PIECE = 2_000  # characters of a plain text that are read as one row
WORDS = 4  # a column of so many words and more holds texts

Matched = tuple[schema.Layout, dict[str, str]]


def named_columns(options: Mapping[str, Any]) -> dict[str, str]:
    """Field name -> column, as the user named them by a verb's options."""
    short = {name: options[name] for name in ("text", "target") if options.get(name) is not None}
    return {**(options.get("columns") or {}), **short}


def _place(source: Source) -> str | None:
    return next((str(file) for file in source.files if file is not None), None)


def match(
    task: Task, source: Source, named: Mapping[str, str], given: Collection[str] = ()
) -> Matched:
    """How the columns of a source become the fields of a task: see `schema.match_layout`."""
    layouts = (schema.Layout(task.fields, task.values), *task.layouts)
    first = _first_rows(task, source)
    layout, columns = schema.match_layout(
        layouts, _names(first), named, file=_place(source), given=given
    )
    one = next((f for f in layout.fields if f.kind == "label" and f.name in columns), None)
    several = [(way, f) for way in layouts for f in way.fields if f.kind == "labels"]
    if one is not None and several and (lists := _lists(columns[one.name], first)):
        way, field = several[0]
        column = columns[one.name]
        if lists == "some":
            events.warn(
                f"column `{column}` holds lists in some rows: {field.option} {column} reads "
                "several labels in all"
            )
        else:
            others = {name: its for name, its in named.items() if name != one.name}
            names = {**others, field.name: column}
            layout, columns = schema.match_layout(
                (way,), _names(first), names, file=_place(source), given=given
            )
    _tell_unread(layout, columns, first)
    if layout.by_rows is not None:
        values = [{f: row.values.get(name) for f, name in columns.items()} for row in first]
        layout = replace(layout, values=layout.by_rows(values))
    return layout, columns


def _tell_unread(layout: schema.Layout, columns: Mapping[str, str], rows: Sequence[Row]) -> None:
    """A note of columns with texts that nothing is learnt from where classes are: a second text
    may say what the first does not."""
    if not any(field.kind in ("label", "labels") for field in layout.fields):
        return
    accepted = {name for field in layout.fields for name in field.accepted}
    unread = [
        name
        for name in _names(rows)
        if name not in columns.values() and name not in accepted and _holds_texts(name, rows)
    ]
    if unread:
        events.note(
            f"left unread: {listed(unread)}; name the texts that count with --text and "
            "--columns.second"
        )


def _holds_texts(name: str, rows: Sequence[Row]) -> bool:
    """Whether most values of a column are texts of several words."""
    texts = [row.values.get(name) for row in rows]
    several = [len(text.split()) >= WORDS for text in texts if isinstance(text, str)]
    return sum(several) * 2 > len(texts)


def _lists(name: str, rows: Sequence[Row]) -> Literal["all", "some"] | None:
    """How many values of a column of labels are lists of them, or lists written out."""
    lists = [_is_list(row.values[name]) for row in rows if row.values.get(name) is not None]
    return ("all" if all(lists) else "some") if any(lists) else None


def _is_list(value: Any) -> bool:
    written = isinstance(value, str) and value.lstrip().startswith("[")
    with suppress(Flaw):
        return isinstance(value, list) or (written and bool(as_list(value, "labels")))
    return False


def by_columns(
    task: Task, options: Mapping[str, Any], source: Source, named: Mapping[str, str]
) -> tuple[Task, dict[str, Any]]:
    """The task as its options and the columns of a source make it, and what options follow."""
    if task.by_columns is None:
        return task, {}
    return task.by_columns(task, dict(options), _names(_first_rows(task, source)), named)


def _first_rows(task: Task, source: Source) -> list[Row]:
    """The first rows of a source, unfolded where the task unfolds rows."""
    with SkipLog() as unlisted:
        rows = read_rows(_of_words(task, source), unlisted)
        if task.unfold is not None:
            rows = _unfolded(rows, task.unfold, unlisted)
        first = list(itertools.islice(rows, COLUMNS_FROM))
        if not first:
            raise BadData(f"no usable row: {unlisted.summary()}", file=_place(source))
        return first


def _of_words(task: Task, source: Source) -> Source:
    """The source as one of words with tags where the task reads words and its files, though they
    are called like texts or tables, hold nothing else."""
    files = [file for file in source.files if file is not None]
    reads_words = any(field.kind == "words" for way in task.layouts for field in way.fields)
    if reads_words and source.kind in ("text", "table") and all(map(is_conll, files)):
        return replace(source, kind="words")
    return source


def _names(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row.values))


def checked(
    task: Task,
    source: Source,
    matched: Matched,
    skipped: SkipLog,
    given: Mapping[str, Any],
    *,
    pieces: bool = True,
) -> Iterator[schema.Example]:
    """The usable rows of a source; the others go to `skipped`. With `pieces` long documents that
    nothing is said about may come in parts."""
    layout, named = matched
    texts_only = len(layout.fields) == 1 and layout.fields[0].kind == "text"
    source = _of_words(task, source)
    rows = read_rows(source, skipped, piece=PIECE if pieces and texts_only else None)
    if task.unfold is not None:
        rows = _unfolded(rows, task.unfold, skipped)
    return schema.examples(rows, layout.fields, named, skipped, convert=layout.values, given=given)


def count(
    task: Task,
    source: Source,
    matched: Matched,
    given: Mapping[str, Any],
    limit: int | None = None,
    *,
    pieces: bool = True,
) -> int:
    """How many rows `checked` gives, at most `limit`: what long work wants to know beforehand."""
    with SkipLog() as unlisted, events.listening(lambda event: None):
        rows = checked(task, source, matched, unlisted, given, pieces=pieces)
        return sum(1 for _ in itertools.islice(rows, limit))


def _unfolded(
    rows: Iterable[Row], unfold: Callable[[Row], Iterable[Row]], skipped: SkipLog
) -> Iterator[Row]:
    """The rows that nested ones hold."""
    for whole in rows:
        try:
            yield from unfold(whole)
        except Flaw as flaw:
            raw = str(whole.values)
            skipped.add(flaw.reason, file=whole.file, line=whole.line, detail=flaw.detail, raw=raw)
