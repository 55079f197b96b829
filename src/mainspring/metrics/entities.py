"""Strict entity scores through `nervaluate`: right is an entity with the same characters and label.

The baseline that needs no model is the gazetteer: the entities of the training data, looked up.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from typing import Any

from mainspring.extras import ENTITIES
from mainspring.metrics import Metric, Statistics, gazetteer
from mainspring.text import word_spans

Entity = Mapping[str, Any]

RIGHT, FOUND, THERE = "right", "found", "there"


def score_rows(
    predictions: Sequence[Sequence[Entity]], references: Sequence[Sequence[Entity]], kind: str = ""
) -> list[Statistics]:
    """For each row how many entities are right, found and there: of all, and of each label."""
    del kind
    return [_score(*pair) for pair in zip(predictions, references, strict=True)]


def _score(found: Sequence[Entity], there: Sequence[Entity]) -> Statistics:
    labels = list(dict.fromkeys(entity["label"] for entity in (*there, *found)))
    if not labels:
        return {RIGHT: 0.0, FOUND: 0.0, THERE: 0.0}
    results = _evaluator()([_plain(there)], [_plain(found)], tags=labels, loader="dict").evaluate()
    statistics = _counts(results["overall"]["strict"], "")
    for label in labels:
        statistics |= _counts(results["entities"][label]["strict"], f" {label}")
    return statistics


@cache
def _evaluator() -> Any:
    try:
        from nervaluate import Evaluator
    except ModuleNotFoundError:
        raise ENTITIES.missing() from None
    return Evaluator


def _plain(entities: Sequence[Entity]) -> list[dict[str, Any]]:
    """Entities as nervaluate has them: with their last character, not the one after."""
    return [{"label": e["label"], "start": e["start"], "end": e["end"] - 1} for e in entities]


def _counts(result: Any, of: str) -> Statistics:
    counts = {RIGHT: result.correct, FOUND: result.actual, THERE: result.possible}
    return {name + of: float(count) for name, count in counts.items()}


def combine(means: Mapping[str, float]) -> Statistics:
    """F1, precision and recall over all entities, and F1 of each label that is there, 0..100."""
    right, found, there = means[RIGHT], means[FOUND], means[THERE]
    scores = {
        "f1": _share(2 * right, found + there),
        "precision": _share(right, found),
        "recall": _share(right, there),
    }
    for name in sorted(means):
        part, _, label = name.partition(" ")
        if part == THERE and label:
            both = means[f"{FOUND} {label}"] + means[name]
            scores[f"f1 {label}"] = _share(2 * means[f"{RIGHT} {label}"], both)
    return scores


def _share(part: float, whole: float) -> float:
    return 100 * part / whole if whole else 0.0


def signature(kind: str = "") -> str:
    del kind
    library = f"nervaluate {version('nervaluate')}"
    return f"{library} | strict: same characters, same label | over all entities (micro)"


# -- the gazetteer ---------------------------------------------------------------------------------


def learn_gazetteer(named: Iterable[tuple[str, str]]) -> dict[str, str]:
    """From (text, label) of entities: for each label the digests of its names, in one string."""
    return gazetteer.pack((gazetteer.digest(text), label) for text, label in named)


def look_up(row: Mapping[str, Any], learnt: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """The entities that a row holds by name, the longest first from left to right; None where the
    model knows no names."""
    if "gazetteer" not in learnt:
        return None
    names = gazetteer.unpack(learnt["gazetteer"])
    text = row["text"]
    words = list(row.get("words") or word_spans(text))
    found: list[dict[str, Any]] = []
    passed = 0
    for first, end in gazetteer.stretches(words):
        start, stop = words[first][0], words[end - 1][1]
        if first >= passed and (label := names.get(gazetteer.digest(text[start:stop]))):
            found.append({"label": label, "start": start, "end": stop})
            passed = end
    return found


METRIC = Metric(
    score_rows=score_rows,
    signature=signature,
    combine=combine,
    needs=ENTITIES,
    baselines={"gazetteer": look_up},
)
