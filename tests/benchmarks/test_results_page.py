"""The page of results: what it says follows from the records."""

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks.graph_questions import answered, declined, triples
from benchmarks.recipes import RECIPES, triples_of_semeval
from benchmarks.results_page import (
    baseline,
    graph_lines,
    keep,
    margin,
    retrieval_lines,
    write,
)
from benchmarks.retrieval import by_words, paragraphs, recall

import nano
from benchmarks import graph_questions, results, retrieval

BY_NAME = {recipe.name: recipe for recipe in RECIPES}


def record(name: str, score: float, **baselines: float) -> dict[str, Any]:
    main, *others = BY_NAME[name].scores
    scores = {main: score, **dict.fromkeys(others, 1.0)}
    return {
        "recipe": name,
        "commands": ["fit x --seed 7 --out runs/x", "evaluate x"],
        "cores": 2,
        "fit": {"train_seconds": 120.0, "steps": 3, "tokens": 2400, "best_step": 3},
        "evaluate": {
            "scores": scores,
            "interval": {main: (score - 1, score + 1)},
            "baseline": {base: {main: value} for base, value in baselines.items()},
            "rows": 5,
            "skipped": 0,
            "signature": "as scored",
        },
    }


def test_margins_are_from_the_best_baseline() -> None:
    entities, poems = BY_NAME["entities-wnut17"], BY_NAME["generate-tang"]
    found = record("entities-wnut17", 40.0, gazetteer=10.0, nothing=0.0)
    assert baseline(entities, found) == ("gazetteer", 10.0) and margin(entities, found) == 30.0
    found = record("generate-tang", 2.0, unigram=3.5, uniform=8.0)
    assert baseline(poems, found) == ("unigram", 3.5) and margin(poems, found) == 1.5
    assert margin(entities, record("entities-wnut17", 40.0)) is None


def test_the_page_is_made_of_what_is_there(tmp_path: Path) -> None:
    for name, score in (("entities-wnut17", 40.0), ("generate-tang", 2.0)):
        (tmp_path / f"{name}.json").write_text(json.dumps(record(name, score, base=1.0)))
    (tmp_path / "other.json").write_text("{}")
    kept = tmp_path / "kept"
    keep(tmp_path, kept)
    assert sorted(file.stem for file in kept.iterdir()) == ["entities-wnut17", "generate-tang"]
    write(kept, tmp_path / "page.md", tmp_path / "page.png")
    page = (tmp_path / "page.md").read_text()
    assert "f1 **40.00** [39.00, 41.00] | base 1.00 | +39.00 |" in page
    assert "| 2 min on 2 cores, 3 steps, 2,400 tokens |" in page
    assert "bits_per_byte **2.00** [1.00, 3.00] | base 1.00 | -1.00 |" in page
    assert "seed 7" in page and "example code" not in page
    assert ("](page.png)" in page) == (tmp_path / "page.png").is_file()


def test_recipes_have_names_of_their_own_and_commands_that_fill() -> None:
    assert len(BY_NAME) == len(RECIPES)
    for recipe in RECIPES:
        for words in (recipe.before, recipe.train, recipe.test):
            assert "{" not in words.format(data="D", made="M", body="B")
        assert ("{made}" in recipe.before + recipe.train) == (recipe.prepare is not None)
        assert ("{body}" in recipe.train) == bool(recipe.before)


def test_a_recipe_prepares_trains_and_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "relation_extraction" / "semeval2010_task8"
    folder.mkdir(parents=True)
    names = ("Cause-Effect(e1,e2)", "Cause-Effect(e2,e1)", "Other")
    rows = [{"text": "rain, mud", "head": "rain", "tail": "mud", "relation": r} for r in names]
    for split in ("train", "validation", "test"):
        nano.write_jsonl(rows, folder / f"{split}.jsonl")
    said: list[str] = []

    def mainspring(words: str, log: Path) -> dict[str, Any]:
        said.append(words)
        return {"scores": {}}

    monkeypatch.setattr(results, "_mainspring", mainspring)
    recipe = BY_NAME["relations-triples-semeval"]
    made = results.run(recipe, tmp_path, tmp_path, 2, 9, 5)
    found = nano.read_jsonl(tmp_path / f"{recipe.name}.data" / "train.jsonl")
    assert [row["relations"] for row in found] == [
        [{"head": "rain", "type": "Cause-Effect", "tail": "mud"}],
        [{"head": "mud", "type": "Cause-Effect", "tail": "rain"}],
    ]
    assert recipe.prepare is triples_of_semeval
    assert said[0].startswith(f"fit relations {tmp_path / recipe.name}.data --form triples")
    assert "--minutes 2 --seed 5" in said[0] and said[1].endswith("--limit 9")
    assert str(tmp_path) not in "".join(made["commands"])


def test_a_recipe_of_two_trainings_shares_the_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def mainspring(words: str, log: Path) -> dict[str, Any]:
        said.append(words)
        found = record("answer-drcd-zh", 40.0)
        return found["evaluate" if words.startswith("evaluate") else "fit"]

    monkeypatch.setattr(results, "_mainspring", mainspring)
    results.run(BY_NAME["answer-drcd-zh"], tmp_path / "data", tmp_path, 5, None, 3)
    body = f"{tmp_path / 'answer-drcd-zh.body'}"
    assert [words.split()[0] for words in said] == ["fit", "fit", "evaluate"]
    assert all("--minutes 2.5 --seed 3" in words for words in said[:2])
    assert f"--out {body}" in said[0] and f"--model {body}" in said[1]
    (tmp_path / "kept").mkdir()
    keep(tmp_path, tmp_path / "kept")
    write(tmp_path / "kept", tmp_path / "page.md", tmp_path / "page.png")
    page = (tmp_path / "page.md").read_text()
    assert "2 + 2 min on 2 cores, 3 + 3 steps, 4,800 tokens" in page
    assert page.count("\nmainspring fit answer") == 2 and str(tmp_path) not in page


def test_passages_are_right_where_they_hold_an_answer(tmp_path: Path) -> None:
    squad = {"data": [{"paragraphs": [_paragraph("a red fox", "fox"), _paragraph("a cow", "cow")]}]}
    file = tmp_path / "dev.json"
    file.write_text(json.dumps(squad))
    asked = paragraphs(file, tmp_path / "texts")
    assert [name for _, name, _ in asked] == ["00000.txt", "00001.txt"]
    passages = [("x/00000.txt", "a red fox"), ("x/00001.txt", "a cow")]
    near = by_words(passages, ["red?", "which cow?"])
    assert recall(near, asked)["1"] == 100.0
    wrong = [list(reversed(row)) for row in near]
    assert recall(wrong, asked) == {"1": 0.0, "5": 100.0, "20": 100.0}
    found = {
        "questions": 2,
        "documents": 2,
        "passages": 2,
        "retriever": "minilm",
        "nearest": [1, 5, 20],
        "recall": {"minilm": recall(near, asked), "TF-IDF": recall(wrong, asked)},
    }
    assert "| 1 | 100.0 % | 0.0 % |" in list(retrieval_lines(found))
    assert retrieval.FILE.endswith(".json")


def _paragraph(text: str, answer: str) -> dict[str, Any]:
    return {"context": text, "qas": [{"question": "?", "answers": [{"text": answer}]}]}


def test_questions_to_a_graph_are_counted(tmp_path: Path) -> None:
    """Each relation is a word of its question; without those facts there is no answer."""
    asked = {"was ann lee born": "Warsaw", "did ann lee die": "Paris"}
    paths = ("/people/person/born", "/people/person/died")
    rows = [
        {
            "question": f"where {words}?",
            "entities": [{"concept": "Ann Lee", "mid": "m"}],
            "relation_paths": [[[path], 1.0]],
            "answers": [place],
        }
        for path, (words, place) in zip(paths, asked.items(), strict=True)
    ]
    for split in graph_questions.SPLITS:
        nano.write_jsonl(rows, tmp_path / f"{split}.jsonl")
    known = sorted(set(triples(tmp_path)))
    counts = answered(rows, known, None)
    assert counts["questions"] == counts["right and sure"] == counts["right, least 0, several"] == 2
    assert counts["right by frequency"] == 1
    out = declined(rows, [*known, ("Ann Lee", "wrote", "Poems")], None)
    assert out == {"said nothing": 2, "said nothing, or that it is a guess": 2}
    kept = {"counts": counts, "facts taken out": out, "triples": 2, "rows": 2, "encoder": None}
    page = list(graph_lines({**kept, "split": "test"}))
    assert "| `ask` | 100 % | 100 % | 100 % |" in page
