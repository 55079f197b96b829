"""What the store says, in plain records: names, edges, and the evidence of each."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from mainspring.graph import vocabulary as v
from mainspring.graph.store import GraphStore

if TYPE_CHECKING:
    import pyoxigraph as ox

SAID = frozenset(
    (v.TYPE, v.LABEL)
)  # predicates of what a thing is, not of how it stands to another


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


Way = tuple[str, bool]  # a relation, and whether it is read backward, from tail to head


def along(store: GraphStore, iri: str, way: Way) -> Iterator[Edge]:
    """The facts of a thing that go one way, each once."""
    import pyoxigraph as ox

    relation, backward = way
    head, tail = (None, ox.NamedNode(iri)) if backward else (ox.NamedNode(iri), None)
    found = store.rdf.quads_for_pattern(head, ox.NamedNode(relation), tail, ox.DefaultGraph())
    return (_edge(quad.subject, quad.predicate, quad.object) for quad in found)


def ways(store: GraphStore, iri: str) -> set[Way]:
    """The ways that lead from a thing, however many facts it has."""
    return _ways(store, f"BIND({_iri(iri)} AS ?x)")


def ways_on(store: GraphStore, iri: str, first: Way, most: int) -> set[Way]:
    """The ways that lead on from `most` of the things that the first one leads to."""
    there = _pattern(_iri(iri), _iri(first[0]), "?x", first[1])
    start = f"{{ SELECT ?x {{ {there} FILTER(isIRI(?x)) }} LIMIT {most} }}"
    return _ways(store, f"{start} FILTER(?y != {_iri(iri)})")


def paths_between(
    store: GraphStore, one: str, other: str, steps: int
) -> Iterator[tuple[tuple[Edge, bool], ...]]:
    """The paths of one fact or of two (`steps`) from one thing to another: each fact, and whether
    it is read backward."""
    ends = (_iri(one), *(["?x"] if steps == 2 else []), _iri(other))
    for turned in product((False, True), repeat=steps):
        pairs = list(enumerate(pairwise(ends)))
        facts = " . ".join(_pattern(a, f"?r{n}", b, turned[n]) for n, (a, b) in pairs)
        kept = f"FILTER(isIRI(?x) && ?x NOT IN ({ends[0]}, {ends[-1]}))" if steps == 2 else ""
        for row in _rows(store, f"SELECT * {{ {facts} {kept} }}"):
            names = [one, *([row["x"].value] if steps == 2 else []), other]
            relations = [row[f"r{n}"].value for n, _ in pairs]
            if SAID.isdisjoint(relations):
                yield tuple(
                    (Edge(b, r, a) if back else Edge(a, r, b), back)
                    for (a, b), r, back in zip(pairwise(names), relations, turned, strict=True)
                )


def _ways(store: GraphStore, start: str) -> set[Way]:
    found = {
        (row["r"].value, backward)
        for backward in (False, True)
        for row in _rows(
            store, f"SELECT DISTINCT ?r {{ {start} {_pattern('?x', '?r', '?y', backward)} }}"
        )
    }
    return {way for way in found if way[0] not in SAID}


def _pattern(one: str, relation: str, other: str, backward: bool) -> str:
    return f"{other} {relation} {one}" if backward else f"{one} {relation} {other}"


def _iri(iri: str) -> str:
    import pyoxigraph as ox

    return str(ox.NamedNode(iri))


def _rows(store: GraphStore, query: str) -> "Iterator[ox.QuerySolution]":
    import pyoxigraph as ox

    found = store.rdf.query(query)
    assert isinstance(found, ox.QuerySolutions)
    return iter(found)


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


def evidence(store: GraphStore, edge: Edge, readings: "Readings | None" = None) -> list[Evidence]:
    """Every place that states a fact, by document and place; many calls share their `readings`."""
    known = readings or readings_of(store)
    found = []
    for quad in _statements_of(store, edge):
        values = _values(store, quad.subject, quad.graph_name)
        if _edge(*(values[name] for name in (v.SUBJECT, v.PREDICATE, v.OBJECT))) == edge:
            found.append(_evidence(values, _name(quad.graph_name), known))
    return sorted(found, key=lambda e: (e.document, e.start or 0, e.line or 0))


def _statements_of(store: GraphStore, edge: Edge) -> "list[ox.Quad]":
    """Quads that lead to all statements of a fact, and to others of its head or of its tail:
    whichever has fewer, told by going through both in step."""
    import pyoxigraph as ox

    head, tail = ox.NamedNode(edge.head), _tail(edge)
    by_head = store.rdf.quads_for_pattern(None, ox.NamedNode(v.SUBJECT), head, None)
    by_tail = store.rdf.quads_for_pattern(None, ox.NamedNode(v.OBJECT), tail, None)
    of_head: list[ox.Quad] = []
    of_tail: list[ox.Quad] = []
    while True:
        for quads, seen in ((by_head, of_head), (by_tail, of_tail)):
            quad = next(quads, None)
            if quad is None:
                return seen
            seen.append(quad)


def _tail(edge: Edge) -> "ox.NamedNode | ox.Literal":
    import pyoxigraph as ox

    if not edge.is_value:
        return ox.NamedNode(edge.tail)
    datatype = ox.NamedNode(edge.datatype) if edge.datatype else None
    return ox.Literal(edge.tail, language=edge.language or None, datatype=datatype)


def statements(store: GraphStore) -> Iterator[tuple[Edge, Evidence]]:
    """Every fact at every place that states it, in no order."""
    import pyoxigraph as ox

    readings = readings_of(store)
    kind, statement = ox.NamedNode(v.TYPE), ox.NamedNode(v.STATEMENT)
    for quad in store.rdf.quads_for_pattern(None, kind, statement, None):
        values = _values(store, quad.subject, quad.graph_name)
        edge = _edge(*(values[name] for name in (v.SUBJECT, v.PREDICATE, v.OBJECT)))
        yield edge, _evidence(values, _name(quad.graph_name), readings)


Readings = Callable[[str], tuple[str, str]]


def readings_of(store: GraphStore) -> Readings:
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
