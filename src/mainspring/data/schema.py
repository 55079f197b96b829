"""Which column holds what: fields, the column names they accept, and rows checked against them."""

import difflib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mainspring import events
from mainspring.data.kinds import KINDS, Flaw, Kind, as_audio
from mainspring.data.rows import Row
from mainspring.data.skipped import SkipLog
from mainspring.errors import BadData, BadOption
from mainspring.text import listed

Values = dict[str, Any]


@dataclass(frozen=True)
class Field:
    """One thing a task wants from each row: what a model is given, or what it is to say.

    `accepted` are the column names taken for it without being told, the best known first.
    `lacking` is what is said where none of them is there, instead of naming them.
    """

    name: str
    kind: Kind
    accepted: tuple[str, ...]
    help: str
    required: bool = True
    role: Literal["input", "target"] = "input"
    lacking: str = ""

    @property
    def option(self) -> str:
        """The command-line option that names its column."""
        return f"--{self.name}" if self.name in SHORT else f"--columns.{self.name}"


# Fields whose columns have an option of their own.
SHORT = ("text", "target")


@dataclass(frozen=True)
class Layout:
    """Columns that rows may come in, and how their values become those of the task's own fields.

    `values` raises Flaw where they cannot. One that is `first` is preferred to the task's own
    fields where both are there and the user names no column. `by_rows` makes of the values of
    the first rows, as they stand in the columns, a `values` that reads all of them alike. `asks`
    is there instead of `values` where a model is asked and nothing is learnt or scored.
    """

    fields: tuple[Field, ...]
    values: Callable[[Values], Values] = lambda values: values
    first: bool = False
    by_rows: Callable[[Sequence[Values]], Callable[[Values], Values]] | None = None
    asks: Callable[[Values], Values] | None = None


def match_layout(
    layouts: Sequence[Layout],
    columns: Sequence[str],
    named: Mapping[str, str] | None = None,
    *,
    file: str | Path | None = None,
    given: Collection[str] = (),
) -> tuple[Layout, dict[str, str]]:
    """The first layout whose columns are there, with field name -> column for it.

    `named` are the columns the user named by field; `given` are fields that need no column. Raises
    what `match_columns` raises for the layout that comes nearest where none fits.
    """
    for layout in layouts if not named else ():
        fields = tuple(field for field in layout.fields if field.name not in given)
        needed = sum(field.required for field in fields)
        if layout.first and _columns_there(fields, columns, {}) == needed:
            _tell_unused(fields, layouts[0].fields, columns)
            return layout, match_columns(fields, columns, file=file)
    nearest: BadData | BadOption | None = None
    most = -1  # columns of a layout that does not fit
    for layout in layouts:
        fields = tuple(field for field in layout.fields if field.name not in given)
        known = {field.name for field in fields}
        if layout is not layouts[0] and not known.issuperset(named or ()):
            continue
        try:
            return layout, match_columns(fields, columns, named, file=file)
        except (BadData, BadOption) as error:
            there = _columns_there(fields, columns, named or {})
            if there > most:
                nearest, most = error, there
    assert nearest is not None
    raise nearest


def _columns_there(
    fields: Sequence[Field], columns: Sequence[str], named: Mapping[str, str]
) -> int:
    """How many of the fields that must be there have a column."""
    known = {column.strip().casefold() for column in columns}
    return sum(
        field.name in named or any(name.casefold() in known for name in field.accepted)
        for field in fields
        if field.required
    )


def _tell_unused(chosen: Sequence[Field], others: Sequence[Field], columns: Sequence[str]) -> None:
    """Says which column would have served where the `chosen` fields are preferred."""
    for field in others:
        name = next((name for name in field.accepted if name in columns), None)
        if name is not None and not any(name in one.accepted for one in chosen):
            said = listed([one.name for one in chosen if one.required])
            events.note(f"{said} are learnt from; {field.option} {name} takes that column instead")


@dataclass(frozen=True)
class Example:
    """A checked row: its values by field name, and the row they come from."""

    values: dict[str, Any]
    row: Row


def match_columns(
    fields: Sequence[Field],
    columns: Sequence[str],
    named: Mapping[str, str] | None = None,
    *,
    file: str | Path | None = None,
) -> dict[str, str]:
    """Field name -> column, for the `columns` of `file`.

    `named` (field name -> column) wins; otherwise the first accepted name that is a column, letter
    case aside. Other columns that would do are mentioned in an event. A field that is not required
    and has no column is left out. Raises BadOption for a name that is no field or no column,
    BadData for a missing column, for columns that differ in case only, and for one column that
    would serve two fields.
    """
    named = dict(named or {})
    known = {field.name: field for field in fields}
    for name in named:
        if name not in known:
            raise BadOption.unknown("field", name, known)
    matched: dict[str, str] = {}
    for name, column in named.items():
        if column not in columns:
            near = difflib.get_close_matches(column, columns, n=1, cutoff=0.5)
            hint = f"; did you mean `{near[0]}`?" if near else ""
            raise BadOption(
                f"{known[name].option}: unknown column `{column}`{hint}; columns: {listed(columns)}"
            )
        matched[name] = column
    for field in fields:
        if field.name not in matched:
            free = [column for column in columns if column not in named.values()]
            accepted = _accepted_column(field, free, columns, file)
            if accepted is not None:
                matched[field.name] = accepted
    for first, second in _pairs(matched):
        if matched[first] == matched[second]:
            raise BadOption(
                f"column `{matched[first]}` cannot be both `{first}` and `{second}`; name another "
                f"with {known[first].option} or {known[second].option}"
            )
    return {field.name: matched[field.name] for field in fields if field.name in matched}


def _accepted_column(
    field: Field, free: Sequence[str], columns: Sequence[str], file: str | Path | None
) -> str | None:
    """The column among `free` for `field`; None where there is none and none is required."""
    found: list[str] = []
    for name in field.accepted:
        same = [column for column in free if column.strip().casefold() == name.casefold()]
        if len(same) > 1 and name not in same:
            raise BadData(
                f"columns {listed(same)} both look like `{field.name}`; "
                f"name one with {field.option}",
                file=file,
            )
        found += [name] if name in same else same
    if found:
        if found[1:]:
            events.note(
                f"column `{found[0]}` is taken as {field.name}; "
                f"use {field.option} for {listed(found[1:])} instead"
            )
        return found[0]
    if not field.required:
        return None
    if field.lacking:
        raise BadData(field.lacking, file=file)
    lower = {column.casefold(): column for column in columns}
    near = [
        lower[match]
        for name in field.accepted
        for match in difflib.get_close_matches(name.casefold(), lower, n=1, cutoff=0.75)
    ]
    hint = f"is it `{near[0]}`? Then add" if near else "name the right one with"
    raise BadData(
        f"no column for the {field.name}: the columns are {listed(columns)}, the accepted names "
        f"{listed(field.accepted)}; {hint} {field.option} {near[0] if near else 'COLUMN'}",
        file=file,
    )


def _pairs(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    ordered = list(names)
    for index, first in enumerate(ordered):
        for second in ordered[index + 1 :]:
            yield first, second


def examples(
    rows: Iterable[Row],
    fields: Sequence[Field],
    matched: Mapping[str, str],
    skipped: SkipLog,
    *,
    convert: Callable[[Values], Values] = lambda values: values,
    given: Mapping[str, Any] | None = None,
) -> Iterator[Example]:
    """The rows whose fields are all usable; the others go to `skipped`.

    `matched` is what `match_columns` gave. Texts come as they are in the file, blanks included.
    `given` are values that every row gets, `convert` is a layout's; what it puts right in a row it
    lists there as `mended` (Flaws), which are counted. Raises BadData at the end where not one row
    was usable.
    """
    wanted = [(field, matched[field.name]) for field in fields if field.name in matched]
    row, usable = None, 0
    for row in rows:
        try:
            values = convert({**(given or {}), **_values(row, wanted)})
        except Flaw as flaw:
            raw = str(row.values)
            skipped.add(flaw.reason, file=row.file, line=row.line, detail=flaw.detail, raw=raw)
            continue
        for mended in values.pop("mended", ()):
            skipped.mend(mended.reason, file=row.file, line=row.line, detail=mended.detail)
        usable += 1
        yield Example(values, row)
    if not usable:
        reasons = skipped.summary() or "the data is empty"
        raise BadData(f"no usable row: {reasons}", file=row.file if row else None)


def _values(row: Row, wanted: Sequence[tuple[Field, str]]) -> Values:
    values: Values = {}
    for field, column in wanted:
        value = row.values.get(column)
        if value is None and not field.required:
            continue
        try:
            if field.kind == "audio":
                values[field.name] = as_audio(value, Path(row.file).parent)
            else:
                values[field.name] = KINDS[field.kind](value)
        except Flaw as flaw:
            raise Flaw(flaw.reason, f"column `{column}`{flaw.detail}") from None
    return values
