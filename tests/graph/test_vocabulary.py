"""Names in their normal form, and IRIs made of them."""

import pyoxigraph as ox
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.graph import vocabulary as v


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Marie Curie", "MARIE  CURIE"),
        ("U.S.A.", "USA"),
        ("J.R.R. Tolkien", "JRR Tolkien"),
        ("O'Neill", "O’Neill"),
        ("Coca-Cola", "Coca Cola"),
        ("Ｔｏｋｙｏ", "Tokyo"),
        ("Straße", "STRASSE"),
        ("café", "cafe\u0301"),
        ("“Titanic”", "Titanic"),
    ],
)
def test_names_that_are_the_same(one: str, other: str) -> None:
    assert v.normal(one) == v.normal(other)


@pytest.mark.parametrize(("one", "other"), [("C#", "C"), ("C++", "C"), ("AT&T", "ATT"), ("!", "?")])
def test_names_that_differ(one: str, other: str) -> None:
    assert v.normal(one) != v.normal(other)


NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=300)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(NAMES, NAMES)
def test_every_name_makes_an_iri(name: str, kind: str) -> None:
    iri = v.entity_iri(v.BASE, name, kind)
    assert ox.NamedNode(iri).value == iri and len(iri) < 4000
    assert v.normal(v.normal(name)) == v.normal(name)
    [quad] = ox.parse(f"<{iri}> <{v.relation_iri(v.BASE, name)}> <{iri}> .", ox.RdfFormat.N_TRIPLES)
    assert quad.subject.value == iri


@pytest.mark.parametrize("name", ["Marie Curie", "C++", "50% off", "居里 夫人", "a:b", "-1", "~/x"])
def test_names_can_be_written_in_queries_with_their_prefix(name: str) -> None:
    """As tables show them, without anything escaped."""
    iri = v.entity_iri(v.BASE, name, "Person")
    short = "entity:" + iri.removeprefix(v.BASE + "entity/")
    store = ox.Store()
    found = store.query(f"SELECT ({short} AS ?x) {{}}", prefixes=v.prefixes(v.BASE))
    assert [row["x"].value for row in found] == [iri]


def test_what_counts_as_an_iri() -> None:
    for name in ("http://www.wikidata.org/entity/Q42", "urn:isbn:123", "tag:x,2020:y"):
        assert v.is_iri(name) and v.given_iri(v.BASE, "entity", name) == name
    for name in ("Q42", "Re:Zero", "http://a b", "12:30", "https://"):
        assert not v.is_iri(name)
        assert v.is_iri(v.given_iri(v.BASE, "entity", name))


def test_parts_of_files_and_of_their_rows() -> None:
    assert v.part_iri("file:///a.txt", "char=0,1") == "file:///a.txt#char=0,1"
    assert v.part_iri("file:///a.csv#line=3", "char=0,1") == "file:///a.csv#line=3&char=0,1"
