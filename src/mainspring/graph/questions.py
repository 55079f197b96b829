"""What a question asks: its kind, the words that mean something, and which end of a fact it names.

Who is the parent of Bert?    kind "thing"   Bert is not the parent, he has one
Whose parent is Bert?         kind "thing"   Bert is the parent
Does Anna work at Acme?       kind "whether"
How many work at Acme?        kind "count"
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mainspring.graph import lexicon as lex
from mainspring.graph.relation_names import cut

Kind = Literal["thing", "count", "whether", "when", "why", "link", "about"]

_SHORT = {"won": "will", "ca": "can", "can": "can"}
_A_NOT_A = re.compile(r"([\u4e00-\u9fff])不\1")


@dataclass(frozen=True)
class Token:
    """One word of a question, or a name in it (`things`: IRIs); `at` is its place. A word that the
    question leaves out is `implied`."""

    word: str
    at: int
    things: frozenset[str] = frozenset()
    implied: bool = False


@dataclass(frozen=True)
class Question:
    """A question in parts. `asks` is the word that asks ("who", "where" …, "" where none does);
    `type` the word for what kind of thing is asked ("city"); `beyond` why triples cannot tell."""

    tokens: tuple[Token, ...]
    kind: Kind
    asks: str = ""
    type: str = ""
    beyond: Literal["", "negation", "comparison"] = ""

    @property
    def content(self) -> list[Token]:
        """The tokens that mean something, beside names, kinds of things, and words that ask."""
        return [token for token in self.tokens if not token.things and self.is_content(token.word)]

    def is_content(self, word: str) -> bool:
        if self.beyond == "negation" and word in lex.NEGATION:
            return False
        if self.kind == "link" and word in lex.LINKS:
            return False
        return word not in lex.EMPTY and lex.singular(word) not in lex.GROUP


def open_words(asked: Sequence[str]) -> list[str]:
    """The words of a question without politeness, with "n't" written out."""
    out: list[str] = []
    for word in asked:
        if word == "t" and out and (out[-1].endswith("n") and len(out[-1]) > 2):
            bare = out[-1].removesuffix("n")
            out[-1:] = [_SHORT.get(bare, bare), "not"]
        else:
            out.append(word)
    changed = True
    while changed:
        changed = False
        for phrase in lex.POLITE.split(";"):
            parts = phrase.split()
            if not parts[0].isascii():
                parts = list(parts[0])
            if out[: len(parts)] == parts and len(out) > len(parts):
                out, changed = out[len(parts) :], True
    return out


def parse(
    asked: Sequence[str],
    spans: Sequence[tuple[int, int, Iterable[str]]],
    known: frozenset[str] = frozenset(),
) -> Question:
    """A question out of its words, the spans (first, last + 1, IRIs) of the names in it, and the
    words of relations that Chinese is cut into (`known`, beside the tables' own)."""
    tokens: list[Token] = []
    free: list[str] = []

    def flush() -> None:
        for word in cut(free, lex.CHINESE | known):
            tokens.append(Token(word, len(tokens)))
        free.clear()

    starts = {start: (end, iris) for start, end, iris in spans}
    at = 0
    while at < len(asked):
        if at in starts:
            flush()
            end, iris = starts[at]
            joint = " " if "".join(asked[at:end]).isascii() else ""
            tokens.append(Token(joint.join(asked[at:end]), len(tokens), frozenset(iris)))
            at = end
        else:
            free.append(asked[at])
            at += 1
    flush()
    return _kind_of(tokens)


def _kind_of(tokens: list[Token]) -> Question:
    """The kind of a question, by the first word that asks."""
    plain = [token for token in tokens if not token.things]
    text = "".join(token.word for token in plain)
    whether = any(t.word in lex.WHETHER for t in plain) or _A_NOT_A.search(text) is not None
    if _A_NOT_A.search(text):  # 认不认识 asks, and denies nothing
        tokens = _without_a_not_a(tokens)
        plain = [token for token in tokens if not token.things]
    words = [token.word for token in plain]
    asks = next((w for w in words if w in lex.ASKING), "")
    first = tokens[0].word if tokens and not tokens[0].things else ""
    names = sum(bool(token.things) for token in tokens)
    inverted = first in lex.BE | lex.DO | lex.HAVE and first.isascii()
    kind: Kind
    if whether or (inverted and asks not in ("how", "why")) or (not asks and names > 1):
        kind = "whether"
        asks = ""
    else:
        kind, tokens = _asked_kind(tokens, asks)
    words = [token.word for token in tokens if not token.things]
    beyond: Literal["", "negation", "comparison"] = ""
    if any(word in lex.NEGATION for word in words if word != "no" or words[0] != "no"):
        beyond = "" if kind == "whether" and words[1:2] == ["not"] else "negation"
    elif any(lex.is_superlative(word) for word in words):
        beyond = "comparison"
    if beyond == "" and kind == "whether":
        tokens = [t for t in tokens if t.things or t.word not in lex.NEGATION]
    kept = tuple(replace(token, at=at) for at, token in enumerate(tokens))
    made = Question(kept, kind, asks, _type_of(kept, asks, kind), beyond)
    if kind in ("thing", "count", "whether") and not made.content:
        made = _located(made)
    plain_words = lex.BE | lex.DETERMINERS | lex.ASKING
    plainly = all(token.things or token.word in plain_words for token in made.tokens)
    return replace(made, kind="about") if kind == "thing" and plainly else made


def _located(question: Question) -> Question:
    """ "Where is X?" and "Is X in Y?" with the word that they leave out."""
    words = [*(token.word for token in question.tokens), ""]
    at = next((i for i, word in enumerate(words) if word in ("in", "at", "在")), len(words) - 1)
    if (not words[at] or not words[at + 1]) and question.asks not in lex.WHERE:
        return question
    here = Token("located", at, implied=True)
    tokens = [*question.tokens[:at], here, *question.tokens[at:]]
    kept = tuple(replace(token, at=i) for i, token in enumerate(tokens))
    return replace(question, tokens=kept)


def _asked_kind(tokens: list[Token], asks: str) -> tuple[Kind, list[Token]]:
    """The kind of a question with a word that asks; "how old" becomes "age"."""
    words = ["" if token.things else token.word for token in tokens]
    at = words.index(asks) if asks else -1
    after = words[at + 1] if asks and at + 1 < len(words) else ""
    if any(word in lex.LINKS for word in words) and sum(bool(t.things) for t in tokens) > 1:
        return "link", tokens
    if asks == "how" and after in lex.MEASURES:
        measure = replace(tokens[at + 1], word=lex.MEASURES[after])
        return "thing", [*tokens[:at], replace(tokens[at], word="what"), measure, *tokens[at + 2 :]]
    if asks in lex.COUNT or (asks == "how" and after in ("many", "much")):
        return "count", tokens
    if "number" in words and "of" in words[words.index("number") :]:
        return "count", tokens
    if asks in lex.WHEN:
        return "when", tokens
    if asks in lex.WHAT and lex.GROUP.get(lex.singular(after)) == "time":
        return "when", tokens
    if asks in lex.WHY:
        return "why", tokens
    return "thing", tokens


def _without_a_not_a(tokens: list[Token]) -> list[Token]:
    """Tokens in which 认不认识 is 认识 and 是不是 is 是."""
    out: list[Token] = []
    skip = 0
    for i, token in enumerate(tokens):
        if skip:
            skip -= 1
            continue
        ahead = tokens[i + 2].word if i + 2 < len(tokens) else ""
        if (
            not token.things
            and len(token.word) == 1
            and tokens[i + 1 : i + 2]
            and tokens[i + 1].word == "不"
            and ahead.startswith(token.word)
        ):
            skip = 1
            continue
        out.append(token)
    return out


def _type_of(tokens: Sequence[Token], asks: str, kind: Kind) -> str:
    """The word for the kind of thing that is asked: "which city", "how many people", 哪些公司."""
    for i, token in enumerate(tokens):
        if token.things or token.word not in lex.ASKING | {"number"}:
            continue
        if asks not in lex.WHAT | lex.COUNT and kind != "count":
            return ""
        for after in tokens[i + 1 :]:
            if after.things or after.word in lex.BE | lex.DO:
                break
            if lex.singular(after.word) in lex.GROUP:
                return lex.singular(after.word)
    return ""


# -- which end a name stands at --------------------------------------------------------------------


def known_side(
    tokens: Sequence[Token], at: int, known: int, sense: lex.Sense, *, at_place: bool
) -> int:
    """The side (0 or 1) of a word's sense that the known thing fills; -1 where it cannot be told.

    `at` and `known` are indices of the word and of the known thing in `tokens`. `at_place` tells of
    a verb that it joins its subject to a place or the like ("works for", "founded in"), whose
    subject stays the same in the passive.
    """
    if sense.concept in lex.ALIKE:
        return -1
    if sense.is_noun:
        owner = _owner(tokens, at, known)
        return -1 if owner is None else (1 - sense.side if owner == known else sense.side)
    subject, is_passive = _subject(tokens, at, known)
    if subject is None:
        return -1
    side = sense.side if subject == known else 1 - sense.side
    if any(not token.things and token.word in lex.BY for token in tokens):
        return 1 - side if is_passive else side
    turns = is_passive and sense.concept not in lex.NEVER_ACTIVE and not at_place
    return 1 - side if turns else side


ASKED = -2  # the place of an owner or a subject that is what the question asks for


def _skip(tokens: Sequence[Token], at: int, by: int) -> int:
    """The next place that is no determiner."""
    while 0 <= at < len(tokens) and not tokens[at].things and tokens[at].word in lex.DETERMINERS:
        at += by
    return at


def _word(tokens: Sequence[Token], at: int) -> str:
    return tokens[at].word if 0 <= at < len(tokens) and not tokens[at].things else ""


def _named(tokens: Sequence[Token], at: int, known: int) -> int | None:
    """Who stands at a place: the known thing, or (another name, a question word, nobody) who is
    asked; None for any other word. Of names joined by "and" the known one is meant."""
    if at < len(tokens) and not (tokens[at].things or tokens[at].word in lex.ASKING):
        return None
    place = at
    while place < len(tokens) and (tokens[place].things or _word(tokens, place) in ("and", "or")):
        if place == known:
            return known
        place += 1
    return ASKED


def _owner(tokens: Sequence[Token], at: int, known: int) -> int | None:
    """Whose a noun is: "the N of X", "X's N", "X has N", "X N"; None where nobody's."""
    after = at + 1
    while _word(tokens, after) == "name" or lex.singular(_word(tokens, after)) in lex.GROUP:
        after += 1
    joins, next_ = _word(tokens, after), _skip(tokens, after + 1, 1)
    if joins == "of" or (joins in lex.ENGLISH_PREPOSITIONS and next_ < len(tokens)):
        return _named(tokens, next_, known)  # "the N of X", "X is the N of?"
    before = at - 1
    while before >= 0 and _is_adjective(tokens, before):
        before -= 1
    if _word(tokens, before) in ("s", "的"):
        return known if before - 1 == known else ASKED
    if _word(tokens, before) in ("whose",):
        return ASKED
    if before == known:
        return known
    words = [_word(tokens, i) for i in range(len(tokens))]
    if "as" in words[:at]:  # who has X as N
        return ASKED
    has = next((i for i, word in enumerate(words) if word in lex.HAVE), -1)
    if has >= 0:  # X has N, does X have N, has X N
        return known if known < has or has == 0 else ASKED
    return None


def _is_adjective(tokens: Sequence[Token], at: int) -> bool:
    """Whether a word before a noun only adds to it."""
    word = _word(tokens, at)
    return bool(word) and word not in lex.EMPTY and not lex.is_listed(word) and word.isascii()


def _subject(tokens: Sequence[Token], at: int, known: int) -> tuple[int | None, bool]:
    """(who the subject of a verb is, whether the verb is passive)."""
    words = [_word(tokens, i) for i in range(len(tokens))]
    if not tokens[at].word.isascii():
        return _chinese_subject(tokens, words, at, known)
    is_participle = lex.is_verb_form(words[at]) and not words[at].endswith("ing")
    by = words[at + 1 : at + 2] == ["by"] or words[-1] == "by" or words[0] == "by"
    auxiliary = max((i for i in range(at) if words[i] in lex.BE | lex.DO | lex.HAVE), default=-1)
    if any(words[i] in lex.RELATIVE for i in range(auxiliary + 1, at) if i > 0):
        auxiliary = max((i for i in range(at) if words[i] in lex.RELATIVE), default=-1)
        auxiliary = max((i for i in range(auxiliary, at) if words[i] in lex.BE), default=-1)
    between = [i for i in range(auxiliary + 1, at) if _is_nominal(tokens, i)]
    before = [i for i in range(at) if _is_nominal(tokens, i)]
    if auxiliary >= 0 and between:
        subject = between[-1]
    elif before:
        subject = before[-1]
    else:
        return None, by
    verb = words[auxiliary] if auxiliary >= 0 else ""
    is_passive = by or (verb in lex.BE and is_participle)
    who = known if subject == known else ASKED
    return who, is_passive


def _is_nominal(tokens: Sequence[Token], at: int) -> bool:
    word = _word(tokens, at)
    is_kind = lex.singular(word) in lex.GROUP or word in ("anyone", "someone", "anything")
    return bool(tokens[at].things) or is_kind or word in lex.WHO | lex.WHAT | lex.RELATIVE


def _chinese_subject(
    tokens: Sequence[Token], words: Sequence[str], at: int, known: int
) -> tuple[int | None, bool]:
    """The subject of a Chinese verb stands before it, but for what 在 or 由 brings."""
    agent = next((i + 1 for i in range(at) if words[i] in lex.BY), -1)
    if agent >= 0:  # K 由谁创立: the subject is what was founded
        return (ASKED if agent == known else known), True
    if words[at - 1] in lex.WHO | lex.WHAT and "是" in words[:at] and words[-1] in ("的", "吗"):
        return known, True  # K 是谁创立的
    if known < at:
        brought = words[known - 1] in lex.PREPOSITIONS if known else False
        return (ASKED if brought else known), False
    return ASKED, False


def reads_as_noun(tokens: Sequence[Token], at: int) -> bool:
    """Whether a word that may be a noun or a verb stands where nouns stand."""
    before, after = _word(tokens, at - 1), _word(tokens, _skip(tokens, at + 1, 1))
    if not tokens[at].word.isascii():
        return before == "的" or not (at + 1 < len(tokens) and tokens[at + 1].things)
    if tokens[at].things or before in lex.PREPOSITIONS:
        return True
    if at and tokens[at - 1].things:  # what is Rome's twin, is Rome twin
        is_said = any(_word(tokens, i) in lex.BE for i in range(at - 1))
        return is_said and not lex.is_verb_form(tokens[at].word)
    if before in ("which", "what") and (lex.is_verb_form(tokens[at].word) or not after):
        return False  # what causes X, what caused the flood
    return (
        after == "of"
        or before in lex.DETERMINERS | {"s", "whose", "as", "many", "which", "what"}
        or (_is_adjective(tokens, at - 1) and _word(tokens, at - 2) in lex.DETERMINERS)
    )


def preposition(tokens: Sequence[Token], at: int) -> str:
    """The preposition of a verb: behind it, at the end of the question, or at its beginning."""
    for word in (_word(tokens, at + 1), _word(tokens, len(tokens) - 1), _word(tokens, 0)):
        if word in lex.PREPOSITIONS:
            return word
    return ""


def reduced(tokens: Sequence[Token], known: int, used: set[int]) -> tuple[list[Token], int]:
    """A question in which "the founder of Acme" is one thing, and the place of it. `used` are the
    indices of the words that led there."""
    low, high = min(used | {known}), max(used | {known})
    relative = -1
    while low > 0:
        word, before = _word(tokens, low - 1), _word(tokens, low - 2)
        if word in lex.RELATIVE and low > 1 and before not in lex.PREPOSITIONS:
            relative = low - 1
        elif not (
            word in lex.DETERMINERS
            or lex.singular(word) in lex.GROUP
            or (word in lex.BE | lex.HAVE | lex.DO and before in lex.RELATIVE and low > 2)
        ):
            break
        low -= 1
    if _word(tokens, high + 1) == "的" and lex.singular(_word(tokens, high + 2)) in lex.GROUP:
        high += 2
    one = Token("", -1, frozenset({"?"}))
    if relative == low:  # "where was the person born whom …": the person is meant
        kinds = [i for i in range(low) if lex.singular(_word(tokens, i)) in lex.GROUP]
        if kinds:
            return [*tokens[: kinds[-1]], one, *tokens[kinds[-1] + 1 : low], *tokens[high + 1 :]], (
                kinds[-1]
            )
    return [*tokens[:low], one, *tokens[high + 1 :]], low
