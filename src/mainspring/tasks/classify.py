"""`classify`: a text, or a pair of texts, gets a label, or as many as fit."""

from typing import Any

from mainspring.data.schema import Field, Layout, Values
from mainspring.formulations import Limits, classification
from mainspring.metrics.classification import METRIC
from mainspring.tasks import Option, Task

TEXT = Field(
    name="text",
    kind="text",
    accepted=("text", "sentence", "sentence1", "content", "review", "document", "premise", "title"),
    help="what is to be labelled",
)
SECOND = Field(
    name="second",
    kind="text?",
    accepted=("text_pair", "sentence2", "second", "hypothesis"),
    help="the second text of a pair",
    required=False,
)
LABEL = Field(
    name="label",
    kind="label",
    accepted=("label", "class", "category", "target", "sentiment", "intent"),
    help="the name of the right label",
    role="target",
)
LABELS = Field(
    name="labels",
    kind="labels",
    accepted=("labels", "classes", "categories", "tags", "topics"),
    help="the names of all right labels: a list, or names with | between them",
    role="target",
)


def several(values: Values) -> Values:
    """Rows with a list of labels, which may be empty."""
    return {**values, "label": values.pop("labels")} if "labels" in values else values


def shown(value: Any) -> str:
    return value if isinstance(value, str) else ", ".join(value)


TASK = Task(
    name="classify",
    help="give a text its label, or as many labels as fit",
    fields=(TEXT, SECOND, LABEL),
    layouts=(Layout((TEXT, SECOND, LABELS), several),),
    formulations=(classification.FORMULATION,),
    output="label",
    best="macro_f1",
    metric=METRIC,
    limits=Limits(256, 2),
    options=(
        Option(
            "balance",
            "weigh rare labels more: by one over how often they occur, or by its square root",
            default="none",
            choices=classification.BALANCES,
        ),
        Option(
            "threshold",
            "of several labels those are given whose score is at least this, 0 to 1",
            kind=float,
            default=0.5,
            least=0.0,
        ),
    ),
    show=shown,
)
