"""SQuAD and CMRC 2018 through `answer`: places survive any tokenizer, and a whole run in both
languages."""

import gzip
import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

import mainspring
import nano
from mainspring.checkpoints.tokenizer import Tokenizer, train_tokenizer
from mainspring.data.questions import questions
from mainspring.data.readers import read_rows
from mainspring.data.skipped import SkipLog
from mainspring.families.bert import FAMILY
from mainspring.formulations import Limits, Setup
from mainspring.formulations.pairs import pair_up
from mainspring.formulations.span_examples import encode, token_span
from mainspring.formulations.span_extraction import Reading
from mainspring.formulations.spans import Candidate, Found

SQUAD, CMRC = "squad_v1.1/train-v1.1.json.gz", "cmrc2018_zh/train.json"


def asked(file: Path, count: int) -> list[dict[str, Any]]:
    """The first questions, a few of each paragraph, with answers as the formulation has them."""
    rows = []
    with SkipLog() as skipped:
        for row in read_rows(file, skipped):
            for question in islice(questions(row), 0, None, 3):
                values = question.values
                answers = [
                    {"text": a["text"], "start": a["answer_start"]} for a in values["answers"]
                ]
                rows.append({**values, "answers": answers})
                if len(rows) == count:
                    return rows
    return rows


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["unigram", "byte-bpe"])
@pytest.mark.parametrize("file", [SQUAD, CMRC])
def test_answers_survive_the_tokenizer(shared_data: Path, file: str, kind: Any) -> None:
    rows = asked(shared_data / "qa" / file, 300)
    tokenizer: Tokenizer = train_tokenizer(
        (row["context"] for row in rows), 2000 if file == SQUAD else 4000, kind, FAMILY.tokens
    )
    setup = Setup(Limits(128, 8), options={"stride": 32})
    same = 0
    for row, pair in zip(rows, pair_up(rows, tokenizer, setup), strict=True):
        answer = row["answers"][0]
        start, end = answer["start"], answer["start"] + len(answer["text"])
        span = token_span(pair.places, start, end)
        assert span is not None
        reading = Reading(Found((), 0.0), pair.places, 0, 0, 1)
        a, b = reading.characters(Candidate(*span, 0.0), row["context"])
        assert a <= start and end <= b  # nothing of the answer is lost
        same += (a, b) == (start, end)
        # Some window holds it, and learns it, or it is counted.
        examples = encode([row], tokenizer, setup)
        assert examples[0].target_lost == ((a, b) != (start, end) or span[1] - span[0] >= pair.room)
        assert any(e.target[0] for e in examples) == (span[1] - span[0] < pair.room)
    assert same > 0.8 * len(rows)


@pytest.mark.slow
@pytest.mark.parametrize(("file", "rules"), [(SQUAD, "squad 1.1"), (CMRC, "cmrc 2018")])
def test_a_whole_run_in_both_languages(
    shared_data: Path, tmp_path: Path, file: str, rules: str
) -> None:
    place = shared_data / "qa" / file
    opener: Any = gzip.open if file.endswith("gz") else open
    with opener(place, "rt", encoding="utf-8") as stream:
        data = json.load(stream)
    articles = data["data"][: 2 if file == SQUAD else 30]
    for article in articles:
        article["paragraphs"] = article["paragraphs"][:20]
    small = tmp_path / "train.json.gz"
    with gzip.open(small, "wt", encoding="utf-8") as stream:
        json.dump({"version": "1.1", "data": articles}, stream)
    result = mainspring.fit(
        "answer",
        small,
        from_scratch="bert-tiny",
        out=tmp_path / "model",
        steps=4,
        vocabulary=3000,
        max_source=128,
        stride="32",
        batch_tokens=2048,
        metric_rows=8,
        precision="float32",
    )
    assert result.steps == 4 and 0 <= result.scores["f1"] <= 100
    test = tmp_path / "test.jsonl"
    nano.write_jsonl(asked(place, 12), test)
    found = mainspring.evaluate(
        "answer", test, model=str(tmp_path / "model"), out=tmp_path / "out", precision="float32"
    )
    assert found.rows == 12 and f"rules of {rules}" in found.signature
    assert found.baseline["likeliest sentence"]["f1"] > 5
    for row in nano.read_jsonl(tmp_path / "out" / "predictions.jsonl"):
        assert row["context"][row["start"] : row["end"]] == row["predicted_answer"]
