"""SPARQL: results, limits, and what is wrong with a query."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from toy_extractor import ACME, CURIE, build, documents

from mainspring.errors import BadData, BadOption
from mainspring.graph.querying import Results, Term, run_query
from mainspring.graph.vocabulary import BASE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("querying") / "kg"
    build(place, documents(a=CURIE, b=ACME))
    yield place


def asked(folder: Path, query: str, **limits: float) -> Results:
    return run_query(folder, BASE, query, **limits)  # type: ignore[arg-type]


def test_rows_of_facts_each_once(folder: Path) -> None:
    found = asked(
        folder, "SELECT ?who ?label { ?who relation:was_born_in ?x . ?x rdfs:label ?label }"
    )
    assert found.variables == ("who", "label")
    assert found.rows == (
        (Term("uri", BASE + "entity/person:marie_curie"), Term("literal", "Warsaw")),
    )


def test_provenance(folder: Path) -> None:
    found = asked(
        folder,
        """SELECT ?document ?text ?score ?model ?begin WHERE { GRAPH ?document {
             ?statement rdf:subject entity:person:marie_curie ; rdf:predicate relation:was_born_in ;
               nif:anchorOf ?text ; nif:beginIndex ?begin ; term:score ?score ;
               prov:wasGeneratedBy/term:model ?model } } ORDER BY ?document""",
    )
    told = [tuple(term.value for term in row if term) for row in found.rows]
    assert told == [
        ("file:///a", "Marie Curie was born in Warsaw.", "0.75", "toy", "0"),
        ("file:///b", "Marie Curie was born in Warsaw.", "0.75", "toy", "24"),
    ]


def test_questions_and_graphs(folder: Path) -> None:
    assert asked(folder, "ASK { ?x relation:knows ?y }").answer is True
    assert asked(folder, "ASK { ?x relation:hates ?y }").answer is False
    made = asked(folder, "CONSTRUCT { ?y relation:known_by ?x } WHERE { ?x relation:knows ?y }")
    assert made.is_graph and [term.value for term in made.rows[0] if term] == [
        f"{BASE}entity/person:marie_curie",
        f"{BASE}relation/known_by",
        f"{BASE}entity/person:pierre_curie",
    ]


def test_values_that_are_missing_or_typed(folder: Path) -> None:
    found = asked(folder, 'SELECT (1/0 AS ?no) ("a"@en AS ?said) (2+3 AS ?sum) {}')
    assert found.rows == (
        (
            None,
            Term("literal", "a", language="en"),
            Term("literal", "5", "http://www.w3.org/2001/XMLSchema#integer"),
        ),
    )


def test_the_limit_on_rows(folder: Path) -> None:
    found = asked(folder, "SELECT ?s { ?s ?p ?o }", rows=3)
    assert len(found.rows) == 3 and found.more
    assert not asked(folder, "SELECT ?s { ?s ?p ?o } LIMIT 3", rows=3).more


def test_the_limit_on_time(folder: Path) -> None:
    many = " ".join(f"GRAPH ?g{i} {{ ?s{i} ?p{i} ?o{i} }}" for i in range(8))
    with pytest.raises(BadOption, match=r"took more than 2 seconds; ask for less, or give"):
        asked(folder, f"SELECT (COUNT(*) AS ?n) {{ {many} }}", seconds=2)


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("SELECT ?x { ?x ", r"line 1, column 16: expected .*\n  SELECT \?x \{ \?x \n {17}\^"),
        ("SELECT ?x {\n ?x nothing:here ?y }", "line 2, column"),
        ("SELEKT ?x {}", "line 1, column 1"),
        ("", "the query is empty"),
        ("INSERT DATA { <a:b> <a:c> <a:d> }", "only reads; documents come by `build`"),
        ("PREFIX x: <a:>\nDELETE WHERE { ?s ?p ?o }", "only reads"),
        ("# c\nBASE <a:> # d\nINSERT DATA { <b> <c> <d> }", "only reads"),
        ("SELECT * { SERVICE <http://localhost:1> { ?s ?p ?o } }", "SERVICE is refused"),
        ("SELECT * { service silent ?where { ?s ?p ?o } }", "SERVICE is refused"),
    ],
)
def test_queries_that_are_refused(folder: Path, query: str, told: str) -> None:
    with pytest.raises(BadOption, match=told):
        asked(folder, query)


def test_the_word_service_may_be_said(folder: Path) -> None:
    query = 'SELECT ?service { ?service rdfs:label "SERVICE" . ?x relation:service ?y } # service'
    assert asked(folder, query).rows == ()


def test_limits_that_are_none(folder: Path) -> None:
    for seconds in (0, -1, float("nan"), float("inf"), 1e12):
        with pytest.raises(BadOption, match=r"--seconds must lie between 0\.001 and 1000000"):
            asked(folder, "ASK {}", seconds=seconds)
    with pytest.raises(BadOption, match="--rows must be at least 1"):
        asked(folder, "ASK {}", rows=0)


def test_a_store_that_is_broken(tmp_path: Path) -> None:
    (tmp_path / "triples").write_text("no folder")
    with pytest.raises(BadData, match="the query failed"):
        asked(tmp_path, "ASK {}")
