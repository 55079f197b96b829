"""Strict entity scores: published examples, and sums that equal nervaluate's own."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nervaluate import Evaluator
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.scheme import IOB2

from mainspring.data.entities import join_words, repair_tags, tagged_entities
from mainspring.metrics.entities import METRIC, learn_gazetteer, look_up


def entities(tags: list[str]) -> list[dict]:
    _, words = join_words(["word"] * len(tags))
    return tagged_entities(words, tags)[0]


# The example of seqeval's README (1.2.2), with the scores that it prints.
TRUE = [["O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
MADE = [["O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]


def test_seqevals_published_example() -> None:
    rows = METRIC.score_rows([entities(t) for t in MADE], [entities(t) for t in TRUE], "")
    assert METRIC.scores(rows) == {
        "f1": 50.0,
        "precision": 50.0,
        "recall": 50.0,
        "f1 MISC": 0.0,
        "f1 PER": 100.0,
    }
    assert rows[1] == {
        "right": 1,
        "found": 1,
        "there": 1,
        "right PER": 1,
        "found PER": 1,
        "there PER": 1,
    }


TAGS = st.lists(st.sampled_from(["O", "B-X", "I-X", "B-Y", "I-Y"]), min_size=6, max_size=6)


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(st.lists(st.tuples(TAGS, TAGS), min_size=1, max_size=6))
def test_rows_sum_up_to_the_scores_of_the_set(pairs) -> None:
    true, made = ([repair_tags(tags)[0] for tags in side] for side in zip(*pairs, strict=True))
    rows = METRIC.score_rows([entities(t) for t in made], [entities(t) for t in true], "")
    scores = METRIC.scores(rows)
    whole = Evaluator(true, made, tags=["X", "Y"], loader="list").evaluate()
    strict = whole["overall"]["strict"]
    for name in ("f1", "precision", "recall"):
        assert scores[name] == pytest.approx(100 * getattr(strict, name))
    for label, of_label in whole["entities"].items():
        assert scores[f"f1 {label}"] == pytest.approx(100 * of_label["strict"].f1)


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(st.lists(st.tuples(TAGS, TAGS), min_size=1, max_size=6))
def test_the_scores_are_seqevals(pairs) -> None:
    true, made = ([repair_tags(tags)[0] for tags in side] for side in zip(*pairs, strict=True))
    rows = METRIC.score_rows([entities(t) for t in made], [entities(t) for t in true], "")
    scores, how = METRIC.scores(rows), {"mode": "strict", "scheme": IOB2, "zero_division": 0}
    assert scores["f1"] == pytest.approx(100 * f1_score(true, made, **how))
    assert scores["precision"] == pytest.approx(100 * precision_score(true, made, **how))
    assert scores["recall"] == pytest.approx(100 * recall_score(true, made, **how))


def test_rows_without_entities() -> None:
    rows = METRIC.score_rows([[], []], [[], []], "")
    assert METRIC.scores(rows) == {"f1": 0.0, "precision": 0.0, "recall": 0.0}


def test_the_gazetteer_finds_the_longest_names_it_has_seen() -> None:
    learnt = learn_gazetteer(
        [("New York", "LOC"), ("York", "PER"), ("York", "PER"), ("York", "LOC"), ("北京", "LOC")]
    )
    assert "York" not in str(learnt)
    options = {"gazetteer": learnt}

    def found(text: str) -> list[tuple[str, str]]:
        entities = look_up({"text": text}, options)
        assert entities is not None
        return [(text[e["start"] : e["end"]], e["label"]) for e in entities]

    assert found("In New  York and York.") == [("New  York", "LOC"), ("York", "PER")]
    assert found("他住在北京，不在上海") == [("北京", "LOC")]
    assert found("in new york") == []
    assert look_up({"text": "York"}, {}) is None
    words = {"text": "New York", "words": [(0, 3), (4, 8)]}
    assert look_up(words, options) == [{"label": "LOC", "start": 0, "end": 8}]
