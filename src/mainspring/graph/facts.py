"""What the store says, in plain records: names, edges, and the evidence of each."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import unquote

from mainspring.graph import vocabulary as v
from mainspring.graph.store import GraphStore

SAID = (v.TYPE, v.LABEL)  # predicates of what a thing is, not of how it stands to another


@dataclass(frozen=True)
class Edge:
    """A fact between two things, by IRI; a `tail` that is a plain value has `is_value`, and the
    `language` or the IRI of the `datatype` that tell it from others ("" for a plain string)."""

    head: str
    relation: str
    tail: str
    is_value: bool = False
    language: str = ""
    datatype: str = ""


@dataclass(frozen=True)
class Evidence:
    """Where a fact stands: the document, the characters, and what read it. A fact of an imported
    table has a `line` instead."""

    document: str
    place: str
    start: int | None
    end: int | None
    text: str
    score: float | None
    model: str
    line: int | None = None


def edges(
    store: GraphStore, about: str | None = None, *, into: str | None = None
) -> Iterator[Edge]:
    """All facts that relate two things, each once; those `about` a thing, or leading `into` one."""
    import pyoxigraph as ox

    subject = None if about is None else ox.NamedNode(about)
    object_ = None if into is None else ox.NamedNode(into)
    for quad in store.rdf.quads_for_pattern(subject, None, object_, ox.DefaultGraph()):
        if quad.predicate.value not in SAID:
            yield _edge(quad.subject, quad.predicate, quad.object)


def _edge(head: Any, relation: Any, tail: Any) -> Edge:
    import pyoxigraph as ox

    if not isinstance(tail, ox.Literal):
        return Edge(_name(head), _name(relation), _name(tail))
    plain = tail.language or tail.datatype.value == v.XSD + "string"
    datatype = "" if plain else tail.datatype.value
    return Edge(_name(head), _name(relation), _name(tail), True, tail.language or "", datatype)


def _name(node: Any) -> str:
    """A node's IRI or value; blank nodes as N-Triples writes them."""
    import pyoxigraph as ox

    return str(node) if isinstance(node, ox.BlankNode | ox.Triple) else str(node.value)


def labels(store: GraphStore) -> dict[str, str]:
    """IRI -> the name to show; the shortest, then the first in order, where there are several."""
    import pyoxigraph as ox

    found: dict[str, str] = {}
    pattern = (None, ox.NamedNode(v.LABEL), None, ox.DefaultGraph())
    for quad in store.rdf.quads_for_pattern(*pattern):
        iri, name = _name(quad.subject), _name(quad.object)
        if iri not in found or (len(name), name) < (len(found[iri]), found[iri]):
            found[iri] = name
    return found


def types(store: GraphStore) -> dict[str, tuple[str, ...]]:
    """IRI -> the IRIs of its types."""
    import pyoxigraph as ox

    found: dict[str, list[str]] = {}
    pattern = (None, ox.NamedNode(v.TYPE), None, ox.DefaultGraph())
    for quad in store.rdf.quads_for_pattern(*pattern):
        found.setdefault(_name(quad.subject), []).append(_name(quad.object))
    return {iri: tuple(sorted(kinds)) for iri, kinds in found.items()}


def surfaces(store: GraphStore) -> Iterator[tuple[str, str]]:
    """(text, IRI) of every mention, as its document writes it."""
    import pyoxigraph as ox

    entity_of, text = ox.NamedNode(v.ENTITY_OF), ox.NamedNode(v.TEXT)
    for quad in store.rdf.quads_for_pattern(None, entity_of, None, None):
        for said in store.rdf.quads_for_pattern(quad.subject, text, None, quad.graph_name):
            yield _name(said.object), _name(quad.object)


def local_name(iri: str) -> str:
    """A name for what has no label: the last part of its IRI as words."""
    last = re.split(r"[/#:]", iri.rstrip("/#"))[-1]
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unquote(last)).replace("_", " ")
    return " ".join(words.split()) or iri


def evidence(store: GraphStore, edge: Edge) -> list[Evidence]:
    """Every place that states a fact, by document and place."""
    import pyoxigraph as ox

    readings = _readings(store)
    found = []
    about = ox.NamedNode(v.SUBJECT)
    for quad in store.rdf.quads_for_pattern(None, about, ox.NamedNode(edge.head), None):
        values = _values(store, quad.subject, quad.graph_name)
        if _edge(*(values[name] for name in (v.SUBJECT, v.PREDICATE, v.OBJECT))) == edge:
            found.append(_evidence(values, _name(quad.graph_name), readings))
    return sorted(found, key=lambda e: (e.document, e.start or 0, e.line or 0))


def statements(store: GraphStore) -> Iterator[tuple[Edge, Evidence]]:
    """Every fact at every place that states it, in no order."""
    import pyoxigraph as ox

    readings = _readings(store)
    kind, statement = ox.NamedNode(v.TYPE), ox.NamedNode(v.STATEMENT)
    for quad in store.rdf.quads_for_pattern(None, kind, statement, None):
        values = _values(store, quad.subject, quad.graph_name)
        edge = _edge(*(values[name] for name in (v.SUBJECT, v.PREDICATE, v.OBJECT)))
        yield edge, _evidence(values, _name(quad.graph_name), readings)


Readings = Callable[[str], tuple[str, str]]


def _readings(store: GraphStore) -> Readings:
    """Document -> where it is, and what read it."""

    @cache
    def known(document: str) -> tuple[str, str]:
        models = store.all_values(document, v.MODEL, v.part_iri(document, "reading"))
        return store.value(document, v.DCTERMS + "source") or document, ", ".join(models)

    return known


def _values(store: GraphStore, subject: Any, graph: Any) -> dict[str, Any]:
    """What a graph says of a node, one value a predicate."""
    quads = store.rdf.quads_for_pattern(subject, None, None, graph)
    return {quad.predicate.value: quad.object for quad in quads}


def _evidence(values: dict[str, Any], document: str, readings: Readings) -> Evidence:
    def whole(name: str) -> int | None:
        return int(values[name].value) if name in values else None

    place, model = readings(document)
    text = _name(values[v.TEXT]) if v.TEXT in values else ""
    score = float(values[v.SCORE].value) if v.SCORE in values else None
    return Evidence(
        document, place, whole(v.BEGIN), whole(v.END), text, score, model, whole(v.LINE)
    )
