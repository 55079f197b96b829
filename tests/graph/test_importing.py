"""Triples of tables and RDF files."""

import json
import os
from pathlib import Path

import pytest
from toy_extractor import quads

from mainspring.data.skipped import SkipLog
from mainspring.errors import BadData
from mainspring.graph import facts, importing, store
from mainspring.graph.importing import Imported
from mainspring.graph.vocabulary import BASE


def imported(folder: Path, file: Path, **named: str) -> tuple[Imported, str]:
    with store.writing(folder, "importing") as graph, SkipLog() as skipped:
        return importing.import_file(file, graph, skipped, named or None), skipped.summary()


def write(file: Path, text: str) -> Path:
    file.write_text(text, encoding="utf-8")
    return file


def told(folder: Path) -> set[tuple[str, str, str]]:
    with store.reading(folder) as graph:
        names = facts.labels(graph)
        return {
            tuple(names.get(part, part) for part in (e.head, e.relation, e.tail))  # type: ignore[misc]
            for e in facts.edges(graph)
        }


def test_a_table_with_types_and_scores(tmp_path: Path) -> None:
    file = write(
        tmp_path / "kb.csv",
        "subject,predicate,object,subject_type,confidence\n"
        "Marie Curie,born_in,Warsaw,Person,0.9\n"
        "Bob,knows,http://example.org/ann,,\n"
        "Eve,knows,Bob,,7\n"
        "Mallory,,Bob,,\n",
    )
    made, skipped = imported(tmp_path / "kg", file)
    assert made.triples == 2 and "1 empty label" in skipped and "1 bad triple" in skipped
    assert told(tmp_path / "kg") == {
        ("Marie Curie", "born in", "Warsaw"),
        ("Bob", "knows", "http://example.org/ann"),
    }
    with store.reading(tmp_path / "kg") as graph:
        places = {edge.relation: at for edge, at in facts.statements(graph)}
        born = places[BASE + "relation/born_in"]
    assert (born.document, born.line, born.score) == (file.resolve().as_uri(), 2, 0.9)


def test_three_columns_need_no_header(tmp_path: Path) -> None:
    file = write(tmp_path / "kb.tsv", "a\t_hypernym\tb\nb\t_hypernym\tc\n")
    assert imported(tmp_path / "kg", file)[0].triples == 2
    assert told(tmp_path / "kg") == {("a", "hypernym", "b"), ("b", "hypernym", "c")}


def test_columns_may_be_named(tmp_path: Path) -> None:
    file = write(tmp_path / "kb.csv", "land,stadt,art\nFrance,Paris,capital\n")
    imported(tmp_path / "kg", file, head="land", tail="stadt", relation="art")
    assert told(tmp_path / "kg") == {("France", "capital", "Paris")}


def test_importing_again_changes_nothing_and_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    file = write(tmp_path / "kb.csv", "head,relation,tail\na,r,b\n")
    imported(tmp_path / "kg", file)
    before = quads(tmp_path / "kg", times=True)
    assert imported(tmp_path / "kg", file)[0] == Imported(0, done_before=True)
    assert quads(tmp_path / "kg", times=True) == before
    write(file, "head,relation,tail\na,r,c\n")
    assert imported(tmp_path / "kg", file)[0].triples == 1
    assert told(tmp_path / "kg") == {("a", "r", "c")}


@pytest.mark.parametrize("suffix", ["ttl", "csv"])
def test_an_import_that_fails_leaves_what_was_there(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "TOGETHER", 4)
    turtle = [f"<http://x/{n}> <http://x/next> <http://x/{n + 1}> ." for n in range(20)]
    table = ["head,relation,tail", *(f"{n},next,{n + 1}" for n in range(20))]
    lines, broken = {"ttl": (turtle, "this is broken <"), "csv": (table, "5,next")}[suffix]
    file = write(tmp_path / f"kb.{suffix}", "\n".join(lines))
    imported(tmp_path / "kg", file)
    before = told(tmp_path / "kg")
    assert len(before) == 20
    write(file, "\n".join([*lines[:12], broken, *lines[12:]]))
    with store.writing(tmp_path / "kg", "importing") as graph, pytest.raises(BadData):
        importing.import_file(file, graph, SkipLog(strict=True))
    assert told(tmp_path / "kg") == before
    with store.writing(tmp_path / "new", "importing") as graph, pytest.raises(BadData):
        importing.import_file(file, graph, SkipLog(strict=True))
    assert not told(tmp_path / "new")


def test_a_file_may_be_called_by_any_bytes(tmp_path: Path) -> None:
    try:
        file = write(tmp_path / os.fsdecode(b"bad\xff.csv"), "head,relation,tail\na,b,c\n")
    except OSError:
        pytest.skip("this disk has names in UTF-8 alone")
    assert imported(tmp_path / "kg", file)[0].triples == 1
    assert imported(tmp_path / "kg", file)[0].done_before


def test_an_import_that_was_stopped_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "TOGETHER", 2)
    file = write(
        tmp_path / "kb.csv", "head,relation,tail\n" + "".join(f"a{i},r,b\n" for i in range(7))
    )
    imported(tmp_path / "whole", file)
    written = importing._written

    def stop(iri: str, before: int, chunk):  # type: ignore[no-untyped-def]
        if before == 4:
            raise KeyboardInterrupt
        return written(iri, before, chunk)

    monkeypatch.setattr(importing, "_written", stop)
    with pytest.raises(KeyboardInterrupt):
        imported(tmp_path / "kg", file)
    monkeypatch.setattr(importing, "_written", written)
    assert len(told(tmp_path / "kg")) == 4
    assert imported(tmp_path / "kg", file)[0].triples == 7
    assert quads(tmp_path / "kg") == quads(tmp_path / "whole")


NT = """<http://x/a> <http://x/r> <http://x/b> .
<http://x/a> <http://www.w3.org/2000/01/rdf-schema#label> "A" .
<http://x/a> <http://x/age> "41"^^<http://www.w3.org/2001/XMLSchema#integer> .
this is no triple .
_:n <http://x/r> <http://x/a> .
"""


def test_n_triples_with_their_lines(tmp_path: Path) -> None:
    file = write(tmp_path / "kb.nt", NT)
    made, skipped = imported(tmp_path / "kg", file)
    assert made.triples == 4 and "1 bad triple" in skipped and "kb.nt:4" in skipped
    node = f"{file.resolve().as_uri()}#node=n"
    assert told(tmp_path / "kg") == {
        ("A", "http://x/r", "http://x/b"),
        ("A", "http://x/age", "41"),
        (node, "http://x/r", "A"),
    }
    with store.reading(tmp_path / "kg") as graph:
        assert sorted(at.line or 0 for _, at in facts.statements(graph)) == [1, 3, 5]
        assert [edge.is_value for edge in facts.edges(graph, "http://x/a")].count(True) == 1


def test_triples_of_one_line_are_told_apart(tmp_path: Path) -> None:
    ends = [("A", "r", "B"), ("C", "s", "D")]
    rows = [dict(zip(("head", "relation", "tail"), end, strict=True)) for end in ends]
    imported(tmp_path / "kg", write(tmp_path / "kb.json", json.dumps(rows)))
    with store.reading(tmp_path / "kg") as graph:
        found = list(facts.statements(graph))
    assert len(found) == 2 and {at.line for _, at in found} == {1}


def test_turtle(tmp_path: Path) -> None:
    file = write(tmp_path / "kb.ttl", "@prefix x: <http://x/> .\nx:a x:r x:b ; x:s [ x:t 'v' ] .\n")
    assert imported(tmp_path / "kg", file)[0].triples == 3
    broken = write(tmp_path / "broken.ttl", "@prefix x: <http://x/> .\nx:a x:r .\n")
    with pytest.raises(BadData, match="not readable as Turtle"):
        imported(tmp_path / "kg", broken)
    assert len(told(tmp_path / "kg")) == 3


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("kb.csv", "head,relation,tail\n", "no rows in it|no usable"),
        ("kb.nt", "", "no usable triple: the file is empty"),
        ("kb.nt", "nonsense\n", "no usable triple: 1 bad triple"),
        ("kb.csv", "head,tail\na,b\n", "no column for the relation"),
        ("kb.pdf", "x", "unknown kind of file"),
    ],
)
def test_files_without_triples(tmp_path: Path, name: str, text: str, why: str) -> None:
    with pytest.raises(BadData, match=why):
        imported(tmp_path / "kg", write(tmp_path / name, text))
