"""`backwards`: the words of a text in reverse order."""

from collections.abc import Mapping, Sequence
from typing import Any

from mainspring.data.schema import Field
from mainspring.formulations import Limits, causal, sequence_to_sequence
from mainspring.metrics import Metric, Statistics
from mainspring.tasks import Task


def score_rows(
    predictions: Sequence[str], references: Sequence[str], kind: str
) -> list[Statistics]:
    """For each row: whether all of it is right, and the share of words in their places, 0..100."""
    del kind
    rows = []
    for prediction, reference in zip(predictions, references, strict=True):
        made, wanted = prediction.split(), reference.split()
        placed = sum(a == b for a, b in zip(made, wanted, strict=False))
        words = 100 * placed / max(len(made), len(wanted), 1)
        rows.append({"exact": 100.0 * (made == wanted), "words": words})
    return rows


def as_it_is(row: Mapping[str, Any], learnt: Mapping[str, Any]) -> str:
    """What a model has to beat."""
    del learnt
    return str(row["text"])


TASK = Task(
    name="backwards",
    help="put the words of a text in reverse order",
    fields=(
        Field(
            name="text",
            kind="text",
            accepted=("text", "forwards"),
            help="the words as they are",
        ),
        Field(
            name="target",
            kind="text",
            accepted=("backwards", "target"),
            help="the words in reverse order",
            role="target",
        ),
    ),
    formulations=(sequence_to_sequence.FORMULATION, causal.FORMULATION),
    output="backwards",
    best="words",
    metric=Metric(
        score_rows=score_rows,
        signature=lambda kind: "words in their places",
        baselines={"as it is": as_it_is},
    ),
    cue=" |",
    limits=Limits(64, 64),
)
