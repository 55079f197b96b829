import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

import mainspring
import nano
from mainspring import events
from mainspring.errors import BadData, BadOption, Mismatch
from mainspring.text import sentence_texts
from mainspring.verbs.evaluation import Evaluation
from mainspring.verbs.opening import Opened

NAMES = ["rouge1", "rouge2", "rougeL", "rougeLsum"]


def evaluate(model: Path, data: Path, **options: Any) -> Evaluation:
    return mainspring.evaluate(
        "summarize", data, model=str(model), **{"precision": "float32", **options}
    )


@pytest.fixture(scope="module")
def test_rows(trained: Path) -> Path:
    """The held-out rows, and a few that are broken."""
    file = trained.parent / "evaluate.jsonl"
    lines = (trained.parent / "test.jsonl").read_text(encoding="utf-8").splitlines()
    file.write_text("\n".join([*lines[:3], "{bad", '{"article": ""}', *lines[3:]]))
    return file


@pytest.fixture(scope="module")
def scored(trained: Path, test_rows: Path) -> tuple[Evaluation, list[dict[str, Any]]]:
    """One evaluation, and the predictions it wrote."""
    out = trained.parent / "evaluation"
    return evaluate(trained, test_rows, out=out), nano.read_jsonl(out / "predictions.jsonl")


def rouge(prediction: str, reference: str) -> dict[str, float]:
    """The scores by `rouge_score` itself, sentences on lines as ROUGE-Lsum wants them."""
    scorer = RougeScorer(NAMES, use_stemmer=True)
    lines = ["\n".join(sentence_texts(text)) for text in (reference, prediction)]
    return {name: 100 * score.fmeasure for name, score in scorer.score(*lines).items()}


def test_scores_are_those_of_rouge_score_on_the_predictions(
    scored: tuple[Evaluation, list[dict[str, Any]]],
) -> None:
    evaluation, rows = scored
    own = [rouge(row["predicted_summary"], row["summary"]) for row in rows]
    assert list(evaluation.scores) == NAMES
    for name in NAMES:
        values = [scores[name] for scores in own]
        assert [row["scores"][name] for row in rows] == pytest.approx(values, abs=1e-4)
        assert evaluation.scores[name] == pytest.approx(np.mean(values), abs=1e-4)
        low, high = evaluation.interval[name]
        assert low <= evaluation.scores[name] <= high
    assert 0 < evaluation.scores["rouge1"] < 100
    assert "rouge_score" in evaluation.signature and "stemmer:yes" in evaluation.signature


def test_baselines_are_the_first_sentences(
    scored: tuple[Evaluation, list[dict[str, Any]]],
) -> None:
    evaluation, rows = scored
    assert list(evaluation.baseline) == ["lead-1", "lead-3"]
    assert evaluation.baseline["lead-1"] == dict.fromkeys(NAMES, 100.0)  # as the data was made
    three = [rouge(" ".join(sentence_texts(r["article"])[:3]), r["summary"]) for r in rows]
    for name in NAMES:
        mean = np.mean([scores[name] for scores in three])
        assert evaluation.baseline["lead-3"][name] == pytest.approx(mean, abs=1e-4)


def test_rows_are_counted(trained: Path, scored: tuple[Evaluation, list[dict[str, Any]]]) -> None:
    evaluation, rows = scored
    assert (evaluation.rows, evaluation.skipped) == (12, 2)
    assert [row["id"] for row in rows] == list(range(12))
    listed = nano.read_jsonl(trained.parent / "evaluation" / "skipped.jsonl")
    assert [(entry["line"], entry["reason"]) for entry in listed] == [
        (4, "bad JSON"),
        (5, "empty text"),
    ]
    at_limit = sum(row["stop"] == "length" for row in rows)
    assert evaluation.hit_limit == at_limit / 12
    long = sum(len(row["article"].split()) > 18 for row in rows)
    assert 0 < evaluation.sources_cut * 12 <= long + 3


def test_why_and_where_rows_are_skipped_is_told(trained: Path, tmp_path: Path) -> None:
    rows = [*nano.pairs(2), {"article": "", "summary": "x"}, {"article": "x", "summary": None}]
    data = nano.write_jsonl(rows, tmp_path / "test.jsonl")
    heard: list[events.Event] = []
    with events.listening(heard.append):
        mainspring.evaluate("summarize", data, model=str(trained), out=tmp_path / "out")
    [told] = [event.text for event in heard if isinstance(event, events.Warn)]
    assert told.startswith("2 rows skipped: ")
    assert f"1 empty text (first: {data}:3: column `article`)" in told
    assert f"1 missing field (first: {data}:4: column `summary`)" in told
    assert told.endswith(f"listed in {tmp_path / 'out' / 'skipped.jsonl'}")


def test_the_predictions_are_those_of_run(
    trained: Path, scored: tuple[Evaluation, list[dict[str, Any]]]
) -> None:
    table = trained.parent / "test.jsonl"
    ran = mainspring.run("summarize", table, model=str(trained), precision="float32")
    for ours, theirs in zip(scored[1], ran, strict=True):
        assert ours["predicted_summary"] == theirs["summary"]
        for name in ("stop", "tokens", "source_tokens_unread"):
            assert ours[name] == theirs[name]


def test_the_users_columns_are_kept_beside_what_is_added(trained: Path, tmp_path: Path) -> None:
    rows = [row | {"tokens": ["mine"], "scores": 7} for row in nano.pairs(2)]
    evaluate(trained, nano.write_jsonl(rows, tmp_path / "rows.jsonl"), out=tmp_path)
    for written in nano.read_jsonl(tmp_path / "predictions.jsonl"):
        assert (written["input_tokens"], written["input_scores"]) == (["mine"], 7)
        assert written["tokens"] > 0 and "rougeL" in written["scores"]


def test_the_json_object_has_the_promised_keys(
    scored: tuple[Evaluation, list[dict[str, Any]]],
) -> None:
    [line] = scored[0].lines(as_json=True)
    printed = json.loads(line)
    assert list(printed) == [
        "task",
        "model",
        "rows",
        "skipped",
        "scores",
        "interval",
        "baseline",
        "signature",
        "hit_limit",
        "sources_cut",
        "tokens_per_second",
        "precision",
        "megabytes",
        "predictions",
        "against",
        "report",
        "counts",
    ]
    assert list(printed["scores"]) == list(printed["interval"]) == NAMES
    assert all(0 <= value <= 100 for value in printed["scores"].values())


def test_people_get_a_line_for_each_score_and_one_for_the_rest(
    scored: tuple[Evaluation, list[dict[str, Any]]],
) -> None:
    lines = list(scored[0].lines(as_json=False))
    assert [line.split()[0] for line in lines[:4]] == NAMES
    assert "lead-1 100.00" in lines[0]
    assert lines[-1].startswith("12 rows, 2 skipped | rouge_score")


def test_a_limit_reads_no_further(trained: Path, test_rows: Path, tmp_path: Path) -> None:
    seen: list[events.Event] = []
    with events.listening(seen.append):
        first = evaluate(trained, test_rows, limit=3, out=tmp_path)
    assert {event.total for event in seen if isinstance(event, events.Progress)} == {3}
    assert (first.rows, first.skipped) == (3, 0)
    assert len(nano.read_jsonl(tmp_path / "predictions.jsonl")) == 3
    with pytest.raises(BadOption, match="--limit must be at least 1"):
        evaluate(trained, test_rows, limit=0)


def test_a_model_against_itself_differs_in_nothing(trained: Path, test_rows: Path) -> None:
    same = evaluate(trained, test_rows, against=str(trained), limit=4)
    assert same.against["model"] == str(trained)
    assert same.against["scores"] == same.scores
    assert same.against["difference"] == dict.fromkeys(NAMES, 0.0)
    assert same.against["p"] == dict.fromkeys(NAMES, 1.0)
    assert "against" in next(same.lines(as_json=False))


def test_a_model_against_another_gets_a_paired_test(
    trained: Path, test_rows: Path, tmp_path: Path
) -> None:
    nano.bundle(seed=9).save(tmp_path / "other")
    result = evaluate(trained, test_rows, against=str(tmp_path / "other"), max_new_tokens=5)
    for name in NAMES:
        difference = result.scores[name] - result.against["scores"][name]
        assert result.against["difference"][name] == pytest.approx(difference, abs=1e-3)
        low, high = result.against["interval"][name]
        assert low <= result.against["difference"][name] <= high
        assert 0 < result.against["p"][name] <= 1


def test_a_model_can_be_compared_with_itself_in_another_precision(
    trained: Path, test_rows: Path
) -> None:
    result = evaluate(trained, test_rows, against_precision="bfloat16", limit=3)
    assert (result.precision, result.against["precision"]) == ("float32", "bfloat16")
    # Single rows have a layout of their own in bfloat16, so it may take as much as float32.
    assert 0 < result.against["megabytes"] < 1.5 * result.megabytes


def test_predictions_are_written_as_they_are_made(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the time the last rows are predicted the first ones are on the disk."""
    many = nano.write_jsonl(nano.pairs(40, seed=2), tmp_path / "many.jsonl")
    written: list[int] = []
    real = Opened.predict

    def predict(self: Opened, rows: Any, show: Any) -> Any:
        small = replace(self, how=replace(self.how, chunk=8))
        for prediction in real(small, rows, show):
            file = tmp_path / "out" / "predictions.jsonl"
            written.append(len(file.read_bytes().splitlines()))
            yield prediction

    monkeypatch.setattr(Opened, "predict", predict)
    evaluate(trained, many, out=tmp_path / "out", max_new_tokens=2)
    assert len(written) == 40
    assert written == list(range(40))


def test_of_a_folder_the_test_split_is_scored(trained: Path, tmp_path: Path) -> None:
    nano.write_jsonl(nano.pairs(3, seed=1), tmp_path / "test.jsonl")
    nano.write_jsonl(nano.pairs(9, seed=2), tmp_path / "train.jsonl")
    seen: list[events.Event] = []
    with events.listening(seen.append):
        result = evaluate(trained, tmp_path, max_new_tokens=2)
    assert result.rows == 3
    assert events.Note(f"scoring the test split of {tmp_path}") in seen


def test_what_cannot_be_scored(trained: Path, test_rows: Path, tmp_path: Path) -> None:
    with pytest.raises(Mismatch, match="`pretrain` has no metric"):
        mainspring.evaluate("pretrain", test_rows, model=str(trained))
    bare = nano.write_jsonl([{"article": "Quiet river."}], tmp_path / "bare.jsonl")
    with pytest.raises(BadData, match=r"bare\.jsonl: no column for the target"):
        evaluate(trained, bare)
    with pytest.raises(BadData, match=r"evaluate\.jsonl:4: bad JSON"):
        evaluate(trained, test_rows, strict=True)
    with pytest.raises(BadOption, match="unknown --against-precision `int4`"):
        evaluate(trained, test_rows, against_precision="int4")
