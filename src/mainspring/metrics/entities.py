"""Strict entity scores through `nervaluate`: right is an entity with the same characters and label.

The gazetteer is the baseline that needs no model: the entities of the training data, looked up. It
is kept with a model as hashes, so that a model's folder does not list the names in its training
data for whoever opens it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, lru_cache
from hashlib import blake2b
from importlib.metadata import version
from typing import Any

from mainspring.errors import Missing
from mainspring.metrics import Metric, Statistics
from mainspring.text import word_spans

Entity = Mapping[str, Any]

RIGHT, FOUND, THERE = "right", "found", "there"

MOST_NAMES, LONGEST_NAME = 20_000, 12  # names kept, words in one
DIGEST = 6  # bytes


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
        what = "scores of entities need a package: pip install 'mainspring[entities]'"
        raise Missing(what) from None
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
    """From (text, label) of entities: for each label the digests of its names, in one string.

    A name of several labels has its commonest; the commonest names are kept.
    """
    counts = Counter((" ".join(text.split()), label) for text, label in named)
    labels: dict[str, str] = {}
    for (text, label), _ in counts.most_common():
        if len(labels) < MOST_NAMES:
            labels.setdefault(text, label)
    names: dict[str, list[str]] = {}
    for text, label in labels.items():
        names.setdefault(label, []).append(_digest(text))
    return {label: "".join(sorted(digests)) for label, digests in sorted(names.items())}


def look_up(row: Mapping[str, Any], learnt: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """The entities that a row holds by name, the longest first from left to right; None where the
    model knows no names."""
    if "gazetteer" not in learnt:
        return None
    names = _names(tuple(learnt["gazetteer"].items()))
    text = row["text"]
    words = list(row.get("words") or word_spans(text))
    found: list[dict[str, Any]] = []
    at = 0
    while at < len(words):
        for end in range(min(at + LONGEST_NAME, len(words)), at, -1):
            start, stop = words[at][0], words[end - 1][1]
            label = names.get(_digest(" ".join(text[start:stop].split())))
            if label is not None:
                found.append({"label": label, "start": start, "end": stop})
                at = end
                break
        else:
            at += 1
    return found


def _digest(text: str) -> str:
    return blake2b(text.encode("utf-8", "replace"), digest_size=DIGEST).hexdigest()


@lru_cache(maxsize=4)
def _names(gazetteer: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """Digest -> label."""
    size = 2 * DIGEST
    return {
        digests[at : at + size]: label
        for label, digests in gazetteer
        for at in range(0, len(digests), size)
    }


METRIC = Metric(
    score_rows=score_rows,
    signature=signature,
    combine=combine,
    baselines={"gazetteer": look_up},
)
