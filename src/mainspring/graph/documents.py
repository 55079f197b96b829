"""What documents are called: the IRI under which a text of the user's stands in the graph."""

import os
from collections.abc import Collection, Iterable
from pathlib import Path
from urllib.parse import quote

from mainspring.data.rows import Row, suffix
from mainspring.data.sources import TEXTS
from mainspring.errors import BadOption
from mainspring.graph.records import Document
from mainspring.graph.vocabulary import BASE, digest, is_iri

NOT_FILES = ("argument", "standard input")


def shown(path: Path) -> str:
    """A file's name as text: bytes that are no UTF-8 as the mark for what cannot be shown."""
    return os.fsencode(path).decode("utf-8", "replace")


def document_of(row: Row, text: str, id_column: str | None, lines: bool) -> Document:
    """The document that a row is: a whole text file is named by the file, a row of a table by its
    place (`Row.place`), or by `id_column`, and a bare text by what it says. BadOption where there
    is no such column."""
    if row.file in NOT_FILES:
        return Document(f"{BASE}text/{digest(text)}", text, row.file)
    path = Path(row.file)
    file = path.resolve().as_uri()
    place = shown(path)
    if suffix(path) in TEXTS and not lines:
        return Document(file, text, place)
    if id_column is not None:
        if id_column not in row.values:
            raise BadOption(f"--id: {BadOption.unknown('column', id_column, row.values)}")
        name = str(row.values[id_column])
        return Document(f"{file}#id={quote(name, safe='')}", text, f"{place}, {name}")
    return Document(f"{file}#line={row.place}", text, f"{place}:{row.place}")


def gone(documents: Iterable[str], seen: Collection[str], blank: Iterable[Path]) -> list[str]:
    """Those of the graph's documents that their files hold no longer: files of which these names
    were `seen` now, and others that are `blank`."""
    files = {name.partition("#")[0] for name in seen if name.startswith("file:")}
    files |= {file.resolve().as_uri() for file in blank}

    def was_read(name: str) -> bool:  # the triples of a table have its name alone
        file, mark, _ = name.partition("#")
        return file in files and (bool(mark) or file.endswith(TEXTS))

    return [name for name in documents if name not in seen and was_read(name)]


def named(documents: list[str], name: str) -> list[str]:
    """The documents that `name` means: an IRI, a file with all its rows, or all in a folder."""
    wanted = name if is_iri(name) else Path(name).resolve().as_uri()
    folder = wanted.rstrip("/") + "/"
    return [d for d in documents if d == wanted or d.startswith((wanted + "#", folder))]
