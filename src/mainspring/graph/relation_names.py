"""What the name of a relation says of its two ends.

parent_of  head is the parent      parents, has_parent, per:parents  tail is the parent
founded    head founds the tail    founded_by                        tail founds the head
works for  head is who works       Cause-Effect(e2,e1)               tail is the cause
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from mainspring.graph import lexicon as lex
from mainspring.text import words

_SPACE = re.compile(r"^[A-Za-z]{2,8}:(?=[A-Za-z])|^/.*/(?=[^/]+$)")  # per:parents, /people/person/x
_PAIR = re.compile(r"([A-Z]\w+)-([A-Z]\w+)")
_ORDER = re.compile(r"\(\s*e([12])\s*,\s*e[12]\s*\)$")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@dataclass(frozen=True)
class Meaning:
    """`parts`: for each word that means something, its senses and the side of each that the head
    takes. `preposition` is the one that ends the name; `is_passive` tells "founded by"."""

    parts: tuple[tuple[str, tuple[tuple[lex.Sense, int], ...]], ...]
    preposition: str = ""
    is_passive: bool = False
    said: frozenset[str] = frozenset()

    @property
    def is_timed(self) -> bool:
        return bool(self.said & lex.TIMED)

    @property
    def is_verb(self) -> bool:
        return all(not sense.is_noun for _, senses in self.parts for sense, _ in senses)

    @property
    def tells_reasons(self) -> bool:
        return bool(self.said & lex.REASONS)

    @property
    def is_placed(self) -> bool:
        """Whether its tail is where: by its preposition or by what it speaks of."""
        spoken = {sense.concept for _, senses in self.parts for sense, _ in senses}
        at = self.preposition in lex.PLACES - {"of", "for", "as"}
        return at or bool((self.said | spoken) & lex.PLACED)


@lru_cache(maxsize=1 << 14)
def meaning(name: str) -> Meaning:
    """What a relation's name says; a name that follows no rule has only its words."""
    order = _ORDER.search(name)
    bare = _SPACE.sub("", _ORDER.sub("", name))
    turned = order is not None and order[1] == "2"
    if pair := _PAIR.fullmatch(bare):
        parts = [
            (word, _sides(word, side if not turned else 1 - side))
            for side, word in enumerate(words(" ".join(pair.groups())))
        ]
        return Meaning(tuple(parts), said=frozenset(word for word, _ in parts))
    told = _joined(cut(words(_CAMEL.sub(" ", bare).replace("_", " ")), lex.CHINESE))
    while len(told) > 1 and told[0] in lex.BE | lex.HAVE | lex.DETERMINERS:
        told = told[1:]
    last = told[-1] if len(told) > 1 and told[-1] in lex.PREPOSITIONS | lex.OF else ""
    body = told[:-1] if last else told
    content = [word for word in body if word not in lex.EMPTY] or _implied(told)
    free = lex.TIMED | lex.GROUP.keys()  # place of birth, date of birth: what kind of tail
    content = [word for word in content if lex.singular(word) not in free] or content
    parts = [(word, _senses(word, body, last, turned)) for word in content]
    if not set(body) & lex.OF:  # of "player statistics team" only the last word is the tail
        parts[:-1] = [(word, _either(senses)) for word, senses in parts[:-1]]
    return Meaning(tuple(parts), last, last in lex.BY, frozenset(told))


def _implied(told: list[str]) -> list[str]:
    """What a name of empty words means: "in" is where something is."""
    return ["located"] if set(told) & {"in", "at", "on", "inside", "在"} else []


def _either(senses: tuple[tuple[lex.Sense, int], ...]) -> tuple[tuple[lex.Sense, int], ...]:
    """The senses of a word that may be said of the head or of the tail."""
    return tuple((sense, side) for sense, _ in senses for side in (0, 1))


def _sides(word: str, side: int) -> tuple[tuple[lex.Sense, int], ...]:
    """The senses of a noun that the head (side 0) or the tail (1) is called by."""
    return tuple((s, s.side if side == 0 else 1 - s.side) for s in lex.senses(word) if s.is_noun)


def _senses(
    word: str, body: list[str], last: str, turned: bool
) -> tuple[tuple[lex.Sense, int], ...]:
    """The senses of one word of a name, each with the side that the head takes."""
    found = []
    for sense in lex.senses(word):
        if sense.is_noun:  # in "N of" the head is the N; in "N", "has N", "N of birth" the tail
            is_head = bool(last) and len(body) == 1
        else:  # in "V", "V at" the head is who does; in "V by" the tail
            is_head = last not in lex.BY
        if _speech(word, last) in ("any", "noun" if sense.is_noun else "verb"):
            side = sense.side if is_head else 1 - sense.side
            found.append((sense, 1 - side if turned else side))
    return tuple(found)


def _speech(word: str, last: str) -> str:
    """Whether a word is a "noun" or a "verb" of its name, or cannot be told ("any")."""
    kinds = {sense.is_noun for sense in lex.senses(word)}
    if len(kinds) == 1:
        return "noun" if kinds == {True} else "verb"
    if lex.is_verb_form(word) or last in lex.BY or (word.endswith("s") and last):
        return "verb"
    return "noun" if last or lex.is_listed(word) else "any"


def _joined(told: list[str]) -> list[str]:
    """Single Chinese characters that no table knows are words together."""
    out: list[str] = []
    for word in told:
        if out and _is_loose(word) and _is_loose(out[-1][-1]) and out[-1] not in lex.CHINESE:
            out[-1] += word
        else:
            out.append(word)
    return out


def _is_loose(word: str) -> bool:
    return len(word) == 1 and not word.isascii() and word not in lex.CHINESE


def cut(told: list[str], known: frozenset[str]) -> list[str]:
    """Words in which runs of single Chinese characters are joined to the longest words known."""
    longest = max((len(word) for word in known), default=1)
    out: list[str] = []
    at = 0
    while at < len(told):
        size = next(
            (
                size
                for size in range(min(longest, len(told) - at), 1, -1)
                if "".join(told[at : at + size]) in known
                and not any(word.isascii() for word in told[at : at + size])
            ),
            1,
        )
        out.append("".join(told[at : at + size]))
        at += size
    return out
