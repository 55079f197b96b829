"""Exports are read back by libraries that we did not write."""

import csv
from pathlib import Path

import networkx
import pyoxigraph as ox
import pytest
import rdflib
from rdflib.compare import isomorphic
from toy_extractor import ACME, CURIE, build, documents

from mainspring.data.skipped import SkipLog
from mainspring.errors import BadData, BadOption
from mainspring.graph import exporting, facts, importing, store

ODD = "Ann Lee knows Bob Ray. \x01 <&\"' 😀 居里 认识 华沙. Ann Lee knows Bob Ray."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    build(tmp_path / "kg", documents(a=CURIE, b=ACME, c=ODD))
    return tmp_path / "kg"


def exported(folder: Path, name: str) -> tuple[Path, int]:
    with store.reading(folder) as graph:
        file = folder.parent / name
        return file, exporting.export(graph, file)


@pytest.mark.parametrize("name", ["kg.ttl", "kg.nt"])
def test_turtle_and_n_triples_hold_the_facts(folder: Path, name: str) -> None:
    file, count = exported(folder, name)
    with store.reading(folder) as graph:
        there = {q.triple for q in graph.rdf.quads_for_pattern(None, None, None, ox.DefaultGraph())}
    assert {quad.triple for quad in ox.parse(path=str(file))} == there
    assert len(there) == count
    read = rdflib.Graph().parse(file)
    ours = rdflib.Graph().parse(data=" .\n".join(map(str, there)) + " .\n", format="nt")
    assert isomorphic(read, ours)


def test_n_quads_hold_everything(folder: Path) -> None:
    file, count = exported(folder, "kg.nq")
    with store.reading(folder) as graph:
        there = set(graph.rdf)
    assert set(ox.parse(path=str(file))) == there and len(there) == count


@pytest.mark.parametrize("name", ["kg.csv", "kg.tsv"])
def test_tables_have_a_row_for_each_place(folder: Path, name: str, tmp_path: Path) -> None:
    file, count = exported(folder, name)
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="," if name == "kg.csv" else "\t"))
    assert len(rows) == count == 8
    born = [row for row in rows if row["relation_label"] == "was born in"]
    assert {(row["head_label"], row["tail_label"]) for row in born} == {("Marie Curie", "Warsaw")}
    assert [(row["document"], row["start"], row["end"], row["score"]) for row in born] == [
        ("file:///a", "0", "31", "0.75"),
        ("file:///b", "24", "55", "0.75"),
    ]
    with store.writing(tmp_path / "again", "importing") as graph, SkipLog() as skipped:
        importing.import_file(file, graph, skipped)  # what was exported can be imported
        again = set(facts.edges(graph))
    with store.reading(folder) as graph:
        assert again == set(facts.edges(graph))


def test_graphml(folder: Path) -> None:
    file, count = exported(folder, "kg.graphml")
    read = networkx.read_graphml(file, force_multigraph=True)
    with store.reading(folder) as graph:
        drawn = exporting.drawing(graph)
    assert read.is_directed() and read.number_of_edges() == count == len(drawn.edges)
    nodes = dict(read.nodes(data=True))
    found = {
        (nodes[a]["iri"], data["iri"], nodes[b]["iri"]) for a, b, data in read.edges(data=True)
    }
    assert found == {(edge.head, edge.relation, edge.tail) for edge in drawn.edges}
    assert {data["label"] for data in nodes.values()} >= {"Marie Curie", "居里"}
    assert {data["type"] for data in nodes.values()} == {"Person", "City", "Company"}
    [born] = [data for _, _, data in read.edges(data=True) if data["label"] == "was born in"]
    assert born["score"] == 0.75 and born["documents"].split() == ["file:///a", "file:///b"]


def test_values_and_what_xml_cannot_hold(tmp_path: Path) -> None:
    text = (
        '<http://x/a> <http://x/r> "a\\u0001b < & \\"" .\n'
        "<http://x/a> <http://x/r> <http://x/b> .\n"
    )
    (tmp_path / "kb.nt").write_text(text, encoding="utf-8")
    with store.writing(tmp_path / "kg", "importing") as graph, SkipLog() as skipped:
        importing.import_file(tmp_path / "kb.nt", graph, skipped)
    file, count = exported(tmp_path / "kg", "kg.graphml")
    read = networkx.read_graphml(file)
    labels = {data["label"] for _, data in read.nodes(data=True)}
    assert count == 2 and labels == {"a", "b", 'a\ufffdb < & "'}


def test_a_graph_without_facts(tmp_path: Path) -> None:
    build(tmp_path / "kg", documents(a="nothing here"))
    for suffix in exporting.FORMATS:
        file, count = exported(tmp_path / "kg", f"kg{suffix}")
        assert file.exists() and (count == 0 or suffix == ".nq")


def test_files_that_cannot_be_written(folder: Path) -> None:
    with pytest.raises(BadOption, match=r"the suffix must be one of \.ttl, \.nt, \.nq"):
        exported(folder, "kg.xlsx")
    for name in ("nowhere/kg.csv", "nowhere/kg.ttl"):
        with pytest.raises(BadData, match="could not be written"):
            exported(folder, name)
    assert sorted(file.name for file in folder.parent.iterdir()) == ["kg"]


LITERALS = """<http://x/a> <http://x/chat> "chat"@fr .
<http://x/a> <http://x/chat> "chat"@en .
<http://x/a> <http://x/chat> "chat" .
<http://x/a> <http://x/h> "1"^^<http://www.w3.org/2001/XMLSchema#integer> .
<http://x/a> <http://x/h> "1" .
<http://x/a> <http://x/h> <http://x/b> .
"""
TOLD_APART = {
    ("chat", "value", "fr", ""),
    ("chat", "value", "en", ""),
    ("chat", "value", "", ""),
    ("1", "value", "", "http://www.w3.org/2001/XMLSchema#integer"),
    ("1", "value", "", ""),
    ("http://x/b", "thing", "", ""),
}


@pytest.mark.parametrize("name", ["kg.csv", "kg.tsv", "kg.graphml"])
def test_values_of_another_language_or_datatype_are_others(tmp_path: Path, name: str) -> None:
    (tmp_path / "kb.nt").write_text(LITERALS, encoding="utf-8")
    with store.writing(tmp_path / "kg", "importing") as graph, SkipLog() as skipped:
        importing.import_file(tmp_path / "kb.nt", graph, skipped)
    file, count = exported(tmp_path / "kg", name)
    if name == "kg.graphml":
        read = networkx.read_graphml(file, force_multigraph=True)
        tails = [read.nodes[tail] for _, tail, _ in read.edges]
        found = [
            (
                *((tail["iri"], "thing") if "iri" in tail else (tail["label"], "value")),
                tail.get("language", ""),
                tail.get("datatype", ""),
            )
            for tail in tails
        ]
    else:
        with file.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter="," if name == "kg.csv" else "\t"))
        columns = "tail", "tail_kind", "tail_language", "tail_datatype"
        found = [tuple(row[column] for column in columns) for row in rows]
        assert {row["line"] for row in rows} == set("123456")  # each with its own place
    assert len(found) == count == 6 and set(found) == TOLD_APART
