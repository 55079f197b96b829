"""Passages of documents, the index over them, and answers that cite where they stand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

import mainspring
import nano
from answering import config, tokenizer, write_reader
from mainspring import events
from mainspring.checkpoints.bundle import load
from mainspring.data.passages import Document, documents, passages
from mainspring.data.skipped import SkipLog
from mainspring.errors import BadData, BadOption, Missing
from mainspring.formulations.embedding import Embedder, embed, embedder
from mainspring.formulations.passage_index import INDEX, Index, open_index, update_index

MADE = {"retriever": "test"}


def write_retriever(folder: Path) -> Path:
    transformers.set_seed(5)
    transformers.BertModel(config(initializer_range=0.2)).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    (folder / "1_Pooling").mkdir()
    kinds = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
    modules = [{"type": f"sentence_transformers.models.{k}", "path": p} for k, p in kinds]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 24}')
    return folder


@pytest.fixture(scope="module")
def retriever(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_retriever(tmp_path_factory.mktemp("retriever"))


@pytest.fixture(scope="module")
def model(retriever: Path) -> Embedder:
    return embedder(load(retriever))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four documents, one of them in a folder, one in a table."""
    place = tmp_path / "documents"
    (place / "deep").mkdir(parents=True)
    for number, name in enumerate(["a.txt", "b.md", "deep/c.txt"]):
        text = " ".join(row["article"] for row in nano.pairs(4, seed=number))
        (place / name).write_text(text, encoding="utf-8")
    nano.write_jsonl([{"id": 1, "content": "The bridge is in silver."}], place / "d.jsonl")
    (place / ".hidden.txt").write_text("no")
    (place / "_left.txt").write_text("no")
    return place


def all_documents(place: Path) -> list[Document]:
    with SkipLog() as skipped:
        return list(documents(place, skipped))


def words(texts: Any) -> list[int]:
    return [len(text.split()) for text in texts]


# -- documents and passages ------------------------------------------------------------------------


def test_documents_of_a_folder_and_the_folders_in_it(folder: Path) -> None:
    found = all_documents(folder)
    assert [d.name for d in found] == ["a.txt", "b.md", "d.jsonl:1", "deep/c.txt"]
    assert found[2].text == "The bridge is in silver."
    assert all_documents(folder / "a.txt")[0].name == "a.txt"


def test_contexts_of_question_files_are_documents(tmp_path: Path) -> None:
    paragraphs = [{"context": "One.", "qas": []}, {"context": "Two.", "qas": []}]
    data = {"data": [{"title": "T", "paragraphs": paragraphs}]}
    (tmp_path / "train.json").write_text(json.dumps(data))
    assert [(d.name, d.text) for d in all_documents(tmp_path)] == [
        ("train.json:T:1", "One."),
        ("train.json:T:2", "Two."),
    ]


def test_documents_of_one_file_have_names_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "line.json").write_text(json.dumps([{"text": "One."}, {"text": "Two."}]))
    two = [{"context": "One."}, {"context": "Two."}]
    untitled = {"data": [{"paragraphs": two}, {"paragraphs": two}]}
    (tmp_path / "none.json").write_text(json.dumps(untitled))
    titled = {"data": [{"title": "T", "paragraphs": two[:1]}] * 3}
    (tmp_path / "same.json").write_text(json.dumps(titled))
    assert [d.name for d in all_documents(tmp_path)] == [
        "line.json:1",
        "line.json:1.2",
        "none.json:1:1",
        "none.json:1:2",
        "none.json:1.2:1",
        "none.json:1.2:2",
        "same.json:T:1",
        "same.json:T:1 (2)",
        "same.json:T:1 (3)",
    ]


def test_what_cannot_be_read_is_told_and_the_rest_kept(folder: Path) -> None:
    (folder / "e.txt").write_bytes(b"caf\xe9 in latin-1")
    (folder / "f.txt").write_text("  \n")
    (folder / "g.csv").write_text("id,number\n1,2\n")
    (folder / "h.txt").write_bytes("In UTF-16 too.".encode("utf-16"))
    said: list[events.Event] = []
    with SkipLog() as skipped, events.listening(said.append):
        found = list(documents(folder, skipped))
    assert found[-1].text == "In UTF-16 too." and len(found) == 5
    assert skipped.counts == {"undecodable bytes": 1, "empty text": 1}
    [told] = [event.text for event in said if isinstance(event, events.Warn)]
    assert "1 file left out: no column for the text" in told and told.endswith("(g.csv)")


def told_of(place: Path) -> tuple[list[str], list[str]]:
    """The names of the documents there, and what is warned of."""
    said: list[events.Event] = []
    with events.listening(said.append):
        names = [document.name for document in all_documents(place)]
    return names, [event.text for event in said if isinstance(event, events.Warn)]


def test_files_of_other_kinds_are_told_of(folder: Path, tmp_path: Path) -> None:
    for name in ("a.html", "deep/b.html", "c.pdf", "plain", ".hidden.html", "_left.html"):
        (folder / name).write_text("x")
    (folder / "gone.txt").symlink_to(tmp_path / "nowhere.txt")
    names, [told] = told_of(folder)
    assert names == ["a.txt", "b.md", "d.jsonl:1", "deep/c.txt"]
    assert "left out: 2 .html, 1 " in told
    assert all(part in told for part in ("1 .pdf", "1 without a suffix", "1 broken links", ".txt"))
    with pytest.raises(BadData, match=r"a\.html: unknown kind of file"):
        all_documents(folder / "a.html")
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "a.docx").write_text("x")
    with pytest.raises(Missing, match=r"no documents; left out: 1 \.docx"):
        all_documents(tmp_path / "only")
    (tmp_path / "only" / "b.csv").write_text("id,number\n1,2\n")
    with pytest.raises(BadData, match=r"1 file left out: no column .*; left out: 1 \.docx"):
        all_documents(tmp_path / "only")


def test_files_that_are_left_out_for_one_reason_are_told_of_together(folder: Path) -> None:
    for number in range(7):
        (folder / f"t{number}.csv").write_text(f"id,number{number}\n1,2\n")
    (folder / "u1.jsonl").write_text("")
    (folder / "u2.jsonl").write_text("")
    _, told = told_of(folder)
    assert len(told) == 2
    assert "7 files left out: no column for the text" in told[0]
    assert told[0].endswith("(first three: t0.csv, t1.csv, t2.csv)")
    assert "2 files left out: no rows in it (u1.jsonl, u2.jsonl)" in told[1]


def test_linked_folders_are_read_once(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "below").mkdir(parents=True)
    (other / "o.txt").write_text("The tower is in copper.")
    (other / "below" / "p.txt").write_text("The tower is in tin.")
    (other / "back").symlink_to(folder)
    (other / "round").symlink_to(other)
    (folder / "link").symlink_to(other)
    (folder / "link2").symlink_to(other)
    (folder / "up").symlink_to(folder.parent)
    (folder / "deep" / "itself").symlink_to(folder / "deep")
    names, told = told_of(folder)
    assert [line.partition("; ")[0] for line in told] == [
        f"{folder}: left out: 1 links to folders that hold this one"
    ]
    assert names == [
        *("a.txt", "b.md", "d.jsonl:1", "deep/c.txt", "link/below/p.txt", "link/o.txt")
    ]


def test_folders_without_documents(tmp_path: Path) -> None:
    with pytest.raises(Missing, match="no documents"):
        all_documents(tmp_path)
    (tmp_path / "a.txt").write_text(" ")
    with pytest.raises(BadData, match="1 empty text"):
        all_documents(tmp_path)
    with pytest.raises(Missing, match="no file or folder"):
        all_documents(tmp_path / "nothing")


@given(st.text(alphabet="ab. \n!中。", max_size=120), st.integers(3, 12))
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
def test_passages_tile_a_document(text: str, limit: int) -> None:
    made = list(passages(Document("d", text), lambda texts: [len(t) for t in texts], limit))
    assert all(text[p.start : p.end] == p.text and p.text.strip() for p in made)
    assert all(len(p.text) <= limit for p in made)
    covered = set().union(*(range(p.start, p.end) for p in made)) if made else set()
    assert all(not text[i].strip() for i in set(range(len(text))) - covered)
    assert sum(len(p.text) for p in made) == len(covered)


# -- the index -------------------------------------------------------------------------------------


def test_the_nearest_are_those_of_all_pairs(
    model: Embedder, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mainspring.formulations.passage_index as module

    monkeypatch.setattr(module, "ROWS", 3)
    index = update_index(tmp_path / "index", model, all_documents(folder), MADE)
    assert len(index.vectors) > 8
    texts = [index.passage(n).text for n in range(len(index.vectors))]
    vectors = np.stack([e.vector for e in embed(model, texts)])
    assert np.allclose(index.vectors, vectors, atol=1e-5)
    questions = np.stack([e.vector for e in embed(model, ["river", "Where is silver?"])])
    cosines = questions @ vectors.T
    for row, found in zip(cosines, index.nearest(questions, 4), strict=True):
        assert [n for n, _ in found] == np.argsort(-row, kind="stable")[:4].tolist()
        assert np.allclose([c for _, c in found], np.sort(row)[::-1][:4], atol=1e-5)
    assert len(index.nearest(questions, 999)[0]) == len(texts)


def test_the_approximate_search_finds_the_same(
    model: Embedder, folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("faiss")
    index = update_index(tmp_path / "index", model, all_documents(folder), MADE)
    questions = np.stack([e.vector for e in embed(model, ["river", "Where is silver?"])])
    exact = index.nearest(questions, 3)
    for _ in range(2):  # built, and read again
        found = index.nearest(questions, 3, "hnsw")
        for a, b in zip(exact, found, strict=True):
            assert [n for n, _ in a] == [n for n, _ in b]
            assert np.allclose([c for _, c in a], [c for _, c in b], atol=1e-5)


def built(model: Embedder, folder: Path, place: Path, **made: Any) -> tuple[Index, int]:
    """The index, and how many texts were embedded for it."""
    import mainspring.formulations.passage_index as module

    real, counted = module.embed, []

    def counting(model: Embedder, texts: Any, **options: Any) -> Any:
        return real(model, (counted.append(t) or t for t in texts), **options)

    module.embed = counting  # type: ignore[assignment]
    try:
        return update_index(place, model, all_documents(folder), {**MADE, **made}), len(counted)
    finally:
        module.embed = real


def test_documents_that_did_not_change_keep_their_vectors(
    model: Embedder, folder: Path, tmp_path: Path
) -> None:
    place = tmp_path / "index"
    first, made = built(model, folder, place)
    assert made == len(first.vectors)
    before = (place / INDEX).stat().st_mtime_ns
    again, made = built(model, folder, place)
    assert made == 0 and (place / INDEX).stat().st_mtime_ns == before
    assert np.array_equal(again.vectors, first.vectors)
    # One is new, one is changed, one is gone.
    (folder / "new.txt").write_text("The letter is in copper.")
    (folder / "a.txt").write_text("The river is in copper.")
    (folder / "b.md").unlink()
    changed, made = built(model, folder, place)
    assert made == 2 and set(changed.documents) == {
        "a.txt",
        "d.jsonl:1",
        "deep/c.txt",
        "new.txt",
    }
    anew, _ = built(model, folder, tmp_path / "other")
    texts = [
        {i.passage(n).text: i.vectors[n] for n in range(len(i.vectors))} for i in (changed, anew)
    ]
    assert texts[0].keys() == texts[1].keys()
    assert all(np.allclose(texts[0][t], texts[1][t], atol=1e-5) for t in texts[0])
    # Made another way, nothing is kept.
    _, made = built(model, folder, place, tokens=9)
    assert made == len(changed.vectors)
    assert not list(place.glob(".building*"))


def contents(index: Index) -> dict[str, list[tuple[str, np.ndarray]]]:
    """The passages of each document and their vectors."""
    return {
        name: [(index.passage(number).text, index.vectors[number]) for number in numbers]
        for name, (_, numbers) in index.documents.items()
    }


def test_an_index_that_is_brought_up_to_date_equals_a_fresh_one(
    model: Embedder, tmp_path: Path
) -> None:
    """Documents that stand in one line, or in articles of one title, or of none."""
    place, folder = tmp_path / "index", tmp_path / "documents"
    folder.mkdir()
    texts = [f"The {thing} is in silver." for thing in ("river", "bridge", "letter", "bridge")]
    without = [*texts[:1], *texts[2:]]
    states = (texts, [*texts[:3], "The tower is in copper."], without, [*without, "New."], texts)
    for number, state in enumerate((*states, states[0][::-1])):
        (folder / "line.json").write_text(json.dumps([{"text": text} for text in state]))
        articles: list[dict[str, Any]] = [{"paragraphs": [{"context": text}]} for text in state]
        (folder / "none.json").write_text(json.dumps({"data": articles}))
        titled = [{"title": "T", **article} for article in articles]
        (folder / "same.json").write_text(json.dumps({"data": titled}))
        if number == 3:
            (folder / "line.json").rename(folder / "moved.json")
        (folder / "gone.json").write_text(json.dumps([{"text": "x"}] * (number % 2 + 1)))
        changed = contents(built(model, folder, place)[0])
        anew = contents(built(model, folder, tmp_path / f"fresh{number}")[0])
        assert {d.name: [d.text] for d in all_documents(folder)} == {
            name: [text for text, _ in found] for name, found in changed.items()
        }
        assert changed.keys() == anew.keys()
        for name, found in changed.items():
            assert all(
                text == same and np.allclose(vector, fresh, atol=1e-5)
                for (text, vector), (same, fresh) in zip(found, anew[name], strict=True)
            )
    # What an earlier release made, which could have several documents under one name.
    stored = json.loads((place / INDEX).read_text())
    (place / INDEX).write_text(json.dumps({**stored, "format": 1}))
    _, made = built(model, folder, place)
    assert made == len(stored["documents"])


def test_a_stopped_build_leaves_the_old_index(
    model: Embedder, folder: Path, tmp_path: Path
) -> None:
    place = tmp_path / "index"
    first, _ = built(model, folder, place)

    def stopping() -> Any:
        yield Document("x", "The river is in copper.")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        update_index(place, model, stopping(), MADE)
    kept = open_index(place)
    assert kept is not None and np.array_equal(kept.vectors, first.vectors)


def test_other_peoples_folders_are_left_alone(
    model: Embedder, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(BadOption, match="a folder with other files"):
        update_index(folder, model, all_documents(folder), MADE)
    place = tmp_path / "index"
    built(model, folder, place)
    lines = (place / "passages.jsonl").read_bytes().splitlines(keepends=True)
    (place / "passages.jsonl").write_bytes(b"".join(lines[:-1]))
    with pytest.raises(BadData, match="not equally many"):
        open_index(place)
    (place / INDEX).write_text("{")
    with pytest.raises(BadData, match="remove it"):
        open_index(place)


# -- answers ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reader")
    write_reader(folder)
    return folder


def test_answers_cite_their_place(
    reader: Path, retriever: Path, folder: Path, tmp_path: Path
) -> None:
    options = {
        "model": str(reader),
        "documents": str(folder),
        "retriever": str(retriever),
        "index": str(tmp_path / "index"),
        "precision": "float32",
    }
    texts = {document.name: document.text for document in all_documents(folder)}
    [row] = mainspring.run("answer", "Where is the bridge?", passages="3", n_best="4", **options)
    assert row["text"] == "Where is the bridge?"
    for entry in [row, *row["alternatives"]]:
        assert texts[entry["document"]][entry["start"] : entry["end"]] == entry["answer"] != ""
        assert entry["passage"] in texts[entry["document"]]
        assert -1 <= entry["similarity"] <= 1 and 0 < entry["score"] <= 1
    assert len(row["alternatives"]) == 4
    [same] = mainspring.run("answer", question="Where is the bridge?", passages="3", **options)
    assert (same["answer"], same["document"]) == (row["answer"], row["document"])
    table = nano.write_jsonl([{"question": "Where is the bridge?"}] * 2, tmp_path / "q.jsonl")
    found = mainspring.run("answer", table, passages="3", search="hnsw", **options)
    assert [f["answer"] for f in found] == [row["answer"]] * 2
    [silent] = mainspring.run(
        "answer", "Where is the bridge?", no_answer_threshold="-1000", **options
    )
    assert silent["answer"] == "" and silent["document"] is None


def test_open_questions_are_scored(
    reader: Path, retriever: Path, folder: Path, tmp_path: Path
) -> None:
    rows = [{"question": "Where is the bridge?", "answers": ["silver"]}] * 3
    file = nano.write_jsonl(rows, tmp_path / "test.jsonl")
    found = mainspring.evaluate(
        "answer",
        file,
        model=str(reader),
        documents=str(folder),
        retriever=str(retriever),
        index=str(tmp_path / "index"),
    )
    assert found.rows == 3 and found.baseline == {}


def test_a_model_that_writes_reads_the_passages_together(
    trained: Path, retriever: Path, folder: Path, tmp_path: Path
) -> None:
    [row] = mainspring.run(
        "answer",
        "Where is the bridge?",
        model=str(trained),
        documents=str(folder),
        retriever=str(retriever),
        index=str(tmp_path / "index"),
        max_source=200,
    )
    texts = {document.name: document.text for document in all_documents(folder)}
    assert row["passage"] in texts[row["document"]] and row["stop"] in ("eos", "length")
    if row["start"] is not None:
        cited = texts[row["document"]][row["start"] : row["end"]]
        assert cited.casefold() == row["answer"].casefold()


def test_options_of_retrieval_alone(reader: Path) -> None:
    with pytest.raises(BadOption, match="--retriever has no meaning without --documents"):
        mainspring.run("answer", "Who?", model=str(reader), retriever="minilm")
    with pytest.raises(BadOption, match="--search"):
        mainspring.run("answer", "Who?", model=str(reader), documents=".", search="fast")
