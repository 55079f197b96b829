"""What all readers share: the row with its place, and text files opened the same way."""

import bz2
import codecs
import gzip
import lzma
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TextIO, cast

from mainspring.errors import BadOption

# Stands for bytes that are not valid in the file's encoding: a code point that Unicode keeps free
# for internal use, so that a damaged place survives parsing and its row can be named.
UNDECODABLE = "\ufdd0"

UNDECODABLE_BYTES = "undecodable bytes"  # the reason for which such a row is skipped

# One row may not be longer than this many characters. It bounds memory where a quote or a bracket
# is never closed and the rest of the file would look like one row.
LONGEST_ROW = 1 << 24

LOOKED_AT = 1 << 18  # bytes of a file whose encoding is to be told

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
    Parquet and Arrow. `nth` counts the rows that begin in this line, of which JSON may have many.
    """

    values: dict[str, Any]
    file: str
    line: int
    nth: int = 1

    @property
    def place(self) -> str:
        """What no other row of the file has: its line, "7"; "7.2" for the second in this line."""
        return place_of(self.line, self.nth)


def place_of(line: int, nth: int) -> str:
    """How the `nth` of what begins in a line is named."""
    return str(line) if nth == 1 else f"{line}.{nth}"


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


_encoding: ContextVar[str] = ContextVar("encoding", default="utf-8")


@contextmanager
def reading_as(encoding: str | None) -> Iterator[None]:
    """While it is open, text files without a mark of their own are read in this encoding; in UTF-8
    where it is None. BadOption where there is none of that name."""
    before = _encoding.get()
    if encoding is not None:
        try:
            codecs.lookup(encoding)
            "".encode(encoding)  # some codecs turn bytes into bytes
        except LookupError:
            raise BadOption(
                f"--encoding: no text encoding is called `{encoding}`; "
                "gb18030, big5, shift_jis, euc_kr, cp1252 and latin-1 are some"
            ) from None
    _encoding.set(encoding or "utf-8")
    try:
        yield
    finally:
        _encoding.set(before)


def open_text(path: Path, *, newline: str | None = None) -> TextIO:
    """The file as text: in the encoding of `reading_as`, or UTF-8, -16 or -32 where it begins with
    that mark.

    Line ends become "\\n" (with `newline=""` they stay), the mark at the beginning goes, and
    undecodable bytes become `UNDECODABLE` instead of ending the reading.
    """
    with open_bytes(path) as file:
        head = file.read(4)
    encoding = next((name for mark, name in MARKS if head.startswith(mark)), _encoding.get())
    opener = COMPRESSED.get(path.suffix.lower(), open)
    how = {"encoding": encoding, "errors": "mainspring-undecodable", "newline": newline}
    return cast(TextIO, opener(path, "rt", **how))


# Pages of one byte a letter, which few letters tell apart: those that are met most, the likeliest
# first, and the languages that are told well enough to choose another.
PAGES = ["cp1252", "cp1250", "cp1254"]
OF_LANGUAGE = {"Turkish": "cp1254", "Hungarian": "cp1250"}
LATIN = re.compile("cp125[0247]|cp(437|775|85.)|latin|iso8859_(1|2|3|4|9|1[03456])$|mac_|hp_")


def likely_encodings(path: Path) -> tuple[str, ...]:
    """What the encoding of a text file which is not UTF-8 may be, the likeliest first; nothing
    where that is not clear, or where only some of its lines are not UTF-8."""
    from charset_normalizer import from_bytes

    with open_bytes(path) as file:
        lines = [line for line in file.read(LOOKED_AT).splitlines(keepends=True) if line]
    telling = [line for line in lines if not line.isascii()]
    if any(_is_utf8(line) for line in telling[:-1]):  # the last may be cut
        return ()
    sample = b"".join(telling)
    found = from_bytes(sample).best()
    if found is None or found.encoding in ("utf_8", "ascii"):
        return ()
    latin = max(
        from_bytes(sample, cp_isolation=PAGES), key=lambda read: read.coherence, default=None
    )
    if LATIN.match(found.encoding) or (latin is not None and not found.languages):
        page = OF_LANGUAGE.get(latin.language, PAGES[0]) if latin is not None else PAGES[0]
        return page, PAGES[1] if page == PAGES[0] else PAGES[0]
    return (found.encoding,)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _mark_undecodable(error: UnicodeError) -> tuple[str, int]:
    if isinstance(error, UnicodeDecodeError):
        return UNDECODABLE, error.end
    raise error


codecs.register_error("mainspring-undecodable", _mark_undecodable)


def flaw(text: str) -> str | None:
    """Why `text` cannot be used as text, or None where it can."""
    if UNDECODABLE in text:
        return UNDECODABLE_BYTES
    if "\0" in text:
        return "NUL characters"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return "half of a surrogate pair"
    return None
