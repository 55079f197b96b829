"""`classify` from the user's table to a score: English and Chinese, one label and several."""

import csv
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers

import mainspring
import nano
from mainspring import events
from mainspring.errors import BadData, BadOption, Mismatch
from mainspring.families.bert import FAMILY as BERT
from mainspring.tasks import choose_formulation
from mainspring.tasks.classify import TASK
from mainspring.testing import check_task

GOOD, BAD = ("good", "lovely", "fine", "很好", "喜欢"), ("bad", "awful", "sad", "很差", "讨厌")
PLAIN = ("the", "film", "room", "today", "was", "食物", "今天")


def reviews(count: int, seed: int = 0) -> list[dict]:
    """Three of four rows are good; the rest of their words say nothing."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        label = "good" if draw.random() < 0.75 else "bad"
        words = [*draw.choices(PLAIN, k=4), draw.choice(GOOD if label == "good" else BAD)]
        draw.shuffle(words)
        rows.append({"id": number, "review": " ".join(words), "category": label})
    return rows


@pytest.fixture(autouse=True, scope="module")
def _size() -> Iterator[None]:
    """BERT has one more size, which a test trains in seconds."""
    sizes = BERT.sizes
    assert isinstance(sizes, dict)
    small = {"hidden_size": 48, "num_attention_heads": 3, "intermediate_size": 96}
    sizes["bert-nano"] = {**sizes["bert-tiny"], **small}
    yield
    del sizes["bert-nano"]


def fit(data: Path, out: Path, **options):
    return mainspring.fit(
        "classify",
        data,
        out=out,
        from_scratch="bert-nano",
        learning_rate=3e-3,
        batch_tokens=512,
        vocabulary=380,
        tokenizer="byte-bpe",
        precision="float32",
        evaluate_every=20,
        **options,
    )


def table(rows: list[dict], file: Path) -> Path:
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model that tells good reviews from bad ones, and its data."""
    folder = tmp_path_factory.mktemp("classify")
    table(reviews(240), folder / "train.csv")
    table(reviews(40, seed=1), folder / "test.csv")
    fit(folder / "train.csv", folder / "model", steps=60, balance="inverse")
    return folder


@pytest.mark.slow
def test_labels_that_only_the_validation_rows_have_are_told(folder: Path, tmp_path: Path) -> None:
    odd = {"id": 9, "review": "the film", "category": "odd"}
    told: list[events.Event] = []
    with events.listening(told.append):
        some = table([*reviews(9), odd, odd], tmp_path / "some.csv")
        fit(folder / "train.csv", tmp_path / "a", steps=1, valid=str(some))
    warnings = [event.text for event in told if isinstance(event, events.Warn)]
    assert "labels that the model does not know count as wrong: `odd` (2)" in warnings
    only = table([odd], tmp_path / "only.csv")
    with pytest.raises(BadData, match=r"only\.csv: none of the 1 validation rows has a label"):
        fit(folder / "train.csv", tmp_path / "b", steps=1, valid=str(only))


@pytest.mark.slow
def test_it_learns_and_beats_the_majority(folder: Path, tmp_path: Path) -> None:
    told: list[events.Event] = []
    odd = table(
        [*reviews(40, seed=1), {"id": 9, "review": "the film", "category": "odd"}],
        tmp_path / "odd.csv",
    )
    with events.listening(told.append):
        found = mainspring.evaluate(
            "classify", odd, model=str(folder / "model"), out=tmp_path / "out"
        )
    assert found.rows == 41
    assert found.scores["accuracy"] > 90 > found.baseline["majority"]["accuracy"]
    assert found.scores["macro_f1"] > found.baseline["majority"]["macro_f1"] + 20
    assert set(found.report["labels"]) == {"good", "bad", "odd"}
    assert any("`odd` (1)" in event.text for event in told if isinstance(event, events.Warn))
    files = {file.name for file in (tmp_path / "out").iterdir()}
    assert files == {"confusion.csv", "confusion.png", "labels.csv", "predictions.jsonl"}
    rows = nano.read_jsonl(tmp_path / "out" / "predictions.jsonl")
    assert set(rows[0]["scores"]) == {"good", "bad"} and "stop" not in rows[0]
    lines = list(found.lines(as_json=False))
    assert lines[0].startswith("accuracy") and "majority" in lines[0]
    assert "length limit" not in lines[-1]
    assert json.loads(next(iter(found.lines(as_json=True))))["report"]["labels"]


@pytest.mark.slow
def test_texts_and_tables_get_labels_and_scores(folder: Path, tmp_path: Path) -> None:
    model = str(folder / "model")
    good, bad = mainspring.run("classify", "the film was lovely", "食物 很差 today", model=model)
    assert (good["label"], bad["label"]) == ("good", "bad")
    assert good["score"] == max(good["scores"].values()) > 0.5
    rows = mainspring.run("classify", folder / "test.csv", model=model, columns={"text": "review"})
    assert len(rows) == 40 and rows[0]["review"] and "category" in rows[0]
    setup = json.loads((folder / "model" / "mainspring.json").read_text())
    assert setup["labels"] == ["bad", "good"]
    assert setup["options"]["balance"] == "inverse"


@pytest.mark.slow
def test_the_contract_of_a_task_is_kept() -> None:
    check_task("classify", reviews(20), from_scratch="bert-nano", tokenizer="byte-bpe")


@pytest.mark.slow
def test_it_goes_on_from_its_own_head(folder: Path, tmp_path: Path) -> None:
    told: list[events.Event] = []
    with events.listening(told.append):
        mainspring.fit(
            "classify",
            folder / "train.csv",
            model=str(folder / "model"),
            out=tmp_path / "again",
            steps=2,
            precision="float32",
        )
    assert not any("fresh" in event.text for event in told if isinstance(event, events.Note))


@pytest.mark.slow
def test_several_labels_of_pairs_of_texts(tmp_path: Path) -> None:
    rows = [
        {
            "sentence1": row["review"],
            "sentence2": other["review"],
            "labels": [
                *(["first"] if row["category"] == "good" else []),
                *(["second"] if other["category"] == "good" else []),
            ],
        }
        for row, other in zip(reviews(300), reviews(300, seed=5), strict=True)
    ]
    data = nano.write_jsonl(rows, tmp_path / "train.jsonl")
    fit(data, tmp_path / "model", steps=80)
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    found = mainspring.evaluate("classify", data, model=str(tmp_path / "model"))
    assert set(found.scores) == {"accuracy", "macro_f1", "micro_f1"}
    assert found.scores["micro_f1"] > found.baseline["majority"]["micro_f1"]
    [answer] = mainspring.run(
        "classify", "the film was lovely", model=str(tmp_path / "model"), threshold="0"
    )
    assert sorted(answer["label"]) == ["first", "second"] and "score" not in answer


# -- what users may get wrong ------------------------------------------------------------------


def test_broken_rows_are_listed(tmp_path: Path) -> None:
    rows = [
        *reviews(30),
        {"review": "", "category": "good"},
        {"review": "a film", "category": None},
    ]
    data = nano.write_jsonl(rows, tmp_path / "train.jsonl")
    fit(data, tmp_path / "model", steps=1)
    skipped = nano.read_jsonl(tmp_path / "model" / "skipped.jsonl")
    assert {row["reason"] for row in skipped} == {"empty text", "missing field"}
    assert [row["line"] for row in skipped] == [31, 32]


def test_one_label_alone(tmp_path: Path) -> None:
    rows = [{**row, "category": "good"} for row in reviews(30)]
    data = nano.write_jsonl(rows, tmp_path / "train.jsonl")
    with pytest.raises(BadData, match="1 label, and there is nothing to tell apart"):
        fit(data, tmp_path / "model", steps=1)


def test_no_label_column(tmp_path: Path) -> None:
    data = nano.write_jsonl([{"review": "a film"}] * 9, tmp_path / "train.jsonl")
    with pytest.raises(BadData, match=r"no column for the label.*--columns\.label"):
        fit(data, tmp_path / "model", steps=1)


@pytest.mark.parametrize(("name", "value"), [("balance", "inverted"), ("threshold", "half")])
def test_bad_options(name: str, value: str, tmp_path: Path) -> None:
    data = nano.write_jsonl(reviews(9), tmp_path / "train.jsonl")
    with pytest.raises(BadOption, match=f"--{name}"):
        fit(data, tmp_path / "model", steps=1, **{name: value})


def test_more_tokens_than_the_model_has_positions(tmp_path: Path) -> None:
    data = nano.write_jsonl(reviews(30), tmp_path / "train.jsonl")
    with pytest.raises(BadOption, match="--max-source 513: the model has 512 positions"):
        fit(data, tmp_path / "model", steps=1, max_source=513)
    fit(data, tmp_path / "other", steps=1, max_source=512)
    with pytest.raises(BadOption, match="512 positions"):
        mainspring.run("classify", "a", model=str(tmp_path / "other"), max_source=600)


@pytest.mark.parametrize("problem", [None, "regression", "multi_label_classification"])
@pytest.mark.parametrize("outputs", [1, 3])
def test_others_classifiers_score_as_their_pipelines_do(
    outputs: int, problem: str | None, tmp_path: Path
) -> None:
    """A reranker's or a regression's only output is no share of anything."""
    tokenizer = nano.tokenizer()
    tokenizer.save(tmp_path)
    config = transformers.BertConfig(
        vocab_size=tokenizer.vocabulary,
        hidden_size=24,
        num_hidden_layers=1,
        num_attention_heads=3,
        intermediate_size=32,
        num_labels=outputs,
        problem_type=problem,
    )
    torch.manual_seed(1)
    theirs = transformers.BertForSequenceClassification(config).eval()
    theirs.classifier.weight.data.normal_(0, 1)
    theirs.save_pretrained(tmp_path)
    text = nano.pairs(1)[0]["article"][:80]
    pipeline = transformers.pipeline("text-classification", str(tmp_path), top_k=None)
    expected = {found["label"]: found["score"] for found in pipeline([text])[0]}
    [row] = mainspring.run("classify", text, model=str(tmp_path), precision="float32")
    assert row["scores"] == pytest.approx(expected, abs=1e-5)


def test_a_model_without_the_head_is_refused_with_what_to_do() -> None:
    with pytest.raises(Mismatch) as writer:
        choose_formulation(TASK, nano.decoder().model.spec)
    assert "`mainspring fit classify DATA --model MODEL`" in str(writer.value)
    assert "`mainspring run generate TEXTS --choices LABEL LABEL`" in str(writer.value)
    encoder = replace(nano.decoder().model.spec, heads=())
    with pytest.raises(Mismatch, match=r"gives it$"):
        choose_formulation(TASK, encoder)
