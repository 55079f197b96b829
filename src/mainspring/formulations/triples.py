"""Relations written down: a text in, all its triples out, entities and relations at once.

    <triplet> Punta Cana <subj> La Altagracia <obj> located in <subj> Dominica <obj> country

The linearisation of REBEL (Huguet Cabot and Navigli, 2021): triples in the order in which their
heads appear, those with one head together; the three marks are tokens of their own. What was
written broken is left out and counted.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from mainspring.checkpoints.bundle import Bundle
from mainspring.data.relations import MARKS, OBJECT, SUBJECT, TRIPLET, read_triples
from mainspring.formulations import (
    Formulation,
    Inference,
    OnDone,
    Prediction,
    Setup,
    Values,
    causal,
    posed,
    sequence_to_sequence,
)

Relation = dict[str, Any]


def words(end: Any) -> str:
    """A head or tail as words."""
    return " ".join(str(end["text"] if isinstance(end, dict) else end).split())


def linearised(text: str, relations: Sequence[Relation]) -> str:
    """The relations of a text as one line."""

    def place(end: Any) -> int:
        return int(end["start"]) if isinstance(end, dict) else text.find(end) % (len(text) + 1)

    heads: dict[str, list[str]] = {}
    for one in sorted(relations, key=lambda r: (place(r["head"]), place(r["tail"]))):
        part = f"{SUBJECT} {words(one['tail'])} {OBJECT} {one['type']}"
        heads.setdefault(words(one["head"]), []).append(part)
    return " ".join(f"{TRIPLET} {head} {' '.join(parts)}" for head, parts in heads.items())


def pose(row: Values, setup: Setup) -> Values:
    """A row in the terms of text generation."""
    del setup
    posed_row = {"text": row["text"]}
    if "relations" in row:
        posed_row["target"] = linearised(row["text"], row["relations"])
    return posed_row


def tokens(setup: Setup) -> Sequence[str]:
    del setup
    return MARKS


def written(formulation: Formulation) -> Formulation:
    """`formulation`, which writes text, for rows with relations."""
    inner = posed(formulation, pose)
    ask = inner.predict
    assert ask is not None

    def predict(
        bundle: Bundle,
        rows: Iterable[Values],
        setup: Setup,
        how: Inference,
        on_done: OnDone = lambda done: None,
        on_text: Callable[[str], None] | None = None,
    ) -> Iterator[Prediction]:
        """The relations that the model writes down for each text."""
        del on_text  # marks are no text for people
        for prediction in ask(bundle, rows, setup, how, on_done, None):
            relations, lost = read_triples(prediction.value)
            counts = {**prediction.counts, **({"broken triples": lost} if lost else {})}
            yield replace(prediction, value=relations, counts=counts)

    name = f"triples by {formulation.name}"
    return replace(inner, name=name, predict=predict, tokens=tokens)


SEQUENCE_TO_SEQUENCE = written(sequence_to_sequence.FORMULATION)
CAUSAL = written(causal.FORMULATION)
