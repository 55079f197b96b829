"""Questions in words, answered from facts: no text is written, every answer is a path.

    Where was the wife of Pierre Curie born?
      what is asked     a thing (not a count, a yes, a date), and where it is
      who is meant      Pierre Curie, by the names the graph knows
      which path        Pierre Curie ─wife→ Marie Curie ─born in→ Warsaw

A path of one or two steps from a named thing fits by the words that the question shares with the
names of its relations (their F-measure), by words of the same frame ("child" is the other end of
"parent"), and, with an encoder, by the cosine of both, added. A word that stands at the wrong end
rules the path out. The answers are all ends of the best path. They are sure where every word of the
question is accounted for at the right end; what scores below `LEAST` is no answer. The graph holds
only what was read: that something is not so, or is the most of all, is not answered.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, islice

from mainspring.graph import facts
from mainspring.graph import lexicon as lex
from mainspring.graph.facts import Edge, Evidence, Way
from mainspring.graph.linking import Encode, Vectors
from mainspring.graph.questions import (
    Kind,
    Question,
    Token,
    known_side,
    open_words,
    parse,
    preposition,
    reads_as_noun,
    reduced,
)
from mainspring.graph.relation_names import Meaning, meaning
from mainspring.graph.store import GraphStore
from mainspring.text import words

LEAST = 0.1  # what a path must score (0 to 1) to be an answer
SURE = 0.6  # what a path must score with an encoder to be more than a guess
LIKELY = 0.35  # what it must score, beside, for a yes or a count
MEANT = 0.25  # the least cosine of each step of two, where it shares no word with the question
SECOND_STEP = 0.9  # what a path of two steps counts, so that a plain fact wins
UNTOLD = 0.97  # what a path counts whose direction the words do not tell, read backward
MOST = 2_000  # things that a second step is taken from
MOST_PATHS = 200_000  # paths of two steps that are followed
TOLD = 5  # facts that are told where a question has no answer
MEANS_AS_MUCH = 0.9  # what a word of the same frame counts, beside the same word's 1

HELD = "the graph holds only what was read"


@dataclass(frozen=True)
class Step:
    """One fact of a path, read from head to tail or `backward`, and where it stands."""

    edge: Edge
    backward: bool
    evidence: tuple[Evidence, ...] = ()

    @property
    def end(self) -> str:
        return self.edge.head if self.backward else self.edge.tail


@dataclass(frozen=True)
class Answer:
    """One thing (or value) that answers, and the path to it."""

    iri: str
    label: str
    path: tuple[Step, ...]


@dataclass(frozen=True)
class Answered:
    """The answers to a question, all by paths of one kind with one `score`. `sure` tells them from
    a guess. A question of `kind` "count" has its number as well; the answers to "whether" are the
    facts that say yes. `problem` says why there are none, `known` what is there instead, `notes`
    what else to know of how they were found."""

    question: str
    kind: Kind = "thing"
    answers: tuple[Answer, ...] = ()
    score: float = 0.0
    sure: bool = False
    problem: str = ""
    known: tuple[Step, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def count(self) -> int | None:
        """How many, where that is asked; a number that the graph holds itself is an answer."""
        if self.kind != "count" or not self.answers or _is_number(self.answers):
            return None
        return len(self.answers)

    @property
    def yes(self) -> bool | None:
        """Whether it is so, where that is asked; never False, as what is not there may be so."""
        return True if self.kind == "whether" and self.answers else None


def _is_number(answers: Sequence[Answer]) -> bool:
    return len(answers) == 1 and answers[0].label.replace(",", "").replace(".", "").isdigit()


Shape = tuple[Way, ...]  # the way of each step


@dataclass(frozen=True)
class Match:
    """How a question's words fit one relation read in one direction: `used` are their places.
    `certain` tells that all of its name is met at the right end; `opposed`, that a word stands at
    the wrong one."""

    used: frozenset[int] = frozenset()
    parts: int = 0
    shared: float = 0.0
    certain: bool = True
    opposed: bool = False


@dataclass(frozen=True)
class Fit:
    """How well a path's shape fits, from the thing `iri` that stands at `known`. `certain` where
    its words tell every step; `is_turned` where it goes backward and they do not."""

    score: float
    iri: str
    known: int
    shape: Shape
    used: frozenset[int] = field(default=frozenset())
    certain: bool = False
    is_turned: bool = False


class Asker:
    """Answers questions on one store. It reads the names once; facts as they are needed."""

    def __init__(self, store: GraphStore, encode: Encode | None = None):
        self.store, self.encode = store, encode
        self.labels = facts.labels(store)
        self.types = facts.types(store)
        self.names: dict[tuple[str, ...], set[str]] = {}
        self.vectors: dict[str, Vectors] = {}
        self.readings = facts.readings_of(store)
        relations: set[str] = set()
        unlabelled: set[str] = set()
        for edge in facts.edges(store):
            relations.add(edge.relation)
            ends = (edge.head,) if edge.is_value else (edge.head, edge.tail)
            unlabelled.update(iri for iri in ends if iri not in self.labels)
        kinds = {kind for all_of in self.types.values() for kind in all_of}
        for iri, label in self.labels.items():
            if iri not in relations and iri not in kinds:
                self._know(label, iri)
        for text, iri in facts.surfaces(store):
            self._know(text, iri)
        for iri in unlabelled:
            self._know(facts.local_name(iri), iri)
        self.longest = max(map(len, self.names), default=0)
        self.kinds = {self.label(kind).lower() for kind in kinds}
        told = {word for r in relations for word, _ in meaning(self.label(r)).parts}
        self.chinese = frozenset(word for word in told | self.kinds if not word.isascii())

    def _know(self, name: str, iri: str) -> None:
        parts = tuple(words(name))
        if any(part not in lex.EMPTY - lex.DO for part in parts):
            self.names.setdefault(parts, set()).add(iri)

    def label(self, iri: str) -> str:
        return self.labels.get(iri) or facts.local_name(iri)

    # -- the question ------------------------------------------------------------------------------

    def things(self, asked: Sequence[str]) -> list[tuple[int, int, set[str]]]:
        """(first word, last word + 1, IRIs) of the things that a question names, longest names
        first; a name that overlaps a longer one does not count."""
        spans: list[tuple[int, int, set[str]]] = []
        for size in range(min(self.longest, len(asked)), 0, -1):
            for start in range(len(asked) - size + 1):
                named = self.names.get(tuple(asked[start : start + size]))
                if named and not any(a < start + size and start < b for a, b, _ in spans):
                    spans.append((start, start + size, named))
        return spans

    def ask(self, question: str, *, least: float = LEAST) -> Answered:
        """The answers to a question by paths that score at least `least` (0 to 1), or why there
        are none."""
        asked = open_words(words(question))
        parsed = parse(asked, self.things(asked), self.chinese)
        named = {iri for token in parsed.tokens for iri in token.things}
        if not named:
            return Answered(
                question, parsed.kind, problem="no thing in the question is in the graph"
            )
        if parsed.kind == "link" and (links := self._links(parsed)):
            return self._placed(Answered(question, "link", links, 1.0, sure=True))
        fits = sorted(self._fits(parsed, named), key=lambda f: (-f.score, f.shape))
        if parsed.beyond == "comparison":  # unless a relation is called so: "largest city"
            ranks = {t.at for t in parsed.content if lex.is_superlative(t.word)}
            fits = [fit for fit in fits if ranks <= fit.used]
            if not fits:
                return self._refused(question, parsed, f"{HELD}, and does not rank or compare")
        if parsed.beyond == "negation":
            return self._refused(question, parsed, f"{HELD}: it cannot tell what is not so", fits)
        found = self._best(parsed, fits, named, least)
        if found is None or not found.sure:
            found = self._all_of(parsed, fits, named) or found
        if found is None or not found.answers:
            return self._refused(question, parsed, self._missing(parsed), fits)
        return self._placed(replace(found, question=question, score=min(1.0, found.score)))

    def _placed(self, found: Answered) -> Answered:
        """Answers with the places where their facts stand."""
        steps = {step.edge: step for answer in found.answers for step in answer.path}
        places = {edge: self._told(step).evidence for edge, step in steps.items()}
        answers = (
            replace(answer, path=tuple(replace(s, evidence=places[s.edge]) for s in answer.path))
            for answer in found.answers
        )
        return replace(found, answers=tuple(answers))

    def _best(
        self, parsed: Question, fits: Sequence[Fit], named: set[str], least: float
    ) -> Answered | None:
        """The answers of the best fit that has some."""
        for fit in fits:
            if fit.score < least:
                return None
            answers, is_cut = self._answers(parsed, fit, named)
            if answers:
                sure = self._is_sure(parsed, fit, answers)
                if not sure and not self._is_likely(parsed, fit):
                    return None
                cut = is_cut and parsed.kind != "whether"  # one fact is enough for a yes
                notes = (self._crowd(fit),) if cut else ()
                return Answered("", parsed.kind, answers, fit.score, sure and not cut, notes=notes)
        return None

    def _all_of(self, parsed: Question, fits: Sequence[Fit], named: set[str]) -> Answered | None:
        """What two fits from two things agree on, where only both of them account for every word:
        "Who works for Acme and lives in Oslo?" None where the question is not such."""
        content = {token.at for token in parsed.content}
        things = {token.at for token in parsed.tokens if token.things}
        whole = [fit for fit in fits if fit.certain and parsed.kind in ("thing", "count")]
        for one, other in combinations(whole, 2):
            if one.used & other.used or {one.known, other.known} != things:
                continue
            if content <= one.used | other.used:
                (some, cut), (others, cut_too) = (
                    self._answers(parsed, fit, named) for fit in (one, other)
                )
                ends = {answer.iri: answer for answer in others}
                agreed = tuple(
                    replace(answer, path=answer.path + ends[answer.iri].path)
                    for answer in some
                    if answer.iri in ends
                )
                sure = bool(agreed) and not (cut or cut_too)
                crowds = [self._crowd(fit) for fit, met in ((one, cut), (other, cut_too)) if met]
                score = one.score + other.score
                return Answered("", parsed.kind, agreed, score, sure, notes=tuple(crowds))
        return None

    def _refused(
        self, question: str, parsed: Question, problem: str, fits: Sequence[Fit] = ()
    ) -> Answered:
        """No answer: why, and what is known of the things that the question names instead."""
        named = [(iri, token.at) for token in parsed.tokens for iri in sorted(token.things)]
        ways = dict.fromkeys(
            (iri, (relation, backward))
            for fit in fits
            if fit.used
            for relation, _ in fit.shape
            for iri, _ in named
            for backward in (False, True)
        )
        near = [step for iri, way in ways for step in islice(self._along(iri, way), TOLD)]
        rest = [
            Step(edge, backward)
            for iri, _ in named
            for backward, found in (
                (False, facts.edges(self.store, iri)),
                (True, facts.edges(self.store, into=iri)),
            )
            for edge in islice(found, TOLD)
        ]
        known = list({step.edge: step for step in [*near, *rest]}.values())[:TOLD]
        things = ", ".join(sorted({self.label(iri) for iri, _ in named}))
        told = tuple(self._told(step) for step in known)
        score = min(1.0, fits[0].score) if fits else 0.0
        crowds = (
            self._crowd(fit)
            for fit in fits
            if fit.used and len(fit.shape) == 1 and self._is_crowded(fit.iri, fit.shape[0])
        )
        notes = tuple(dict.fromkeys(crowds))
        return Answered(
            question, parsed.kind, (), score, False, f"{things}: {problem}", told, notes
        )

    def _missing(self, parsed: Question) -> str:
        """Why no path is an answer, by the kind of the question."""
        match parsed.kind:
            case "whether":
                return f"no fact says so, which is no proof that it is not so, as {HELD}"
            case "count":
                return f"no such fact to count in the graph, which is not none, as {HELD}"
            case "when":
                return "in the graph, but with no date for what is asked"
            case "why":
                return "in the graph, but with no fact that tells a reason or a way"
            case "about":
                return "in the graph, but no relation is asked for"
            case "link":
                return "in the graph, but with no path of one or two facts between them"
            case _:
                return "in the graph, but with no fact like what is asked"

    # -- paths -------------------------------------------------------------------------------------

    def _along(self, iri: str, way: Way) -> Iterator[Step]:
        return (Step(edge, way[1]) for edge in facts.along(self.store, iri, way))

    def _is_crowded(self, iri: str, way: Way) -> bool:
        """Whether a way leads to more things than a second step is taken from."""
        return next(islice(self._along(iri, way), MOST, None), None) is not None

    def _crowd(self, fit: Fit) -> str:
        """That a path goes on from some things only."""
        via = self.label(fit.shape[0][0])
        return f"{self.label(fit.iri)} has very many facts `{via}`: not all were followed further"

    def _shapes(self, iri: str) -> set[Shape]:
        """The shapes of the paths from a thing."""
        shapes: set[Shape] = set()
        for first in facts.ways(self.store, iri):
            shapes.add((first,))
            shapes |= {(first, on) for on in facts.ways_on(self.store, iri, first, MOST)}
        return shapes

    def _fits(self, parsed: Question, named: set[str]) -> Iterator[Fit]:
        """How well the paths from each named thing fit, where no word stands against them."""
        for token in parsed.tokens:
            for iri in sorted(token.things):
                shapes = self._shapes(iri)
                rest = [t.word for t in parsed.tokens if t.at != token.at and not t.implied]
                relations = {relation for shape in shapes for relation, _ in shape}
                cosines = self._cosines(" ".join(rest), relations)
                for shape in shapes:
                    if fit := self._fit(parsed, token.at, iri, shape, cosines):
                        yield fit

    def _fit(
        self, parsed: Question, known: int, iri: str, shape: Shape, cosines: dict[str, float]
    ) -> Fit | None:
        tokens: list[Token] = list(parsed.tokens)
        matches: list[Match] = []
        at = known
        to_a_time = parsed.kind == "when" or (
            parsed.kind == "whether"
            and any(self._is_time(t.things) for t in parsed.tokens if t.at != known)
        )
        for number, (relation, backward) in enumerate(shape, 1):
            dated = to_a_time and number == len(shape) and not backward
            found = match(parsed, tokens, at, meaning(self.label(relation)), backward, dated)
            cosine = cosines.get(relation, 0.0)
            if found.opposed or (len(shape) == 2 and not found.used and cosine < MEANT):
                return None
            matches.append(found)
            here = {i for i, token in enumerate(tokens) if token.at in found.used}
            tokens, at = reduced(tokens, at, here)
        used = frozenset[int]().union(*(m.used for m in matches))
        others = sum(bool(t.things) and t.at not in (known, *used) for t in parsed.tokens)
        asked = len({t.at for t in parsed.content} | used) + others
        parts = sum(m.parts for m in matches)
        shared = sum(m.shared for m in matches)
        near = [max(0.0, cosines.get(relation, 0.0)) for relation, _ in shape]
        score = 2 * shared / (parts + asked) if shared else 0.0
        score += sum(near) / len(near)
        score *= SECOND_STEP if len(shape) == 2 else 1.0
        told = all(m.certain and m.used for m in matches)
        turned = not told and any(backward for _, backward in shape)
        score *= UNTOLD if turned else 1.0
        return Fit(score, iri, known, shape, used, told, turned)

    def _cosines(self, question: str, relations: set[str]) -> dict[str, float]:
        """How near each relation's name is to what is asked; nothing without an encoder."""
        if self.encode is None:
            return {}
        new = sorted(relations - self.vectors.keys())
        vectors = self.encode([question, *map(self.label, new)])
        self.vectors |= dict(zip(new, vectors[1:], strict=True))
        return {relation: float(self.vectors[relation] @ vectors[0]) for relation in relations}

    def _links(self, parsed: Question) -> tuple[Answer, ...]:
        """The shortest paths between two things that a question names, by their relations."""
        first, *others = [token for token in parsed.tokens if token.things]
        ends = {iri for token in others for iri in token.things}
        for steps in (1, 2):
            found = sorted(
                path
                for iri in first.things
                for end in ends - {iri}
                for path in facts.paths_between(self.store, iri, end, steps)
            )
            if found:
                break
        return tuple(
            Answer(
                (edge.head if backward else edge.tail),
                ", ".join(self.label(edge.relation) for edge, _ in path),
                tuple(Step(edge, backward) for edge, backward in path),
            )
            for path in found
            for edge, backward in path[-1:]
        )

    def _paths(self, iri: str, shape: Shape) -> Iterator[tuple[Step, ...]]:
        """The paths of a shape, which never come back to where they were: a second step is taken
        from the first `MOST` things only."""
        first, *rest = shape
        ahead = (step for step in self._along(iri, first) if step.end != iri)
        if not rest:
            yield from ((step,) for step in ahead)
            return
        for step in islice(ahead, MOST):
            if not step.edge.is_value:
                for second in self._along(step.end, rest[0]):
                    if second.end not in (iri, step.end):
                        yield step, second

    # -- answers -----------------------------------------------------------------------------------

    def _answers(
        self, parsed: Question, fit: Fit, named: set[str]
    ) -> tuple[tuple[Answer, ...], bool]:
        """The ends of a fit's paths that are what is asked for, and whether there are more paths
        than are followed. What the question names is no answer, but for whether."""
        others = {i for t in parsed.tokens if t.at not in (fit.known, *fit.used) for i in t.things}
        between = parsed.kind == "whether" and others
        answers: dict[str, Answer] = {}
        is_cut = len(fit.shape) == 2 and self._is_crowded(fit.iri, fit.shape[0])
        for number, path in enumerate(self._paths(fit.iri, fit.shape)):
            if len(fit.shape) == 2 and number == MOST_PATHS:
                is_cut = True
                break
            end = path[-1]
            if end.end in answers or (end.end not in others if between else end.end in named):
                continue
            if not self._suits(parsed, end):
                continue
            label = end.end if end.edge.is_value else self.label(end.end)
            answers[end.end] = Answer(end.end, label, path)
        return tuple(sorted(answers.values(), key=lambda a: (a.label, a.iri))), is_cut

    def _told(self, step: Step) -> Step:
        places = facts.evidence(self.store, step.edge, self.readings)
        return Step(step.edge, step.backward, tuple(places))

    def _suits(self, parsed: Question, end: Step) -> bool:
        """Whether the end of a path can be what is asked for: when is a date, where no person."""
        label = end.end if end.edge.is_value else self.label(end.end)
        types = {self.label(kind).lower() for kind in self.types.get(end.end, ())}
        groups = {lex.GROUP[kind] for kind in types if kind in lex.GROUP}
        relation = meaning(self.label(end.edge.relation))
        dated = "time" in groups or relation.is_timed
        if parsed.kind == "when":
            return dated or lex.DATED.search(label) is not None
        if parsed.kind == "why" and not relation.tells_reasons:
            return False
        by_verb = relation.is_verb and not relation.is_timed
        if parsed.kind == "thing" and dated and by_verb and not parsed.type:
            return False  # "Acme founded 1999": what Acme founded is no year
        asks = "who" if parsed.asks in lex.WHO else "where" if parsed.asks in lex.WHERE else ""
        if asks and (dated or (groups and not groups & lex.EXPECTED[asks])):
            return False
        return not parsed.type or self._is_kind(parsed.type, types, groups)

    def _is_time(self, things: Iterable[str]) -> bool:
        kinds = (self.label(kind).lower() for iri in things for kind in self.types.get(iri, ()))
        return any(lex.GROUP.get(kind) == "time" for kind in kinds)

    def _is_kind(self, asked: str, types: set[str], groups: set[str]) -> bool:
        """Whether types agree with the kind of thing asked for: a City is a place and no country,
        what has no type may be anything."""
        asked = lex.SAME.get(asked, asked)
        types = {lex.SAME.get(kind, kind) for kind in types}
        if asked in types or not types:
            return True
        if groups and lex.GROUP[asked] not in groups:
            return False
        return asked in lex.GENERAL or (asked not in self.kinds and bool(types & lex.GENERAL))

    def _is_likely(self, parsed: Question, fit: Fit) -> bool:
        """Whether a fit that is not sure may be told as a guess: a yes or a count only where its
        words are all met, or none and the meaning is near."""
        if parsed.kind not in ("whether", "count"):
            return True
        met = {token.at for token in parsed.content} <= fit.used
        return met or (fit.score >= LIKELY and not fit.used)

    def _is_sure(self, parsed: Question, fit: Fit, answers: Sequence[Answer]) -> bool:
        """Whether every word and name of the question is accounted for, at the right end; or, where
        an encoder looks at the meaning, whether it is near enough and no word says otherwise."""
        left = [token.word for token in parsed.content if token.at not in fit.used]
        if not fit.certain or left:
            by_meaning = (
                fit.score >= SURE and parsed.kind in ("thing", "when") and not fit.is_turned
            )
            if not (self.encode and by_meaning) or any(map(lex.is_listed, left)):
                return False
        ends = {answer.iri for answer in answers} if parsed.kind == "whether" else set()
        rest = [t for t in parsed.tokens if t.things and t.at not in (fit.known, *fit.used)]
        beside = any(t.word in lex.BESIDE for t in parsed.tokens)
        if not beside and any(not t.things & ends for t in rest):
            return False
        if parsed.asks in lex.WHERE:
            last = meaning(self.label(fit.shape[-1][0]))
            groups = {
                lex.GROUP.get(self.label(kind).lower(), "")
                for answer in answers
                for kind in self.types.get(answer.iri, ())
            }
            return last.is_placed or bool(groups & lex.EXPECTED["where"])
        return True


# -- words and relations ---------------------------------------------------------------------------


def match(
    parsed: Question,
    tokens: Sequence[Token],
    known: int,
    to: Meaning,
    backward: bool,
    dated: bool = False,
) -> Match:
    """How the words of a question fit a relation that is read from the thing at `known`. Where it
    is to lead to a date (`dated`), no word tells an end: "Acme founded 1999" is no founding of it.
    """
    used: set[int] = set()
    concepts: dict[str, float] = {}
    said = {lex.stem(word) for word, _ in to.parts}
    certain = True
    opposed = False
    wanted: dict[str, list[tuple[lex.Sense, int]]] = {}
    for _, senses in to.parts:
        for sense, head in senses:
            wanted.setdefault(sense.concept, []).append((sense, 1 - head if backward else head))
    places = sorted(range(len(tokens)), key=lambda at: abs(at - known))
    for at in places:
        word = tokens[at].word
        if at == known or not (tokens[at].things or parsed.is_content(word)) or not word:
            continue
        for sense in _senses_here(tokens, at):
            if sense.concept not in wanted or sense.concept in concepts:
                continue
            fits = (
                [2]
                if dated
                else [_fitness(tokens, at, known, sense, w, to) for w in wanted[sense.concept]]
            )
            best = max(fits)
            if best < 0:
                opposed = True
            else:
                used.add(tokens[at].at)
                concepts[sense.concept] = 1.0 if lex.stem(word) in said else MEANS_AS_MUCH
                certain &= best == 2
            break
    return Match(
        frozenset(used),
        len(wanted),
        sum(concepts.values()),
        certain and len(concepts) == len(wanted),
        opposed and not used,
    )


def _senses_here(tokens: Sequence[Token], at: int) -> list[lex.Sense]:
    """What a word of a question may mean where it stands."""
    senses = lex.senses(tokens[at].word)
    noun = reads_as_noun(tokens, at)
    return [s for s in senses if s.is_noun == noun] or list(senses)


def _fitness(
    tokens: Sequence[Token],
    at: int,
    known: int,
    sense: lex.Sense,
    wanted: tuple[lex.Sense, int],
    to: Meaning,
) -> int:
    """2 where a word stands at the right end of a relation, 1 where that cannot be told or it says
    more than the relation, -1 where it stands at the wrong end."""
    named, needed = wanted
    at_place = bool(to.preposition) and not to.is_passive and not named.is_noun
    side = known_side(tokens, at, known, sense, at_place=at_place)
    if side not in (-1, needed):
        return -1
    if sense.kind and named.kind and sense.side == named.side and sense.kind != named.kind:
        return -1  # a mother is no father
    if not sense.is_noun and not named.is_noun and _clash(preposition(tokens, at), to.preposition):
        return -1
    alike = sense.concept in lex.ALIKE
    says_more = bool(sense.kind) and (not named.kind or (sense.side != named.side))
    return 1 if (side == -1 and not alike) or says_more else 2


def _clash(asked: str, said: str) -> bool:
    """Whether two prepositions lead elsewhere: "lives with" is not "lives in"."""
    if not asked or not said or asked == said or {asked, said} & lex.BY:
        return False  # "by" tells who does it
    return not {asked, said} <= lex.PLACES
