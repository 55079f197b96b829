"""What `run` does: inputs of any kind to rows, predictions in order, an output that resumes."""

import csv
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain, islice, tee
from pathlib import Path
from typing import Any

from mainspring import events, streams
from mainspring.data import schema
from mainspring.data.readers import Source, read_rows, sources
from mainspring.data.rows import Row, suffix
from mainspring.data.skipped import SkipLog
from mainspring.data.sources import KNOWN
from mainspring.errors import BadData, BadOption, Missing
from mainspring.formulations import Formulation, Prediction, Values
from mainspring.tasks import Task
from mainspring.tasks.reading import by_columns, checked, match
from mainspring.tasks.settings import remembered
from mainspring.text import LINE_END
from mainspring.verbs.opening import Opened, Use, open_for
from mainspring.verbs.output import (
    holds,
    joined,
    make_folder,
    note_made,
    row_writer,
    tell_skipped,
    told,
    unfinished,
    unwritable,
)

SUFFIXES = (".jsonl", ".csv", ".tsv")


@dataclass(frozen=True)
class Request:
    """What `run` was asked to do. `given` are inputs that are the same for all rows."""

    task: Task
    inputs: tuple[str, ...]
    use: Use
    out: Path | None
    named: dict[str, str]
    given: Values
    lines: bool
    strict: bool


def apply(request: Request) -> Iterator[tuple[Values, str]]:
    """(row with the prediction in it, the answer in words) for each usable input, in order."""
    task = request.task
    out = None if request.out is None else Output(request.out, made_as(request))
    skipped = SkipLog(None if out is None else out.skipped, strict=request.strict)
    rows = input_rows(request, skipped)
    total = count_inputs(request)
    opened = open_for(task, request.use)
    with skipped:
        if out is None:
            single = len(request.inputs) <= 1 and not request.lines
            yield from _predictions(task, opened, rows, total, single)
        else:
            with out.writing(rows) as (rest, write):
                left = None if total is None else total - out.count
                for row, answer in _predictions(task, opened, rest, left, False):
                    write(row)
                    yield row, answer
            out.finish()
            events.note(f"{out.file}: {out.count} rows")
    tell_skipped(skipped)


def made_as(request: Request) -> dict[str, Any]:
    """What the predictions depend on, beside the rows: where they are computed is left out."""
    how = {name: value for name, value in asdict(request.use).items() if name != "device"}
    return {"task": request.task.name, **how, "inputs": request.given}


def _predictions(
    task: Task,
    opened: Opened,
    rows: Iterator[schema.Example],
    total: int | None,
    stream: bool,
) -> Iterator[tuple[Values, str]]:
    """Rows with their predictions; with `stream` the text of an only row is told as it grows."""
    first = list(islice(rows, 2))
    on_text = None
    if stream and len(first) == 1 and opened.formulation.generates:
        on_text = _tell
    for_model, for_output = tee(chain(first, rows))
    show = events.counter(task.name, total) if on_text is None else lambda done: None
    count, unfinished, refused = 0, 0, Counter[str]()
    counts: Counter[str] = Counter()
    values = (row.values for row in for_model)
    for prediction in opened.predict(values, show, on_text):
        count += 1
        if prediction.error is not None:
            refused[prediction.error] += 1
        counts.update(prediction.counts)
        unfinished += opened.how.constraint is not None and prediction.stop == "length"
        row = next(for_output).row
        added = added_columns(task, opened.formulation, prediction)
        yield joined(row.values, added), task.show(prediction.value)
    if on_text is None:
        events.emit(events.Progress(task.name, count, count, "rows"))
    if counts:
        events.note(told(counts))
    if unfinished:
        events.warn(
            f"{unfinished} of {count} texts end at the length limit, before they fit as a whole; "
            "give more --max-new-tokens, or bound what may be written"
        )
    if refused:
        long = opened.how.on_long == "refuse"
        hint = "; --on-long split reads long ones in windows" if long else ""
        every = "all " if refused.total() == count else ""
        events.warn(f"{every}{refused.total()} inputs refused: {next(iter(refused))}{hint}")


def _tell(text: str) -> None:
    events.emit(events.Text(text))


def added_columns(task: Task, formulation: Formulation, prediction: Prediction) -> Values:
    """What a prediction adds to its row."""
    added = {task.output: prediction.value, **prediction.details}
    if formulation.generates:
        added |= {"stop": prediction.stop, "tokens": prediction.tokens}
    added |= {
        "source_tokens_unread": prediction.source_tokens_unread,
        "windows": prediction.windows,
    }
    return added if prediction.error is None else {**added, "error": prediction.error}


# -- inputs ----------------------------------------------------------------------------------------


def input_rows(request: Request, skipped: SkipLog) -> Iterator[schema.Example]:
    """Checked rows of all inputs. A path that does not exist fails before any model is loaded."""
    if not request.inputs and not _lacking(request, [*request.task.inputs]):
        row = Row(dict(request.given), "options", 1)
        return schema.examples(iter([row]), (), {}, skipped, given=request.given)
    closed = sys.stdin is None and "-" in (request.inputs or ("-",))
    if closed or (not request.inputs and streams.is_typed()):
        raise Missing("nothing to read: name texts, files or folders, or pipe a text in")
    _check_inputs(request)
    found: list[Callable[[], Iterator[schema.Example]]] = []
    for given in request.inputs or ("-",):
        if given == "-":
            found.append(partial(_checked, _stdin_rows(request.lines), request, skipped))
        elif _is_path(given):
            for source in sources(given):
                found.append(partial(_source_rows, source, request, skipped))
        else:
            row = Row({"text": _as_text(given)}, "argument", 1)
            found.append(partial(_checked, iter([row]), request, skipped))
    return _all(found, skipped)


def count_inputs(request: Request) -> int | None:
    """How many rows there are to work on; None where they come by standard input."""
    if "-" in (request.inputs or ("-",)):
        return None
    try:
        with SkipLog() as unlisted, events.listening(lambda event: None):
            return sum(1 for _ in input_rows(request, unlisted))
    except BadData:
        return None  # said where the rows are worked on


def _all(
    found: list[Callable[[], Iterator[schema.Example]]], skipped: SkipLog
) -> Iterator[schema.Example]:
    """The rows of all inputs; one input without a usable row does not lose the others."""
    usable, problems = 0, []
    for rows in found:
        try:
            for row in rows():
                usable += 1
                yield row
        except BadData as error:
            if len(found) == 1 or skipped.strict:
                raise
            events.warn(str(error))
            problems.append(str(error))
    if not usable:
        raise BadData("no usable input: " + "; ".join(problems))


def _check_inputs(request: Request) -> None:
    """Missing where bare texts are given and the task needs more than a text."""
    task = request.task
    lacking = _lacking(request, [field for field in task.inputs if field is not task.text])
    bare = [name for name in request.inputs or ("-",) if name == "-" or not _is_path(name)]
    if task.text.kind == "audio" and "-" in bare:
        raise Missing(f"`{task.name}` reads files: name sound files, folders of them, or a table")
    if bare and lacking:
        options = " ".join(f"--{name.replace('_', '-')} …" for name in lacking)
        raise Missing(f"`{task.name}` needs more than a text: give {options}, or a table")


def _lacking(request: Request, fields: Sequence[schema.Field]) -> list[str]:
    """The names of those that are needed and not given for all rows."""
    return [field.name for field in fields if field.required and field.name not in request.given]


def _checked(rows: Iterable[Row], request: Request, skipped: SkipLog) -> Iterator[schema.Example]:
    """Bare texts as rows."""
    field = request.task.text
    return schema.examples(
        rows,
        (field,),
        {field.name: "text"},
        skipped,
        convert=request.task.values,
        given=request.given,
    )


def _is_path(given: str) -> bool:
    """Whether the words name a file or folder; a name that is not there is an error.

    A word counts as a name by a suffix that is read here, by a beginning like "./", or by lying in
    a folder that exists; so "and/or", or a text in a script without blanks, stays a text.
    """
    if not given.strip():
        return False  # a path of nothing would be the folder we are in
    try:
        path = Path(given)
        if path.exists():
            return True
        if " " in given.strip() or "\n" in given:
            return False
        named = suffix(path) in KNOWN or given.startswith(("/", "./", "../", "~"))
        if named or ("/" in given and path.parent.is_dir()):
            sources(given)  # raises Missing with the nearest name
    except (OSError, ValueError):  # too long for a name, or with characters none can have: a text
        pass
    return False


def _as_text(word: str) -> str:
    """A word of the command line: where the system's encoding is not UTF-8 it comes with bytes in
    the place of characters."""
    try:
        return os.fsencode(word).decode("utf-8")
    except UnicodeError:
        return word


def _stdin_rows(lines: bool) -> Iterator[Row]:
    stream = sys.stdin
    if lines:
        for number, line in enumerate(stream, 1):
            values = {"line": number, "text": line.rstrip("\n")}
            yield Row(values, "standard input", number)
    else:
        yield Row({"text": stream.read()}, "standard input", 1)


def _source_rows(source: Source, request: Request, skipped: SkipLog) -> Iterator[schema.Example]:
    if source.kind == "text" and request.lines:
        lines = (
            Row({"line": number, "text": line}, row.file, number)
            for row in read_rows(source, skipped)
            for number, line in enumerate(lines_of(row.values["text"]), 1)
        )
        return _checked(lines, request, skipped)
    options = {**remembered(request.use.model, request.task), **request.use.options}
    whole, _ = by_columns(request.task, options, source, request.named)
    task = replace(whole, fields=whole.inputs, layouts=input_layouts(whole))
    matched = match(task, source, request.named, request.given)
    return checked(task, source, matched, skipped, request.given, pieces=False)


def lines_of(text: str) -> list[str]:
    """The lines of a text, as editors count them."""
    lines = LINE_END.split(text)
    return lines[:-1] if lines[-1] == "" and len(lines) > 1 else lines


def input_layouts(task: Task) -> tuple[schema.Layout, ...]:
    """The task's other layouts, without what is to be predicted."""
    return tuple(
        replace(
            layout,
            fields=tuple(f for f in layout.fields if f.role == "input"),
            values=layout.asks or layout.values,
        )
        for layout in task.layouts
    )


# -- output ----------------------------------------------------------------------------------------


class Output:
    """A file of predictions. Rows go to FILE.part, which becomes FILE when the last one is in.

    A part that is already there is gone on with, after a check that it belongs to these inputs and
    was made as `made` says.
    """

    def __init__(self, file: Path, made: Mapping[str, Any]):
        if file.suffix not in SUFFIXES:
            raise BadOption(f"--out {file}: the suffix must be one of {', '.join(SUFFIXES)}")
        if file.exists():
            raise BadOption(f"--out {file} is already there; name another file or remove it")
        self.file, self.made, self.count = file, made, 0
        self.part = file.with_name(file.name + ".part")
        self.skipped = file.with_name(file.stem + ".skipped.jsonl")

    def resume(self) -> Iterator[Values]:
        """The whole rows of an unfinished part; a half-written last line is dropped."""
        if not self.part.exists():
            return
        whole = 0
        with self.part.open("rb") as stream:
            for line in stream:
                if not line.endswith(b"\n"):
                    break
                try:
                    yield json.loads(line)
                except ValueError:
                    raise BadData("not a file of predictions", file=self.part) from None
                whole += len(line)
        os.truncate(self.part, whole)

    @contextmanager
    def writing(
        self, rows: Iterator[schema.Example]
    ) -> Iterator[tuple[Iterator[schema.Example], Callable[[Values], None]]]:
        """(the rows still to be done, a function that writes one)."""
        make_folder(self.file.parent, self.file)
        self.note = note_made(self.file, self.part, self.made)
        for number, before in enumerate(self.resume(), 1):
            row = next(rows, None)
            if row is None or not holds(before, row.row.values):
                raise BadData(
                    "this unfinished output belongs to other inputs; remove it or name another",
                    file=self.part,
                    line=number,
                )
            self.count = number
        if self.count:
            events.note(f"{self.part}: going on after {self.count} rows")
        with (
            unfinished(lambda: self.count, "rows", self.part, self.note),
            row_writer(self.part, "ab") as append,
        ):

            def write(row: Values) -> None:
                append(row)
                self.count += 1

            yield rows, write

    def finish(self) -> None:
        """Puts the file in its place, in the format its suffix names."""
        if self.file.suffix == ".jsonl":
            self.part.replace(self.file)
            self.note.unlink()
            return
        with self.part.open(encoding="utf-8") as stream:
            names = list(dict.fromkeys(name for line in stream for name in json.loads(line)))
        temporary = self.file.with_name(f".{self.file.name}.tmp")
        try:
            with (
                self.part.open(encoding="utf-8") as stream,
                temporary.open("w", encoding="utf-8", newline="") as out,
            ):
                delimiter = "," if self.file.suffix == ".csv" else "\t"
                writer = csv.DictWriter(out, names, delimiter=delimiter)
                writer.writeheader()
                for line in stream:
                    row = json.loads(line)
                    writer.writerow({name: _cell(value) for name, value in row.items()})
            temporary.replace(self.file)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise unwritable(self.file, error) from error
        self.part.unlink()
        self.note.unlink()


def _cell(value: Any) -> Any:
    """A value as a table's cell: lists and objects as JSON, which our own readers read back."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value
