"""`classify`: a text, or a pair of texts, gets a label, or as many as fit."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from mainspring.data.kinds import Flaw
from mainspring.data.rows import Row
from mainspring.data.schema import Field, Layout, Values
from mainspring.data.tables import named, names_beside
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
    accepted=("label", "gold_label", "class", "category", "target", "sentiment", "intent"),
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


# Columns of two texts that belong together, wherever both are there.
PAIRS = (
    *(("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2")),
    *(("question", "sentence"), ("question", "passage"), ("question", "context")),
    *(("query", "passage"), ("query", "document"), ("text1", "text2"), ("text_a", "text_b")),
)
# Columns of GLUE, SNLI and their kin, whose rows without a gold label have `UNLABELLED` for one.
OF_GLUE = ("gold_label", "hypothesis", "idx")
UNLABELLED = ("-1", "-")


def several(values: Values) -> Values:
    """Rows with a list of labels, which may be empty."""
    return {**values, "label": values.pop("labels")} if "labels" in values else values


def by_columns(
    task: Task, options: Values, columns: Sequence[str], named: Mapping[str, str]
) -> tuple[Task, Values]:
    """The task with the columns of a pair as its two texts, where the user names neither."""
    del options
    there = {column.strip().casefold(): column for column in columns}
    pair = next((pair for pair in PAIRS if there.keys() >= {*pair}), None)
    if pair is not None and not named.keys() & {TEXT.name, SECOND.name}:
        fields = {
            field.name: replace(field, accepted=(there[name],))
            for field, name in zip((TEXT, SECOND), pair, strict=True)
        }
        layouts = [Layout(_among(one.fields, fields), one.values) for one in task.layouts]
        task = replace(task, fields=_among(task.fields, fields), layouts=tuple(layouts))
    if there.keys() & {*OF_GLUE}:
        task = replace(task, values=partial(labelled, task.values))
    return task, {}


def _among(fields: Sequence[Field], changed: Mapping[str, Field]) -> tuple[Field, ...]:
    return tuple(changed.get(field.name, field) for field in fields)


def labelled(then: Callable[[Values], Values], values: Values) -> Values:
    """Rows of which annotators agreed on a label; Flaw for the others."""
    if values.get("label") in UNLABELLED:
        raise Flaw("no gold label", f"`{values['label']}` stands for none")
    return then(values)


def unfold(row: Row) -> list[Row]:
    """The row, numbers of classes replaced by the names that the data set's card lists."""
    return [replace(row, values=named(row.values, names_beside(Path(row.file).parent)))]


def shown(value: Any) -> str:
    return value if isinstance(value, str) else ", ".join(value)


TASK = Task(
    name="classify",
    help="give a text its label, or as many labels as fit",
    fields=(TEXT, SECOND, LABEL),
    layouts=(Layout((TEXT, SECOND, LABELS), several),),
    by_columns=by_columns,
    unfold=unfold,
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
            least=0,
            most=1,
        ),
    ),
    show=shown,
)
