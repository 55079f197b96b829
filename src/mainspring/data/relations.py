"""Relations in texts: the ways people write them down, brought into one form.

    marked text       The <e1>child</e1> lay in the <e2>cradle</e2> and the name of the relation
    head and tail     text, head, tail, relation, perhaps with their spans
    entities          text or tokens, entities with their places, relations between them
    triples           text and the relations it states, heads and tails as words; objects, lists of
                      head, type and tail, or one line:

    <triplet> Punta Cana <subj> La Altagracia <obj> located in <subj> Dominica <obj> country

In the one form a row has a `text`; `pairs` of entities that may be related, where entities are
known; and `relations`, each `{"head", "type", "tail"}`. An entity is `{"text", "start", "end",
"label"}` in characters of the text, its label "" where it has none; where places are not known,
head and tail are words. That two are not related is said by no relation. Where the row came with
marks or as words, `adds` holds the text made of it, in which places count, as a column.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

from mainspring.data.entities import END, LABEL, START, contradiction, join_words
from mainspring.data.kinds import Flaw, as_label, as_list, whole
from mainspring.data.schema import Values

Entity = dict[str, Any]
Relation = dict[str, Any]

# What data sets call it when two entities are not related, letter case and "_" aside.
NONE = frozenset(
    ("other", "no relation", "norelation", "unknown", "na", "n/a", "none", "null", "nil", "无关系")
)
TYPE = ("type", "relation", "label", "predicate", "relation_type", "r")
ENDS = (
    ("head", "h", "subject", "from", "e1", "head_id"),
    ("tail", "t", "object", "to", "e2", "tail_id"),
)
TRIPLET, SUBJECT, OBJECT = MARKS = ("<triplet>", "<subj>", "<obj>")
MARKED = re.compile(r"</?e[12]>")


def relation_values(values: Values) -> Values:
    """A row in the one form; Flaw where it cannot be had."""
    none = values.pop("no_relation", None)
    if "words" in values:
        values = _with_text(values)
    if MARKED.search(values["text"]):
        values = _with_marks(values)
    elif values.get("head") and values.get("tail"):
        values = _with_ends(values)
    given = values.get("relations", [])
    if isinstance(given, str) and given.lstrip().startswith("["):
        given = as_list(given, "relations")
    if "pairs" in values:
        return values if "relations" not in values else _with_label(values, as_label(given), none)
    if not isinstance(given, list):
        raise Flaw("no entities", f"a relation `{given}`, and between what is not said")
    return _with_relations(values, given, none)


def is_none(name: str, none: str | None) -> bool:
    """Whether the name of a relation says that there is none; `none` is the user's own name."""
    if none:
        return name == none
    return name.casefold().replace("_", " ").replace("-", " ").strip() in NONE


def related_pairs(entities: Sequence[Entity]) -> list[tuple[Entity, Entity]]:
    """All ordered pairs of entities that do not lie over one another."""
    return [(head, tail) for head, tail in permutations(entities, 2) if not overlap(head, tail)]


def overlap(a: Entity, b: Entity) -> bool:
    return bool(a["start"] < b["end"] and b["start"] < a["end"])


def entity(text: str, start: Any, end: Any, label: str = "") -> Entity:
    """A checked entity, blanks at its ends left out."""
    first, last = whole(start), whole(end)
    if first is None or last is None:
        raise Flaw("wrong type", f"a place must be two whole numbers, not {start!r} and {end!r}")
    start, end = first, last
    if not 0 <= start <= end <= len(text):
        raise Flaw("offsets out of range", f"{start}-{end} in a text of {len(text)} characters")
    inside = text[start:end]
    if not inside.strip():
        raise Flaw("empty entity", f"{start}-{end} holds no text")
    start += len(inside) - len(inside.lstrip())
    words = inside.strip()
    return {"text": words, "start": start, "end": start + len(words), "label": label}


# -- marked text -------------------------------------------------------------------------------


def _with_marks(values: Values) -> Values:
    """The text without `<e1>…</e1>` and `<e2>…</e2>`, and what they enclosed."""
    marks: dict[str, int] = {}
    parts: list[str] = []
    last = at = 0
    for mark in MARKED.finditer(values["text"]):
        part = values["text"][last : mark.start()]
        parts.append(part)
        at += len(part)
        last = mark.end()
        if mark.group() in marks:
            raise Flaw("broken marks", f"{mark.group()} stands twice")
        marks[mark.group()] = at
    parts.append(values["text"][last:])
    text = "".join(parts)
    missing = [mark for mark in ("<e1>", "</e1>", "<e2>", "</e2>") if mark not in marks]
    if missing:
        raise Flaw("broken marks", f"{' and '.join(missing)} missing")
    ends = [entity(text, marks[f"<e{n}>"], marks[f"</e{n}>"]) for n in (1, 2)]
    return {**values, "text": text, "adds": {"plain_text": text}, "pairs": [_checked_pair(*ends)]}


def _checked_pair(head: Entity, tail: Entity) -> tuple[Entity, Entity]:
    if overlap(head, tail):
        raise Flaw(
            "overlapping spans", f"`{head['text']}` and `{tail['text']}` lie over each other"
        )
    return head, tail


# -- head and tail -----------------------------------------------------------------------------


def _with_ends(values: Values) -> Values:
    """Head and tail at their spans, or where their words stand in the text."""
    text = values["text"]
    places = []
    for name in ("head", "tail"):
        span, words = values.pop(f"{name}_span", None), values.pop(name)
        label = values.pop(f"{name}_type", None) or ""
        if span is None:
            places.append([entity(text, *place, label) for place in occurrences(words, text)])
            if not places[-1]:
                raise Flaw("entity not in the text", f"{name} `{words}`")
        else:
            placed = entity(text, *_span(span), label)
            if _letters(words) != _letters(placed["text"]):
                raise Flaw("entity not at its place", contradiction(words, placed, text))
            places.append([placed])
    free = [(h, t) for h in places[0] for t in places[1] if not overlap(h, t)]
    pair = free[0] if free else (places[0][0], places[1][0])
    return {**values, "pairs": [_checked_pair(*pair)]}


def _letters(words: str) -> str:
    """What must agree where a place and words are given: blanks and letter case do not count."""
    return "".join(words.split()).casefold()


def _span(span: Any) -> tuple[Any, Any]:
    if isinstance(span, Mapping):
        return _part(span, START), _part(span, END)
    if isinstance(span, str):
        span = [int(number) for number in re.findall(r"(?<!\d)-?\d+", span)]
    if not isinstance(span, Sequence) or len(span) != 2:
        raise Flaw("wrong type", f"a span must be [start, end], not {span!r}")
    return span[0], span[1]


def occurrences(words: str, text: str) -> list[tuple[int, int]]:
    """Where words stand in a text, whole words before parts of words."""
    words = words.strip()
    found = [match.span() for match in re.finditer(re.escape(words), text)]
    whole = [match.span() for match in re.finditer(rf"(?<!\w){re.escape(words)}(?!\w)", text)]
    return whole + [span for span in found if span not in whole]


def _with_label(values: Values, name: str, none: str | None) -> Values:
    """The one relation of a row's only pair, by its name."""
    [(head, tail)] = values["pairs"]
    related = [] if is_none(name, none) else [{"head": head, "type": name, "tail": tail}]
    return {**values, "relations": related}


# -- entities and relations --------------------------------------------------------------------


def _with_text(values: Values) -> Values:
    """Words as a text; the entities' places, counted in words, become characters."""
    words = values.pop("words")
    text, places = join_words(words)
    given = values.get("entities")
    values = {**values, "text": text, "adds": {"text": text}}
    if given is None:
        return values
    entities = []
    for one in given:
        first, end = whole(_part(one, START)), whole(_part(one, END))
        if first is None or end is None:
            raise Flaw("wrong type", f"an entity needs a start and an end, not {one}")
        if not 0 <= first < end <= len(words):
            raise Flaw("offsets out of range", f"{first}-{end} in {len(words)} words")
        start, stop = places[first][0], places[end - 1][1]
        kept = {k: v for k, v in one.items() if k not in (*START, *END)}
        entities.append({**kept, "start": start, "end": stop})
    return {**values, "entities": entities}


def _with_relations(values: Values, given: Sequence[Any], none: str | None) -> Values:
    """Entities checked, pairs of all of them, relations between them."""
    text, found = values["text"], values.pop("entities", None)
    entities = [_entity(text, one) for one in found or ()]
    given = [
        dict(zip(("head", "type", "tail"), one, strict=True))
        if isinstance(one, list | tuple) and len(one) == 3
        else one
        for one in given
    ]
    known = _known(found or (), entities, [_part(one, names) for one in given for names in ENDS])
    relations = []
    for one in given:
        name = _part(one, TYPE)
        if not isinstance(name, str) or not name.strip():
            raise Flaw("wrong type", f"a relation needs a type, not {one}")
        head, tail = (_end(_part(one, names), known, entities, text, found) for names in ENDS)
        if not is_none(name, none):
            relations.append({"head": head, "type": name.strip(), "tail": tail})
        if isinstance(head, dict) and isinstance(tail, dict):
            _checked_pair(head, tail)
    named = [relation[end] for relation in relations for end in ("head", "tail")]
    placed = {(end["start"], end["end"]): end for end in named if isinstance(end, dict)}
    if found is None and named and all(isinstance(end, dict) for end in named):
        found = entities = list(placed.values())
    made = {**values, "pairs": related_pairs(entities)} if found is not None else dict(values)
    return {**made, "relations": relations} if "relations" in values else made


def _known(
    given: Sequence[Mapping[str, Any]], entities: Sequence[Entity], asked: Sequence[Any]
) -> dict[Any, Entity]:
    """The entities by what relations may call them: names and ids, and numbers, which count them
    from 0 unless all that are `asked` for are ids."""
    known: dict[Any, Entity] = {}
    for one, checked in zip(given, entities, strict=True):
        known |= {
            one[key]: checked for key in ("id", "name") if isinstance(one.get(key), str | int)
        }
    numbers = {one for one in asked if isinstance(one, int)}
    if not numbers <= known.keys():
        known |= dict(enumerate(entities))
    return known


def _entity(text: str, given: Mapping[str, Any]) -> Entity:
    label = _part(given, LABEL)
    checked = entity(text, _part(given, START), _part(given, END), str(label or ""))
    words = given.get("text")
    if isinstance(words, str) and words.strip() and words.strip() != checked["text"]:
        raise Flaw("entity not at its place", contradiction(words, checked, text))
    return checked


def _end(
    given: Any, known: Mapping[Any, Entity], entities: Sequence[Entity], text: str, found: Any
) -> Entity | str:
    """A head or tail: the number or id of an entity, its span, or its words."""
    if isinstance(given, Mapping) and _part(given, START) is not None:
        place = entity(text, _part(given, START), _part(given, END))
        same = (e for e in entities if (e["start"], e["end"]) == (place["start"], place["end"]))
        return next(same, place)
    if isinstance(given, Mapping):
        given = next((given[n] for n in ("text", "name", "@value") if n in given), None)
    if not isinstance(given, bool) and isinstance(given, int | str) and given in known:
        return known[given]
    if isinstance(given, str) and given.strip():
        words = given.strip()
        named = next((e for e in entities if e["text"] == words), None)
        if named is not None:
            return named
        if found is None:
            places = occurrences(words, text)
            return entity(text, *places[0]) if places else words
    raise Flaw("unknown entity", f"a relation speaks of {given!r}, which is none of the entities")


def _part(given: Any, names: Sequence[str]) -> Any:
    if not isinstance(given, Mapping):
        raise Flaw("wrong type", f"must be an object with {', '.join(names[:2])} …, not {given!r}")
    return next((given[name] for name in names if given.get(name) is not None), None)


# -- one line ----------------------------------------------------------------------------------


def read_triples(line: str) -> tuple[list[Relation], int]:
    """The triples of a line, each once, and how many pieces of it are none."""
    found: dict[tuple[str, str, str], Relation] = {}
    before, *groups = line.split(TRIPLET)
    broken = bool(before.strip())
    lost = int(broken)
    for group in groups:
        head, *parts = group.split(SUBJECT)
        head = " ".join(head.split())
        lost += not parts
        for part in parts:
            tail, mark, name = part.partition(OBJECT)
            tail, name = " ".join(tail.split()), " ".join(name.split())
            if head and tail and name and mark and OBJECT not in name:
                triple = head, name, tail
                found[triple] = {"head": head, "type": name, "tail": tail}
            else:
                lost += 1
    return list(found.values()), lost
