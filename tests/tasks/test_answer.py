"""`answer` from the user's file to the answer, by a reader that points and by models that write."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import transformers

import mainspring
import nano
from answering import config, tokenizer
from answering import rows as made_rows
from mainspring import events
from mainspring.errors import BadData, BadOption, Missing
from mainspring.tasks.answer import TASK

CONTEXT = "The river is quiet. The bridge is in silver."


def squad(rows: list[dict]) -> dict:
    asked = [
        {"context": row["context"], "qas": [{**row, "is_impossible": not row["answers"]}]}
        for row in rows
    ]
    for paragraph in asked:
        for question in paragraph["qas"]:
            del question["context"]
            for answer in question["answers"]:
                answer["answer_start"] = answer.pop("start")
    return {"version": "v2.0", "data": [{"title": "things", "paragraphs": asked}]}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT without a head that reads spans."""
    folder = tmp_path_factory.mktemp("encoder")
    transformers.set_seed(0)
    small = config(initializer_range=0.05, id2label={0: "a", 1: "b", 2: "c"})
    transformers.BertModel(small).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def learnt(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, list]:
    """(what `fit` wrote from a SQuAD 2.0 file, its result, what it said)."""
    folder = tmp_path_factory.mktemp("answer")
    data = squad(made_rows(400, unanswerable=0.3))
    data["data"][0]["paragraphs"][0]["qas"][0]["answers"] = [{"text": "iron", "answer_start": 2}]
    (folder / "train.json").write_text(json.dumps(data), encoding="utf-8")
    said: list[events.Event] = []
    with events.listening(said.append):
        result = mainspring.fit(
            "answer",
            folder / "train.json",
            model=str(encoder),
            out=folder / "model",
            steps=80,
            learning_rate=3e-3,
            batch_tokens=2048,
            max_source=64,
            evaluate_every=40,
            metric_rows=20,
            precision="float32",
            stride=16,
        )
    return folder / "model", result, said


def test_a_reader_learns_from_squad_and_beats_the_baseline(learnt, tmp_path: Path) -> None:
    model, _, _ = learnt
    test = tmp_path / "test.json"
    test.write_text(json.dumps(squad(made_rows(60, seed=9, unanswerable=0.3))), encoding="utf-8")
    found = mainspring.evaluate("answer", test, model=str(model), out=tmp_path / "out")
    base = found.baseline["likeliest sentence"]
    assert found.scores["f1"] > 60 > base["f1"]
    assert {"HasAns_exact", "HasAns_f1", "NoAns_exact", "NoAns_f1"} < set(found.scores)
    assert found.signature.startswith("rules of squad 2.0")
    assert found.rows == 60 and set(found.interval) == set(found.scores)
    lines = nano.read_jsonl(tmp_path / "out" / "predictions.jsonl")
    assert len(lines) == 60
    for line in lines:
        if line["predicted_answer"]:
            assert line["context"][line["start"] : line["end"]] == line["predicted_answer"]


def test_what_fit_says_and_remembers(learnt) -> None:
    model, result, said = learnt
    block = next(e for e in said if isinstance(e, events.Block) and e.title == "Pre-flight")
    lines = dict(block.lines)
    assert "1 answer not in the context" in lines["put right"]
    assert "context → context" in lines["task"] and "answers → answers" in lines["task"]
    stored = json.loads((model / "mainspring.json").read_text())
    assert stored["options"]["stride"] == 16
    assert isinstance(stored["options"]["found_threshold"], float)
    assert "f1" in result.scores
    listed = nano.read_jsonl(model / "skipped.jsonl")
    assert [entry["reason"] for entry in listed] == ["answer not in the context"]
    # transformers opens the folder as what it is.
    theirs, info = transformers.BertForQuestionAnswering.from_pretrained(
        model, output_loading_info=True
    )
    assert not info["missing_keys"] and theirs.qa_outputs.out_features == 2


def test_run_on_a_text_with_a_question(learnt, tmp_path: Path) -> None:
    model, _, _ = learnt
    [row] = mainspring.run(
        "answer", CONTEXT, model=str(model), question="Where is the bridge?", precision="float32"
    )
    assert row["answer"] == "silver" and CONTEXT[row["start"] : row["end"]] == "silver"
    assert 0 < row["score"] <= 1 and "no_answer_margin" in row
    [row] = mainspring.run(
        "answer",
        CONTEXT,
        model=str(model),
        question="Where is the bridge?",
        n_best="3",
        no_answer_threshold="1000",
    )
    assert len(row["alternatives"]) == 3 and row["answer"]
    [row] = mainspring.run(
        "answer",
        CONTEXT,
        model=str(model),
        question="Where is the bridge?",
        no_answer_threshold="-1000",
    )
    assert (row["answer"], row["start"]) == ("", None)


def test_run_on_tables_of_many_layouts(learnt, tmp_path: Path) -> None:
    model, _, _ = learnt
    rows = made_rows(6, seed=5)
    flat = nano.write_jsonl(rows, tmp_path / "flat.jsonl")
    nested = tmp_path / "nested.json"
    nested.write_text(json.dumps(squad(made_rows(6, seed=5))), encoding="utf-8")
    table = tmp_path / "table.csv"
    table.write_text(
        "passage,query\n" + "".join(f"{r['context']},{r['question']}\n" for r in rows),
        encoding="utf-8",
    )
    found = [
        [row["answer"] for row in mainspring.run("answer", file, model=str(model))]
        for file in (flat, nested, table)
    ]
    assert found[0] == found[1] == found[2] and any(found[0])


def test_columns_named_as_ours_are_kept_aside(learnt, tmp_path: Path) -> None:
    model, _, _ = learnt
    row = {"document": CONTEXT, "question": "Where is the bridge?", "start": "x", "answer": "gold"}
    file = nano.write_jsonl([row], tmp_path / "rows.jsonl")
    [found] = mainspring.run("answer", file, model=str(model))
    assert (found["input_start"], found["input_answer"]) == ("x", "gold")
    assert found["document"] == CONTEXT and found["answer"] != "gold"


def test_a_text_alone_is_no_question(learnt, tmp_path: Path) -> None:
    model, _, _ = learnt
    with pytest.raises(Missing, match="--question"):
        mainspring.run("answer", CONTEXT, model=str(model))
    with pytest.raises(BadOption, match="--question: empty text"):
        mainspring.run("answer", CONTEXT, model=str(model), question="  ")
    with pytest.raises(BadOption, match="--stride must be at least 0"):
        mainspring.run("answer", CONTEXT, model=str(model), question="Who?", stride="-1")
    with pytest.raises(BadOption, match="--n-best is for `run` and `evaluate`"):
        mainspring.fit("answer", "x.json", model="m", out=tmp_path / "o", n_best="2")


def test_bad_rows_are_listed_and_the_others_answered(learnt, tmp_path: Path) -> None:
    model, _, _ = learnt
    good = made_rows(2)
    bad = [{"context": "", "question": "Who?"}, {"context": "a", "question": " "}, {"context": "a"}]
    file = tmp_path / "rows.jsonl"
    nano.write_jsonl([good[0], *bad, good[1]], file)
    with file.open("ab") as stream:
        stream.write(b'{"context": "caf\xe9", "question": "q"}\n')
    out = tmp_path / "out.jsonl"
    rows = mainspring.run("answer", file, model=str(model), out=out)
    assert [row["id"] for row in rows] == ["0", "1"]
    reasons = [entry["reason"] for entry in nano.read_jsonl(tmp_path / "out.skipped.jsonl")]
    assert sorted(reasons) == ["empty text", "empty text", "missing field", "undecodable bytes"]
    empty = nano.write_jsonl([{"context": " ", "question": "q"}], tmp_path / "empty.jsonl")
    with pytest.raises(BadData, match="1 empty text"):
        mainspring.run("answer", empty, model=str(model))


def test_chinese_is_scored_by_characters(learnt, tmp_path: Path) -> None:
    model, _, _ = learnt
    rows = [
        {"context": "北京大学建于1898年。", "question": "建于什么时候？", "answers": ["1898年"]}
    ] * 2
    file = nano.write_jsonl(rows, tmp_path / "zh.jsonl")
    found = mainspring.evaluate("answer", file, model=str(model))
    assert "cmrc 2018" in found.signature
    # One sentence of 8 pieces, 2 of them the answer's.
    assert found.baseline["likeliest sentence"]["f1"] == pytest.approx(40)


def test_a_question_without_an_answer_counts_wherever_it_stands(learnt, tmp_path: Path) -> None:
    model, _, _ = learnt
    answered = {"context": "The bridge is in silver.", "question": "Where?", "answers": ["silver"]}
    rows = [answered] * 250 + [{**answered, "answers": []}]
    file = nano.write_jsonl(rows, tmp_path / "sorted.jsonl")
    found = mainspring.evaluate("answer", file, model=str(model))
    assert "squad 2.0" in found.signature and "NoAns_f1" in found.scores
    found = mainspring.evaluate("answer", file, model=str(model), limit=250)
    assert "squad 1.1" in found.signature, "rows that are not scored count for nothing"


# -- models that write -----------------------------------------------------------------------------


def test_an_encoder_decoder_learns_to_answer(nano_size: str, tmp_path: Path) -> None:
    rows = made_rows(40, unanswerable=0.2)
    file = nano.write_jsonl(rows, tmp_path / "rows.jsonl")
    result = mainspring.fit(
        "answer",
        file,
        out=tmp_path / "model",
        from_scratch=nano_size,
        steps=6,
        vocabulary=300,
        max_source=64,
        max_target=8,
        metric_rows=4,
        precision="float32",
    )
    assert "f1" in result.scores
    long = " ".join(row["context"] for row in made_rows(20))
    [row] = mainspring.run(
        "answer", long, model=str(tmp_path / "model"), question="Where is the river?"
    )
    assert row["windows"] > 3 and row["source_tokens_unread"] == 0
    assert {"answer", "start", "end", "stop", "tokens"} < set(row)
    if row["start"] is not None:
        assert long[row["start"] : row["end"]].casefold() == row["answer"].casefold()


def test_the_task_lists_what_it_reads() -> None:
    assert TASK.text.name == "context"
    assert TASK.target is not None and TASK.target.name == "answers"
    assert {"context", "text", "passage"} < set(TASK.text.accepted)


# -- the documents ---------------------------------------------------------------------------------

DOCS = Path(__file__).resolve().parents[2] / "docs"


def snippets(file: str, language: str) -> list[str]:
    text = (DOCS / file).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.slow
def test_the_documented_run_from_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    nano.write_jsonl(made_rows(60), tmp_path / "questions.jsonl")
    [snippet] = snippets("tasks/answer.md", "python")
    exec(
        snippet.replace(
            'from_scratch="bert-tiny"', 'from_scratch="bert-tiny", steps=3, vocabulary=300'
        ),
        {},
    )
    assert len(capsys.readouterr().out.split()) >= 2


@pytest.mark.parametrize("file", ["tasks/answer.md", "embed.md"])
def test_the_documented_commands_are_words_that_are_known(file: str) -> None:
    import inspect

    from mainspring.verbs.embed import embed
    from mainspring.verbs.evaluate import evaluate
    from mainspring.verbs.fit import fit
    from mainspring.verbs.run import run

    verbs = {"fit": fit, "run": run, "evaluate": evaluate, "embed": embed}
    own = {option.name for option in TASK.options} | {field.name for field in TASK.inputs}
    lines = [line for part in snippets(file, "bash") for line in part.splitlines()]
    assert len(lines) >= 4
    for line in lines:
        words = shlex.split(line)
        assert words[0] == "mainspring"
        if words[1] == "get":
            continue
        known = set(inspect.signature(verbs[words[1]]).parameters) | own | {"json"}
        flags = [word[2:].replace("-", "_") for word in words if word.startswith("--")]
        assert set(flags) <= known, line
