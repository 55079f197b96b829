"""A file of vectors that grows vector by vector and can be gone on with: what `embed` writes.

    vectors.npy             N x D float32, what `numpy.load` opens (also memory-mapped)
    vectors.rows.jsonl      line i: where text i stood, and its other columns

While it grows: `vectors.npy.part` (the numbers alone), `vectors.rows.jsonl.part`, and what made
them in `vectors.npy.made.json`.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mainspring import events
from mainspring.data.schema import Example
from mainspring.errors import BadData, BadOption
from mainspring.formulations.embedding import Vector
from mainspring.verbs.output import (
    joined,
    make_folder,
    note_made,
    row_writer,
    unfinished,
    unwritable,
)


class VectorFile:
    """Vectors of `width` numbers, made as `made` says: an unfinished file that was made otherwise,
    or of other texts, is not gone on with."""

    def __init__(self, file: Path, width: int, made: Mapping[str, Any]):
        self.file, self.width, self.made = file, width, {**made, "width": width}
        self.rows = file.with_name(file.stem + ".rows.jsonl")
        for there in (self.file, self.rows):
            if there.exists():
                raise BadOption(f"--out: {there} is already there; name another file or remove it")
        self.part = file.with_name(file.name + ".part")
        self.rows_part = self.rows.with_name(self.rows.name + ".part")
        self.how = file.with_name(file.name + ".made.json")
        self.count = 0

    @contextmanager
    def writing(
        self, examples: Iterator[Example], text: str, columns: Sequence[str]
    ) -> Iterator[tuple[Iterator[Example], Callable[[Example, Vector], None]]]:
        """(the rows still to be done, a function that writes one); `text` is the field embedded,
        and `columns` the names that its column may have, which is not written."""
        make_folder(self.file.parent, self.file)
        if not (self.part.exists() and self.how.exists()):
            self.part.unlink(missing_ok=True)
            self.rows_part.unlink(missing_ok=True)
        note_made(self.file, self.part, self.made)
        for number, before in enumerate(self._done(), 1):
            example = next(examples, None)
            if example is None or before["hash"] != _hash(example.values[text]):
                raise BadData(
                    "this unfinished output belongs to other texts; remove it or name another",
                    file=self.rows_part,
                    line=number,
                )
            self.count = number
        if self.count:
            events.note(f"{self.part}: going on after {self.count} vectors")
        try:
            stream = self.part.open("ab", buffering=0)
        except OSError as error:
            raise unwritable(self.part, error) from error
        files = self.part, self.rows_part, self.how
        with (
            unfinished(lambda: self.count, "vectors", *files),
            stream,
            row_writer(self.rows_part, "ab") as write_row,
        ):

            def write(example: Example, vector: Vector) -> None:
                row = example.row
                place = {"file": row.file, "line": row.line, "hash": _hash(example.values[text])}
                try:
                    stream.write(np.ascontiguousarray(vector, dtype="<f4").data)
                except OSError as error:
                    raise unwritable(self.part, error) from error
                others = dict(row.values)
                if column := _column(row.values, columns, example.values[text]):
                    del others[column]
                write_row(joined(others, place))
                self.count += 1

            yield examples, write

    def _done(self) -> Iterator[dict[str, Any]]:
        """What is known of the whole vectors; half-written ends are dropped from both files."""
        if not self.part.exists() or not self.rows_part.exists():
            return
        size = 4 * self.width
        vectors = self.part.stat().st_size // size
        count = whole = 0
        with self.rows_part.open("rb") as lines:
            for line in islice(lines, vectors):
                if not line.endswith(b"\n"):
                    break
                yield json.loads(line)
                count, whole = count + 1, whole + len(line)
        os.truncate(self.part, count * size)
        os.truncate(self.rows_part, whole)

    def finish(self) -> None:
        """Puts both files in their places."""
        temporary = self.file.with_name(f".{self.file.name}.tmp")
        header = {"descr": "<f4", "fortran_order": False, "shape": (self.count, self.width)}
        try:
            with self.part.open("rb") as numbers, temporary.open("wb") as out:
                np.lib.format.write_array_header_1_0(out, header)
                shutil.copyfileobj(numbers, out, 1 << 22)
            temporary.replace(self.file)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise unwritable(self.file, error) from error
        self.rows_part.replace(self.rows)
        self.part.unlink()
        self.how.unlink()


def _column(row: Mapping[str, Any], columns: Sequence[str], text: str) -> str | None:
    """The column of a row that holds the text, under the first of these names that does."""
    known = {name.strip().casefold(): name for name in row if row[name] == text}
    return next((known[name.casefold()] for name in columns if name.casefold() in known), None)


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
