"""Questions in words: answers by paths, and saying that it does not know."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from toy_extractor import build, documents

from mainspring.data.skipped import SkipLog
from mainspring.graph import asking, importing, store
from mainspring.graph.asking import Answered, Asker
from mainspring.graph.lexicon import stem
from mainspring.graph.linking import Vectors
from mainspring.graph.vocabulary import normal

STORY = (
    "Marie Curie was born in Warsaw. Pierre Curie knows Marie Curie. Ann Lee works for Acme. "
    "Bob Ray works for Acme. Acme knows Bob Ray. 居里 认识 华沙."
)


@pytest.fixture(scope="module")
def asker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asker]:
    folder = tmp_path_factory.mktemp("asking") / "kg"
    build(folder, documents(story=STORY))
    with store.reading(folder) as graph:
        yield Asker(graph)


def labels(answered: Answered) -> list[str]:
    return [answer.label for answer in answered.answers]


@pytest.mark.parametrize(
    ("question", "answers"),
    [
        ("Where was Marie Curie born?", ["Warsaw"]),
        ("where was MARIE CURIE born", ["Warsaw"]),
        ("Who was born in Warsaw?", ["Marie Curie"]),
        ("Who works for Acme?", ["Ann Lee", "Bob Ray"]),
        ("Who does Bob Ray work for?", ["Acme"]),
        ("Who knows Bob Ray?", ["Acme"]),
        ("Whom does Acme know?", ["Bob Ray"]),
        ("Where was the person born whom Pierre Curie knows?", ["Warsaw"]),
        ("居里认识谁?", ["华沙"]),
    ],
)
def test_questions_with_an_answer(asker: Asker, question: str, answers: list[str]) -> None:
    assert labels(asker.ask(question)) == answers


def test_an_answer_is_a_path_with_its_places(asker: Asker) -> None:
    [answer] = asker.ask("Where was the person born whom Pierre Curie knows?").answers
    told = [(asker.label(s.edge.head), asker.label(s.edge.tail), s.backward) for s in answer.path]
    assert told == [("Pierre Curie", "Marie Curie", False), ("Marie Curie", "Warsaw", False)]
    [place] = answer.path[1].evidence
    assert STORY[place.start : place.end] == place.text == "Marie Curie was born in Warsaw."


@pytest.mark.parametrize(
    ("question", "why"),
    [
        ("Who invented tea?", "no thing in the question is in the graph"),
        ("", "no thing in the question"),
        ("What does Marie Curie eat?", "Marie Curie: in the graph, but with no fact like"),
        ("Where was Ann Lee born?", "Ann Lee: in the graph, but with no fact like"),
    ],
)
def test_it_says_when_it_does_not_know(asker: Asker, question: str, why: str) -> None:
    answered = asker.ask(question)
    assert labels(answered) == [] and why in answered.problem


def test_an_encoder_finds_relations_by_meaning(asker: Asker) -> None:
    def encode(texts: Sequence[str]) -> Vectors:
        """Employment, birth, or neither."""
        meanings = [("works", "pays"), ("born", "cradle"), ("",)]
        rows = [[any(word in text.split() for word in m) for m in meanings] for text in texts]
        counts = np.array(rows, dtype=np.float32) + np.array([0, 0, 1e-6], dtype=np.float32)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)

    question = "What is the cradle of Marie Curie?"
    assert labels(asker.ask(question)) == []
    knowing = Asker(asker.store, encode)
    assert labels(knowing.ask(question)) == ["Warsaw"]
    assert labels(knowing.ask("Who pays Ann Lee?")) == ["Acme"]


def test_an_answer_that_fits_badly_is_a_guess(asker: Asker) -> None:
    def encode(texts: Sequence[str]) -> Vectors:
        """Everything a little like everything else: a cosine of 0.2."""
        return np.eye(len(texts), 64, dtype=np.float32) * 0.8**0.5 + np.float32(0.2**0.5) * (
            np.arange(64) == 63
        )

    question = "Where does Marie Curie reside?"
    guessed = Asker(asker.store, encode).ask(question)
    assert guessed.answers and not guessed.sure and 0.1 <= guessed.score < 0.35
    declined = Asker(asker.store, encode).ask(question, least=0.35)
    assert not declined.answers and not declined.sure and "no fact like" in declined.problem
    assert asker.ask("Where was Marie Curie born?").sure


def test_words_meet_by_their_stems() -> None:
    same = [("directed", "director"), ("works", "working"), ("marries", "marry"), ("born", "borne")]
    assert all(stem(a) == stem(b) for a, b in same)
    assert stem("居里") == "居里" and stem("is") == "is"


# -- real questions --------------------------------------------------------------------------------


def usable(row: dict) -> tuple[str, str] | None:
    """(the thing that a WebQuestions question names, the name of the relation to its answers)."""
    paths = [
        path for path in row["relation_paths"] if not path[0][0].startswith(("/type", "/common"))
    ]
    question = normal(row["question"])
    named = [e["concept"] for e in row["entities"] if e["mid"] and normal(e["concept"]) in question]
    if not paths or not named:
        return None
    best = max(paths, key=lambda path: path[1])[0]
    return max(named, key=len), " ".join(part.rsplit("/", 1)[-1] for part in best)


@pytest.mark.slow
def test_real_questions_are_answered_or_declined(shared_data: Path, tmp_path: Path) -> None:
    """A graph out of WebQuestions' own Freebase paths; without an encoder few questions share a
    word with a relation's name, but where one is answered the answer is mostly right."""
    folder = shared_data / "knowledge_graph" / "webquestions"
    lines = (folder / "validation.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [(row, about) for row in map(json.loads, lines[:300]) if (about := usable(row))]
    with (tmp_path / "kb.csv").open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(("head", "relation", "tail"))
        writer.writerows((*about, answer) for row, about in rows for answer in row["answers"])
    with store.writing(tmp_path / "kg", "importing") as graph, SkipLog() as skipped:
        importing.import_file(tmp_path / "kb.csv", graph, skipped)
    right = said = 0
    with store.reading(tmp_path / "kg") as graph:
        asker = Asker(graph)
        for row, _ in rows:
            found = {normal(label) for label in labels(asker.ask(row["question"]))}
            said += bool(found)
            right += bool(found & {normal(answer) for answer in row["answers"]})
    assert len(rows) > 150 and said > len(rows) / 8
    assert right > 0.8 * said


# -- things with very many facts -------------------------------------------------------------------

HUB = [
    *((f"Worker {i:03}", "works for", "BigCo") for i in range(300)),
    *((f"Worker {i:03}", "lives in", f"Town {i:03}") for i in range(300)),
    *(("BigCo", "sells", f"Gadget {i:03}") for i in range(300)),
    ("BigCo", "based in", "Oslo"),
    ("Zoe Last", "founded", "BigCo"),
]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asker]:
    folder = tmp_path_factory.mktemp("hub")
    with (folder / "kb.csv").open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([("head", "relation", "tail"), *HUB])
    with store.writing(folder / "kg", "importing") as graph, SkipLog() as skipped:
        importing.import_file(folder / "kb.csv", graph, skipped)
    with store.reading(folder / "kg") as graph:
        yield Asker(graph)


@pytest.mark.parametrize(
    ("question", "answers"),
    [
        ("How many people work for BigCo?", [f"Worker {i:03}" for i in range(300)]),
        ("What does BigCo sell?", [f"Gadget {i:03}" for i in range(300)]),
        ("Who founded BigCo?", ["Zoe Last"]),
        ("Where is BigCo based?", ["Oslo"]),
        ("Does Worker 299 work for BigCo?", ["BigCo"]),
        ("Who is the founder of the company that Worker 003 works for?", ["Zoe Last"]),
        ("Where do the people who work for BigCo live?", [f"Town {i:03}" for i in range(300)]),
    ],
)
def test_all_facts_of_a_thing_count(hub: Asker, question: str, answers: list[str]) -> None:
    found = hub.ask(question)
    assert labels(found) == answers and found.sure and not found.notes
    assert all(step.evidence for answer in found.answers for step in answer.path)


def test_a_second_step_from_some_things_only_is_never_sure(
    hub: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = "Where do the people who work for BigCo live?"
    for limit in ("MOST", "MOST_PATHS"):
        with monkeypatch.context() as limited:
            limited.setattr(asking, limit, 200)
            found = hub.ask(question)
            assert len(found.answers) == 200 and not found.sure
            [note] = found.notes
            assert "`works for`: not all were followed further" in note
            assert hub.ask("How many people work for BigCo?").count == 300


def test_how_a_thing_with_many_facts_is_related(hub: Asker) -> None:
    found = hub.ask("How is Zoe Last related to Gadget 299?")
    assert labels(found) == ["founded, sells"] and found.sure
    assert [step.backward for step in found.answers[0].path] == [False, False]
    assert labels(hub.ask("How are Worker 299 and Worker 007 related?")) == ["works for, works for"]
