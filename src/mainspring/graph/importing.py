"""Triples that are there already: tables with a head, a relation and a tail, and RDF files.

A file becomes one document; every triple says its line. Large files go in many transactions, and
the document counts as done with the last.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainspring import events
from mainspring.data.readers import columns, read_rows, sources
from mainspring.data.rows import Row, open_bytes, open_text, place_of, suffix
from mainspring.data.schema import Field, examples, match_columns
from mainspring.data.skipped import SkipLog
from mainspring.errors import BadData
from mainspring.graph import vocabulary as v
from mainspring.graph.documents import shown
from mainspring.graph.store import GraphStore, Written
from mainspring.graph.writing import Iri, Origin, Triples, describe_document, state, triple
from mainspring.text import listed

if TYPE_CHECKING:
    import pyoxigraph as ox

FIELDS = (
    Field("head", "label", ("head", "subject", "source", "from"), "what the triple is about"),
    Field("relation", "label", ("relation", "predicate", "property"), "how both stand"),
    Field("tail", "label", ("tail", "object", "target", "to"), "what it is related to"),
    Field("head_type", "text?", ("head_type", "subject_type"), "what kind of thing", False),
    Field("tail_type", "text?", ("tail_type", "object_type"), "what kind of thing", False),
    Field("score", "any", ("score", "confidence", "weight"), "how sure, 0 to 1", False),
)
BARE = ("head", "relation", "tail")  # the columns of a table without a header
RDF_FILES = (".nt", ".ttl")
TOGETHER = 2_000  # triples a transaction


@dataclass(frozen=True)
class Imported:
    """What an import did: triples written, and whether the file was there, the same, before."""

    triples: int
    done_before: bool = False


@dataclass(frozen=True)
class Stated:
    """One triple of a file, with what else is said of its ends, and where: it is the `nth` of its
    line."""

    triple: "ox.Triple"
    beside: "frozenset[ox.Triple]" = frozenset()
    line: int | None = None
    score: float | None = None
    nth: int = 1


def import_file(
    path: Path, store: GraphStore, skipped: SkipLog, named: Mapping[str, str] | None = None
) -> Imported:
    """Puts the triples of a file into the graph, in the place of what it said before. Broken rows
    go to `skipped`; BadData where none is left, or where an RDF file cannot be read: the file is
    read to its end before anything is written. `named` are columns by field."""
    iri = path.resolve().as_uri()
    content, key = _content(path), v.digest("import 2", sorted((named or {}).items()))
    if store.is_done(iri, content, key):
        return Imported(0, done_before=True)

    def read(log: SkipLog) -> Iterator[Stated]:
        if suffix(path) in RDF_FILES:
            return _rdf(path, iri, log)
        return _table(path, store.base, log, named)

    with SkipLog(strict=skipped.strict) as unlisted, events.listening(lambda event: None):
        total = sum(1 for _ in read(unlisted))
    if not total:
        raise BadData(f"no usable triple: {unlisted.summary() or 'the file is empty'}", file=path)
    rest = Triples()
    describe_document(rest, iri, shown(path), content, Origin((), key, datetime.now(UTC)))
    store.remove([iri])
    count = 0
    for chunk in _chunks(read(skipped)):
        store.add(_written(iri, count, chunk))
        count += len(chunk)
        events.emit(events.Progress("import", count, total, "triples"))
    events.emit(events.Progress("import", count, count, "triples"))
    store.add(Written(iri, frozenset(), frozenset(rest.held)))
    return Imported(count)


def _content(path: Path) -> str:
    with open_bytes(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def _chunks(read: Iterable[Stated]) -> Iterator[list[Stated]]:
    items = iter(read)
    while chunk := list(islice(items, TOGETHER)):
        yield chunk


def _written(iri: str, before: int, chunk: Iterable[Stated]) -> Written:
    facts, rest = set(), Triples()
    for number, stated in enumerate(chunk, before + 1):
        facts |= {stated.triple, *stated.beside}
        if stated.triple.predicate.value in (v.TYPE, v.LABEL):
            continue
        place = f"triple={number}"
        if stated.line is not None:
            place = f"line={place_of(stated.line, stated.nth)}"
        statement = v.part_iri(iri, place)
        state(rest, statement, stated.triple, iri)
        if stated.line is not None:
            rest.add(statement, v.LINE, stated.line)
        if stated.score is not None:
            rest.add(statement, v.SCORE, stated.score)
    return Written(iri, frozenset(facts), frozenset(rest.held))


# -- tables ----------------------------------------------------------------------------------------


def _table(
    path: Path, base: str, skipped: SkipLog, named: Mapping[str, str] | None
) -> Iterator[Stated]:
    for source in sources(path):
        there = columns(source)
        rows = read_rows(source, skipped)
        if not named and len(there) == len(BARE) and not _is_header(there):
            events.note(f"{path}: no header, so the columns are {listed(BARE)}")
            rows = _unheaded(there, rows, path)
            there = list(BARE)
        matched = match_columns(FIELDS, there, named, file=path)
        for example in examples(rows, FIELDS, matched, skipped):
            try:
                yield _stated(example.values, example.row, base)
            except ValueError as error:
                raw = str(example.row.values)
                line = example.row.line
                skipped.add("bad triple", file=path, line=line, detail=str(error), raw=raw)


def _is_header(names: list[str]) -> bool:
    accepted = {name for field in FIELDS for name in field.accepted}
    return any(name.strip().casefold() in accepted for name in names)


def _unheaded(first: list[str], rows: Iterable[Row], path: Path) -> Iterator[Row]:
    yield Row(dict(zip(BARE, first, strict=True)), str(path), 1)
    for row in rows:
        yield Row(dict(zip(BARE, row.values.values(), strict=True)), row.file, row.line, row.nth)


def _stated(values: Mapping[str, Any], row: Row, base: str) -> Stated:
    beside = Triples()
    ends = []
    for end in ("head", "tail"):
        name, kind = values[end], values.get(f"{end}_type") or ""
        iri = name if v.is_iri(name) else v.entity_iri(base, name, kind)
        if not v.is_iri(name):
            beside.add(iri, v.LABEL, name)
        if kind:
            beside.add(iri, v.TYPE, Iri(v.type_iri(base, kind)))
            beside.add(v.type_iri(base, kind), v.LABEL, kind)
        ends.append(iri)
    relation = values["relation"]
    predicate = relation if v.is_iri(relation) else v.relation_iri(base, relation)
    if not v.is_iri(relation):
        beside.add(predicate, v.LABEL, " ".join(relation.replace("_", " ").split()) or relation)
    score = values.get("score")
    number = None if score in (None, "") else float(score)
    if number is not None and not 0 <= number <= 1:
        raise ValueError(f"the score {score} is not between 0 and 1")
    return Stated(
        triple(ends[0], predicate, Iri(ends[1])), frozenset(beside.held), row.line, number, row.nth
    )


# -- RDF -------------------------------------------------------------------------------------------


def _rdf(path: Path, iri: str, skipped: SkipLog) -> Iterator[Stated]:
    import pyoxigraph as ox

    if suffix(path) == ".ttl":
        with open_bytes(path) as file:
            try:
                for quad in ox.parse(file, format=ox.RdfFormat.TURTLE, base_iri=iri):
                    yield Stated(_named(quad.triple, iri))
            except (SyntaxError, OSError) as error:
                raise BadData(f"not readable as Turtle: {error}", file=path) from None
        return
    with open_text(path) as file:
        for line, text in enumerate(file, 1):
            try:
                found = [quad.triple for quad in ox.parse(text, format=ox.RdfFormat.N_TRIPLES)]
            except (SyntaxError, ValueError) as error:
                skipped.add("bad triple", file=path, line=line, detail=str(error), raw=text)
                continue
            for triple in found:
                yield Stated(_named(triple, iri), line=line)


def _named(triple: "ox.Triple", document: str) -> "ox.Triple":
    """A triple whose blank nodes have names, which are the same whenever the file is read."""
    import pyoxigraph as ox

    def name(node: Any) -> Any:
        if isinstance(node, ox.BlankNode):
            return ox.NamedNode(v.part_iri(document, f"node={v.slug(node.value)}"))
        return node

    return ox.Triple(name(triple.subject), triple.predicate, name(triple.object))
