"""How well relations are found: precision, recall and F1 of triples, strictly.

A triple is right where head, tail and relation all are: the entities at their places, or by their
words where a model writes words. That two entities are not related counts as no triple, so the
no-relation class has no score of its own.

    precision, recall, micro_f1    of all triples together
    macro_f1                       mean of the relations' F1, as SemEval-2010 task 8 scores
                                   officially (Hendrickx et al., 2010): `R(e1,e2)` and `R(e2,e1)`
                                   are pooled as R, and the wrong direction is wrong
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from mainspring.metrics import Classes, Metric, Statistics, gazetteer
from mainspring.metrics.classification import (
    BOTH,
    PREDICTED,
    TRUE,
    counted,
    label_table,
    macro_f1,
    micro_f1,
    per_label,
    warn_of_unknown,
    write_label_table,
)
from mainspring.text import word_spans

DIRECTION = re.compile(r"\(e[12],e[12]\)$")

Relation = Mapping[str, Any]


def relation_name(name: str) -> str:
    """A relation without its direction."""
    return DIRECTION.sub("", name)


def score_rows(
    predictions: Sequence[Sequence[Relation]], references: Sequence[Sequence[Relation]], kind: str
) -> list[Statistics]:
    """How many triples of each relation are predicted, true and both, in each row; one that is
    written twice counts once."""
    del kind
    rows = []
    for predicted, true in zip(predictions, references, strict=True):
        by_place = all(isinstance(one["head"], Mapping) for one in (*predicted, *true))
        found, wanted = ({_key(one, by_place) for one in side} for side in (predicted, true))
        row: Statistics = {}
        for what, triples in ((TRUE, wanted), (PREDICTED, found), (BOTH, found & wanted)):
            for _, relation, _ in triples:
                name = counted(what, relation_name(relation))
                row[name] = row.get(name, 0.0) + 1
        rows.append(row)
    return rows


def _key(relation: Relation, by_place: bool) -> tuple[Any, str, Any]:
    head, tail = (_end(relation[end], by_place) for end in ("head", "tail"))
    return head, relation["type"], tail


def _end(end: Any, by_place: bool) -> Any:
    return (end["start"], end["end"]) if by_place else _words(end)


def _words(end: Any) -> str:
    return " ".join((end["text"] if isinstance(end, Mapping) else end).split())


def combine(means: Mapping[str, float]) -> Statistics:
    """The scores of a set, 0..100."""
    table = per_label(means)
    both, predicted, true = (sum(row[at] for row in table.values()) for at in range(3))
    return {
        "precision": 100 * both / predicted if predicted else 0.0,
        "recall": 100 * both / true if true else 0.0,
        "micro_f1": micro_f1(table),
        "macro_f1": macro_f1(table),
    }


def signature(kind: str) -> str:
    del kind
    return (
        "strict triples: head, tail and relation with its direction | no-relation left out | "
        "macro over relations, directions pooled"
    )


def majority(inputs: Mapping[str, Any], learnt: Mapping[str, Any]) -> list[Relation] | None:
    """The most frequent relation for every pair of entities; None where nothing is known of the
    training rows or no pairs are given."""
    counts = {n: c for n, c in learnt.get("counts", {}).items() if n != "no_relation"}
    if not counts or "pairs" not in inputs:
        return None
    name = max(counts, key=lambda label: counts[label])
    return [{"head": head, "type": name, "tail": tail} for head, tail in inputs["pairs"]]


def learn_gazetteer(relations: Iterable[Relation]) -> dict[str, str]:
    """For each relation the digests of its heads and tails, in one string."""
    return gazetteer.pack(
        ("".join(gazetteer.digest(_words(one[end])) for end in ("head", "tail")), one["type"])
        for one in relations
    )


def look_up(inputs: Mapping[str, Any], learnt: Mapping[str, Any]) -> list[Relation] | None:
    """The triples of the training data whose head and tail both stand in the text; None where the
    model knows none."""
    if "gazetteer" not in learnt:
        return None
    known = gazetteer.unpack(learnt["gazetteer"], 2)
    heads, tails = _ends(tuple(known))
    text, words = inputs["text"], list(word_spans(inputs["text"]))
    parts = (text[words[at][0] : words[end - 1][1]] for at, end in gazetteer.stretches(words))
    names = {gazetteer.digest(part): part for part in parts}
    return [
        {"head": names[head], "type": known[head + tail], "tail": names[tail]}
        for head in names
        if head in heads
        for tail in names
        if tail in tails and head + tail in known
    ]


@lru_cache(maxsize=4)
def _ends(keys: tuple[str, ...]) -> tuple[frozenset[str], frozenset[str]]:
    """The digests of heads and of tails, out of those of both."""
    size = gazetteer.LETTERS
    return frozenset(key[:size] for key in keys), frozenset(key[size:] for key in keys)


def classes(reference: Sequence[Relation]) -> list[str]:
    return [relation["type"] for relation in reference]


def report(
    rows: Sequence[Statistics], found: Classes, labels: Sequence[str], out: Path | None
) -> dict[str, Any]:
    """Precision, recall and F1 (0..100) of each relation, as an event and as `relations.csv` in the
    folder `out`; relations that the model does not know are warned of."""
    unknown = {relation_name(name): n for name, n in warn_of_unknown(found.wanted, labels).items()}
    table = label_table(rows, unknown)
    if out is not None:
        write_label_table(table, out / "relations.csv")
    return {"labels": table}


METRIC = Metric(
    score_rows=score_rows,
    signature=signature,
    combine=combine,
    baselines={"majority": majority, "gazetteer": look_up},
    classes=classes,
    report=report,
)
