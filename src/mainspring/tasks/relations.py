"""`relations`: what holds between the entities of a text.

An encoder tells for two given entities which relation holds between them; a model that writes
finds entities and relations at once. The forms of data are those of `data.relations`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mainspring.data.relation_sets import published
from mainspring.data.relations import relation_values
from mainspring.data.schema import Field, Layout
from mainspring.formulations import (
    Limits,
    Setup,
    Values,
    classification,
    relation_pairs,
    triples,
)
from mainspring.metrics.relations import METRIC, learn_gazetteer
from mainspring.tasks import Option, Task

TEXT = Field(
    name="text",
    kind="text",
    accepted=("text", "sentence", "content", "document", "sentText"),
    help="the text, perhaps with <e1>head</e1> and <e2>tail</e2> marked in it",
)
WORDS = Field(
    name="words",
    kind="words",
    accepted=("tokens", "token", "words"),
    help="the words of the text",
)
ENTITIES = Field(
    name="entities",
    kind="spans",
    accepted=("entities", "spans", "ner", "entityMentions"),
    help="the entities: a list of start, end and, if they have types, label",
    required=False,
)
RELATIONS = Field(
    name="relations",
    kind="any",
    accepted=(
        *("relations", "relation", "triples", "triplets", "triple_list", "spo_list"),
        *("label", "relation_type"),
    ),
    help="the relation of head and tail by its name, or a list of head, tail and type",
    role="target",
)
NO_RELATION = Field(
    name="no_relation",
    kind="text?",
    accepted=("no_relation",),
    help="the name for two entities that are not related, where it is not a usual one",
    required=False,
)


def end(name: str, others: tuple[str, ...]) -> tuple[Field, ...]:
    """The fields of a head or a tail."""
    words = Field(
        name=name,
        kind="text?",
        accepted=(name, *others),
        help=f"the {name} as it stands in the text",
        required=False,
    )
    span = Field(
        name=f"{name}_span",
        kind="any",
        accepted=(f"{name}_span", f"{name}_pos"),
        help=f"where the {name} stands: [start, end] in characters",
        required=False,
    )
    label = Field(
        name=f"{name}_type",
        kind="text?",
        accepted=(f"{name}_type",),
        help=f"the type of the {name}",
        required=False,
    )
    return words, span, label


def learn(rows: Iterable[Values], setup: Setup) -> Setup:
    """The setup with the triples of the training rows, for the baseline."""
    known = learn_gazetteer(relation for row in rows for relation in row["relations"])
    return replace(setup, options={**setup.options, "gazetteer": known})


FORMS = {
    "pairs": (relation_pairs.FORMULATION,),
    "triples": tuple(
        replace(formulation, learn=learn)
        for formulation in (triples.SEQUENCE_TO_SEQUENCE, triples.CAUSAL)
    ),
}


def by_columns(
    task: Task, options: Values, columns: Sequence[str], named: Mapping[str, str]
) -> tuple[Task, Values]:
    """The task in the form that is asked for."""
    del columns, named
    return (replace(task, formulations=FORMS[options["form"]]) if "form" in options else task), {}


def show(relations: Any) -> str:
    """Relations on one line: `child -Entity-Destination(e1,e2)-> cradle (0.98)`."""
    shown = []
    for one in relations:
        score = f" ({one['score']:.2f})" if "score" in one else ""
        ends = triples.words(one["head"]), triples.words(one["tail"])
        shown.append(f"{ends[0]} -{one['type']}-> {ends[1]}{score}")
    return "; ".join(shown) or "no relation"


TASK = Task(
    name="relations",
    help="tell what holds between the entities of a text",
    fields=(
        TEXT,
        *end("head", ("subject", "subj", "entity1")),
        *end("tail", ("object", "obj", "entity2")),
        ENTITIES,
        RELATIONS,
        NO_RELATION,
    ),
    values=relation_values,
    unfold=published,
    layouts=(Layout((WORDS, ENTITIES, RELATIONS, NO_RELATION), relation_values),),
    formulations=tuple(formulation for form in FORMS.values() for formulation in form),
    by_columns=by_columns,
    output="relations",
    best="micro_f1",
    metric=METRIC,
    limits=Limits(256, 128),
    instruction=(
        "List what is related in the text, each as <triplet> head <subj> tail <obj> relation.\n\n"
    ),
    cue="\nRelations: ",
    options=(
        Option(
            "form",
            "learn which relation holds for `pairs` of given entities, or to write `triples` of a "
            "text; by default pairs where the model can",
            choices=tuple(FORMS),
        ),
        Option(
            "balance",
            "weigh rare relations more: by one over how often they occur, or by its square root",
            default="none",
            choices=classification.BALANCES,
        ),
    ),
    show=show,
)
