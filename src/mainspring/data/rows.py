"""What all readers share: the row with its place, and text files opened the same way."""

import bz2
import codecs
import gzip
import lzma
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TextIO, cast

# Stands for bytes that are not valid in the file's encoding: a code point that Unicode keeps free
# for internal use, so that a damaged place survives parsing and its row can be named.
UNDECODABLE = "\ufdd0"

# One row may not be longer than this many characters. It bounds memory where a quote or a bracket
# is never closed and the rest of the file would look like one row.
LONGEST_ROW = 1 << 24

COMPRESSED: dict[str, Callable[..., Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
}

MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True)
class Row:
    """One row of the user's data and where it stands.

    `line` counts from 1: the line where the row begins in text files, the number of the row in
    Parquet and Arrow.
    """

    values: dict[str, Any]
    file: str
    line: int


def suffix(path: Path) -> str:
    """The suffix that tells the format, in lower case, without that of a compression."""
    name = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path
    return name.suffix.lower()


def stem(path: Path) -> str:
    """The name without the suffix that tells the format and that of a compression."""
    return (path.with_suffix("") if path.suffix.lower() in COMPRESSED else path).stem


def open_bytes(path: Path) -> IO[bytes]:
    """The file's bytes, decompressed."""
    return cast(IO[bytes], COMPRESSED.get(path.suffix.lower(), open)(path, "rb"))


def open_text(path: Path) -> TextIO:
    """The file as text: UTF-8, or UTF-16/32 where it begins with that mark.

    Line ends become "\\n", the mark at the beginning goes, and undecodable bytes become
    `UNDECODABLE` instead of ending the reading.
    """
    with open_bytes(path) as file:
        head = file.read(4)
    encoding = next((name for mark, name in MARKS if head.startswith(mark)), "utf-8")
    opener = COMPRESSED.get(path.suffix.lower(), open)
    return cast(TextIO, opener(path, "rt", encoding=encoding, errors="mainspring-undecodable"))


def _mark_undecodable(error: UnicodeError) -> tuple[str, int]:
    if isinstance(error, UnicodeDecodeError):
        return UNDECODABLE, error.end
    raise error


codecs.register_error("mainspring-undecodable", _mark_undecodable)


def flaw(text: str) -> str | None:
    """Why `text` cannot be used as text, or None where it can."""
    if UNDECODABLE in text:
        return "undecodable bytes"
    if "\0" in text:
        return "NUL characters"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return "half of a surrogate pair"
    return None
