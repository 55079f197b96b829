"""Entities in texts: words and their places, tags and spans, what is wrong with either.

An entity is `{"label", "start", "end"}`: characters `start` (first) to `end` (one past the last) of
its text. Tags are BIO (Ramshaw and Marcus, 1995): `B-X` begins an entity, `I-X` goes on with it,
`O` is none.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

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
PREFIXES, SEPARATORS = ("B", "I", "E", "L", "S", "U"), ("-", "_", ":")


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


def parse_tag(tag: str) -> tuple[str, str]:
    """(prefix, label): ("B", "PER") of `B-PER`, `B_PER` or `B:PER`; ("O", "") of `O`; ("", "PER")
    of a bare `PER`."""
    if tag[:1] in PREFIXES and tag[1:2] in SEPARATORS and tag[2:]:
        return tag[0], tag[2:]
    return ("O", "") if tag in ("O", "") else ("", tag)


def repair_tags(tags: Iterable[str]) -> tuple[list[str], int]:
    """The same entities as well-formed BIO, and how many tags had to be read as another.

    `I-X` that follows no `X` begins an entity, as CoNLL's own scorer reads it, and is counted;
    so is an `E-X` that nothing precedes. BIOES, BILOU and bare labels are rewritten, not counted.
    """
    fixed, repairs = [], 0
    open_label = ""  # of the entity that the next tag may go on with
    for tag in tags:
        prefix, label = parse_tag(tag)
        if prefix == "O":
            fixed.append("O")
            open_label = ""
            continue
        goes_on = label == open_label and prefix not in OPENING
        if not goes_on and prefix in ("I", "E", "L"):
            repairs += 1
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


def tagged_entities(words: Sequence[Span], tags: Sequence[str]) -> tuple[list[Entity], list[Flaw]]:
    """The entities that words with tags hold, and what was repaired; Flaw where they do not fit."""
    if len(words) != len(tags):
        raise Flaw("tags of wrong length", f"{len(words)} words and {len(tags)} tags")
    if any(tag.isdecimal() for tag in tags):
        raise Flaw(
            "tags are numbers",
            "put a file labels.txt beside the data, one name a line in the order of the numbers, "
            "or the data set's card, README.md",
        )
    fixed, repairs = repair_tags(tags)
    mended = []
    if repairs:
        first = next(i for i, (a, b) in enumerate(zip(tags, fixed, strict=True)) if a != b)
        detail = f"{repairs} of {len(tags)} tags, the first `{tags[first]}` at word {first + 1}"
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
    """
    entities: dict[tuple[int, int, str], Entity] = {}
    for span in spans:
        entity = _entity(text, span)
        entities.setdefault((entity["start"], entity["end"], entity["label"]), entity)
    kept: list[Entity] = []  # in the order of the text
    mended = []
    for entity in sorted(entities.values(), key=lambda e: (e["start"] - e["end"], e["start"])):
        at = bisect_left(kept, entity["end"], key=lambda e: e["start"])
        other = kept[at - 1] if at else None  # the last that begins before this one ends
        if other is None or other["end"] <= entity["start"]:
            kept.insert(at, entity)
        else:
            detail = f"{_shown(text, entity)} lies over {_shown(text, other)} and is left aside"
            mended.append(Flaw("overlapping entity", detail))
    return kept, mended


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


def contradiction(said: str, entity: Mapping[str, Any], text: str) -> str:
    """What is wrong where other words are said to stand at a place than do; why, where it shows."""
    start, end = entity["start"], entity["end"]
    detail = f"`{said}` is said to stand at {start}-{end}, where `{text[start:end]}` is"
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
