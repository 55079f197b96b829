"""Documents into a store: idempotent, resumable, withdrawn whole, and every triple in its place."""

import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_extractor import ACME, CURIE, TOY, build, documents, quads

from mainspring.errors import BadOption, Mismatch
from mainspring.graph import building, facts, store
from mainspring.graph import vocabulary as v
from mainspring.graph.linking import Aliases, Candidate
from mainspring.graph.records import Document, Extractor, Found, Mention, Relation


def test_what_a_document_says(tmp_path: Path) -> None:
    built = build(tmp_path / "kg", documents(a=CURIE, b=ACME))
    assert (built.documents, built.relations, built.mentions) == (2, 5, 10)
    with store.reading(tmp_path / "kg") as graph:
        said = {
            tuple(map(facts.local_name, (e.head, e.relation, e.tail))) for e in facts.edges(graph)
        }
        assert said == {
            ("marie curie", "was born in", "warsaw"),
            ("pierre curie", "knows", "marie curie"),
            ("ann lee", "works for", "acme"),
            ("bob ray", "works for", "acme"),
        }
        born = next(e for e in facts.edges(graph) if e.relation.endswith("was_born_in"))
        places = facts.evidence(graph, born)
    assert [(at.document, at.text) for at in places] == [
        ("file:///a", "Marie Curie was born in Warsaw."),
        ("file:///b", "Marie Curie was born in Warsaw."),
    ]
    assert [(at.start, at.end, at.score, at.model) for at in places] == [
        (0, 31, 0.75, "toy"),
        (24, 55, 0.75, "toy"),
    ]


def test_building_again_changes_nothing(tmp_path: Path) -> None:
    docs = documents(a=CURIE, b=ACME)
    build(tmp_path / "kg", docs)
    before = quads(tmp_path / "kg", times=True)
    again = build(tmp_path / "kg", docs)
    assert (again.documents, again.done_before) == (0, 2)
    assert quads(tmp_path / "kg", times=True) == before


def test_the_order_of_documents_does_not_matter(tmp_path: Path) -> None:
    docs = documents(a=CURIE, b=ACME, c="Ann Lee knows Bob Ray.")
    build(tmp_path / "one", docs)
    build(tmp_path / "two", reversed(docs))
    assert quads(tmp_path / "one") == quads(tmp_path / "two")


def test_a_changed_document_takes_its_own_place(tmp_path: Path) -> None:
    build(tmp_path / "kg", documents(a=CURIE, b=ACME))
    built = build(tmp_path / "kg", documents(a="Ann Lee knows Bob Ray.", b=ACME))
    assert (built.documents, built.done_before, built.replaced) == (1, 1, 1)
    build(tmp_path / "fresh", documents(a="Ann Lee knows Bob Ray.", b=ACME))
    assert quads(tmp_path / "kg") == quads(tmp_path / "fresh")


def test_another_extractor_or_setting_reads_documents_again(tmp_path: Path) -> None:
    docs = documents(a=CURIE)
    build(tmp_path / "kg", docs)
    assert build(tmp_path / "kg", docs, replace(TOY, key="toy 2")).replaced == 1
    assert build(tmp_path / "kg", docs, replace(TOY, key="toy 2"), min_score=0.8).replaced == 1
    with store.reading(tmp_path / "kg") as graph:
        assert list(facts.edges(graph)) == []  # all relations of the toy have 0.75
        assert len(facts.labels(graph)) > 0


def test_withdrawing_leaves_what_the_others_say(tmp_path: Path) -> None:
    build(tmp_path / "kg", documents(a=CURIE, b=ACME))
    build(tmp_path / "rest", documents(b=ACME))
    with store.writing(tmp_path / "kg", "withdrawing") as graph:
        graph.remove(["file:///a"])
        assert graph.documents() == ["file:///b"]
        assert "Pierre Curie" not in facts.labels(graph).values()
    assert quads(tmp_path / "kg") == quads(tmp_path / "rest")
    with store.writing(tmp_path / "kg", "withdrawing") as graph:
        graph.remove(["file:///b"])
        assert len(graph.rdf) == 0


PIECES = (
    *'ab .!?\n\t\r\x01"\\<&é😀',
    *("e\u0301", "Marie Curie", " knows ", " was born in ", "Warsaw", "居里", "认识", "华沙"),
)
TEXTS = st.lists(
    st.lists(st.sampled_from(PIECES), max_size=40).map("".join), min_size=1, max_size=4
)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(TEXTS, st.data())
def test_every_triple_stands_where_it_says(texts: list[str], data: st.DataObject) -> None:
    """And the default graph is what the documents' graphs say together, also after a withdrawal."""
    with tempfile.TemporaryDirectory() as place, store.writing(place, "testing") as graph:
        docs = documents(**{f"d{i}": text for i, text in enumerate(texts)})
        limit = data.draw(st.sampled_from([40, 80, 600]))
        built = building.build(docs, graph, TOY, building.Settings(limit))
        assert built.documents == len(docs)
        by_iri = {doc.iri: doc.text for doc in docs}
        check(graph, by_iri)
        gone = data.draw(st.sampled_from(docs)).iri
        graph.remove([gone])
        check(graph, {iri: text for iri, text in by_iri.items() if iri != gone})


def check(graph: store.GraphStore, texts: dict[str, str]) -> None:
    import pyoxigraph as ox

    assert graph.documents() == sorted(texts)
    stated = {}
    for edge, at in facts.statements(graph):
        assert texts[at.document][at.start : at.end] == at.text
        assert at.model == "toy" and at.score == 0.75
        stated.setdefault(edge, set()).add(at.document)
    assert set(facts.edges(graph)) == set(stated)
    spans = graph.rdf.query(
        "SELECT ?document ?begin ?end ?text ?entity { GRAPH ?document { ?mention a "
        f"<{v.MENTION}> ; <{v.BEGIN}> ?begin ; <{v.END}> ?end ; <{v.TEXT}> ?text ; "
        f"<{v.ENTITY_OF}> ?entity }} }}"
    )
    linked = set()
    for row in spans:
        begin, end = int(row["begin"].value), int(row["end"].value)
        assert texts[row["document"].value][begin:end] == row["text"].value
        linked.add(row["entity"].value)
    assert {edge.head for edge in stated} | {edge.tail for edge in stated} <= linked
    # Each fact once in the default graph, and nothing there that no document says.
    merged = {q.triple for q in graph.rdf.quads_for_pattern(None, None, None, ox.DefaultGraph())}
    said = {q.triple for q in graph.rdf if q.graph_name != ox.DefaultGraph()}
    assert merged <= said
    labels = {t for t in said if t.predicate.value == v.LABEL}
    assert labels <= merged


# -- a build that is killed ------------------------------------------------------------------------

TOLD = {f"d{i}": f"Marie Curie knows Bob {chr(65 + i % 26)}o. Text {i}." for i in range(100)}
PROGRAM = """
import sys, time
sys.path.insert(0, {here!r})
from dataclasses import replace
from pathlib import Path
from toy_extractor import TOY, build, documents, extract

seen = 0

def slowly(passages):
    global seen
    for passage in passages:
        seen += 1
        if seen == 40:
            print("in the middle", flush=True)
            time.sleep(60)
        yield from extract([passage])

build(Path({folder!r}), documents(**{texts!r}), replace(TOY, extract=slowly))
"""


@pytest.mark.slow
def test_a_killed_build_goes_on_and_loses_nothing(tmp_path: Path) -> None:
    here, folder = str(Path(__file__).parent), tmp_path / "kg"
    program = PROGRAM.format(here=here, folder=str(folder), texts=TOLD)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"in the middle\n"
        process.send_signal(signal.SIGKILL)
    with store.reading(folder) as graph:
        names = [iri.rsplit("/", 1)[1] for iri in graph.documents()]
        done = len(names)
        check(graph, {f"file:///{name}": TOLD[name] for name in names})
    assert 0 < done < 100
    built = build(folder, documents(**TOLD))
    assert (built.done_before, built.documents, built.replaced) == (done, 100 - done, 0)
    build(tmp_path / "whole", documents(**TOLD))
    assert quads(folder) == quads(tmp_path / "whole")


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "kg"
    with store.writing(folder, "building"):
        for other in (store.reading(folder), store.writing(folder, "withdrawing")):
            with (
                pytest.raises(BadOption, match=f"in use: process {os.getpid()} is building"),
                other,
            ):
                pass
    refused = pytest.raises(BadOption, match="in use")
    # Readers do not mind one another.
    with (
        store.reading(folder),
        store.reading(folder),
        refused,
        store.writing(folder, "building"),
    ):
        pass


# -- extractors that are wrong ---------------------------------------------------------------------


def always(*found: Found) -> Extractor:
    return Extractor(("broken",), "broken", lambda passages: iter(found))


@pytest.mark.parametrize(
    ("extractor", "told"),
    [
        (always(), "more or fewer answers than the 1 passages"),
        (always(Found(), Found()), "more or fewer answers"),
        (always(Found((Mention(0, 5, "Pierre"),))), "'Pierre' is not what stands at 0 to 5"),
        (always(Found((Mention(5, 6, " "),))), "is not what stands at"),
    ],
)
def test_an_extractor_that_cannot_be_right(tmp_path: Path, extractor: Extractor, told: str) -> None:
    with pytest.raises(Mismatch, match=told):
        build(tmp_path / "kg", documents(a=CURIE), extractor)
    assert build(tmp_path / "kg", documents(a=CURIE)).documents == 1


@pytest.mark.parametrize("wrong", [{"passage": 10}, {"min_score": 1.5}])
def test_settings_out_of_range(tmp_path: Path, wrong: dict[str, float]) -> None:
    with pytest.raises(BadOption, match=r"--passage must be|--min-score must lie"):
        build(tmp_path / "kg", [], **wrong)


def test_one_relation_said_twice_at_one_place_counts_once(tmp_path: Path) -> None:
    head, tail = Mention(0, 11, "Marie Curie"), Mention(24, 30, "Warsaw")
    twice = Found((), (Relation(head, "born in", tail, 0.5), Relation(head, "Born in", tail, 0.9)))
    assert build(tmp_path / "kg", documents(a=CURIE), always(twice)).relations == 1
    with store.reading(tmp_path / "kg") as graph:
        [(_, at)] = facts.statements(graph)
    assert at.score == 0.9


def test_links_go_into_the_graph(tmp_path: Path) -> None:
    known = Candidate("http://www.wikidata.org/entity/Q7186", "Marie Skłodowska Curie", "Person")
    built = build(
        tmp_path / "kg", documents(a=CURIE), aliases=Aliases({"marie curie": (known,)}, "1")
    )
    assert dict(built.links) == {"alias": 2, "name": 2}
    with store.reading(tmp_path / "kg") as graph:
        assert facts.labels(graph)[known.id] == "Marie Skłodowska Curie"
        mention = "file:///a#char=0,11"
        assert graph.all_values("file:///a", v.LINKED_BY, mention) == ["alias"]
        assert graph.all_values("file:///a", v.ENTITY_OF, mention) == [known.id]


def test_a_document_of_five_megabytes(tmp_path: Path) -> None:
    text = "Nothing is said here, and at some length. " * 120_000 + CURIE
    found: list[str] = []

    def last(passages: list[str]):
        found.append(passages[-1])
        return (Found() for _ in passages)

    built = build(tmp_path / "kg", [Document("file:///a", text, "a")], Extractor((), "", last))
    assert built.documents == 1 and found[0].endswith("Pierre Curie knows Marie Curie.")
    assert len(text) > 5_000_000
