"""The graph in the formats of others.

.ttl .nt          the facts, each once
.nq               everything: the facts, and each document's graph with its provenance
.csv .tsv         one row for each fact and place that states it
.graphml          things as nodes, facts as edges
"""

import csv
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import IO
from xml.sax.saxutils import escape

from mainspring.data.rows import suffix
from mainspring.errors import BadData, BadOption
from mainspring.graph import facts
from mainspring.graph.facts import Edge, Evidence
from mainspring.graph.store import GraphStore
from mainspring.graph.vocabulary import prefixes

FORMATS = (".ttl", ".nt", ".nq", ".csv", ".tsv", ".graphml")
COLUMNS = (
    *("head", "head_label", "relation", "relation_label", "tail", "tail_label"),
    *("score", "document", "start", "end", "line", "text", "model"),
    *("tail_kind", "tail_language", "tail_datatype"),
)

# What XML 1.0 cannot hold, escaped or not.
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True)
class Drawing:
    """Things and facts with the names to show: for GraphML and the page. A fact has all the places
    that state it."""

    labels: dict[str, str]
    types: dict[str, str]
    edges: dict[Edge, list[Evidence]]

    def label(self, iri: str) -> str:
        return self.labels.get(iri) or facts.local_name(iri)


def drawing(store: GraphStore) -> Drawing:
    """All things and facts of a store."""
    labels = facts.labels(store)
    kinds = {
        iri: ", ".join(labels.get(kind) or facts.local_name(kind) for kind in of)
        for iri, of in facts.types(store).items()
    }
    stated: dict[Edge, list[Evidence]] = {edge: [] for edge in facts.edges(store)}
    for edge, evidence in facts.statements(store):
        stated.setdefault(edge, []).append(evidence)
    ordered = sorted(stated.items(), key=lambda pair: astuple(pair[0]))
    return Drawing(
        labels,
        kinds,
        {e: sorted(of, key=lambda x: (x.document, x.start or 0, x.line or 0)) for e, of in ordered},
    )


def export(store: GraphStore, file: Path) -> int:
    """Writes the graph to `file`, whole or not at all, in the format its suffix names; how many
    triples (rows, edges) it holds. BadOption for a suffix that is none of `FORMATS`."""
    kind = suffix(file)
    if kind not in FORMATS:
        raise BadOption(f"{file}: the suffix must be one of {', '.join(FORMATS)}")
    if kind in (".ttl", ".nt", ".nq"):
        return _export_rdf(store, file, kind)
    with replacing(file) as out:
        if kind == ".graphml":
            return write_graphml(drawing(store), out)
        return _write_table(drawing(store), out, "," if kind == ".csv" else "\t")


@contextmanager
def replacing(file: Path) -> Iterator[IO[str]]:
    """A file that takes the place of `file` when it is whole. BadData where it cannot."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with draft.open("w", encoding="utf-8", newline="") as out:
            yield out
        draft.replace(file)
    except OSError as error:
        raise BadData(f"could not be written ({error.strerror or error})", file=file) from error
    finally:
        draft.unlink(missing_ok=True)


def _export_rdf(store: GraphStore, file: Path, kind: str) -> int:
    import pyoxigraph as ox

    draft = file.with_name(f".{file.name}.{os.getpid()}")
    form = {".ttl": ox.RdfFormat.TURTLE, ".nt": ox.RdfFormat.N_TRIPLES, ".nq": ox.RdfFormat.N_QUADS}
    graph = None if kind == ".nq" else ox.DefaultGraph()
    names = prefixes(store.base) if kind == ".ttl" else None
    try:
        store.rdf.dump(str(draft), format=form[kind], from_graph=graph, prefixes=names)
        draft.replace(file)
    except OSError as error:
        raise BadData(f"could not be written ({error})", file=file) from error
    finally:
        draft.unlink(missing_ok=True)
    if kind == ".nq":
        return len(store.rdf)
    return sum(1 for _ in store.rdf.quads_for_pattern(None, None, None, ox.DefaultGraph()))


def _write_table(drawn: Drawing, out: IO[str], delimiter: str) -> int:
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\n")
    writer.writerow(COLUMNS)
    count = 0
    for edge, places in drawn.edges.items():
        tail = edge.tail if edge.is_value else drawn.label(edge.tail)
        names = edge.head, drawn.label(edge.head), edge.relation, drawn.label(edge.relation)
        kind = "value" if edge.is_value else "thing", edge.language, edge.datatype
        for at in places:
            where = at.score, at.document, at.start, at.end, at.line, at.text, at.model
            writer.writerow((*names, edge.tail, tail, *where, *kind))
            count += 1
    return count


KEYS = (
    ("node", "iri", "string"),
    ("node", "label", "string"),
    ("node", "type", "string"),
    ("node", "language", "string"),
    ("node", "datatype", "string"),
    ("edge", "iri", "string"),
    ("edge", "label", "string"),
    ("edge", "score", "double"),
    ("edge", "documents", "string"),
)


def write_graphml(drawn: Drawing, out: IO[str]) -> int:
    """A directed graph (http://graphml.graphdrawing.org/specification.html) with an edge for each
    fact: its best score and its documents, one a line."""
    out.write('<?xml version="1.0" encoding="UTF-8"?>\n')
    out.write('<graphml xmlns="http://graphml.graphdrawing.org/xmlns">\n')
    for of, name, kind in KEYS:
        out.write(f'<key id="{of}-{name}" for="{of}" attr.name="{name}" attr.type="{kind}"/>\n')
    out.write('<graph id="G" edgedefault="directed">\n')
    ids: dict[End, str] = {}
    for edge in drawn.edges:
        for end in _ends(edge):
            if end not in ids:
                ids[end] = number = f"n{len(ids)}"
                name, is_value, language, datatype = end
                iri, label = ("", name) if is_value else (name, drawn.label(name))
                data = {"iri": iri, "label": label, "type": drawn.types.get(iri, "")}
                data |= {"language": language, "datatype": datatype}
                out.write(f'<node id="{number}">{_data("node", data)}</node>\n')
    for count, (edge, places) in enumerate(drawn.edges.items()):
        source, target = (ids[end] for end in _ends(edge))
        scores = [at.score for at in places if at.score is not None]
        data = {"iri": edge.relation, "label": drawn.label(edge.relation)}
        data["score"] = str(max(scores)) if scores else ""
        data["documents"] = "\n".join(dict.fromkeys(at.document for at in places))
        ends = f'source="{source}" target="{target}"'
        out.write(f'<edge id="e{count}" {ends}>{_data("edge", data)}</edge>\n')
    out.write("</graph>\n</graphml>\n")
    return len(drawn.edges)


End = tuple[str, bool, str, str]  # an IRI or value, is_value, language, datatype


def _ends(edge: Edge) -> tuple[End, End]:
    """What makes the nodes of an edge: values are one where all of these are the same."""
    tail = edge.tail, edge.is_value, edge.language, edge.datatype
    return (edge.head, False, "", ""), tail


def _data(of: str, values: dict[str, str]) -> str:
    cleaned = {name: escape(_NOT_XML.sub("\ufffd", value)) for name, value in values.items()}
    return "".join(f'<data key="{of}-{n}">{value}</data>' for n, value in cleaned.items() if value)
