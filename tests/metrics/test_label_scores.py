"""Scores of labels against scikit-learn."""

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from sklearn.preprocessing import MultiLabelBinarizer

from mainspring import events
from mainspring.metrics import Classes
from mainspring.metrics import classification as ours
from mainspring.metrics.intervals import score_intervals

lean = settings(max_examples=40, deadline=None, derandomize=True, database=None)

NAMES = st.sampled_from(["a", "b", "a|b", "东", "d d"])
SETS = st.lists(NAMES, unique=True, max_size=4)
METRIC = ours.METRIC


def scores(predictions, references) -> dict[str, float]:
    kind = METRIC.choose_kind(references)
    return METRIC.scores(METRIC.score_rows(predictions, references, kind))


@lean
@given(st.lists(st.tuples(NAMES, NAMES), min_size=1, max_size=30))
def test_scores_of_single_labels_are_those_of_scikit_learn(rows) -> None:
    predictions, references = map(list, zip(*rows, strict=True))
    found = scores(predictions, references)
    assert found == pytest.approx(
        {
            "accuracy": 100 * sk.accuracy_score(references, predictions),
            "macro_f1": 100 * sk.f1_score(references, predictions, average="macro"),
            "micro_f1": 100 * sk.f1_score(references, predictions, average="micro"),
        }
    )


@lean
@given(st.lists(st.tuples(SETS, SETS), min_size=1, max_size=20))
def test_scores_of_several_labels_are_those_of_scikit_learn(rows) -> None:
    predictions, references = map(list, zip(*rows, strict=True))
    occurring = sorted({label for row in rows for side in row for label in side})
    if not occurring:
        return
    table = MultiLabelBinarizer(classes=occurring)
    true, guessed = table.fit_transform(references), table.transform(predictions)
    found = scores(predictions, references)
    assert found == pytest.approx(
        {
            "accuracy": 100 * sk.accuracy_score(true, guessed),
            "macro_f1": 100 * sk.f1_score(true, guessed, average="macro", zero_division=0),
            "micro_f1": 100 * sk.f1_score(true, guessed, average="micro", zero_division=0),
        }
    )


@lean
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50))
def test_the_calibration_error_is_that_of_its_definition(rows) -> None:
    """Guo et al., 2017, equation 3, written out over bins."""
    sure, right = (np.array(side, dtype=float) for side in zip(*rows, strict=True))
    predictions = [("a", score) for score, _ in rows]
    references = ["a" if is_right else "b" for _, is_right in rows]
    bins = np.minimum((sure * 15).astype(int), 14)
    expected = sum(
        (bins == at).mean() * abs(sure[bins == at].mean() - right[bins == at].mean())
        for at in set(bins.tolist())
    )
    found = scores(predictions, references)
    assert found["calibration_error"] == pytest.approx(100 * expected)


def test_a_perfect_and_a_boastful_model() -> None:
    assert scores([("a", 1.0), ("b", 1.0)], ["a", "b"]) == {
        "accuracy": 100,
        "macro_f1": 100,
        "micro_f1": 100,
        "calibration_error": 0,
    }
    assert scores([("a", 1.0), ("a", 1.0)], ["a", "b"])["calibration_error"] == 50


def test_intervals_follow_from_the_rows() -> None:
    rows = METRIC.score_rows(
        [("a", 0.9)] * 30 + [("b", 0.6)] * 10, ["a"] * 35 + ["b"] * 5, ours.ONE
    )
    found = score_intervals(rows, METRIC.combine)
    for name, value in METRIC.scores(rows).items():
        low, high = found[name]
        assert low <= high and (low <= value + 1e-9 or name == "calibration_error")


# -- baselines ---------------------------------------------------------------------------------


def test_the_majority_is_the_most_frequent_label_with_its_share() -> None:
    learnt = {"counts": {"b": 3, "a": 1}, "rows": 4}
    assert ours.majority({}, learnt) == ("b", 0.75)
    assert ours.majority({}, {}) is None
    several = {"problem_type": "multi_label_classification", "rows": 4}
    assert ours.majority({}, {**several, "counts": {"a": 3, "b": 2, "c": 1}}) == ["a", "b"]
    assert ours.majority({}, {**several, "counts": {"a": 1, "c": 1}}) == ["a"]


# -- tables and pictures -----------------------------------------------------------------------


def read(file: Path) -> list[list[str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))


def report(predictions: list, references: list, labels: list[str], out: Path) -> dict:
    """The table of labels, as `evaluate` asks for it."""
    assert METRIC.report is not None
    classes = Classes()
    for guess, wanted in zip(predictions, references, strict=True):
        classes.add(METRIC.classes(wanted), wanted, guess)
    rows = METRIC.score_rows([(guess, None) for guess in predictions], references, ours.ONE)
    return METRIC.report(rows, classes, labels, out)["labels"]


def test_the_report_holds_the_numbers_of_scikit_learn(tmp_path: Path) -> None:
    references = ["b", "a", "b", "东方", "b", "a", "odd"]
    predictions = ["b", "b", "b", "东方", "a", "a", "a"]
    told: list[events.Event] = []
    with events.listening(told.append):
        table = report(predictions, references, ["a", "b", "东方"], tmp_path)
    assert list(table) == ["b", "a", "odd", "东方"]
    order = list(table)
    precision, recall, f1, rows = sk.precision_recall_fscore_support(
        references, predictions, labels=order, zero_division=0
    )
    for at, label in enumerate(order):
        row = table[label]
        assert row["precision"] == pytest.approx(100 * precision[at], abs=1e-4)
        assert row["recall"] == pytest.approx(100 * recall[at], abs=1e-4)
        assert row["f1"] == pytest.approx(100 * f1[at], abs=1e-4)
        assert row["rows"] == rows[at] and row["predicted"] == predictions.count(label)
    heading, *lines = read(tmp_path / "confusion.csv")
    labels = ["a", "b", "东方", "odd"]
    assert heading == ["true \\ predicted", *labels]
    assert [line[0] for line in lines] == labels
    matrix = sk.confusion_matrix(references, predictions, labels=labels)
    assert [[int(cell) for cell in line[1:]] for line in lines] == matrix.tolist()
    assert read(tmp_path / "labels.csv")[1][0] == "b"
    assert (tmp_path / "confusion.png").read_bytes()[1:4] == b"PNG"
    [warning] = [event.text for event in told if isinstance(event, events.Warn)]
    assert warning == "labels that the model does not know count as wrong: `odd` (1)"
    [block] = [event for event in told if isinstance(event, events.Block)]
    assert block.lines[2][1].endswith("rows 1 (unknown)")


def test_several_labels_have_a_table_and_no_matrix(tmp_path: Path) -> None:
    table = report([["a"], []], [["a", "b"], []], ["a", "b"], tmp_path)
    assert table["b"]["recall"] == 0 and table["a"]["f1"] == 100
    assert [file.name for file in tmp_path.iterdir()] == ["labels.csv"]


def test_without_matplotlib_there_is_no_picture(tmp_path: Path, monkeypatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    told: list[events.Event] = []
    with events.listening(told.append):
        report(["a"], ["a"], ["a"], tmp_path)
    assert any("mainspring[plot]" in event.text for event in told if isinstance(event, events.Note))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["confusion.csv", "labels.csv"]


@pytest.mark.parametrize(("count", "pixels"), [(60, 3375), (300, 6000)])
def test_many_labels_are_drawn_without_counts(tmp_path: Path, count: int, pixels: int) -> None:
    from matplotlib.image import imread

    labels = [f"label ${n}_{{x" for n in range(count)]
    told: list[events.Event] = []
    with events.listening(told.append):
        table = report(labels, labels, labels, tmp_path)
    assert len(table) == count
    assert imread(tmp_path / "confusion.png").shape[:2] == (pixels, pixels)
    notes = [event.text for event in told if isinstance(event, events.Note)]
    assert notes == ["confusion.png counts its 300 labels as confusion.csv orders them"] * (
        count > 100
    )


def test_a_model_of_several_labels_on_rows_of_one_has_no_matrix(tmp_path: Path) -> None:
    found = report([["a", "b"], []], ["a", "b"], ["a", "b"], tmp_path)
    assert found["a"]["recall"] == 100
    assert [file.name for file in tmp_path.iterdir()] == ["labels.csv"]
