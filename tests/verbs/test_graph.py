"""`graph` as a user meets it: from documents to answers, and what is told where it cannot be."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

import mainspring as package
import nano
from mainspring import cli, events
from mainspring.errors import BadOption, Missing
from mainspring.families.bert import FAMILY as BERT
from mainspring.formulations import Limits, Setup, relation_pairs
from mainspring.graph import building
from mainspring.verbs import graph, graph_building

sys.path.insert(0, str(Path(__file__).parent.parent / "graph"))

from toy_extractor import ACME, CURIE, TOY

Ran = tuple[int, str, str]


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents are read by rules instead of models."""
    monkeypatch.setattr(graph_building, "extractor_of", lambda *asked: TOY)


@pytest.fixture
def mainspring(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    def run(*words: object) -> Ran:
        with pytest.raises(SystemExit) as ended:
            cli.main([str(word) for word in words])
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


@pytest.fixture
def place(tmp_path: Path, toy: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two notes, a table, and their graph `kg`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "curie.txt").write_text(CURIE, encoding="utf-8")
    (tmp_path / "notes" / "acme.txt").write_text(ACME, encoding="utf-8")
    rows = [{"id": "x1", "text": "Eve Ray knows Ann Lee."}, {"id": "x2", "text": "Eve Ray knows."}]
    nano.write_jsonl(rows, tmp_path / "table.jsonl")
    graph.build("notes", "table.jsonl", store="kg", id="id")
    return tmp_path


def test_a_users_path(place: Path, mainspring: Callable[..., Ran]) -> None:
    code, out, _ = mainspring("graph", "build", "notes", "--store", "kg")
    assert (code, out.splitlines()[0]) == (0, "kg: 0 documents read, 2 done before")
    code, out, _ = mainspring("graph", "ask", "Where was Marie Curie born?", "--store", "kg")
    assert (code, out.splitlines()[:3]) == (
        0,
        [
            "Warsaw",
            "  Marie Curie ─ was born in → Warsaw",
            "    notes/acme.txt, characters 24 to 55, score 0.75: Marie Curie was born in Warsaw.",
        ],
    )
    code, out, _ = mainspring("graph", "ask", "Who invented tea?", "--store", "kg")
    assert (code, out) == (1, "I do not know: no thing in the question is in the graph.\n")
    words = (
        "graph",
        "query",
        "SELECT ?who { ?who relation:knows ?x } ORDER BY ?who",
        "--store",
        "kg",
    )
    code, out, _ = mainspring(*words)
    assert out.splitlines()[2:] == ["entity:person:eve_ray", "entity:person:pierre_curie"]
    code, out, _ = mainspring(
        "graph", "withdraw", "notes/curie.txt", "table.jsonl", "--store", "kg"
    )
    assert (code, out) == (0, "kg: 3 documents withdrawn, 1 left\n")
    assert mainspring(*words)[1].splitlines()[2:] == []
    for name in ("kg.ttl", "kg.csv", "kg.graphml"):
        assert mainspring("graph", "export", name, "--store", "kg")[0] == 0
    assert mainspring("graph", "page", "kg.html", "--store", "kg")[0] == 0
    assert (place / "kg.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_json_on_the_command_line(place: Path, mainspring: Callable[..., Ran]) -> None:
    def said(*words: str) -> dict:
        [line] = mainspring("graph", *words, "--store", "kg", "--json")[1].splitlines()
        return json.loads(line)

    built = said("build", "notes")
    assert (built["documents"], built["done_before"], built["links"]) == (0, 2, {})
    found = said("query", "SELECT ?x { ?x relation:works_for ?y } LIMIT 1")
    [row] = found["results"]["bindings"]
    assert found["head"] == {"vars": ["x"]} and row["x"]["type"] == "uri"
    assert said("query", "ASK {}") == {"head": {}, "boolean": True}
    answered = said("ask", "Who knows Ann Lee?")
    [answer] = answered["answers"]
    assert answer["answer"] == "Eve Ray"
    [step] = answer["path"]
    assert step["said"] == "Eve Ray ─ knows → Ann Lee"
    assert step["evidence"][0]["document"].endswith("/table.jsonl#id=x1")
    assert said("ask", "Who knows Zorro?")["answers"] == []
    assert said("withdraw", "notes")["documents"] == 2


def test_a_stop_says_what_goes_on(
    place: Path, mainspring: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*how: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(building, "build", stopped)
    code, out, err = mainspring("graph", "build", "notes", "--store", "kg", "--quiet")
    said = "error: stopped by Ctrl-C; what was read is in kg, the same command goes on\n"
    assert (code, out, err) == (130, "", said)


def test_python_has_the_same(place: Path) -> None:
    found = graph.query("SELECT ?label { ?x rdfs:label ?label } ORDER BY ?label", store="kg")
    assert {"label": "Acme"} in found.rows and found.exit_code == 0
    asked = graph.ask("Who works for Acme?", store="kg")
    assert [answer.label for answer in asked.answered.answers] == ["Ann Lee", "Bob Ray"]
    (place / "kb.csv").write_text("head,relation,tail\nParis,capital of,France\n", encoding="utf-8")
    assert graph.import_("kb.csv", store="kg").facts["triples"] == 1
    asked = graph.ask("What is the capital of France?", store="kg")
    assert [answer.label for answer in asked.answered.answers] == ["Paris"]
    assert graph.query("ASK { ?x relation:hates ?y }", store="kg").exit_code == 1


def test_queries_from_files_and_their_forms(place: Path, mainspring: Callable[..., Ran]) -> None:
    (place / "who.rq").write_text("SELECT ?a ?b { ?a relation:works_for ?b } ORDER BY ?a", "utf-8")
    words = ("graph", "query", "who.rq", "--store", "kg", "--format")
    assert mainspring(*words, "csv")[1].splitlines()[0] == "a,b"
    assert mainspring(*words, "tsv")[1].splitlines()[0] == "a\tb"
    assert "bindings" in json.loads(mainspring(*words, "json")[1])["results"]
    _, out, err = mainspring("graph", "query", "who.rq", "--store", "kg", "--rows", "1")
    assert len(out.splitlines()) == 3 and "only the first 1 rows" in err


def test_documents_of_one_name(place: Path, mainspring: Callable[..., Ran]) -> None:
    rows = [
        {"id": 1, "text": "Ann Lee knows Bob Ray."},
        {"id": 1, "text": "Bob Ray knows Eve Ray."},
    ]
    nano.write_jsonl([*rows, rows[0]], place / "twice.jsonl")
    code, _, err = mainspring("graph", "build", "twice.jsonl", "--store", "kg2", "--id", "id")
    assert code == 0 and "1 repeated name" in err
    done = graph.build("twice.jsonl", store="kg3")  # known by their lines they are three
    assert done.facts["documents"] == 3
    (place / "line.json").write_text(json.dumps([*rows, rows[0]]), "utf-8")  # all in one line
    done = graph.build("line.json", store="kg4")
    assert done.facts["documents"] == 3
    asked = graph.ask("Who knows Eve Ray?", store="kg4").answered.answers
    assert [e.document.rpartition("#")[2] for a in asked for s in a.path for e in s.evidence] == [
        "line=1.2"
    ]


def test_texts_lines_and_standard_input(
    place: Path, monkeypatch: pytest.MonkeyPatch, mainspring: Callable[..., Ran]
) -> None:
    import io

    graph.build("Ann Lee knows Eve Ray.", store="kg2")
    monkeypatch.setattr(
        sys, "stdin", io.StringIO("Bob Ray knows Ann Lee.\nEve Ray knows Bob Ray.\n")
    )
    assert graph.build("-", store="kg2", lines=True).facts["documents"] == 2
    assert len(graph.query("SELECT ?d { GRAPH ?d { ?d a term:Document } }", store="kg2").rows) == 3


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("query ASK{} --store nowhere", ("--store nowhere: no such folder", "graph build DOCS")),
        ("ask who --store notes", ("no graph in this folder",)),
        ("query SELEKT --store kg", ("not a SPARQL query: line 1, column", "SELEKT", "^")),
        ("query who.rq --store kg", ("no file who.rq",)),
        ("query ASK{} --store kg --format xml", ("xml", "table")),
        ("query ASK{} --store kg --seconds 0", ("--seconds must lie between 0.001",)),
        ("withdraw notes/curie.text --store kg", ("no document notes/curie.text", "did you mean")),
        ("withdraw --store kg", ("name the documents to withdraw",)),
        ("withdraw a.txt --store nowhere", ("no such folder",)),
        ("export kg.docx --store kg", ("the suffix must be one of .ttl",)),
        ("export no/kg.csv --store kg", ("no/kg.csv: could not be written",)),
        ("page kg.pdf --store kg", ("the suffix must be .html",)),
        ("page kg.html --store kg --nodes 1", ("--nodes must lie between",)),
        ("import --store kg", ("nothing to import",)),
        ("import kb.csv --store kg", ("no file kb.csv",)),
        ("build empty.txt --store new", ("no usable", "empty text")),
        ("build latin.txt --store new", ("no usable", "undecodable bytes")),
        ("build empty.csv --store new", ("empty.csv",)),
        ("build empty.txt empty.txt --store new", ("no usable",)),
        ("build notes/curie.txtt --store new", ("no file or folder", "curie.txt")),
        ("build notes --store notes", ("is there and is no graph",)),
        ("build notes --store kg --base http://x/", ("was made with urn:mainspring:",)),
        ("build notes --store kg --passage 3", ("--passage must be at least 40",)),
        ("build notes --store kg --min-score 2", ("--min-score must lie between 0 and 1",)),
        ("build table.jsonl --store kg --id key", ("--id: unknown column `key`",)),
        ("build notes --store kg --aliases no.csv", ("no file or folder no.csv",)),
        ("build notes --store kg --model m --entities e", ("--model writes triples by itself",)),
        ("build notes --store kg --relations r --relation-names x", ("is for the chat model",)),
    ],
)
def test_what_was_wrong_and_what_to_do(
    place: Path, mainspring: Callable[..., Ran], words: str, parts: tuple[str, ...]
) -> None:
    (place / "empty.txt").write_text(" \n", encoding="utf-8")
    (place / "empty.csv").write_text("", encoding="utf-8")
    (place / "latin.txt").write_bytes("Ann Lee knows Zoë.".encode("latin-1"))
    code, out, err = mainspring("graph", *words.split())
    assert (code, out) == (2, ""), err
    assert "Traceback" not in err
    for part in parts:
        assert part in err


def exported(store: str, mainspring: Callable[..., Ran]) -> list[str]:
    """All that the store holds, but for the times."""
    mainspring("graph", "export", f"{store}.nq", "--store", store)
    lines = Path(f"{store}.nq").read_text(encoding="utf-8").splitlines()
    return sorted(line for line in lines if "#endedAtTime>" not in line)


def test_all_documents_below_a_folder_are_read(place: Path, mainspring: Callable[..., Ran]) -> None:
    folder = place / "all"
    texts = ("a.txt", "a.summary.txt", "test/x.txt", "2024/deep/b.md", "text.en", "README.md")
    for name in (*texts, ".hidden.txt", "_draft.txt", "page.html", "scan.pdf", "more.pdf"):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"Ann Lee knows {file.stem.title()} Ray.", encoding="utf-8")
    nano.write_jsonl([{"text": "Eve Ray knows Ann Lee."}], folder / "rows.jsonl")
    (folder / "settings.json").write_text('{"colour": "red"}')
    code, out, err = mainspring("graph", "build", "all", "--store", "new")
    assert code == 0 and out.startswith("new: 6 documents read")
    assert "left out: 2 .pdf, 1 " in err and "1 .html" in err and "settings.json" in err


def test_what_a_file_holds_no_longer_is_withdrawn(
    place: Path, mainspring: Callable[..., Ran]
) -> None:
    folder = place / "changing"
    folder.mkdir()
    rows = [{"text": f"{name} Ray knows Bob Ray."} for name in ("Ann", "Eve", "Tom")]
    nano.write_jsonl(rows, folder / "table.jsonl")
    for name in ("a", "b", "c"):
        (folder / f"{name}.txt").write_text(f"Ann Lee knows {name.title()} Ray.\nBob knows.")
    (folder / "kb.csv").write_text("head,relation,tail\nBern,in,Switzerland\n")
    assert mainspring("graph", "import", "changing/kb.csv", "--store", "kb")[0] == 0
    assert mainspring("graph", "build", "changing", "--store", "kb")[0] == 0
    nano.write_jsonl(rows[:1], folder / "table.jsonl")
    (folder / "a.txt").write_text(" \n")
    code, out, _ = mainspring("graph", "build", "changing", "--store", "kb", "--json")
    withdrawn = [Path(iri).name for iri in json.loads(out)["withdrawn"]]
    assert (code, sorted(withdrawn)) == (0, ["a.txt", "table.jsonl#line=2", "table.jsonl#line=3"])
    code, out, _ = mainspring("graph", "build", "changing/b.txt", "--lines", "--store", "kb")
    assert code == 0 and "1 documents withdrawn, which their files hold no longer" in out
    assert mainspring("graph", "build", "changing/b.txt", "--store", "kb")[0] == 0
    mainspring("graph", "import", "changing/kb.csv", "--store", "fresh")
    mainspring("graph", "build", "changing", "--store", "fresh")
    assert exported("kb", mainspring) == exported("fresh", mainspring)


def test_a_name_of_a_file_may_be_of_any_bytes(place: Path, mainspring: Callable[..., Ran]) -> None:
    folder = place / "odd"
    folder.mkdir()
    try:
        (folder / os.fsdecode(b"bad\xff.txt")).write_text("Ann Lee knows Bob Ray.")
    except OSError:
        pytest.skip("this disk has names in UTF-8 alone")
    code, out, _ = mainspring("graph", "build", "odd", "--store", "odd.kg")
    assert code == 0 and out.startswith("odd.kg: 1 documents read")
    code, out, _ = mainspring("graph", "ask", "Who does Ann Lee know?", "--store", "odd.kg")
    assert code == 0 and "bad\ufffd.txt" in out


def test_a_misspelt_name_is_no_document(place: Path) -> None:
    with pytest.raises(Missing, match="no file or folder `nots`; a text of one word comes by"):
        graph.build("nots", store="kg")
    with pytest.raises(Missing, match="nots"):
        graph.build(Path("nots"), store="kg")
    with pytest.raises(Missing, match="nots"):
        package.run("summarize", Path("nots"), model="none")


def test_mixed_encodings_lose_only_what_is_broken(
    place: Path, mainspring: Callable[..., Ran]
) -> None:
    folder = place / "mixed"
    folder.mkdir()
    (folder / "a.txt").write_text("Ann Lee knows Bob Ray. 居里 认识 华沙.", encoding="utf-16")
    (folder / "b.txt").write_bytes("Zoë knows".encode("latin-1"))
    (folder / "c.txt").write_bytes(b"\xef\xbb\xbfEve Ray knows Ann Lee.\r\n")
    code, out, err = mainspring("graph", "build", "mixed", "--store", "new")
    assert code == 0 and out.startswith("new: 2 documents read")
    assert "1 undecodable bytes" in err and "b.txt" in err


def test_models_that_are_not_there_are_told_before_the_store_is_written(place: Path) -> None:
    with pytest.raises(Missing):
        graph.ask("Who?", store="kg", encoder=str(place / "no-encoder"))
    with pytest.raises(BadOption, match="the question is empty"):
        graph.ask("  ", store="kg")


# -- with models -----------------------------------------------------------------------------------

PEOPLE, CITIES = ("Anna", "Bert", "Clara", "Dora"), ("Wien", "Bern", "Oslo", "Rome")
VERBS = {"loves": "lives in", "left": "moved from", "painted": "no_relation"}


def related(count: int) -> list[dict]:
    rows = []
    for i in range(count):
        person, verb, city = PEOPLE[i % 4], list(VERBS)[i % 3], CITIES[(i // 3) % 4]
        text = f"today {person} {verb} {city}"
        at = len("today "), len(f"today {person} {verb} ")
        entities = [
            {"start": at[0], "end": at[0] + len(person), "label": "PER"},
            {"start": at[1], "end": at[1] + len(city), "label": "LOC"},
        ]
        relations = [{"head": 0, "tail": 1, "type": VERBS[verb]}]
        rows.append({"text": text, "entities": entities, "relations": relations})
    return rows


@pytest.mark.slow
def test_a_graph_by_models_of_ones_own(tmp_path: Path, mainspring: Callable[..., Ran]) -> None:
    data = nano.write_jsonl(related(96), tmp_path / "data.jsonl")
    tiny = {"hidden_size": 48, "num_attention_heads": 3, "intermediate_size": 96}
    how = {"from_scratch": "bert-nano", "batch_tokens": 512, "precision": "float32", "seed": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BERT.sizes, "bert-nano", {**BERT.sizes["bert-tiny"], **tiny})
        for task, steps, rate in (("entities", 60, 1e-2), ("relations", 120, 3e-3)):
            package.fit(
                task,
                data,
                out=tmp_path / task,
                steps=steps,
                learning_rate=rate,
                vocabulary=330,
                evaluate_every=steps // 2,
                **how,
            )
    (tmp_path / "note.txt").write_text("today Anna loves Oslo\n\ntoday Bert left Rome", "utf-8")
    code, out, err = mainspring(
        *("graph", "build", tmp_path / "note.txt", "--store", tmp_path / "kg", "--passage", 40),
        *("--entities", tmp_path / "entities", "--relations", tmp_path / "relations"),
        *("--precision", "float32"),
    )
    assert code == 0, err
    assert "1 documents read" in out
    found = graph.query(
        """SELECT ?head ?relation ?tail ?text { GRAPH ?document {
             ?statement rdf:subject/rdfs:label ?head ; rdf:object/rdfs:label ?tail ;
               rdf:predicate/rdfs:label ?relation ; nif:anchorOf ?text } }""",
        store=tmp_path / "kg",
    )
    assert {tuple(row.values()) for row in found.rows} >= {
        ("Anna", "lives in", "Oslo", "today Anna loves Oslo"),
        ("Bert", "moved from", "Rome", "today Bert left Rome"),
    }
    again = graph.build(
        tmp_path / "note.txt",
        store=tmp_path / "kg",
        passage=40,
        entities=str(tmp_path / "entities"),
        relations=str(tmp_path / "relations"),
        precision="float32",
    )
    assert again.facts["done_before"] == 1


@pytest.mark.parametrize("labels", [("in", "of"), ("in", "no_relation")])
def test_a_relation_model_that_finds_something_everywhere_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, labels: tuple[str, str]
) -> None:
    setup = Setup(Limits(40, 2), labels=labels)
    opened = SimpleNamespace(formulation=relation_pairs.FORMULATION, setup=setup)
    monkeypatch.setattr(graph_building, "open_for", lambda task, use: opened)
    heard: list[object] = []
    with events.listening(heard.append):
        graph_building._opened("relations", "mine", graph_building.use_of("mine", "auto", "cpu"))
    warned = any("`mine` has learnt no pair" in str(event) for event in heard)
    assert warned is ("no_relation" not in labels)
