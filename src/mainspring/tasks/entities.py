"""`entities`: a text in, the names and things in it out, each with its place.

Data are words with tags (CoNLL files, `tokens` and `ner_tags`) or texts with character spans
(`entities`, `spans`, doccano's `label`, Label Studio's exports).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from mainspring import events
from mainspring.data.annotated import annotated
from mainspring.data.entities import (
    Entity,
    Scheme,
    checked_entities,
    join_words,
    parse_tag,
    scheme_of,
    tagged_entities,
    word_span,
)
from mainspring.data.kinds import Flaw, as_list, as_tags
from mainspring.data.rows import Row
from mainspring.data.schema import Field, Layout
from mainspring.data.tables import names_beside
from mainspring.formulations import Setup, Values, token_classification
from mainspring.metrics.entities import METRIC, learn_gazetteer
from mainspring.tasks import Option, Task

TEXT = Field(
    name="text",
    kind="text",
    accepted=("text", "sentence", "content", "document", "body"),
    help="what entities are to be found in",
)
ENTITIES = Field(
    name="entities",
    kind="spans",
    accepted=("entities", "spans", "ents", "annotations"),
    help="the entities: a list of start, end (in characters) and label",
    role="target",
)
WORDS = Field(
    name="words",
    kind="words",
    accepted=("tokens", "words", "token", "word"),
    help="the words of a text",
)
TAGS = Field(
    name="entities",
    kind="tags",
    accepted=("ner_tags", "tags", "labels", "ner", "label", "bio", "tag"),
    help="a tag for each word: B-PER, I-PER, O",
    role="target",
)
LABEL_FILES = ("labels.txt", "label_names.txt", "classes.txt")


def of_spans(values: Values) -> Values:
    """A text with its spans checked; what was left aside is listed under `mended`."""
    if "entities" not in values:
        return values
    entities, mended = checked_entities(values["text"], values["entities"])
    return {**values, "entities": entities, "mended": mended}


def of_words(values: Values, scheme: Scheme | None = None) -> Values:
    """Words as a text, with their places and the entities that their tags tell."""
    text, words = join_words(values["words"])
    if not text.strip():
        raise Flaw("empty text")
    found: Values = {"text": text, "words": words}
    if "entities" in values:
        found["entities"], found["mended"] = tagged_entities(words, values["entities"], scheme)
    return found


def of_word_spans(values: Values) -> Values:
    """Words as a text, and the entities whose places are counted in words, in characters."""
    found = of_words({"words": values["words"]})
    if "entities" not in values:
        return found
    spans = [word_span(found["words"], span) for span in values["entities"]]
    found["entities"], found["mended"] = checked_entities(found["text"], spans)
    return found


def by_tags(rows: Sequence[Values]) -> Callable[[Values], Values]:
    """`of_words` for the scheme that the tags of the first rows are of."""
    tags: list[str] = []
    for row in rows:
        with suppress(Flaw):  # said where the row is read
            tags += as_tags(row.get("entities"))
    scheme = scheme_of(tags)
    if scheme == "behind":
        tag, (prefix, label) = next(
            (tag, parts) for tag in tags if (parts := parse_tag(tag, scheme))[0] not in ("O", "")
        )
        events.note(f"tags have their prefix behind: `{tag}` is read as `{prefix}-{label}`")
    return partial(of_words, scheme=scheme)


# -- tags that are numbers -------------------------------------------------------------------------


def unfold(row: Row) -> Iterator[Row]:
    """The rows that one of an annotation tool holds, their tags named."""
    return map(named_tags, annotated(row))


def named_tags(row: Row) -> Row:
    """The row, numbers in its tags replaced by the names that a file beside the data lists."""
    values = dict(row.values)
    for column in TAGS.accepted:
        tags = values.get(column)
        numbers = _numbers(tags) if isinstance(tags, list | str) else None
        names = _label_names(Path(row.file).parent, column) if numbers else ()
        if not numbers or not names:
            continue
        if not all(0 <= number < len(names) for number in numbers):
            detail = f"column `{column}` holds {max(numbers)}, and there are {len(names)} names"
            raise Flaw("tags out of range", detail)
        values[column] = [names[number] for number in numbers]
    return replace(row, values=values)


def _numbers(tags: Any) -> list[int] | None:
    """The tags as numbers, where they are."""
    if isinstance(tags, str) and not tags.lstrip().startswith("["):
        return None
    try:
        found = as_list(tags, "tags")
    except Flaw:
        return None
    return found if all(type(tag) is int for tag in found) else None


@lru_cache(maxsize=16)
def _label_names(folder: Path, column: str) -> tuple[str, ...]:
    """The names of labels in the order of their numbers: from a file of names, one a line, or from
    the card of the data set, beside the data or a folder above; none where neither is."""
    file = next((folder / name for name in LABEL_FILES if (folder / name).is_file()), None)
    if file is not None:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
        return tuple(line.strip() for line in lines if line.strip())
    return tuple(names_beside(folder).get(column, ()))


# -- the baseline, and words for people ------------------------------------------------------------


def learn(rows: Iterable[Values], setup: Setup) -> Setup:
    """What the formulation learns, and the names in the training rows for the baseline."""
    names: list[tuple[str, str]] = []

    def watched() -> Iterator[Values]:
        for row in rows:
            entities: list[Entity] = row["entities"]
            names.extend((row["text"][e["start"] : e["end"]], e["label"]) for e in entities)
            yield row

    assert token_classification.FORMULATION.learn is not None
    learnt = token_classification.FORMULATION.learn(watched(), setup)
    return replace(learnt, options={**learnt.options, "gazetteer": learn_gazetteer(names)})


def show(entities: list[Entity]) -> str:
    """Entities on one line: `Angela Merkel (PER 0.99), Paris (LOC 0.98)`."""
    shown = (f"{' '.join(e['text'].split())} ({e['label']} {e['score']:.2f})" for e in entities)
    return ", ".join(shown) or "no entities"


TASK = Task(
    name="entities",
    help="find names and other things in a text, each with its place",
    fields=(TEXT, ENTITIES),
    values=of_spans,
    layouts=(
        Layout((WORDS, TAGS), of_words, by_rows=by_tags),
        Layout((TEXT, replace(ENTITIES, accepted=("label", "labels"))), of_spans),
        Layout((WORDS, ENTITIES), of_word_spans),
    ),
    unfold=unfold,
    formulations=(replace(token_classification.FORMULATION, learn=learn),),
    output="entities",
    best="f1",
    metric=METRIC,
    options=(
        Option(
            "decoding",
            "how tags are chosen: the best sequence that keeps the rules of BIO, or each word's "
            "best tag, repaired",
            default="viterbi",
            choices=("viterbi", "argmax"),
        ),
    ),
    show=show,
)
