"""Entities in texts: words and their places, tags and spans, what is wrong with either.

An entity is `{"label", "start", "end"}`: characters `start` (first) to `end` (one past the last) of
its text. Tags are BIO (Ramshaw and Marcus, 1995): `B-X` begins an entity, `I-X` goes on with it,
`O` is none. Those of other schemes become BIO: BIOES, BILOU, BMES and BMEWO, in either letter case,
with the prefix in front, behind (`X-B`) or alone (`B`), and bare labels.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from mainspring.data.kinds import Flaw, whole
from mainspring.text import language_of

Span = tuple[int, int]
Entity = dict[str, Any]

# Other names under which tools keep the parts of an entity.
LABEL = ("label", "type", "entity", "entity_group", "entity_type", "tag", "labels")
START = ("start", "start_offset", "begin", "start_char")
END = ("end", "end_offset", "stop", "end_char")

# Prefixes that always begin, and always end, an entity.
OPENING, CLOSING = ("B", "S", "U"), ("E", "L", "S", "U")
# What BMES and BMEWO call the inside of an entity, and one of a single word.
SAME = {"M": "I", "W": "S"}
FRONT = re.compile(r"(?P<prefix>[BIESLUMW])[-_:](?P<label>\S.*)", re.IGNORECASE)
BEHIND = re.compile(r"(?P<label>.*\S)[-_:](?P<prefix>[BIESLUMW])", re.IGNORECASE)
ALONE = re.compile(r"(?P<prefix>[BIESLUMW])", re.IGNORECASE)
# How tags are written: with their prefix in front, behind, without a label, or without a prefix.
Scheme = Literal["front", "behind", "alone", "bare"]
UNITS = "do places count UTF-16 units, as JavaScript does? They must count characters"
NAMELESS = "entity"  # the label of entities whose tags have none


# -- words -----------------------------------------------------------------------------------------


def join_words(words: Sequence[str]) -> tuple[str, list[Span]]:
    """A text of these words, as its script would be written, and where each word is in it.

    Blanks stand between words; in Chinese and other scripts without them only between words of
    Latin letters or digits.
    """
    spaceless = language_of("".join(words)[:2000]) != "en"
    parts: list[str] = []
    spans: list[Span] = []
    at = 0
    for number, word in enumerate(words):
        if number and (not spaceless or _needs_blank(words[number - 1], word)):
            parts.append(" ")
            at += 1
        parts.append(word)
        spans.append((at, at + len(word)))
        at += len(word)
    return "".join(parts), spans


def _needs_blank(left: str, right: str) -> bool:
    a, b = left[-1:], right[:1]
    return a.isascii() and b.isascii() and a.isalnum() and b.isalnum()


# -- tags ------------------------------------------------------------------------------------------


def parse_tag(tag: str, scheme: Scheme | None = "front") -> tuple[str, str]:
    """(prefix, label): ("B", "PER") of `B-PER`, `B_PER`, `B:PER` or `b-PER`, with the prefix behind
    of `PER-B`; ("O", "") of `O`; ("", "PER") of a bare `PER`. `M` is read as `I`, `W` as `S`. A
    prefix alone is one of an `entity`."""
    if tag in ("O", "o", ""):
        return "O", ""
    form = {"front": FRONT, "behind": BEHIND, "alone": ALONE}.get(scheme or "front")
    found = form.fullmatch(tag) if form else None
    if found is None:
        return "", tag
    prefix = found["prefix"].upper()
    return SAME.get(prefix, prefix), NAMELESS if scheme == "alone" else found["label"]


def scheme_of(tags: Iterable[str]) -> Scheme | None:
    """How the tags of a data set are written; None where all are `O`.

    In front where half of them begin with one; only that of a beginning, an inside or a single word
    tells it, in small letters only that of a beginning, for labels may be called `e-mail`. Behind
    where all end with one, or half of them, some label both with `B` and with `I`. Alone where
    they are nothing but prefixes, `B` one of them. Otherwise they are bare.
    """
    named = [tag for tag in tags if parse_tag(tag)[0] != "O"]
    if not named:
        return None
    front = sum(parse_tag(tag, "front")[0] != "" for tag in named)
    if front * 2 >= len(named) and any(_tells_front(tag) for tag in named):
        return "front"
    if {"B", "b"} & {*named} and all(ALONE.fullmatch(tag) for tag in named):
        return "alone"
    behind = [parse_tag(tag, "behind") for tag in named]
    found = {parts for parts in behind if parts[0]}
    several = any(("I", label) in found for prefix, label in found if prefix == "B")
    fitting = sum(prefix != "" for prefix, _ in behind)
    if fitting == len(named) and any(prefix in OPENING for prefix, _ in found):
        return "behind"
    return "behind" if several and fitting * 2 >= len(named) else "bare"


def _tells_front(tag: str) -> bool:
    prefix, _ = parse_tag(tag, "front")
    return prefix in ("B", "I", "S", "U") and (tag[0].isupper() or prefix == "B")


def check_scheme(tags: Sequence[str], scheme: Scheme | None) -> None:
    """Flaw where one of the tags is of another scheme than the data."""
    for at, tag in enumerate(tags, 1):
        prefix, _ = parse_tag(tag, scheme)
        other = _tells_front(tag) if scheme == "bare" else prefix == ""
        if other:
            forms = {"front": "B-… or I-…", "behind": "…-B or …-I", "alone": "B or I"}
            form = forms.get(scheme or "front", "names alone")
            detail = f"`{tag}` at word {at}, where other tags are {form} or O"
            raise Flaw("tag of another scheme", f"{detail}; write all tags alike")


def repair_tags(
    tags: Iterable[str], scheme: Scheme | None = "front"
) -> tuple[list[str], list[int]]:
    """The same entities as well-formed BIO, and the positions of tags read as another.

    `I-X` that follows no `X` begins an entity, as CoNLL's own scorer reads it, and is told; so is
    an `E-X` that nothing precedes. Other schemes and bare labels are rewritten, which is not told.
    """
    fixed: list[str] = []
    repairs = []
    open_label = ""  # of the entity that the next tag may go on with
    for at, tag in enumerate(tags):
        prefix, label = parse_tag(tag, scheme)
        if prefix == "O":
            fixed.append("O")
            open_label = ""
            continue
        goes_on = label == open_label and prefix not in OPENING
        if not goes_on and prefix in ("I", "E", "L"):
            repairs.append(at)
        fixed.append(f"{'I' if goes_on else 'B'}-{label}")
        open_label = "" if prefix in CLOSING else label
    return fixed, repairs


def tags_to_spans(tags: Iterable[str]) -> list[tuple[str, int, int]]:
    """(label, first, one past the last) of the entities in well-formed BIO tags, by position."""
    found: list[tuple[str, int, int]] = []
    for at, tag in enumerate(tags):
        prefix, label = parse_tag(tag)
        if prefix == "B":
            found.append((label, at, at + 1))
        elif prefix == "I":
            found[-1] = (label, found[-1][1], at + 1)
    return found


def spans_to_tags(spans: Iterable[tuple[str, int, int]], count: int) -> list[str]:
    """BIO tags of `count` positions; the inverse of `tags_to_spans`."""
    tags = ["O"] * count
    for label, first, end in spans:
        tags[first:end] = [f"B-{label}", *[f"I-{label}"] * (end - first - 1)]
    return tags


def tagged_entities(
    words: Sequence[Span], tags: Sequence[str], scheme: Scheme | None = None
) -> tuple[list[Entity], list[Flaw]]:
    """The entities that words with tags hold, and what was repaired; Flaw where they do not fit,
    or are not of the `scheme` of the data. Without one these tags alone tell it."""
    if len(words) != len(tags):
        raise Flaw("tags of wrong length", f"{len(words)} words and {len(tags)} tags")
    if any(tag.isdecimal() for tag in tags):
        raise Flaw(
            "tags are numbers",
            "put a file labels.txt beside the data, one name a line in the order of the numbers, "
            "or the data set's card, README.md",
        )
    scheme = scheme or scheme_of(tags)
    check_scheme(tags, scheme)
    fixed, repairs = repair_tags(tags, scheme)
    mended = []
    if repairs:
        first = repairs[0]
        detail = f"{len(repairs)} of {len(tags)} tags, "
        detail += f"the first `{tags[first]}` at word {first + 1}"
        mended = [Flaw("tags out of order", detail)]
    spans = tags_to_spans(fixed)
    return [
        {"label": label, "start": words[first][0], "end": words[end - 1][1]}
        for label, first, end in spans
    ], mended


# -- spans -----------------------------------------------------------------------------------------


def checked_entities(text: str, spans: Sequence[Any]) -> tuple[list[Entity], list[Flaw]]:
    """Entities in the order of the text, and what was left aside.

    A span is an object with a start, an end and a label, or a list `[start, end, label]`. Blanks at
    its ends are no part of it. Of spans that overlap the longest stays (the first of equal ones),
    the others are left aside. Flaw where one lies outside of the text, is empty, or lacks a part.
    Where their words tell that places count UTF-16 units, all are put right.
    """
    spans, mended = _in_code_points(text, spans)
    entities: dict[tuple[int, int, str], Entity] = {}
    for span in spans:
        entity = _entity(text, span)
        entities.setdefault((entity["start"], entity["end"], entity["label"]), entity)
    kept: list[Entity] = []  # in the order of the text
    for entity in sorted(entities.values(), key=lambda e: (e["start"] - e["end"], e["start"])):
        at = bisect_left(kept, entity["end"], key=lambda e: e["start"])
        other = kept[at - 1] if at else None  # the last that begins before this one ends
        if other is None or other["end"] <= entity["start"]:
            kept.insert(at, entity)
        else:
            detail = f"{_shown(text, entity)} lies over {_shown(text, other)} and is left aside"
            mended.append(Flaw("overlapping entity", detail))
    return kept, mended


def utf16_places(text: str) -> dict[int, int]:
    """Number of a UTF-16 unit, as JavaScript and Java count, -> number of the character that begins
    there; nothing where both are the same all over the text."""
    if text.isascii() or max(text, default="") <= "\uffff":
        return {}
    places, unit = {}, 0
    for at, character in enumerate(text):
        places[unit] = at
        unit += 1 + (character > "\uffff")
    return {**places, unit: len(text)}


def _in_code_points(text: str, spans: Sequence[Any]) -> tuple[Sequence[Any], list[Flaw]]:
    """The spans with places that count characters, and what was put right."""
    at = utf16_places(text)
    if not at:
        return spans, []
    changed, said = [], []
    for span in spans:
        if not isinstance(span, Mapping):
            return spans, []
        start, end = whole(_part(span, START)), whole(_part(span, END))
        if start is None or end is None or start not in at or end not in at:
            return spans, []
        changed.append({**span, _name(span, START): at[start], _name(span, END): at[end]})
        if isinstance(words := span.get("text"), str):
            said.append((words.split(), text[start:end].split(), text[at[start] : at[end]].split()))
    as_given = all(words == there for words, there, _ in said)
    if as_given or any(words != there for words, _, there in said):
        return spans, []
    return changed, [Flaw("places in UTF-16 units", f"{len(spans)} entities, put right")]


def _name(span: Mapping[str, Any], names: Sequence[str]) -> str:
    return next(name for name in names if span.get(name) is not None)


def _entity(text: str, span: Any) -> Entity:
    if isinstance(span, Mapping):
        start, end, label = (_part(span, names) for names in (START, END, LABEL))
    elif isinstance(span, Sequence) and not isinstance(span, str) and len(span) == 3:
        start, end, label = span
    else:
        raise Flaw("wrong type", f"an entity must have a start, an end and a label, not be {span}")
    start, end = whole(start), whole(end)
    if isinstance(label, list) and len(label) == 1:
        label = label[0]
    if start is None or end is None or not isinstance(label, str) or not label.strip():
        detail = (
            f"an entity must have a start and an end, whole numbers, and a label, not be {span}"
        )
        raise Flaw("wrong type", detail)
    if not 0 <= start <= end <= len(text):
        detail = f"{label} {start}-{end} in a text of {len(text)} characters"
        if {start, end} <= utf16_places(text).keys():
            detail += f"; {UNITS}"
        raise Flaw("offsets out of range", detail)
    inside = text[start:end]
    start += len(inside) - len(inside.lstrip())
    end -= len(inside) - len(inside.rstrip())
    if start >= end:
        raise Flaw("empty entity", f"{label} {start}-{end} holds no text")
    entity = {"label": label.strip(), "start": start, "end": end}
    said = span.get("text") if isinstance(span, Mapping) else None
    if isinstance(said, str) and said.split() != text[start:end].split():
        raise Flaw("entity not at its place", contradiction(said, entity, text))
    return entity


def word_span(words: Sequence[Span], span: Mapping[str, Any]) -> Entity:
    """A span from the word `start` to before the word `end`, in characters; Flaw where these are no
    such words."""
    first, end = (whole(_part(span, names)) for names in (START, END))
    if first is None or end is None:
        raise Flaw("wrong type", f"an entity needs a start and an end, not {span}")
    if not 0 <= first < end <= len(words):
        raise Flaw("offsets out of range", f"{first}-{end} in {len(words)} words")
    label = _part(span, LABEL)
    return {"start": words[first][0], "end": words[end - 1][1], "label": label}


def contradiction(said: str, entity: Mapping[str, Any], text: str) -> str:
    """What is wrong where other words are said to stand at a place than do; why, where it shows."""
    start, end = entity["start"], entity["end"]
    detail = f"`{said}` is said to stand at {start}-{end}, where `{text[start:end]}` is"
    at = utf16_places(text).get(start, start)
    if at != start and text[at : at + len(said.strip())] == said.strip():
        return f"{detail}; {UNITS}"
    if text[start : end + 1].strip() == said.strip():
        return detail + "; an end is one past the last character"
    if text[max(0, start - 1) : end - 1] == said or text[max(0, start - 1) : end] == said:
        return detail + "; the first character is number 0"
    return detail


def _part(span: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((span[name] for name in names if span.get(name) is not None), None)


def _shown(text: str, entity: Entity) -> str:
    words = text[entity["start"] : entity["end"]]
    return f"`{words}` {entity['label']} {entity['start']}-{entity['end']}"
