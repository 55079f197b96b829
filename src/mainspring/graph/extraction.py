"""Extractors out of models.

    entities ─▶ mentions ─▶ relations      a model for each: a pair of mentions gets a relation
    relations alone                        a model that writes triples; their places are looked for

Models are asked as `run` asks them: rows of values in, predictions in order out. An entity is
`{"label", "text", "start", "end", "score"}`, a relation `{"head", "type", "tail", "score"}` whose
ends are entities, their numbers, or texts.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mainspring.errors import Mismatch
from mainspring.formulations import Prediction, Values
from mainspring.graph.records import Extract, Found, Mention, Relation

# SemEval's names say which entity is the head: Component-Whole(e2,e1).
_DIRECTED = re.compile(r"(.+)\(e([12]),\s*e[12]\)")

Predict = Callable[[Iterable[Values]], Iterator[Prediction]]


def by_models(entities: Predict | None, relations: Predict | None) -> Extract:
    """What an entity model and a relation model find, or one of them alone."""

    def extract(passages: Sequence[str]) -> Iterator[Found]:
        if entities is None:
            assert relations is not None
            yield from _alone(relations, passages)
            return
        mentions = list(_mentions(entities, passages))
        pairs = zip(passages, mentions, strict=True)
        asked = [(p, m) for p, m in pairs if relations is not None and len(m) > 1]
        answers = iter(relations(map(_row, asked)) if relations is not None else ())
        for passage, known in zip(passages, mentions, strict=True):
            value = next(answers).value if relations is not None and len(known) > 1 else ()
            yield read_relations(value, passage, known)

    return extract


def _alone(relations: Predict, passages: Sequence[str]) -> Iterator[Found]:
    """What a relation model finds that is given texts only. Mismatch where it needs entities."""
    rows = ({"text": passage} for passage in passages)
    for passage, prediction in zip(passages, relations(rows), strict=True):
        if prediction.error is not None:
            raise Mismatch(
                "this model tells what holds between entities that are given: name a model that "
                "finds them (--entities), or take a relation model that writes triples"
            )
        yield read_relations(prediction.value, passage)


def _mentions(entities: Predict, passages: Sequence[str]) -> Iterator[tuple[Mention, ...]]:
    rows = ({"text": passage} for passage in passages)
    for passage, prediction in zip(passages, entities(rows), strict=True):
        yield tuple(_placed(found, passage) for found in prediction.value or ())


def _row(asked: tuple[str, tuple[Mention, ...]]) -> Values:
    """What a relation model is asked of a passage: its text, and the entities in it."""
    passage, mentions = asked
    spans = [{"start": m.start, "end": m.end, "text": m.text, "label": m.type} for m in mentions]
    return {"text": passage, "entities": spans}


def read_relations(
    answers: Iterable[Mapping[str, Any]] | None, passage: str, mentions: Sequence[Mention] = ()
) -> Found:
    """The relations that a model's answers state, at their places in `passage`; an answer whose
    ends are not in it is counted as lost."""
    relations = []
    lost = 0
    for answer in answers or ():
        name = str(answer.get("type", "")).strip()
        head = _end(answer, "head", passage, mentions)
        tail = _end(answer, "tail", passage, mentions, head)
        if not name or head is None or tail is None or _same(head, tail):
            lost += 1
            continue
        directed = _DIRECTED.fullmatch(name)
        if directed is not None:
            name = directed[1]
            head, tail = (head, tail) if directed[2] == "1" else (tail, head)
        score = answer.get("score")
        relations.append(Relation(head, name, tail, None if score is None else float(score)))
    return Found(tuple(mentions), tuple(relations), lost)


def _same(head: Mention, tail: Mention) -> bool:
    return (head.start, head.end) == (tail.start, tail.end)


def _end(
    answer: Mapping[str, Any],
    name: str,
    passage: str,
    mentions: Sequence[Mention],
    other: Mention | None = None,
) -> Mention | None:
    """One end of a relation, in the form that the model gave it."""
    given, kind = answer.get(name), str(answer.get(f"{name}_type") or "")
    if isinstance(given, int) and not isinstance(given, bool):
        return mentions[given] if 0 <= given < len(mentions) else None
    if isinstance(given, Mapping):
        if isinstance(given.get("start"), int) and isinstance(given.get("end"), int):
            return _placed(given, passage)
        kind = str(given.get("label") or given.get("type") or kind)
        given = given.get("text")
    if not isinstance(given, str) or not given.strip():
        return None
    known = [m for m in mentions if m.text.casefold() == given.strip().casefold()]
    if known and (other is None or len(known) == 1):
        return known[0]
    places = [(m.start, m.end) for m in known] or occurrences(given, passage)
    if not places:
        return None
    near = 0 if other is None else other.start
    free = [place for place in places if other is None or place != (other.start, other.end)]
    start, end = min(free or places, key=lambda place: abs(place[0] - near))
    found = next((m for m in known if (m.start, m.end) == (start, end)), None)
    return found or Mention(start, end, passage[start:end], kind)


def _placed(found: Mapping[str, Any], passage: str) -> Mention:
    """An entity as models give it. Mismatch where it does not stand where it says."""
    start, end = int(found["start"]), int(found["end"])
    text = passage[start:end]
    if "text" in found and found["text"] != text:
        raise Mismatch(f"the model's entity {found['text']!r} does not stand at {start} to {end}")
    score = found.get("score")
    kind = str(found.get("label") or found.get("type") or "")
    return Mention(start, end, text, kind, None if score is None else float(score))


def occurrences(name: str, passage: str) -> list[tuple[int, int]]:
    """Where `name` stands in `passage`, blanks and letter case aside, as whole words first."""
    pattern = r"\s+".join(map(re.escape, name.split()))
    whole = rf"(?<!\w){pattern}(?!\w)"
    for tried in (whole, pattern):
        found = [match.span() for match in re.finditer(tried, passage, re.IGNORECASE)]
        if found:
            return found
    return []


def with_score(found: Found, score: float) -> Found:
    """The relations with one score for all that have none."""
    scored = (r if r.score is not None else replace(r, score=score) for r in found.relations)
    return replace(found, relations=tuple(scored))
