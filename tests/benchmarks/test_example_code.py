"""Ours and the example code read the same, learn, and are scored by one scorer."""

import gzip
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import transformers
from benchmarks.example_code import (
    OURS,
    THEIRS,
    batch_tokens,
    compared,
    material,
    run,
)
from benchmarks.example_contestants import (
    BUILDERS,
    ExampleSetup,
    _learn,
    _spans,
    marked,
    read_rows,
)
from benchmarks.example_tasks import COMPARISONS, Comparison
from benchmarks.results_page import comparison_lines

import answering
import nano
from mainspring.checkpoints.bundle import load
from mainspring.formulations import Limits, Setup
from mainspring.formulations.pairs import pair_up

BY_TASK = {c.task: c for c in COMPARISONS}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    transformers.set_seed(0)
    transformers.BertModel(answering.config(initializer_range=0.2)).save_pretrained(folder)
    answering.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three data sets in small, laid out as the real ones."""
    root, draw = tmp_path_factory.mktemp("data"), random.Random(0)
    folder = root / "ner" / "wnut17"
    folder.mkdir(parents=True)
    for split in ("train", "validation", "test"):
        blocks = []
        for _ in range(24):
            words = draw.sample(nano.WORDS, 6)
            tags = ["B-metal" if word in ("copper", "silver") else "O" for word in words]
            blocks.append("\n".join(f"{w}\t{t}" for w, t in zip(words, tags, strict=True)))
        (folder / f"{split}.conll").write_text("\n\n".join(blocks) + "\n")
    folder = root / "relation_extraction" / "semeval2010_task8"
    folder.mkdir(parents=True)
    for split in ("train", "validation", "test"):
        nano.write_jsonl((_related(draw) for _ in range(24)), folder / f"{split}.jsonl")
    folder = root / "qa" / "squad_v1.1"
    folder.mkdir(parents=True)
    with gzip.open(folder / "train-v1.1.json.gz", "wt") as file:
        json.dump(_squad(40, 0), file)
    (folder / "dev-v1.1.json").write_text(json.dumps(_squad(12, 1)))
    return root


def _related(draw: random.Random) -> dict[str, Any]:
    first, last = draw.sample(nano.WORDS, 2)
    text = f"the {first} is in the {last}"
    relation = draw.choice(("Content-Container(e1,e2)", "Other"))
    head, tail = [4, 4 + len(first)], [len(text) - len(last), len(text)]
    return {
        "text": text,
        "head": first,
        "tail": last,
        "head_span": head,
        "tail_span": tail,
        "relation": relation,
    }


def _squad(count: int, seed: int) -> dict[str, Any]:
    paragraphs = []
    for row in answering.rows(count, seed):
        answers = [{"text": a["text"], "answer_start": a["start"]} for a in row["answers"]]
        asked = {"question": row["question"], "answers": answers}
        paragraphs.append({"context": row["context"], "qas": [asked]})
    return {"data": [{"paragraphs": paragraphs}]}


def little(task: str) -> Comparison:
    return replace(BY_TASK[task], steps=3, rows=8, longest=48, stride=16)


def example(task: str, encoder: Path, folder: Path) -> tuple[ExampleSetup, Any]:
    c = little(task)
    setup = ExampleSetup(
        task, encoder, folder / "train.jsonl", c.steps, c.rows, 1e-3, c.longest, c.stride, 1, 1
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder)
    return setup, BUILDERS[task](setup, tokenizer, read_rows(setup.train))


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("task", list(BY_TASK))
def test_the_example_code_learns_and_predicts(
    task: str, encoder: Path, data: Path, tmp_path: Path
) -> None:
    folder = material(little(task), data, tmp_path)
    setup, made = example(task, encoder, folder)
    learned = _learn(setup, made)
    assert len(learned.losses) == setup.steps and learned.tokens > 0
    assert learned.rows == setup.steps * setup.rows
    test = read_rows(folder / "test.jsonl")
    made.model.eval()
    said = list(made.predict(test))
    c = little(task)
    assert [type(c.theirs(*pair)) for pair in zip(test, said, strict=True)]
    if task == "entities":
        assert all(len(s) == len(row["tokens"]) for s, row in zip(said, test, strict=True))
    if task == "answer":
        assert all(s in row["context"] for s, row in zip(said, test, strict=True))


@pytest.mark.oracle
def test_both_read_the_same_windows(encoder: Path, data: Path, tmp_path: Path) -> None:
    """The same ids in the same windows, so that the tokens of both are comparable."""
    folder = material(little("answer"), data, tmp_path)
    setup, _ = example("answer", encoder, folder)
    rows = [
        {"question": row["question"], "context": 3 * row["context"]}
        for row in read_rows(setup.train)
    ]
    answers = [{"text": ["The"], "answer_start": [row["context"].index("The")]} for row in rows]
    long = [{**row, "answers": a} for row, a in zip(rows, answers, strict=True)]
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder)
    theirs = BUILDERS["answer"](setup, tokenizer, long).features
    bundle = load(encoder)
    told = Setup(Limits(setup.longest, 8), options={"stride": setup.stride})
    ours = [
        list(window.ids)
        for pair in pair_up(rows, bundle.tokenizer, told)
        for window in pair.windows(setup.stride)
    ]
    assert len(ours) > len(rows)
    assert ours == [feature["input_ids"] for feature in theirs]


def test_rows_are_marked_and_batches_hold_as_many() -> None:
    row = {"text": "the river is in the garden", "head_span": [20, 26], "tail_span": [4, 9]}
    assert marked(row) == "the  [E2] river [/E2]  is in the  [E1] garden [/E1] "
    lengths = [random.Random(0).randrange(8, 120) for _ in range(3000)]
    tokens, rows = batch_tokens(lengths, 16, seed=1)
    assert abs(rows - 16) < 1 and tokens > 0


def test_spans_lie_in_the_context() -> None:
    tokens = {2: (0, 3), 3: (4, 6)}
    start, end = [9.0, 0.0, 1.0, 2.0], [9.0, 0.0, 1.0, 3.0]
    assert max(_spans(start, end, tokens)) == (5.0, 4, 6)
    assert (4.0, 0, 6) in set(_spans(start, end, tokens))


def test_scores_are_those_of_one_scorer() -> None:
    """Of two seeds the counts are averaged; the difference's interval holds the difference."""
    c = BY_TASK["entities"]
    test = [{"tokens": ["a", "b"], "ner_tags": ["B-x", "O"]} for _ in range(20)]
    right = [[{"label": "x", "start": 0, "end": 1}] for _ in test]
    wrong = [["O", "B-x"] for _ in test]
    half = [["B-x", "O"] if at % 2 else ["O", "O"] for at in range(20)]
    found = compared(
        c, test, {OURS: [{"said": right}] * 2, THEIRS: [{"said": wrong}, {"said": half}]}
    )
    assert found["scores"][OURS]["f1"] == 100.0
    assert [round(s["f1"], 1) for s in found["by_seed"][THEIRS]] == [0.0, 66.7]
    told = found["difference"]["f1"]
    assert told["low"] <= told["mean"] <= told["high"] and told["mean"] > 0
    with pytest.raises(RuntimeError, match="answered 19 of 20"):
        compared(c, test, {OURS: [{"said": right[1:]}], THEIRS: [{"said": half}]})


@pytest.mark.slow
@pytest.mark.oracle
def test_a_comparison_is_kept_and_goes_on(
    encoder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    c = replace(little("relations"), steps=2)
    run(c, data, encoder, tmp_path, [7], 1)
    record = json.loads((tmp_path / "example-relations.json").read_text())
    assert record["rows"] == 24 and set(record["scores"]) == {OURS, THEIRS}
    assert abs(record["contestants"][OURS]["rows_a_step"] - 8) < 2
    page = "\n".join(comparison_lines([record]))
    assert "SemEval" in page and "mainspring fit relations" in page
    capsys.readouterr()
    run(c, data, encoder, tmp_path, [7], 1)
    assert "trained" not in capsys.readouterr().out  # both parts were there
