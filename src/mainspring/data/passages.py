"""A folder of documents, and documents in passages that end at sentences."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mainspring import events
from mainspring.data.kinds import KINDS, Flaw
from mainspring.data.readers import columns, read_rows
from mainspring.data.rows import Row, suffix
from mainspring.data.schema import Field, match_columns
from mainspring.data.skipped import SkipLog
from mainspring.data.sources import DESCRIPTIONS, KNOWN, sources
from mainspring.data.windows import text_windows
from mainspring.errors import BadData, MainspringError, Missing

TEXT = Field(
    "text",
    "text",
    ("text", "content", "document", "article", "body", "context", "passage"),
    "the document",
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
    be read goes to `skipped`. Missing where there is nothing there, BadData where nothing is
    usable.
    """
    place = Path(place)
    if not place.exists():
        sources(place)  # raises Missing, with the nearest name
    base = place if place.is_dir() else place.parent
    files = _files(place) if place.is_dir() else [place]
    if not files:
        raise Missing(f"{place}: no documents; known suffixes are {', '.join(KNOWN)}")
    taken: dict[str, int] = {}
    for file in files:
        try:
            for document in _documents_of(file, str(file.relative_to(base)), skipped):
                yield replace(document, name=_free(document.name, taken))
        except MainspringError as error:
            if skipped.strict:
                raise
            events.warn(f"left out: {error}")
    if not taken:
        raise BadData(f"no usable document: {skipped.summary()}", file=place)


def _free(name: str, taken: dict[str, int]) -> str:
    """The name, or with a number behind it where it is taken: articles may have equal titles.
    `taken` are names with the last number that was tried."""
    free = name
    while free in taken:
        taken[name] += 1
        free = f"{name} ({taken[name]})"
    taken[free] = 1
    return free


def _files(folder: Path) -> list[Path]:
    return [
        file
        for file in sorted(folder.rglob("*"))
        if file.is_file()
        and suffix(file) in KNOWN
        and file.name not in DESCRIPTIONS
        and not any(part[0] in "._" for part in file.relative_to(folder).parts)
    ]


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
