"""How well labels are told: accuracy, F1 and calibration of single labels and of several.

    accuracy            share of rows whose label, or whose whole set of labels, is right
    macro_f1            mean over the labels of each one's F1
    micro_f1            F1 of all labels of all rows together (of single labels it is the accuracy)
    calibration_error   how far the scores are from the shares that come true (Guo et al., 2017):
                        mean |score - share right| over 15 equal bins; lower is better

All follow from counts per row, so that intervals and paired tests can be had; that they equal those
of scikit-learn is tested. A label that nobody gave and nobody predicted counts in no mean.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mainspring import events
from mainspring.metrics import Classes, Metric, Statistics

ONE, SEVERAL = "one label", "several labels"
BINS = 15

# Names of statistics: what was counted, and for which label or bin. The mark between the two is
# one that no label of a text file holds.
MARK = "\x1f"
TRUE, PREDICTED, BOTH = "true", "predicted", "both"
COUNTED = tuple(f"{what}{MARK}" for what in (TRUE, PREDICTED, BOTH))
SCORE, RIGHT = "score", "right"

SHOWN = 40  # labels of a table that are shown; all go to a file


def choose_kind(references: Iterable[Any]) -> str:
    return ONE if all(isinstance(label, str) for label in references) else SEVERAL


def judged(value: Any, details: Mapping[str, Any]) -> tuple[Any, float | None]:
    """What is scored of a prediction: the label or labels, and how sure the model was."""
    return value, details.get("score")


def counted(kind: str, label: object) -> str:
    """The name of a statistic, one string for all the rows that have it."""
    return sys.intern(f"{kind}{MARK}{label}")


def score_rows(
    predictions: Sequence[Any], references: Sequence[Any], kind: str
) -> list[Statistics]:
    """Counts of each row: labels that are true, predicted, and both; right and sure in each bin.

    A prediction is a label or a list of labels, or a pair of that and its score (None for none).
    """
    rows = []
    for prediction, reference in zip(predictions, references, strict=True):
        value, score = prediction if isinstance(prediction, tuple) else (prediction, None)
        found, true = labels_of(value), labels_of(reference)
        row: Statistics = {"exact": float(set(found) == set(true))}
        for name, labels in (
            (TRUE, true),
            (PREDICTED, found),
            (BOTH, [label for label in found if label in true]),
        ):
            row |= {counted(name, label): 1.0 for label in labels}
        if kind == ONE and score is not None:
            bin_ = min(BINS - 1, int(score * BINS))
            row |= {counted(SCORE, bin_): score, counted(RIGHT, bin_): row["exact"]}
        rows.append(row)
    return rows


def labels_of(value: Any) -> list[str]:
    """The labels of a row that has one, as a text, or several, as a list."""
    return ([value] if value else []) if isinstance(value, str) else list(value)


def f1(both: float, predicted: float, true: float) -> float:
    """0..100; 0 where nothing was right."""
    return 200 * both / (predicted + true) if both else 0.0


Counts = tuple[float, float, float]


def per_label(means: Mapping[str, float]) -> dict[str, Counts]:
    """(both, predicted, true) of each label that was given or predicted at all."""
    table: dict[str, dict[str, float]] = {}
    for name, mean in means.items():
        what, mark, label = name.partition(MARK)
        if mark and what in (BOTH, PREDICTED, TRUE):
            table.setdefault(label, {})[what] = mean
    rows = {
        label: (row.get(BOTH, 0.0), row.get(PREDICTED, 0.0), row.get(TRUE, 0.0))
        for label, row in table.items()
    }
    return {label: row for label, row in rows.items() if row[1] or row[2]}


def macro_f1(table: Mapping[str, Counts]) -> float:
    """The mean over the labels, each counting alike."""
    return sum(f1(*row) for row in table.values()) / max(1, len(table))


def micro_f1(table: Mapping[str, Counts]) -> float:
    """All labels in one count."""
    both, predicted, true = (sum(row[i] for row in table.values()) for i in range(3))
    return f1(both, predicted, true)


def calibration_error(means: Mapping[str, float]) -> float:
    """Expected calibration error, 0..1, of the scores that there are."""
    bins = [(means[name], means.get(counted(RIGHT, at), 0.0)) for at, name in _bins(means)]
    return sum(abs(score - right) for score, right in bins)


def _bins(means: Mapping[str, float]) -> list[tuple[int, str]]:
    names = [(at, counted(SCORE, at)) for at in range(BINS)]
    return [(at, name) for at, name in names if name in means]


def combine(means: Mapping[str, float]) -> Statistics:
    """The scores of a set; calibration where predictions came with a score."""
    table = per_label(means)
    scores = {
        "accuracy": 100 * means["exact"],
        "macro_f1": macro_f1(table),
        "micro_f1": micro_f1(table),
    }
    if _bins(means):
        scores["calibration_error"] = 100 * calibration_error(means)
    return scores


def signature(kind: str) -> str:
    """What exactly is computed, for a line beside the scores."""
    calibration = f" | calibration error over {BINS} bins" if kind == ONE else ""
    return f"{kind} | F1 of labels that occur or are predicted{calibration}"


def majority(inputs: Mapping[str, Any], learnt: Mapping[str, Any]) -> Any:
    """The most frequent label of the training rows with its share of them; where there may be
    several, those of at least half of the rows, or else the most frequent one. None where nothing
    is known of the training rows."""
    del inputs
    counts: Mapping[str, int] = learnt.get("counts", {})
    if not counts:
        return None
    first = max(counts, key=lambda label: counts[label])
    if learnt.get("problem_type") == "multi_label_classification":
        return [label for label in counts if 2 * counts[label] >= learnt["rows"]] or [first]
    return first, counts[first] / learnt["rows"]


# -- tables and pictures ---------------------------------------------------------------------------


def classes(reference: Any) -> set[str]:
    return set(labels_of(reference))


def report(
    rows: Sequence[Statistics], found: Classes, labels: Sequence[str], out: Path | None
) -> dict[str, Any]:
    """Precision, recall and F1 (0..100) of each label and its number of rows, also as an event.

    Into the folder `out` go `labels.csv` and, for single labels, the confusion matrix as
    `confusion.csv` and `confusion.png`. Labels that the model does not know are warned of.
    """
    table = label_table(rows, warn_of_unknown(found.wanted, labels))
    if out is not None:
        write_label_table(table, out / "labels.csv")
        if found.pairs:  # a model of several labels has no confusion of two
            from mainspring.metrics.confusion import write_confusion

            write_confusion(found.pairs, list(dict.fromkeys([*labels, *found.wanted])), out)
    return {"labels": table}


def warn_of_unknown(wanted: Mapping[str, int], labels: Sequence[str]) -> Counter[str]:
    """The labels of a test set, and how many of its rows have them, that the model does not know,
    with a warning; it never predicts them, so they are always wrong."""
    known = set(labels)
    unknown = Counter({label: count for label, count in wanted.items() if label not in known})
    if unknown and known:
        named = ", ".join(f"`{label}` ({count})" for label, count in unknown.most_common(10))
        events.warn(
            f"labels that the model does not know count as wrong: {named}"
            f"{' …' if len(unknown) > 10 else ''}"
        )
    return unknown


def label_table(
    rows: Sequence[Statistics], unknown: Mapping[str, int]
) -> dict[str, dict[str, float]]:
    """Precision, recall, F1 (0..100), rows and predicted rows of each label, the most frequent
    first; shown as an event."""
    totals: Counter[str] = Counter()
    for row in rows:
        totals.update({name: int(n) for name, n in row.items() if name.startswith(COUNTED)})
    found = per_label(totals)
    table = {}
    for label in sorted(found, key=lambda name: (-found[name][2], name)):
        both, predicted, true = found[label]
        table[label] = {
            "precision": round(100 * both / predicted, 4) if predicted else 0.0,
            "recall": round(100 * both / true, 4) if true else 0.0,
            "f1": round(f1(both, predicted, true), 4),
            "rows": int(true),
            "predicted": int(predicted),
        }
    lines = [
        (
            label,
            f"F1 {row['f1']:6.2f}   precision {row['precision']:6.2f}   recall "
            f"{row['recall']:6.2f}   rows {row['rows']}{' (unknown)' * (label in unknown)}",
        )
        for label, row in list(table.items())[:SHOWN]
    ]
    if len(table) > SHOWN:
        lines.append(("…", f"{len(table) - SHOWN} more"))
    events.emit(events.Block("Labels", tuple(lines)))
    return table


def write_label_table(table: Mapping[str, Mapping[str, float]], file: Path) -> None:
    import csv

    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["label", "precision", "recall", "f1", "rows", "predicted"])
        writer.writerows([label, *row.values()] for label, row in table.items())


METRIC = Metric(
    score_rows=score_rows,
    signature=signature,
    combine=combine,
    choose_kind=choose_kind,
    baselines={"majority": majority},
    judged=judged,
    classes=classes,
    report=report,
)
