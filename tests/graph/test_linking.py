"""Which entity a mention is, and how that was decided."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mainspring.data.skipped import SkipLog
from mainspring.errors import BadData
from mainspring.graph.linking import Aliases, Link, Vectors, link, read_aliases
from mainspring.graph.records import Mention
from mainspring.graph.vocabulary import BASE

TABLE = """alias,id,label,type,description
Paris,Q90,Paris,City,the capital of France
Paris,Q167646,Paris,Person,a prince of Troy
Paris,Q830149,"Paris, Texas",City,a town in the United States
Big Blue,http://www.wikidata.org/entity/Q37156,IBM,Company,
"""


@pytest.fixture
def aliases(tmp_path: Path) -> Aliases:
    (tmp_path / "aliases.csv").write_text(TABLE, encoding="utf-8")
    with SkipLog() as skipped:
        return read_aliases(tmp_path / "aliases.csv", skipped)


def by_words(texts: Sequence[str]) -> Vectors:
    """An encoder that counts words."""
    known = sorted({word for text in texts for word in text.lower().replace(":", "").split()})
    counts = np.array([[text.lower().split().count(word) for word in known] for text in texts])
    return (counts / np.linalg.norm(counts, axis=1, keepdims=True)).astype(np.float32)


def linked(text: str, kind: str, aliases: Aliases, context: str = "", encode=None) -> Link:
    return link(Mention(0, len(text), text, kind), context or text, aliases, BASE, encode)


def test_a_name_with_one_meaning(aliases: Aliases) -> None:
    found = linked("BIG-BLUE", "Org", aliases)
    assert (found.iri, found.label) == ("http://www.wikidata.org/entity/Q37156", "IBM")
    assert (found.type, found.how, found.score) == ("Company", "alias", 1.0)
    assert linked("ibm", "", aliases).iri == found.iri  # a label is an alias too


def test_the_type_decides(aliases: Aliases) -> None:
    found = linked("Paris", "person", aliases)
    assert (found.iri, found.how) == (BASE + "entity/Q167646", "alias")


def test_the_context_decides(aliases: Aliases) -> None:
    texas = "Paris is a small town in the United States"
    found = linked("Paris", "City", aliases, texas, by_words)
    assert (found.label, found.how) == ("Paris, Texas", "context")
    assert 0 < found.score < 1
    france = linked("Paris", "City", aliases, "Paris , the capital of France", by_words)
    assert france.label == "Paris"


def test_without_an_encoder_the_first_of_the_table(aliases: Aliases) -> None:
    found = linked("Paris", "City", aliases)
    assert (found.iri, found.how, found.score) == (BASE + "entity/Q90", "order", 0.5)
    assert linked("Paris", "Film", aliases).score == pytest.approx(1 / 3)


def test_a_name_that_no_table_knows(aliases: Aliases) -> None:
    found = linked("Marie\n  Curie", "Person", aliases)
    assert found == Link(f"{BASE}entity/person:marie_curie", "Marie Curie", "Person", "name", 1.0)
    assert linked("MARIE CURIE", "Person", Aliases()).iri == found.iri
    assert linked("Marie Curie", "Film", Aliases()).iri != found.iri


def test_tables_that_say_the_same_have_one_key(tmp_path: Path, aliases: Aliases) -> None:
    (tmp_path / "more.csv").write_text(TABLE + "Big Apple,Q60,New York,City,\n", encoding="utf-8")
    with SkipLog() as skipped:
        assert read_aliases(tmp_path / "aliases.csv", skipped).key == aliases.key
        assert read_aliases(tmp_path / "more.csv", skipped).key != aliases.key


def test_a_table_without_an_id(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("alias,city\nParis,Q90\n", encoding="utf-8")
    with pytest.raises(BadData, match="no column for the id"), SkipLog() as skipped:
        read_aliases(tmp_path / "a.csv", skipped)
