"""CSV and TSV: any delimiter, quoted line ends, long fields, and stray quotes without losing rows.

The standard library's parser does the work; this file finds the delimiter and recovers at the next
line where a quote is opened and never properly closed. A table with a word a line becomes one with
a sentence a row.
"""

import csv
import itertools
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path

from mainspring.data.rows import LONGEST_ROW, UNDECODABLE, Row, open_text
from mainspring.data.skipped import SkipLog
from mainspring.errors import BadData
from mainspring.text import listed

DELIMITERS = ",;\t|"


def read_csv(path: Path, skipped: SkipLog, *, preferred: str = ",") -> Iterator[Row]:
    """Rows of a delimited file whose first line names the columns."""
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_ROW))
    with open_text(path, newline="") as file:  # offsets count the line ends in quoted cells
        lines = _Lines(file)
        delimiter = _delimiter(lines, preferred)
        records = _records(lines, delimiter, 0, path, skipped)
        header = _header(next(records, (0, [], ""))[1], path)
        rows = _rows(_records(lines, delimiter, len(header), path, skipped), header, path, skipped)
        yield from of_words(rows, header, skipped)


def read_tsv(path: Path, skipped: SkipLog) -> Iterator[Row]:
    """As `read_csv`, for files where a tab is the likely delimiter."""
    return read_csv(path, skipped, preferred="\t")


@dataclass(frozen=True)
class _Broken:
    """A record that cannot be used, and is listed: its cells, where it is of one line."""

    cells: list[str]


def _rows(
    records: Iterable[tuple[int, list[str], str]], header: list[str], path: Path, skipped: SkipLog
) -> Iterator[Row | _Broken]:
    """The records as rows, where they have a cell for each column."""
    for line, cells, raw in records:
        if not cells:
            yield _Broken([])
            continue
        if len(cells) > len(header) and not any(cells[len(header) :]):
            cells = cells[: len(header)]  # delimiters at the end of the line
        if UNDECODABLE in raw:
            skipped.add("undecodable bytes", file=path, line=line, raw=raw)
        elif len(cells) != len(header):
            detail = f"{len(cells)} columns where the header has {len(header)}"
            skipped.add("ragged row", file=path, line=line, detail=detail, raw=raw)
        else:
            yield Row(dict(zip(header, cells, strict=True)), str(path), line)
            continue
        yield _Broken(cells if len(raw.splitlines()) == 1 else [])


# -- one word a line -------------------------------------------------------------------------------

SENTENCE = ("sentence #", "sentence_id", "sentence_idx", "sent_id")
WORD = ("word", "token", "words", "tokens")
MOST_WORDS = 100_000  # of a sentence


def of_words(
    rows: Iterator[Row | _Broken], header: Sequence[str], skipped: SkipLog
) -> Iterator[Row]:
    """Rows of a table that has a number of the sentence and a word in each line, as sentences: each
    column a list, the number as it is. Where the number is empty the sentence goes on. A line
    without a word is listed; a broken one costs its sentence. Rows of any other table stay as they
    are."""
    names = {name.casefold(): name for name in reversed(header)}
    number, word = (next((names[n] for n in of if n in names), None) for of in (SENTENCE, WORD))
    broken: list[Row | _Broken] = []
    for first in rows:
        if isinstance(first, Row):
            break
        broken.append(first)
    else:
        return
    rows = itertools.chain(broken, [first], rows)
    if number is None or word is None or re.search(r"[\s\[]", first.values[word].strip()[:-1]):
        yield from (row for row in rows if isinstance(row, Row))
        return
    numbered_rows = _numbered(rows, header, number, skipped)
    for at, numbered in itertools.groupby(numbered_rows, key=itemgetter(0)):
        found = [line for _, line in itertools.islice(numbered, MOST_WORDS + 1)]
        lines = [line for line in found if line is not None]
        if len(lines) < len(found):
            continue
        if len(lines) > MOST_WORDS:
            detail = f"more than {MOST_WORDS} lines with the same `{number}`"
            skipped.add("too long", file=lines[0].file, line=lines[0].line, detail=detail)
            continue
        kept = [line for line in lines if _has(line, word, skipped)]
        if kept:
            columns = {name: [line.values[name] for line in kept] for name in header}
            yield replace(kept[0], values={**columns, number: at})


def _numbered(
    rows: Iterable[Row | _Broken], header: Sequence[str], number: str, skipped: SkipLog
) -> Iterator[tuple[str, Row | None]]:
    """The lines with the number of their sentence, None for a broken line. One that does not tell
    its number may belong to the sentence before it or to that behind it, and is given to both:
    the second is listed."""
    at, sparse, unsure = "", False, False
    for row in rows:
        if isinstance(row, Row):
            given = row.values[number].strip()
            sparse = sparse or not given
            # Where only first lines have a number, the broken one began no sentence that follows.
            if unsure and given not in ("", at) and not sparse:
                detail = "the line before cannot be read, and may belong to it"
                skipped.add("broken sentence", file=row.file, line=row.line, detail=detail)
                yield given, None
            unsure = unsure and not given
        else:
            told = _number_in(row.cells, header, number, at)
            given, unsure = told or "", told is None or (unsure and not told)
        at = given or at
        yield at, row if isinstance(row, Row) else None


def _number_in(cells: Sequence[str], header: Sequence[str], number: str, before: str) -> str | None:
    """The number of the sentence in a broken line; None where it does not tell. In one with more or
    fewer cells than there are columns a first cell does that looks like the number `before`."""
    column = header.index(number)
    alike = column == 0 and cells and _form(cells[0]) == _form(before) != ""
    if (len(cells) != len(header) and not alike) or UNDECODABLE in cells[column]:
        return None
    return cells[column].strip()


def _form(number: str) -> str:
    return re.sub(r"\d+", "0", number.strip())


def _has(row: Row, word: str, skipped: SkipLog) -> bool:
    there = bool(row.values[word].strip())
    if not there:
        skipped.add("no token", file=row.file, line=row.line, raw=str(row.values))
    return there


# -- lines and records -----------------------------------------------------------------------------


class _Lines:
    """An iterator over lines that keeps the lines of the current record and can take them back."""

    def __init__(self, file: Iterator[str]):
        self.file = file
        self.waiting: deque[str] = deque()
        self.record: list[str] = []
        self.number = 1  # of the line where the current record begins

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self.waiting.popleft() if self.waiting else next(self.file)
        self.record.append(line)
        return line

    def begin_record(self) -> None:
        """What was read so far is done with."""
        self.number += len(self.record)
        self.record = []

    def take_back(self, keep: int) -> None:
        """Only the first `keep` lines of the record were used; the others will be read again."""
        self.waiting.extendleft(reversed(self.record[keep:]))
        self.record = self.record[:keep]


def _records(
    lines: _Lines, delimiter: str, width: int, path: Path, skipped: SkipLog
) -> Iterator[tuple[int, list[str], str]]:
    """(line, cells, raw text) of each record that is not blank.

    A record with a misplaced quote is taken literally, as one line, where that gives `width` cells
    (0: any number); otherwise its first line is listed and given without cells, and reading goes on
    with the next. So it does with the lines of a TSV's record that are rows of their own.
    """
    while True:
        lines.begin_record()
        try:
            cells = next(csv.reader(lines, delimiter=delimiter, strict=True))
        except StopIteration:
            return
        except csv.Error as error:
            lines.take_back(1)
            cells = _literal(lines.record[0], delimiter)
            if width not in (0, len(cells)):
                raw = lines.record[0]
                skipped.add("bad quotes", file=path, line=lines.number, detail=str(error), raw=raw)
                yield lines.number, [], raw
                continue
        if delimiter == "\t" and _are_rows(lines.record, cells, width):
            lines.take_back(1)
            cells = _literal(lines.record[0], delimiter)
        if cells:
            yield lines.number, cells, "".join(lines.record)


def _are_rows(record: Sequence[str], cells: Sequence[str], width: int) -> bool:
    """Whether a cell of a TSV's record holds a tab and a line end, and each line is a row by itself
    where quotes mean nothing: speech that begins in one row and ends in the next looks so."""
    across = any("\t" in cell and ("\n" in cell or "\r" in cell) for cell in cells)
    return across and all(len(_literal(line, "\t")) == width for line in record)


def _literal(line: str, delimiter: str) -> list[str]:
    """The cells of one line whose quotes mean nothing."""
    return line.rstrip("\r\n").split(delimiter)


def _header(cells: list[str], path: Path) -> list[str]:
    """Column names; nameless columns (an index, say) are named by their number."""
    if not cells:
        raise BadData("the file is empty", file=path)
    header = [cell.strip() or f"column {number}" for number, cell in enumerate(cells, 1)]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise BadData(f"several columns are called {listed(twice)}", file=path, line=1)
    return header


def _delimiter(lines: _Lines, preferred: str) -> str:
    """The delimiter that cuts the first line into the most columns; `preferred` where equal.

    Spreadsheets may say it in a first line `sep=;`, which is then not part of the table.
    """
    first = next(lines, "")
    declared = re.fullmatch(r"sep=(.)\r?\n?", first)
    if declared:
        return declared[1]
    lines.take_back(0)
    candidates = [preferred, *DELIMITERS.replace(preferred, "")]
    return max(candidates, key=lambda delimiter: _columns(first, delimiter))


def _columns(line: str, delimiter: str) -> int:
    try:
        return len(next(csv.reader(itertools.chain([line]), delimiter=delimiter), []))
    except csv.Error:
        return 0
