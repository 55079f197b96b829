"""What of a text gets a label: its words, each read at its first token, or its tokens.

text     Angela  Merkel  besucht  Paris .         characters are those of the text as given
words    ------  ------  -------  ----- -
tokens   An gela Merkel  be sucht Paris .
read at  ^       ^       ^        ^     ^
"""

import unicodedata
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from mainspring.checkpoints.tokenizer import Tokenizer
from mainspring.data.entities import Entity, Span
from mainspring.text import SPACELESS_CHARACTER, word_spans

BLOCK = 50_000  # characters that are given to the tokenizer as one text

JOINER = "\u200d"  # what holds several emoji together as one


@dataclass(frozen=True)
class Units:
    """A text's token ids, without special tokens, and its units.

    Unit n stands in the characters `starts[n]` to `ends[n]` of the text and is read at token
    `at[n]`, which rises.
    """

    ids: "array[int]"
    starts: "array[int]"
    ends: "array[int]"
    at: "array[int]"


@dataclass(frozen=True)
class _Tokens:
    """Ids, and the characters each stands for, blanks at its ends apart."""

    ids: "array[int]"
    starts: "array[int]"
    ends: "array[int]"


def read_units(
    texts: Sequence[str],
    words: Sequence[Sequence[Span] | None],
    tokenizer: Tokenizer,
    by: Literal["words", "tokens"] = "tokens",
    *,
    within: bool = False,
) -> list[Units]:
    """The units of each text: of its `words` where the data has them, else `by` the words or the
    tokens that are found in it.

    With `within` words of scripts without spaces are taken apart, as a text without known words is:
    what learns from them can then read both.

    Words that share all their tokens cannot be told apart and are one unit; a word that has no
    token (a control character) is in none.
    """
    units = []
    tokenized = _tokenized(texts, words, tokenizer)
    for text, tokens, known in zip(texts, tokenized, words, strict=True):
        its_words: Iterable[Span] | None = known
        if known is None and by == "words":
            its_words = word_spans(text)
        elif known is not None and within:
            its_words = _within(text, known)
        found = _token_units(text, tokens) if its_words is None else _word_units(its_words, tokens)
        units.append(Units(tokens.ids, *found))
    return units


def _tokenized(
    texts: Sequence[str], words: Sequence[Sequence[Span] | None], tokenizer: Tokenizer
) -> Iterator[_Tokens]:
    """The tokens of each text. Long ones go to the tokenizer in parts, whose own record of a text
    is far larger than the text."""
    short = [text for text in texts if len(text) <= BLOCK]
    encoded = iter(tokenizer.offsets_many(short))
    for text, known in zip(texts, words, strict=True):
        joints = {b for (_, a), (b, _) in pairwise(known or ()) if a == b}
        tokens = _Tokens(array("i"), array("i"), array("i"))
        for start, end in _blocks(text):
            part = text[start:end]
            ids, offsets = (
                next(encoded) if len(text) <= BLOCK else tokenizer.offsets_many([part])[0]
            )
            for i, (a, b) in zip(ids, offsets, strict=True):
                spelt = _spelt(part[a:b], start + a, joints, tokenizer) if joints else None
                for token, first, last in spelt or [(i, start + a, start + b)]:
                    first, last = _trimmed(text, first, last)
                    tokens.ids.append(token)
                    tokens.starts.append(first)
                    tokens.ends.append(last)
        yield tokens


def _spelt(
    token: str, start: int, joints: Collection[int], tokenizer: Tokenizer
) -> list[tuple[int, int, int]] | None:
    """(id, start, end) of the characters of a token in which two words meet, so that they can be
    told apart; None where they do not, or where the vocabulary lacks one of the characters."""
    if not any(start + at in joints for at in range(1, len(token))):
        return None
    ids = [tokenizer.id_of(character) for character in token]
    if any(i is None for i in ids):
        return None
    return [(i, start + at, start + at + 1) for at, i in enumerate(ids) if i is not None]


def _within(text: str, words: Iterable[Span]) -> Iterator[Span]:
    """The words, those of a script without spaces in the pieces that plain text has."""
    for start, end in words:
        if SPACELESS_CHARACTER.search(text, start, end):
            yield from ((start + a, start + b) for a, b in word_spans(text[start:end]))
        else:
            yield start, end


def _trimmed(text: str, start: int, end: int) -> Span:
    """Without the blanks at its ends, which some tokens hold."""
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end


def _blocks(text: str) -> Iterator[Span]:
    """Parts of a long text, cut before a line end or a blank, or anywhere where none is near."""
    start = 0
    while len(text) - start > BLOCK:
        half, limit = start + BLOCK // 2, start + BLOCK
        end = max(text.rfind("\n", half, limit), text.rfind(" ", half, limit))
        end = limit if end < 0 else end
        while end > half and _goes_on(text, end):
            end -= 1
        yield start, end
        start = end
    yield start, len(text)


def _goes_on(text: str, at: int) -> bool:
    """Whether the character at `at` belongs to the one before it: a combining mark, a variation
    selector, a skin tone, or what is joined to an emoji."""
    if not 0 < at < len(text):
        return False
    this = text[at]
    return (
        this == JOINER
        or (text[at - 1] == JOINER and not this.isspace())
        or unicodedata.category(this)[0] == "M"
        or "\U0001f3fb" <= this <= "\U0001f3ff"
    )


Found = tuple["array[int]", "array[int]", "array[int]"]


def _token_units(text: str, tokens: _Tokens) -> Found:
    """Each token a unit, but tokens that share a character are one, marks with what they mark."""
    starts, ends, at = array("i"), array("i"), array("i")
    for number, (start, end) in enumerate(zip(tokens.starts, tokens.ends, strict=True)):
        if start == end:
            continue
        if ends and (start < ends[-1] or (start == ends[-1] and _goes_on(text, start))):
            ends[-1] = max(end, ends[-1])
        else:
            starts.append(start)
            ends.append(end)
            at.append(number)
    for number, end in enumerate(ends):  # a mark may have no token of its own
        limit = starts[number + 1] if number + 1 < len(starts) else len(text)
        while end < limit and _goes_on(text, end):
            end += 1
        ends[number] = end
    return starts, ends, at


def _word_units(words: Iterable[Span], tokens: _Tokens) -> Found:
    """Each word a unit, read at the first token that begins in it."""
    starts, ends, at = array("i"), array("i"), array("i")
    token = covered = 0  # the next token, and how far those before it reach
    for start, end in words:
        while token < len(tokens.ids) and (
            tokens.starts[token] < start or tokens.starts[token] == tokens.ends[token]
        ):
            covered = max(covered, tokens.ends[token])
            token += 1
        if token < len(tokens.ids) and tokens.starts[token] < end:
            starts.append(start)
            ends.append(end)
            at.append(token)
        elif ends and covered > start:
            ends[-1] = end
    return starts, ends, at


# -- labels of units -------------------------------------------------------------------------------


def unit_tags(units: Units, entities: Sequence[Entity]) -> tuple[list[str], int]:
    """The BIO tag of each unit, and how many entities do not begin and end with units.

    A unit that lies partly in an entity gets its tag; one that lies in two, that of the first.
    """
    tags = ["O"] * len(units.at)
    inexact = unit = 0
    for entity in entities:
        while unit < len(tags) and units.ends[unit] <= entity["start"]:
            unit += 1
        first = unit
        while unit < len(tags) and units.starts[unit] < entity["end"]:
            tags[unit] = f"{'B' if unit == first else 'I'}-{entity['label']}"
            unit += 1
        exact = unit > first and units.starts[first] == entity["start"]
        inexact += not (exact and units.ends[unit - 1] == entity["end"])
    return tags, inexact


# -- windows ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Window:
    """Tokens `start` to `end` that are read together, of which `own_start` to `own_end` are this
    window's to answer for."""

    start: int
    end: int
    own_start: int
    own_end: int


def overlapping_windows(count: int, size: int, overlap: int) -> Iterator[Window]:
    """Windows over `count` tokens, each of at most `size`, at least `overlap` common to neighbours.

    As few as do, at even distances. Each token is answered for by one window: what two have in
    common is cut in the middle, so that every token is read with context on both sides.
    """
    if count <= size:
        yield Window(0, count, 0, count)
        return
    pieces = -(-(count - overlap) // (size - overlap))
    starts = [(count - size) * i // (pieces - 1) for i in range(pieces)]
    own_start = 0
    for i, start in enumerate(starts):
        end = start + size
        own_end = count if i + 1 == pieces else (starts[i + 1] + end) // 2
        yield Window(start, end, own_start, own_end)
        own_start = own_end
