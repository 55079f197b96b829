"""What docs/tasks/graph.md shows runs, and says what is so."""

import re
from pathlib import Path

import pytest
from toy_extractor import ACME, CURIE, build, documents

from mainspring.graph import store
from mainspring.graph.querying import run_query
from mainspring.graph.vocabulary import BASE

PAGE = (Path(__file__).parent.parent.parent / "docs" / "tasks" / "graph.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.M | re.S)


def test_the_python_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    [program] = blocks("python")
    exec(compile(program, "graph.md", "exec"), {})
    assert capsys.readouterr().out == "['Warsaw']\n"
    assert Path("kb.ttl").is_file() and Path("kb.html").is_file()


def test_the_queries_run(tmp_path: Path) -> None:
    build(tmp_path / "kg", documents(a=CURIE, b=ACME))
    found = [run_query(tmp_path / "kg", BASE, query).rows for query in blocks("sparql")]
    assert [len(rows) for rows in found] == [1, 2, 6]
    often = {tuple(term.value for term in row if term) for row in found[2][:2]}
    assert often == {("Marie Curie", "2"), ("Warsaw", "2")}


def test_the_store_holds_what_is_drawn(tmp_path: Path) -> None:
    """Every predicate of the page's Turtle is in a real store."""
    build(tmp_path / "kg", documents(a=CURIE))
    [drawn] = blocks("turtle")
    with store.reading(tmp_path / "kg") as graph:
        there = {quad.predicate.value for quad in graph.rdf}
    named = set(re.findall(r"\b(?:rdf|rdfs|nif|term|itsrdf|prov):\w+", drawn))
    classes = {"rdf:Statement", "term:Mention", "prov:Activity"}
    assert len(named) > 15
    for name in named - classes:
        assert any(re.search(rf"[/#]{name.partition(':')[2]}$", iri) for iri in there), name
