"""A folder of documents, and documents in passages that end at sentences."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mainspring import events
from mainspring.data.kinds import KINDS, Flaw
from mainspring.data.readers import NO_USABLE_ROW, columns, read_rows
from mainspring.data.rows import Row, suffix
from mainspring.data.schema import Field, match_columns
from mainspring.data.skipped import SkipLog
from mainspring.data.sources import DESCRIPTIONS, KNOWN, TEXTS, sources
from mainspring.data.windows import text_windows
from mainspring.errors import BadData, MainspringError, Missing
from mainspring.text import listed

ACCEPTED = ("text", "content", "document", "article", "body", "context", "passage")
TEXT = Field(
    "text",
    "text",
    ACCEPTED,
    "the document",
    lacking=f"no column for the text; the accepted names are {listed(ACCEPTED)}",
)


@dataclass(frozen=True)
class Document:
    """A text and what it is called: its path below the folder, with its place (`Row.place`) in a
    table, or its article and paragraph. No other text of the folder is called so."""

    name: str
    text: str

    @property
    def digest(self) -> str:
        """Changes with the text."""
        return hashlib.blake2b(self.text.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Passage:
    """A part of a document, and where it stands there, in characters."""

    document: str
    start: int
    end: int
    text: str


def documents(place: str | Path, skipped: SkipLog) -> Iterator[Document]:
    """The documents of a file or of a folder and the folders in it, in the order of their names.

    Text files are one each; rows of tables one each, by a column of text; files of questions give
    their contexts. Hidden files, and those whose name begins with "_", do not count. What cannot
    be read goes to `skipped`; files that are left out are told in warnings, those of one reason in
    one. Missing where there is nothing there, BadData where nothing is usable.
    """
    place = Path(place)
    if not place.exists():
        sources(place)  # raises Missing, with the nearest name
    base = place if place.is_dir() else place.parent
    files, unread = document_files(place) if place.is_dir() else ([place], [])
    taken: dict[str, int] = {}
    left: dict[str, list[str]] = {}  # reason -> files
    for file in files:
        name = str(file.relative_to(base))
        try:
            for document in _documents_of(file, name, skipped):
                yield replace(document, name=_free(document.name, taken))
        except MainspringError as error:
            if skipped.strict or place.is_file():
                raise
            reason = error.problem if isinstance(error, BadData) else str(error)
            if not reason.startswith(NO_USABLE_ROW):  # else its rows are in `skipped`
                left.setdefault(reason, []).append(name)
    lost = [_left_out(reason, names) for reason, names in left.items()]
    if not taken:
        reasons = [skipped.summary()] if skipped.total else []
        raise BadData("no usable document: " + "; ".join([*reasons, *lost, *unread]), file=place)
    for line in lost:
        events.warn(f"{place}: {line}")


def document_files(folder: Path) -> tuple[list[Path], list[str]]:
    """The files below a folder that may hold documents, in order, and what is said of those left
    out, which is also a warning. Missing where there are none."""
    files, others = _files(folder)
    unread = [f"left out: {_counted(others)}"] if others else []
    if not files:
        told = "; ".join(["no documents", *unread, f"known suffixes are {', '.join(KNOWN)}"])
        raise Missing(f"{folder}: {told}")
    for line in unread:
        events.warn(f"{folder}: {line}; documents are texts ({', '.join(TEXTS)}) and tables")
    return files, unread


def _files(folder: Path) -> tuple[list[Path], Counter[str]]:
    """The files below a folder that may hold documents, and how many there are of others, by
    suffix. Links to folders are followed, each folder once."""
    root = folder.resolve()
    seen: set[Path] = set()
    files: list[Path] = []
    others: Counter[str] = Counter()

    def leads_on(path: Path) -> bool:
        target = path.resolve()
        if path.name[0] in "._" or target in seen:
            return False
        if path.is_symlink() and target.is_relative_to(root):
            return False  # what is there is read where it stands
        if root.is_relative_to(target):
            others["links to folders that hold this one"] += 1
            return False
        seen.add(target)
        return True

    for at, folders, names in os.walk(folder, followlinks=True):
        here = Path(at)
        folders[:] = [name for name in sorted(folders) if leads_on(here / name)]
        for file in (here / name for name in names if name[0] not in "._"):
            if not file.is_file():
                others["broken links" if file.is_symlink() else "no files"] += 1
            elif suffix(file) not in KNOWN:
                others[suffix(file) or "without a suffix"] += 1
            elif file.name not in DESCRIPTIONS:
                files.append(file)
    return sorted(files), others


def _counted(others: Counter[str]) -> str:
    """ "2 .html, 1 .pdf" """
    return ", ".join(f"{count} {kind}" for kind, count in others.most_common())


def _left_out(reason: str, names: Sequence[str]) -> str:
    """ "34 files left out: no column for the text (first three: a.csv, b.csv, c.csv)" """
    shown = ", ".join(names[:3])
    if len(names) == 1:
        return f"1 file left out: {reason} ({shown})"
    first = "first three: " if len(names) > 3 else ""
    return f"{len(names)} files left out: {reason} ({first}{shown})"


def _free(name: str, taken: dict[str, int]) -> str:
    """The name, or with a number behind it where it is taken: articles may have equal titles.
    `taken` are names with the last number that was tried."""
    free = name
    while free in taken:
        taken[name] += 1
        free = f"{name} ({taken[name]})"
    taken[free] = 1
    return free


def _documents_of(file: Path, name: str, skipped: SkipLog) -> Iterator[Document]:
    [source] = sources(file)
    named: dict[str, str] | None = None
    for row in read_rows(source, skipped):
        for part, value in _texts(row, name, source.kind == "text"):
            if value is None:
                named = named or match_columns((TEXT,), columns(source), file=file)
                value = row.values.get(named[TEXT.name])
            try:
                yield Document(part, KINDS["text"](value))
            except Flaw as flaw:
                skipped.add(flaw.reason, file=row.file, line=row.line, detail=flaw.detail)


def _texts(row: Row, name: str, whole: bool) -> Iterator[tuple[str, Any]]:
    """(name, text) of what a row holds; None where a column is to be looked for."""
    if whole:
        yield name, row.values["text"]
    elif isinstance(row.values.get("paragraphs"), list):
        title = row.values.get("title") or row.place
        for number, paragraph in enumerate(row.values["paragraphs"], 1):
            context = paragraph.get("context") if isinstance(paragraph, dict) else paragraph
            yield f"{name}:{title}:{number}", context or ""
    else:
        yield f"{name}:{row.place}", None


def passages(
    document: Document, count_tokens: Callable[[Sequence[str]], Sequence[int]], limit: int
) -> Iterator[Passage]:
    """The document in passages of at most `limit` tokens that tile it, but for blank ones."""
    for start, end in text_windows(document.text, count_tokens, limit):
        text = document.text[start:end]
        if text.strip():
            yield Passage(document.name, start, end, text)
