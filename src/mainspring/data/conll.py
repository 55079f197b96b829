"""CoNLL files: one token a line with its tag in a later column, blank lines between sentences.

    EU       B-ORG        columns are set apart by tabs, or by blanks where a line has no tab
    rejects  O            lines that begin with "#" before a sentence are comments
                          -DOCSTART- lines are passed over
    ...

Which column holds what is told from the first lines: the tags are the last column of nothing but
`O` and `B-…`, `I-…` (also `E-…`, `S-…`, `L-…`, `U-…`, `M-…`, `W-…`, and `B_…` or `B:…`), else the
last one of nothing but these in small letters, or of `…-B` and `…-I`. The tokens are the first
column, or the second where the first counts (CoNLL-U: ranges like `3-4` and empty nodes like `5.1`
are left out). Files without tags give tokens alone.
"""

import itertools
import lzma
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mainspring.data.entities import BEHIND, FRONT, parse_tag, scheme_of
from mainspring.data.rows import LONGEST_ROW, UNDECODABLE, Row, open_text, suffix
from mainspring.data.skipped import SkipLog

SUFFIXES = (".conll", ".bio", ".iob", ".iob2", ".bioes", ".conllu", ".conllx", ".conll2003")

LOOKED_AT = 1000  # lines that tell the columns

# How tags may be written, the surest first.
TAGS = (
    re.compile(r"O|[BIESLUMW][-_:]\S.*"),
    re.compile(rf"O|{FRONT.pattern}", re.IGNORECASE),
    re.compile(rf"O|{BEHIND.pattern}", re.IGNORECASE),
)
_PLAIN = (".txt", ".text", ".tsv")  # suffixes under which data sets also ship such files
_LOOKED_AT_TEXT = 1 << 18  # characters of such a file
_INDEX = re.compile(r"\d+([-.]\d+)?")
_BLANKS = " \t\r\n"


@dataclass(frozen=True)
class Columns:
    """Where tokens and tags stand, counted from 0; `tag` is None where there are none. `index`
    says that the first column counts the tokens."""

    token: int
    tag: int | None
    index: bool


@dataclass
class _Sentence:
    line: int
    tokens: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    characters: int = 0
    broken: bool = False  # listed already


def read_conll(path: Path, skipped: SkipLog) -> Iterator[Row]:
    """Sentences as rows with `tokens` and, where the file has them, `tags`.

    A line that cannot be read makes its sentence useless: the sentence is skipped, and listed with
    the place of the line.
    """
    with open_text(path) as file:
        head = list(itertools.islice(file, LOOKED_AT))
        columns = find_columns(head)
        sentence = _Sentence(1)
        for number, line in enumerate(itertools.chain(head, file), 1):
            cells = split(line)
            if not cells or cells[0] == "-DOCSTART-":
                yield from _whole(sentence, columns, path)
                sentence = _Sentence(number + 1)
            elif not sentence.broken and not _passed_over(cells, columns, sentence):
                reason, detail = _read(cells, line, columns, sentence)
                if reason:
                    sentence.broken = True
                    skipped.add(reason, file=path, line=number, detail=detail, raw=line)
        yield from _whole(sentence, columns, path)


def is_conll(path: Path) -> bool:
    """Whether a file that may as well be a text or a table is one of words with tags: each line has
    as many columns, one of them of nothing but tags, which tell their scheme."""
    if suffix(path) not in _PLAIN:
        return False
    try:
        with open_text(path) as file:
            lines = file.read(_LOOKED_AT_TEXT + 1).split("\n")
    except (OSError, EOFError, zlib.error, lzma.LZMAError):
        return False  # said where it is read
    if sum(map(len, lines)) + len(lines) > _LOOKED_AT_TEXT:
        lines.pop()  # cut
    lines = lines[:LOOKED_AT]
    rows = [c for line in lines if (c := split(line)) and c[0] != "-DOCSTART-"]
    columns = find_columns(lines)
    if columns.tag is None or len({len(cells) for cells in rows}) != 1:
        return False
    tags = [cells[columns.tag] for cells in rows]
    scheme = scheme_of(tags)
    return scheme not in (None, "bare") and all(parse_tag(tag, scheme)[0] for tag in tags)


def split(line: str) -> list[str]:
    """The cells of a line; none for a blank one. Only ASCII blanks part cells: others may be
    tokens."""
    line = line.strip("\r\n")
    if not line.strip(_BLANKS):
        return []
    return line.split("\t") if "\t" in line else re.split(" +", line.strip(" "))


def find_columns(lines: Sequence[str]) -> Columns:
    """Which column holds the tokens and which the tags, told from the first lines of a file."""
    rows = [cells for line in lines if (cells := split(line)) and cells[0] != "-DOCSTART-"]
    plain = [cells for cells in rows if not cells[0].startswith("#")]
    rows = plain or rows
    if not rows:
        return Columns(0, None, False)
    widths = [len(cells) for cells in rows]
    width = max(set(widths), key=widths.count)
    rows = [cells for cells in rows if len(cells) == width]
    index = width > 1 and all(_INDEX.fullmatch(cells[0]) for cells in rows) and rows[0][0] == "1"
    token = int(index)
    for form, column in itertools.product(TAGS, range(width - 1, token, -1)):
        fitting = sum(form.fullmatch(cells[column]) is not None for cells in rows)
        # One wrong tag in a hundred is a broken line, not another kind of column.
        if fitting >= 0.99 * len(rows):
            return Columns(token, column, index)
    # Tags that name types alone (PER, O) are told by their O.
    named = width - 1 > token and any(cells[-1] in ("O", "o") for cells in rows)
    return Columns(token, width - 1 if named else None, index)


def _passed_over(cells: list[str], columns: Columns, sentence: _Sentence) -> bool:
    """Whether a line is a comment, or one that CoNLL-U adds between tokens."""
    if columns.index and _INDEX.fullmatch(cells[0]) and not cells[0].isdigit():
        return True
    if not cells[0].startswith("#") or sentence.tokens:
        return False
    # A token may be "#" itself: with a tag where tags stand it is no comment.
    tag = columns.tag
    if tag is None:
        return cells[0] == "#" and len(cells) > columns.token + 1
    return len(cells) <= tag or not any(form.fullmatch(cells[tag]) for form in TAGS)


def _read(cells: list[str], line: str, columns: Columns, sentence: _Sentence) -> tuple[str, str]:
    """Puts a token into the sentence; (reason, detail) where it cannot."""
    if UNDECODABLE in line:
        return "undecodable bytes", ""
    if len(cells) <= columns.token or not cells[columns.token].strip(_BLANKS):
        return "no token", ""
    if columns.tag is not None:
        if len(cells) <= columns.tag or not cells[columns.tag].strip(_BLANKS):
            return "no tag", f"{len(cells)} columns, the tag is column {columns.tag + 1}"
        sentence.tags.append(cells[columns.tag].strip(_BLANKS))
    sentence.tokens.append(cells[columns.token])
    sentence.characters += len(line)
    if sentence.characters > LONGEST_ROW:
        return "too long", f"more than {LONGEST_ROW} characters without a blank line"
    return "", ""


def _whole(sentence: _Sentence, columns: Columns, path: Path) -> Iterator[Row]:
    if sentence.tokens and not sentence.broken:
        values = {"tokens": sentence.tokens}
        if columns.tag is not None:
            values["tags"] = sentence.tags
        yield Row(values, str(path), sentence.line)
