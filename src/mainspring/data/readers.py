"""Rows from any source: one reader per format, chosen by suffix from one table."""

import itertools
import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from mainspring.data.audio import SUFFIXES as SOUNDS
from mainspring.data.audio import read_recording
from mainspring.data.brat import SUFFIX as BRAT_SUFFIX
from mainspring.data.brat import read_brat
from mainspring.data.conll import SUFFIXES as CONLL_SUFFIXES
from mainspring.data.conll import read_conll
from mainspring.data.delimited import read_csv, read_tsv
from mainspring.data.documents import (
    read_document,
    read_file_pairs,
    read_line_pairs,
    read_pieces,
)
from mainspring.data.json_rows import read_json, read_jsonl
from mainspring.data.rows import Row, suffix
from mainspring.data.skipped import SkipLog
from mainspring.data.sources import Source, sources
from mainspring.data.tables import read_arrow, read_parquet
from mainspring.data.tmx import read_tmx
from mainspring.errors import BadData

__all__ = ["READERS", "Row", "Source", "columns", "read_rows", "sources"]

READERS: dict[str, Callable[[Path, SkipLog], Iterator[Row]]] = {
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".json": read_json,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
    ".feather": read_arrow,
    ".tmx": read_tmx,
    ".txt": read_document,
    ".text": read_document,
    ".md": read_document,
    **dict.fromkeys(CONLL_SUFFIXES, read_conll),
    BRAT_SUFFIX: read_brat,
    **dict.fromkeys(SOUNDS, read_recording),
}

CLASS = "label"  # the column of the folder's name, where it is the class of the texts in it
NO_USABLE_ROW = "no usable row"  # how it is said that all are in the log of skipped rows
COLUMNS_FROM = 100  # rows; objects in JSON need not all have the same keys


def read_rows(
    source: Source | str | Path, skipped: SkipLog, *, piece: int | None = None
) -> Iterator[Row]:
    """The rows of a source, or of all that a path holds, in order and in constant memory.

    Broken rows go to `skipped`; a file that cannot be read at all counts as one. Plain texts give
    one row per document, or with `piece` rows of at most that many characters. Raises BadData at
    the end where there was no row at all.
    """
    read, before = 0, skipped.total
    for one in [source] if isinstance(source, Source) else sources(source):
        for row in _rows_of(one, skipped, piece):
            read += 1
            yield row
    if not read:
        places = source.files if isinstance(source, Source) else (source,)
        why = f"{NO_USABLE_ROW}: {skipped.summary()}" if skipped.total > before else "no rows in it"
        raise BadData(why, file=next((str(place) for place in places if place), None))


def columns(source: Source | str | Path) -> list[str]:
    """The names of the columns, from the first hundred rows."""
    with SkipLog() as skipped:
        first = itertools.islice(read_rows(source, skipped), COLUMNS_FROM)
        return list(dict.fromkeys(name for row in first for name in row.values))


def _rows_of(source: Source, skipped: SkipLog, piece: int | None) -> Iterator[Row]:
    match source.kind:
        case "line pairs":
            for left, right in _twos(source.files):
                if left is not None and right is not None:
                    yield from read_line_pairs(left, right, skipped)
        case "file pairs":
            for left, right in _twos(source.files):
                yield from read_file_pairs(left, right, skipped)
        case "classes":
            for text in filter(None, source.files):
                for row in _rows_of_file(text, read_document, skipped, piece):
                    yield replace(row, values={**row.values, CLASS: text.parent.name})
        case kind:
            for file in source.files:
                if file is not None:
                    reader = read_conll if kind == "words" else READERS[suffix(file)]
                    yield from _rows_of_file(file, reader, skipped, piece)


def _rows_of_file(
    file: Path,
    reader: Callable[[Path, SkipLog], Iterator[Row]],
    skipped: SkipLog,
    piece: int | None,
) -> Iterator[Row]:
    try:
        if reader is read_document and piece is not None:
            yield from read_pieces(file, skipped, size=piece)
        else:
            yield from _numbered(reader(file, skipped))
    except (BadData, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        if skipped.strict:
            raise
        skipped.add("unreadable file", file=file, line=1, detail=str(error))


def _numbered(rows: Iterator[Row]) -> Iterator[Row]:
    """The rows of a file, told apart where several begin in one line."""
    line = nth = 0
    for row in rows:
        nth = nth + 1 if row.line == line else 1
        line = row.line
        yield row if nth == 1 else replace(row, nth=nth)


def _twos(files: tuple[Path | None, ...]) -> Iterator[tuple[Path | None, Path | None]]:
    return zip(files[::2], files[1::2], strict=True)
