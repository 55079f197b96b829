"""Scores of relations against scikit-learn and the rules of SemEval-2010 task 8."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, precision_score, recall_score

from mainspring import events
from mainspring.metrics import Classes
from mainspring.metrics import relations as ours
from mainspring.metrics.relations import METRIC

lean = settings(max_examples=40, deadline=None, derandomize=True, database=None)

HEAD = {"text": "a", "start": 0, "end": 1, "label": ""}
TAIL = {"text": "b", "start": 2, "end": 3, "label": ""}
LABELS = ["no_relation", "R(e1,e2)", "R(e2,e1)", "S(e1,e2)", "S(e2,e1)", "plain"]
NAMES = st.sampled_from(LABELS)


def row(name: str) -> list[dict]:
    return [] if name == "no_relation" else [{"head": HEAD, "type": name, "tail": TAIL}]


def scores(predictions, references) -> dict[str, float]:
    return METRIC.scores(METRIC.score_rows(predictions, references, ""))


def pooled_f1(rows, name: str) -> float:
    """F1 of one relation with its directions pooled: a wrong direction is one pair of answers that
    says too much and one that says too little."""
    true, predicted = [], []
    for guess, wanted in rows:
        is_guess, is_wanted = (ours.relation_name(x) == name for x in (guess, wanted))
        if guess == wanted and is_wanted:
            true, predicted = [*true, 1], [*predicted, 1]
        else:
            true += [0] * is_guess + [1] * is_wanted
            predicted += [1] * is_guess + [0] * is_wanted
    return 100 * f1_score(true, predicted)


@lean
@given(st.lists(st.tuples(NAMES, NAMES), min_size=1, max_size=25))
def test_scores_of_pairs(rows) -> None:
    found = scores(*zip(*((row(guess), row(wanted)) for guess, wanted in rows), strict=True))
    predictions, references = zip(*rows, strict=True)
    options = {"labels": LABELS[1:], "average": "micro", "zero_division": 0}
    assert found["micro_f1"] == pytest.approx(100 * f1_score(references, predictions, **options))
    for name, score in (("precision", precision_score), ("recall", recall_score)):
        assert found[name] == pytest.approx(100 * score(references, predictions, **options))
    named = {ours.relation_name(name) for pair in rows for name in pair} - {"no_relation"}
    expected = sum(pooled_f1(rows, name) for name in named) / max(1, len(named))
    assert found["macro_f1"] == pytest.approx(expected)


def test_the_wrong_direction_is_wrong_twice() -> None:
    """As the official scorer counts: one too many and one missed of the same relation."""
    found = scores([row("R(e2,e1)"), row("R(e1,e2)")], [row("R(e1,e2)")] * 2)
    assert found == {"precision": 50, "recall": 50, "micro_f1": 50, "macro_f1": 50}


NINE = (
    *("Cause-Effect", "Component-Whole", "Content-Container", "Entity-Destination"),
    *("Entity-Origin", "Instrument-Agency", "Member-Collection", "Message-Topic"),
    "Product-Producer",
)


def test_scores_are_those_of_the_official_scorer_of_semeval() -> None:
    """`semeval2010_task8_scorer-v1.2.pl` on the same 57 answers: "Micro-averaged result (excluding
    Other)" and "The official score"."""
    labels = [f"{name}({ends})" for name in NINE for ends in ("e1,e2", "e2,e1")] + ["no_relation"]
    true = [labels[i % 19] for i in range(57)]
    guesses = [
        labels[(i * i + 3 * i) % 19]
        if i % 3 == 0
        else labels[(i % 19) ^ 1]  # the other direction
        if i % 7 == 0 and i % 19 < 18
        else true[i]
        for i in range(57)
    ]
    found = scores([row(guess) for guess in guesses], [row(name) for name in true])
    assert {name: round(value, 2) for name, value in found.items()} == {
        "precision": 62.26,
        "recall": 61.11,
        "micro_f1": 61.68,
        "macro_f1": 61.71,
    }


def test_no_relation_has_no_score_of_its_own() -> None:
    assert scores([row("no_relation")] * 3, [row("no_relation")] * 3)["micro_f1"] == 0
    found = scores([row("plain"), []], [row("plain"), []])
    assert found["micro_f1"] == found["macro_f1"] == 100


def triple(head: str, name: str, tail: str) -> dict:
    return {"head": head, "type": name, "tail": tail}


def test_written_triples_are_compared_by_their_words() -> None:
    reference = [{"head": HEAD, "type": "r", "tail": TAIL}]
    assert scores([[triple("a", "r", " b ")]], [reference])["micro_f1"] == 100
    assert scores([[triple("a", "s", "b")]], [reference])["micro_f1"] == 0
    assert scores([[triple("b", "r", "a")]], [reference])["micro_f1"] == 0
    moved = [{"head": {**HEAD, "start": 5, "end": 6}, "type": "r", "tail": TAIL}]
    assert scores([moved], [reference])["micro_f1"] == 0  # the same words in another place


def test_a_triple_that_stands_twice_counts_once() -> None:
    once, other = triple("a", "r", "b"), triple("c", "r", "d")
    found = scores([[once, once]], [[once, other]])
    assert (found["precision"], found["recall"]) == (100, 50)
    assert scores([[once]], [[once, once]])["micro_f1"] == 100


def test_the_majority_relation() -> None:
    learnt = {"counts": {"no_relation": 90, "r": 6, "s": 4}}
    inputs = {"text": "a b", "pairs": [(HEAD, TAIL), (TAIL, HEAD)]}
    assert [one["type"] for one in ours.majority(inputs, learnt)] == ["r", "r"]
    assert ours.majority({"text": "a b"}, learnt) is None
    assert ours.majority(inputs, {}) is None


def test_the_gazetteer_of_triples_finds_what_training_rows_said() -> None:
    head = {"text": "New  York", "start": 0, "end": 9, "label": ""}
    known = [
        {"head": head, "type": "in", "tail": "USA"},
        triple("York", "in", "England"),
        triple("York", "near", "Leeds"),
        triple("York", "near", "Leeds"),
        triple("York", "in", "Leeds"),
        triple("北京", "首都", "中国"),
    ]
    learnt = {"gazetteer": ours.learn_gazetteer(known)}
    assert "York" not in str(learnt)

    def found(text: str) -> list[dict]:
        return ours.look_up({"text": text}, learnt)

    assert found("The USA has New York.") == [triple("New York", "in", "USA")]
    assert found("Leeds and York") == [triple("York", "near", "Leeds")]
    assert found("中国的北京") == [triple("北京", "首都", "中国")]
    assert found("England and New England") == found("Leeds is in England") == []
    assert ours.look_up({"text": "York"}, {}) is None


def test_the_report_pools_directions_and_names_the_unknown(tmp_path: Path) -> None:
    told: list[events.Event] = []
    references = [row("R(e1,e2)"), row("R(e2,e1)"), row("odd"), []]
    predictions = [row("R(e1,e2)"), row("R(e1,e2)"), [], []]
    classes = Classes()
    for guess, wanted in zip(predictions, references, strict=True):
        classes.add(METRIC.classes(wanted), wanted, guess)
    rows = METRIC.score_rows(predictions, references, "")
    with events.listening(told.append):
        found = METRIC.report(rows, classes, ["R(e1,e2)", "R(e2,e1)"], tmp_path)
    assert found["labels"]["R"]["f1"] == 50 and found["labels"]["odd"]["recall"] == 0
    [warning] = [event.text for event in told if isinstance(event, events.Warn)]
    assert "`odd` (1)" in warning
    assert (tmp_path / "relations.csv").read_text().startswith("label,precision,recall,f1")
