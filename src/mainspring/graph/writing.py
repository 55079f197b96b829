"""What was found in a document, as RDF.

Provenance is by reification: a `rdf:Statement` for each triple and place, in the document's graph.
RDF 1.1 tools read it, and SPARQL asks for it with plain patterns:

    SELECT ?document ?text ?score WHERE { GRAPH ?document {
        ?statement rdf:subject ?who ; rdf:predicate relation:born_in ;
                   nif:anchorOf ?text ; term:score ?score } }

RDF-star's quoted triples would be shorter, but there is one statement a place, each with its own
span and score, so they need a node of their own anyway; and few tools read them yet.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mainspring.graph import vocabulary as v
from mainspring.graph.linking import Link
from mainspring.graph.records import Document, Mention, Relation
from mainspring.graph.store import DONE, Written
from mainspring.text import sentences

if TYPE_CHECKING:
    import pyoxigraph as ox


@dataclass(frozen=True)
class Origin:
    """How a document was read: the models, the key of all settings, and when."""

    models: tuple[str, ...]
    key: str
    time: datetime


class Iri(str):
    """A text that is the name of a node."""

    __slots__ = ()


class Triples:
    """Triples by name instead of node, each once."""

    def __init__(self) -> None:
        self.held: set[ox.Triple] = set()

    def add(self, subject: str, predicate: str, *objects: Any) -> None:
        for object_ in objects:
            self.held.add(triple(subject, predicate, object_))


def triple(subject: str, predicate: str, object_: Any) -> "ox.Triple":
    import pyoxigraph as ox

    return ox.Triple(ox.NamedNode(subject), ox.NamedNode(predicate), node(object_))


def node(value: Any) -> "ox.NamedNode | ox.Literal":
    """A value as RDF: fractions with four digits, times in UTC to the second."""
    import pyoxigraph as ox

    match value:
        case ox.NamedNode() | ox.Literal():
            return value
        case Iri():
            return ox.NamedNode(value)
        case str():
            return ox.Literal(value)
        case int():
            return ox.Literal(str(value), datatype=ox.NamedNode(v.XSD + "integer"))
        case float():
            return ox.Literal(f"{value:.4f}", datatype=ox.NamedNode(v.XSD + "decimal"))
        case datetime():
            second = value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            return ox.Literal(second, datatype=ox.NamedNode(v.XSD + "dateTime"))
        case _:
            raise TypeError(f"no RDF for {type(value).__name__}")


def write_document(
    document: Document,
    links: Sequence[tuple[Mention, Link]],
    relations: Iterable[Relation],
    spans: Sequence[tuple[int, int]],
    content: str,
    origin: Origin,
    base: str,
) -> Written:
    """The graph of a document: its entities and relations, and where each stands.

    Offsets are those of the document's text, `spans` are its passages in order. A relation's
    evidence are the sentences that its mentions stand in.
    """
    facts, rest = Triples(), Triples()
    describe_document(rest, document.iri, document.place, content, origin)
    entity = {(mention.start, mention.end): found.iri for mention, found in links}
    for mention, found in links:
        _write_entity(facts, found, base)
        _write_mention(rest, document.iri, mention, found)
    for relation in relations:
        head, tail = (_place(mention) for mention in (relation.head, relation.tail))
        predicate = v.relation_iri(base, relation.name)
        fact = triple(entity[head], predicate, Iri(entity[tail]))
        facts.held.add(fact)
        facts.add(predicate, v.LABEL, relation.name)
        statement = v.part_iri(document.iri, f"statement={v.digest(head, predicate, tail)[:16]}")
        state(rest, statement, fact, document.iri)
        begin, end = _evidence(document.text, spans, min(head[0], tail[0]), max(head[1], tail[1]))
        _write_span(rest, statement, begin, end, document.text[begin:end])
        rest.add(statement, v.HEAD_MENTION, Iri(_mention_iri(document.iri, head)))
        rest.add(statement, v.TAIL_MENTION, Iri(_mention_iri(document.iri, tail)))
        if relation.score is not None:
            rest.add(statement, v.SCORE, float(relation.score))
    return Written(document.iri, frozenset(facts.held), frozenset(rest.held))


def describe_document(rest: Triples, iri: str, place: str, content: str, origin: Origin) -> None:
    """The document itself, what read it and when, and that this is done."""
    reading = v.part_iri(iri, "reading")
    rest.add(iri, v.TYPE, Iri(v.DOCUMENT))
    rest.add(iri, v.DCTERMS + "source", place)
    rest.add(iri, v.CONTENT, content)
    rest.add(iri, v.SETTINGS, origin.key)
    rest.add(iri, v.STATE, DONE)
    rest.add(reading, v.TYPE, Iri(v.PROV + "Activity"))
    rest.add(reading, v.PROV + "used", Iri(iri))
    rest.add(reading, v.MODEL, *origin.models)
    rest.add(reading, v.PROV + "endedAtTime", origin.time)


def state(rest: Triples, statement: str, triple: "ox.Triple", document: str) -> None:
    """A statement of a triple, from a document, by what read it."""
    rest.add(statement, v.TYPE, Iri(v.STATEMENT))
    for role, part in zip((v.SUBJECT, v.PREDICATE, v.OBJECT), triple, strict=True):
        rest.add(statement, role, part)
    rest.add(statement, v.PROV + "wasDerivedFrom", Iri(document))
    rest.add(statement, v.PROV + "wasGeneratedBy", Iri(v.part_iri(document, "reading")))


def _write_entity(facts: Triples, found: Link, base: str) -> None:
    facts.add(found.iri, v.LABEL, found.label)
    if found.type:
        kind = v.type_iri(base, found.type)
        facts.add(found.iri, v.TYPE, Iri(kind))
        facts.add(kind, v.LABEL, found.type)


def _write_mention(rest: Triples, document: str, mention: Mention, found: Link) -> None:
    iri = _mention_iri(document, _place(mention))
    rest.add(iri, v.TYPE, Iri(v.MENTION))
    _write_span(rest, iri, mention.start, mention.end, mention.text)
    rest.add(iri, v.ENTITY_OF, Iri(found.iri))
    rest.add(iri, v.LINKED_BY, found.how)
    rest.add(iri, v.LINK_SCORE, found.score)
    if mention.score is not None:
        rest.add(iri, v.SCORE, float(mention.score))


def _write_span(rest: Triples, node: str, begin: int, end: int, text: str) -> None:
    rest.add(node, v.BEGIN, begin)
    rest.add(node, v.END, end)
    rest.add(node, v.TEXT, text)


def _mention_iri(document: str, place: tuple[int, int]) -> str:
    return v.part_iri(document, f"char={place[0]},{place[1]}")


def _place(mention: Mention) -> tuple[int, int]:
    return mention.start, mention.end


def _evidence(
    text: str, spans: Sequence[tuple[int, int]], first: int, last: int
) -> tuple[int, int]:
    """The sentences that `first` to `last` stands in, within its passage (of `spans`, in order)."""
    at = bisect_right(spans, first, key=lambda span: span[0]) - 1
    if at < 0 or last > spans[at][1]:
        return first, last
    start, end = spans[at]
    held = [(start + a, start + b) for a, b in sentences(text[start:end])]
    begin = max(a for a, _ in held if a <= first)
    stop = min(b for _, b in held if b >= last)
    return begin, begin + len(text[begin:stop].rstrip())
