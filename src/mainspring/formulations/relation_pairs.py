"""Relations by pairs: what relation, if any, holds between two entities of a text.

    The [E1:PER]child[/E1:PER] was bound into the [E2:OBJ]cradle[/E2:OBJ] .   ->   one label

Typed entity markers (Zhou and Chen, 2022), each a token of its own, around head and tail; untyped
ones, `[E1]`, where entities have no types or one that is new. An encoder's head reads the vectors
of the two opening markers ("entity markers, entity start" of Baldini Soares et al., 2019), as their
mean, so that any family's `classes` head serves; a decoder's reads the last token.
Of a text too long for the model the surroundings of the two entities are read.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from mainspring import events
from mainspring.checkpoints.bundle import Bundle
from mainspring.checkpoints.tokenizer import Tokenizer
from mainspring.data.relations import Entity, relation_values
from mainspring.errors import BadData, BadOption
from mainspring.formulations import (
    EncodedRow,
    Formulation,
    Inference,
    OnDone,
    Prediction,
    Setup,
    Values,
    classification,
)
from mainspring.formulations.classification import Reading
from mainspring.formulations.inputs import too_long
from mainspring.formulations.prediction import tokenizer_of

NONE = "no_relation"
UNPAIRED = (
    "no two entities are given in this text: mark them, as in `The <e1>child</e1> lay in the "
    "<e2>cradle</e2>.`, or give them in the columns head and tail, or entities"
)

Pair = tuple[Entity, Entity]


def pairs_of(row: Values) -> list[Pair] | None:
    """The pairs of a row, in the one form of `data.relations` or with bare `entities`; None where
    no entities are said."""
    if "pairs" not in row:
        row = relation_values({k: v for k, v in row.items() if k != "relations"})
    return row.get("pairs")


def marker(side: int, entity: Entity, types: Sequence[str]) -> str:
    """The name of the marker of an entity: `E1`, or `E1:PER` where its type is known."""
    return f"E{side}:{entity['label']}" if entity["label"] in types else f"E{side}"


def marked(text: str, pair: Pair, types: Sequence[str]) -> str:
    """The text with markers around head and tail. The blank before an entity comes to stand within
    its marker: tokenizers that begin words by blanks then cut it as they would without."""
    places: list[tuple[int, int, str]] = []
    for side, entity in enumerate(pair, 1):
        name, start = marker(side, entity, types), entity["start"]
        start -= start > 0 and text[start - 1] == " "
        places += [(start, 1, f"[{name}]"), (entity["end"], 0, f"[/{name}]")]
    parts, last = [], 0
    for at, _, mark in sorted(places):  # where one entity ends and another begins, the end first
        parts += [text[last:at], mark]
        last = at
    return "".join([*parts, text[last:]])


def tokens(setup: Setup) -> list[str]:
    """All markers there may be."""
    labels = ("", *(f":{name}" for name in setup.options.get("types", ())))
    return [f"[{end}E{side}{label}]" for label in labels for side in (1, 2) for end in ("", "/")]


def around(marks: frozenset[int], ids: list[int], room: int) -> list[int]:
    """The part of a text within `room` that holds both entities, as much before as behind; of
    entities too far apart the surroundings of each."""
    places = [at for at, token in enumerate(ids) if token in marks]
    if not places:
        return ids[:room]
    first, last = places[0], places[-1] + 1
    spare = room - (last - first)
    if spare < 0:
        half = room // 2
        return [*ids[first : first + room - half], *ids[last - half : last]]
    start = min(max(0, first - spare // 2), max(0, len(ids) - room))
    return ids[start : start + room]


def _shorten(tokenizer: Tokenizer, setup: Setup) -> Callable[[list[int], int], list[int]]:
    found = (tokenizer.id_of(token) for token in tokens(setup))
    return partial(around, frozenset(id_ for id_ in found if id_ is not None))


# -- training --------------------------------------------------------------------------------------


def labelled_pairs(row: Values) -> Iterator[tuple[Pair, str]]:
    """Each pair of a row with the name of its relation, the first where it has several."""
    names: dict[tuple[int, ...], str] = {}
    for relation in row["relations"]:
        if isinstance(relation["head"], dict) and isinstance(relation["tail"], dict):
            names.setdefault(_places((relation["head"], relation["tail"])), relation["type"])
    for pair in pairs_of(row) or ():
        yield pair, names.get(_places(pair), NONE)


def _places(pair: Pair) -> tuple[int, ...]:
    return tuple(entity[end] for entity in pair for end in ("start", "end"))


def learn(rows: Iterable[Values], setup: Setup) -> Setup:
    """The relations there are, and the types of the entities."""
    if setup.prefix:
        raise BadOption("--prefix: pairs of entities are read with nothing before their text")
    types: set[str] = set()

    def labels() -> Iterator[Values]:
        for row in rows:
            for pair, name in labelled_pairs(row):
                types.update(entity["label"] for entity in pair)
                yield {"label": name}

    try:
        learnt = classification.learn(labels(), setup)
    except BadData as error:
        raise BadData(f"pairs of entities: {error}") from None
    if finds_everywhere(learnt):
        events.warn(
            "every pair of entities in the training rows has a relation: the model will find one "
            f"between any two; add pairs that have none (`{NONE}`) if it is to read whole texts"
        )
    return replace(learnt, options={**learnt.options, "types": sorted(types - {""})})


def finds_everywhere(setup: Setup) -> bool:
    """Whether a model has seen no entities without a relation, and so gives every pair one."""
    return bool(setup.labels) and NONE not in setup.labels


def encode(rows: Sequence[Values], tokenizer: Tokenizer, setup: Setup) -> list[EncodedRow]:
    """One example for each pair of the rows."""
    types = setup.options.get("types", ())
    flat = [
        {"text": marked(row["text"], pair, types), "label": name}
        for row in rows
        for pair, name in labelled_pairs(row)
    ]
    return classification.labelled(flat, _encode_marked(flat, tokenizer, setup), setup)


def _encode_marked(rows: Sequence[Values], tokenizer: Tokenizer, setup: Setup) -> list[EncodedRow]:
    """Marked texts as ids, with the places of the markers that open head and tail."""
    plain, shorten = replace(setup, prefix=""), _shorten(tokenizer, setup)
    examples = classification.encode_texts(rows, tokenizer, plain, shorten)
    opening = [
        {tokenizer.id_of(token) for token in tokens(setup) if token.startswith(f"[E{side}")}
        for side in (1, 2)
    ]
    return [
        replace(
            example,
            places=[
                next((at for at, token in enumerate(example.source) if token in marks), 0)
                for marks in opening
            ],
        )
        for example in examples
    ]


# -- prediction ------------------------------------------------------------------------------------


def predict(
    bundle: Bundle,
    rows: Iterable[Values],
    setup: Setup,
    how: Inference,
    on_done: OnDone = lambda done: None,
    on_text: Callable[[str], None] | None = None,
) -> Iterator[Prediction]:
    """The relations of each row: `{"head", "type", "tail", "score"}`, head and tail with their
    places. The pairs of a text are read together."""
    del on_text  # nothing is written
    tokenizer = tokenizer_of(bundle)
    types = setup.options.get("types", ())
    waiting: deque[Asked] = deque()

    def flat() -> Iterator[Values]:
        for row in rows:
            pairs = pairs_of(row)
            waiting.append(Asked(pairs, row.get("adds", {}), unknown_types(pairs or (), types)))
            for pair in pairs or ():
                yield {"text": marked(row["text"], pair, types)}

    def read(chunk: Sequence[Values]) -> list[Reading]:
        return [
            _reading(example, setup, how) for example in _encode_marked(chunk, tokenizer, setup)
        ]

    done, found = 0, []
    for reading in classification.score(bundle, flat(), setup, how, lambda done: None, read):
        while not waiting[0].pairs:
            yield _answer(waiting.popleft(), [])
            done += 1
        found.append(classification.prediction(reading, setup))
        if len(found) == len(waiting[0].pairs or ()):
            yield _answer(waiting.popleft(), found)
            found, done = [], done + 1
            on_done(done)
    while waiting:
        yield _answer(waiting.popleft(), [])


def _reading(example: EncodedRow, setup: Setup, how: Inference) -> Reading:
    """The surroundings of a pair, or nothing where texts that are too long are refused."""
    size = len(example.source) + example.source_lost
    if example.source_lost and how.on_long == "refuse":
        return Reading([], size, size, too_long(size, setup.limits.source))
    return Reading([example], size, example.source_lost)


@dataclass(frozen=True)
class Asked:
    """What a row asks: its pairs, None where it has none; the columns that its reading `adds`; how
    many entities are of `unknown` types."""

    pairs: list[Pair] | None
    adds: Values
    unknown: int


def unknown_types(pairs: Iterable[Pair], types: Sequence[str]) -> int:
    """How many entities are of a type that none was in training; they are read as if of none."""
    entities = {(one["start"], one["end"], one["label"]) for pair in pairs for one in pair}
    return sum(label != "" and label not in types for _, _, label in entities)


def _answer(asked: Asked, found: Sequence[Prediction]) -> Prediction:
    """What is said of one row, from what was said of its pairs."""
    if asked.pairs is None:
        return Prediction([], windows=0, error=UNPAIRED)
    refused = next((one for one in found if one.error is not None), None)
    if refused is not None:
        return replace(refused, value=[])
    relations = [
        {"head": head, "type": one.value, "tail": tail, "score": one.details["score"]}
        for (head, tail), one in zip(asked.pairs, found, strict=True)
        if one.value != NONE
    ]
    return Prediction(
        relations,
        source_tokens=max((one.source_tokens for one in found), default=0),
        source_tokens_unread=max((one.source_tokens_unread for one in found), default=0),
        details={**asked.adds, **(found[0].details if len(found) == 1 else {})},
        counts={"entities of unknown types": asked.unknown} if asked.unknown else {},
    )


FORMULATION = Formulation(
    "relation pairs",
    classification.lacks,
    encode,
    classification.collate,
    classification.losses,
    classification.lengths,
    predict,
    head=classification.HEAD,
    learn=learn,
    tokens=tokens,
    config_keys=classification.CONFIG_KEYS,
    picture=classification.picture,
)
