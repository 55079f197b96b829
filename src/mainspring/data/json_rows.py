"""JSON Lines, and JSON arrays of any length read one element at a time.

The standard library's decoder reads each value from a buffer that moves along the file, so memory
stays small, the line of a fault is known, and reading goes on with the next object after it.
"""

import json
import re
from collections.abc import Iterator
from json import JSONDecodeError
from pathlib import Path
from typing import Any, TextIO

from mainspring.data.rows import LONGEST_ROW, UNDECODABLE, Row, open_text
from mainspring.data.skipped import SkipLog
from mainspring.errors import BadData
from mainspring.text import listed

# The names under which a JSON object holds its rows: {"version": ..., "data": [{...}, {...}]}.
ROOTS = ("data", "rows", "records", "examples", "items")
# The same for rows that are lists of a text and what is known of it, as spaCy has them.
LISTED = "annotations"
# An object of lists whose names are these holds splits; rows of another such object are told apart
# by the name of their list, which becomes a column.
SPLITS = ("train", "training", "validation", "valid", "val", "dev", "test")
GROUP = "label"

CHUNK = 1 << 16
_BLANK = re.compile(r"[\s,]*")
_NEXT_OBJECT = re.compile(r"\}\s*,?\s*(?=\{)")
_DECODER = json.JSONDecoder()


def read_jsonl(path: Path, skipped: SkipLog) -> Iterator[Row]:
    """One object a line. A file that holds an array after all is read as one."""
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            if number == 1 and line.lstrip().startswith("["):
                break
            if not line.strip():
                continue
            if UNDECODABLE in line:
                skipped.add("undecodable bytes", file=path, line=number, raw=line)
                continue
            try:
                value = json.loads(line)
            except (JSONDecodeError, RecursionError) as error:
                skipped.add("bad JSON", file=path, line=number, detail=_what(error), raw=line)
                continue
            yield from _row(value, path, number, line, skipped)
        else:
            return
    yield from read_json(path, skipped)


def read_json(path: Path, skipped: SkipLog) -> Iterator[Row]:
    """Rows of an array of objects, of an object that holds one (`ROOTS`), of an object whose every
    value is one (`{"P17": [{…}, …], "P31": […]}`), or of JSON Lines."""
    with open_text(path) as file:
        inside = _seek_rows(_Values(file))
    with open_text(path) as file:
        groups = [] if inside else _group_names(_Values(file))
    if set(groups) & set(SPLITS):
        problem = f"one file with the splits {listed(groups)}"
        raise BadData(f"{problem}; put each into a file of its own: train.json, …", file=path)
    if groups:
        yield from _grouped_rows(path, skipped)
        return
    with open_text(path) as file:
        values = _Values(file)
        if inside:
            _seek_rows(values)
        while values.peek() not in ("", "]"):
            start = values.line
            try:
                value, raw = values.take()
            except (JSONDecodeError, RecursionError) as error:
                line = start + (error.lineno - 1 if isinstance(error, JSONDecodeError) else 0)
                skipped.add(
                    "bad JSON", file=path, line=line, detail=_what(error), raw=values.ahead()
                )
                values.skip_to_next_object()
                continue
            if UNDECODABLE in raw:
                skipped.add("undecodable bytes", file=path, line=start, raw=raw)
            else:
                yield from _row(value, path, start, raw, skipped)
        if inside and values.peek() == "":
            detail = "the file ends inside the array of rows"
            skipped.add("bad JSON", file=path, line=values.line, detail=detail)


def _group_names(values: "_Values") -> list[str]:
    """The names in a file's only object, where all are of lists of objects with the same keys."""
    if values.peek() != "{":
        return []
    values.step()
    found: list[str] = []
    keys: set[str] = set()
    try:
        while values.peek() == '"':
            name, _ = values.take()
            if values.peek() != ":":
                return []
            values.step()
            rows, _ = values.take()
            if not isinstance(rows, list) or not rows or not isinstance(rows[0], dict):
                return []
            keys = keys or set(rows[0])
            if set(rows[0]) != keys:
                return []
            found.append(name)
        values.step()
        return found if len(found) > 1 and not values.peek() else []
    except (JSONDecodeError, RecursionError):
        return []  # the fault is reported where the rows are read


def _grouped_rows(path: Path, skipped: SkipLog) -> Iterator[Row]:
    """The rows of an object of lists; the name of its list is in each row's column `GROUP`, where
    the rows have none of that name."""
    with open_text(path) as file:
        values = _Values(file)
        values.peek()
        values.step()
        while values.peek() == '"':
            name, _ = values.take()
            values.peek()
            values.step()
            line = values.line
            for value in values.take()[0]:
                if isinstance(value, dict):
                    yield Row({GROUP: name, **value}, str(path), line)
                else:
                    yield from _row(value, path, line, str(value), skipped)


def _row(value: Any, path: Path, line: int, raw: str, skipped: SkipLog) -> Iterator[Row]:
    if isinstance(value, dict):
        yield Row(value, str(path), line)
    elif isinstance(value, list) and [*map(type, value)] == [str, dict]:  # spaCy's examples
        yield Row({"text": value[0], **value[1]}, str(path), line)
    else:
        detail = f"{type(value).__name__} where an object is expected"
        skipped.add("wrong type", file=path, line=line, detail=detail, raw=raw)


def _what(error: JSONDecodeError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return f"{error.msg} at column {error.colno}"


def _seek_rows(values: "_Values") -> bool:
    """Moves to the first row inside an array; False where the values stand side by side."""
    if values.peek() == "[":
        values.step()
        return True
    if values.peek() != "{":
        return False
    values.step()
    try:
        while values.peek() == '"':
            name, _ = values.take()
            if values.peek() != ":":
                return False
            values.step()
            if name in (*ROOTS, LISTED) and values.peek() == "[":
                values.step()
                return values.peek() in (("{", "]") if name in ROOTS else ("[",))
            values.take()
    except (JSONDecodeError, RecursionError):
        pass  # the rows are then read, and the fault reported, from the beginning
    return False


class _Values:
    """JSON values taken one after another from a text file through a moving buffer."""

    def __init__(self, file: TextIO):
        self.file = file
        self.buffer = ""
        self.at = 0
        self.line = 1  # of `at`
        self.ended = False

    def _fill(self) -> None:
        """Drops what was taken and doubles what lies ahead."""
        self.buffer = self.buffer[self.at :]
        self.at = 0
        more = self.file.read(max(CHUNK, len(self.buffer)))
        self.ended = not more
        self.buffer += more

    def _move(self, end: int) -> None:
        self.line += self.buffer.count("\n", self.at, end)
        self.at = end

    def peek(self) -> str:
        """The first character that is neither blank nor a comma; "" at the end of the file."""
        while True:
            match = _BLANK.match(self.buffer, self.at)
            self._move(match.end() if match else self.at)
            if self.at < len(self.buffer):
                return self.buffer[self.at]
            if self.ended:
                return ""
            self._fill()

    def step(self) -> None:
        """Over one character."""
        self._move(self.at + 1)

    def ahead(self) -> str:
        """The beginning of what lies ahead."""
        return self.buffer[self.at : self.at + 400]

    def take(self) -> tuple[Any, str]:
        """The next value and its text. JSONDecodeError counts lines and columns from its start."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self.buffer, self.at)
            except JSONDecodeError as error:
                if self.ended or not self._may_be_cut(error):
                    raise JSONDecodeError(
                        error.msg, self.buffer[self.at : error.pos + 1], error.pos - self.at
                    ) from None
                self._fill()
                continue
            if end == len(self.buffer) and not self.ended and not isinstance(value, dict | list):
                self._fill()  # a number may go on
                continue
            raw = self.buffer[self.at : end]
            self._move(end)
            return value, raw

    def _may_be_cut(self, error: JSONDecodeError) -> bool:
        """Whether the fault may only be that the buffer ends inside the value."""
        if len(self.buffer) - self.at > LONGEST_ROW:
            return False
        return error.msg.startswith("Unterminated") or error.pos >= len(self.buffer) - 16

    def skip_to_next_object(self) -> None:
        """After a fault: on to the beginning of what looks like the next object."""
        self._move(min(self.at + 1, len(self.buffer)))
        while True:
            match = _NEXT_OBJECT.search(self.buffer, self.at)
            if match:
                self._move(match.end())
                return
            if self.ended:
                self._move(len(self.buffer))
                return
            # A match may begin at the last brace in the buffer and go on in the next piece.
            brace = self.buffer.rfind("}", self.at)
            self._move(brace if brace >= 0 else len(self.buffer))
            self._fill()
