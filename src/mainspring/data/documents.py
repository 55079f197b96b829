"""Plain text: whole documents, pieces of long texts, and pairs of texts."""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from mainspring.data.rows import LONGEST_ROW, UNDECODABLE, Row, open_text, suffix
from mainspring.data.skipped import SkipLog
from mainspring.languages import is_code
from mainspring.text import sentences

LONGEST_LINE = 1 << 20


def read_document(path: Path, skipped: SkipLog) -> Iterator[Row]:
    """The file as one row with the column `text`, its line ends as they are, for offsets count
    them."""
    text = read_whole(path, skipped, newline="")
    if text is not None:
        yield Row({"text": text}, str(path), 1)


def read_pieces(path: Path, skipped: SkipLog, *, size: int) -> Iterator[Row]:
    """The file in pieces of at most `size` characters, one row each, in the column `text`; every
    line end is `\\n`."""
    with open_text(path) as file:
        # A line may be the whole file: it is read in parts.
        for line, piece in pieces(iter(lambda: file.readline(LONGEST_LINE), ""), size):
            if UNDECODABLE in piece:
                skipped.add("undecodable bytes", file=path, line=line, raw=piece)
            else:
                yield Row({"text": piece}, str(path), line)


def read_line_pairs(source: Path, target: Path, skipped: SkipLog) -> Iterator[Row]:
    """Line n of one file with line n of the other. The columns are `source` and `target`, or the
    languages that the files' suffixes name (`train.en`, `train.de`)."""
    names = [file_language(file) for file in (source, target)]
    columns = names if all(names) else ["source", "target"]
    with open_text(source, newline="\n") as sources, open_text(target, newline="\n") as targets:
        both = itertools.zip_longest(_lines(sources), _lines(targets))
        for line, (left, right) in enumerate(both, 1):
            if left is None or right is None:
                short, long = (source, target) if left is None else (target, source)
                detail = f"{short.name} has no line {line}"
                raw = (left or "") + (right or "")
                skipped.add("missing partner", file=long, line=line, detail=detail, raw=raw)
            elif UNDECODABLE in left + right:
                skipped.add("undecodable bytes", file=source, line=line, raw=left)
            else:
                yield Row(dict(zip(columns, (left, right), strict=True)), str(source), line)


def _lines(file: TextIO) -> Iterator[str]:
    """The lines of a file whose ends stay, without them: LF or CR LF. A CR by itself ends no line,
    or the two sides would part from there on; but all do where a file has no other end."""
    for number, line in enumerate(file):
        if not number and not line.endswith("\n"):
            yield from line.removesuffix("\r").split("\r")
        else:
            yield line.removesuffix("\n").removesuffix("\r").replace("\r", " ")


def file_language(file: Path) -> str:
    """The language that a file's suffix names, or "" where it names none."""
    code = suffix(file)[1:]
    return code if is_code(code) else ""


def read_file_pairs(source: Path | None, target: Path | None, skipped: SkipLog) -> Iterator[Row]:
    """Two whole files as the columns `source` and `target`; None where one is not there."""
    there = source or target
    if source is None or target is None:
        if there is not None:
            missing = "source" if source is None else "target"
            detail = f"no {missing} text for it"
            skipped.add("missing partner", file=there, line=1, detail=detail)
        return
    left, right = read_whole(source, skipped), read_whole(target, skipped)
    if left is not None and right is not None:
        yield Row({"source": left, "target": right.strip()}, str(source), 1)


def read_whole(path: Path, skipped: SkipLog, *, newline: str | None = None) -> str | None:
    """The text of a file; None where it cannot be used, which is listed. `newline` as in `open`:
    with "" line ends stay as they are."""
    with open_text(path, newline=newline) as file:
        text = file.read(LONGEST_ROW + 1)
    if len(text) > LONGEST_ROW:
        detail = f"more than {LONGEST_ROW} characters in one document"
        skipped.add("too long", file=path, line=1, detail=detail, raw=text[:400])
        return None
    if UNDECODABLE in text:
        line = text.count("\n", 0, text.index(UNDECODABLE)) + 1
        skipped.add("undecodable bytes", file=path, line=line, raw=text[:400])
        return None
    return text


def pieces(lines: Iterable[str], size: int) -> Iterator[tuple[int, str]]:
    """(line where it begins, text) of pieces of at most `size` characters.

    Together the pieces are the text, character for character, but for pieces of nothing but
    blanks. A piece ends at a blank line where one comes in its second half, else at a line end,
    else (in a line longer than `size`) at a sentence end, else at a blank, else anywhere.
    """
    held: list[str] = []
    length, begin, number = 0, 1, 1
    for line in lines:
        if held and length + len(line) > size:
            yield from _unless_blank(begin, "".join(held))
            held, length = [], 0
        if not held:
            begin = number
        if len(line) > size:
            for part in _cut(line, size):
                yield from _unless_blank(number, part)
        else:
            held.append(line)
            length += len(line)
            if not line.strip() and length > size // 2:
                yield from _unless_blank(begin, "".join(held))
                held, length = [], 0
        number += line.endswith("\n")
    yield from _unless_blank(begin, "".join(held))


def _unless_blank(line: int, text: str) -> Iterator[tuple[int, str]]:
    if text.strip():
        yield line, text


def _cut(line: str, size: int) -> Iterator[str]:
    """A line longer than `size` in parts of at most `size`, sentences whole where they fit."""
    part = ""
    for start, end in sentences(line):
        sentence = line[start:end]
        if part and len(part) + len(sentence) > size:
            yield part
            part = ""
        while len(sentence) > size:
            at = sentence.rfind(" ", size // 2, size) + 1 or size
            yield sentence[:at]
            sentence = sentence[at:]
        part += sentence
    if part:
        yield part
