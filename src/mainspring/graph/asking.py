"""Questions in words, answered from facts: no text is written, every answer is a path.

    Where was the wife of Pierre Curie born?
      who is meant      Pierre Curie, by the names the graph knows
      what is asked     the words that are left: where, wife, born
      which path        Pierre Curie ─wife→ Marie Curie ─born in→ Warsaw

Each path of one or two steps from a thing in the question is compared with the words that are left:
the words they share (their F-measure) and, with an encoder, the cosine of both, added. The answers
are all ends of the best path. Below `LEAST` there is none, below `SURE` they are a guess.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from mainspring.graph import facts
from mainspring.graph.facts import Edge, Evidence
from mainspring.graph.linking import Encode, Vectors
from mainspring.graph.store import GraphStore
from mainspring.text import words

# What a path must score (0 to 1) to be an answer, and to be more than a guess. Of WebQuestions'
# validation questions, with an encoder, 93 % and 56 % score so much, and 73 % and 80 % of these are
# right; without the facts that are asked for 37 % and 80 % stay below.
LEAST, SURE = 0.1, 0.35
MEANT = 0.25  # the least cosine of each step of two, where it shares no word with the question
SECOND_STEP = 0.9  # what a path of two steps counts, so that a plain fact wins
AGAINST = 0.97  # what a fact counts that is read against the order of the question's words
MOST = 200  # facts that are followed from one thing; hubs have more

_ENDING = re.compile("(?<=...)(?:ations?|ings?|ions?|ors?|ers?|ages?|ed|es|s)$")

# Words that ask or join and name no relation.
EMPTY = frozenset(
    words(
        "a an the of in on at to by for from with and or is are was were be been do does did has "
        "have had what which who whom whose where when how why that this there it its s me tell "
        "name please 的 是 了 在 吗 呢 哪 里 谁 什 么 何 时 个 和"
    )
)
# What the answer to a question word is a kind of.
EXPECTED = {
    "who": {"person", "per", "people", "organization", "org"},
    "whom": {"person", "per", "people"},
    "where": {"location", "loc", "place", "city", "country", "gpe", "state"},
    "when": {"date", "time", "year"},
}
KIND_BONUS = 0.05


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
    """The answers to a question, all by paths of one kind with one `score`; `problem` says why
    there are none."""

    question: str
    answers: tuple[Answer, ...] = ()
    score: float = 0.0
    problem: str = ""

    @property
    def sure(self) -> bool:
        """Whether the answers are more than a guess."""
        return bool(self.answers) and self.score >= SURE


Kind = tuple[tuple[str, bool], ...]  # (relation, backward) of each step


class Asker:
    """Answers questions on one store. It reads the names once; facts as they are needed."""

    def __init__(self, store: GraphStore, encode: Encode | None = None):
        self.store, self.encode = store, encode
        self.labels = facts.labels(store)
        self.types = facts.types(store)
        self.names: dict[tuple[str, ...], set[str]] = {}
        self.vectors: dict[str, Vectors] = {}
        relations = {edge.relation for edge in facts.edges(store)}
        kinds = {kind for all_of in self.types.values() for kind in all_of}
        for iri, label in self.labels.items():
            if iri not in relations and iri not in kinds:
                self._know(label, iri)
        for text, iri in facts.surfaces(store):
            self._know(text, iri)
        for edge in facts.edges(store):
            for iri in (edge.head, edge.tail):
                if not edge.is_value and iri not in self.labels:
                    self._know(facts.local_name(iri), iri)
        self.longest = max(map(len, self.names), default=0)

    def _know(self, name: str, iri: str) -> None:
        parts = tuple(words(name))
        if any(part not in EMPTY for part in parts):
            self.names.setdefault(parts, set()).add(iri)

    def label(self, iri: str) -> str:
        return self.labels.get(iri) or facts.local_name(iri)

    # -- the question ------------------------------------------------------------------------------

    def things(self, asked: Sequence[str]) -> list[tuple[int, int, set[str]]]:
        """(first word, last word + 1, IRIs) of the things that a question names, longest names
        first; a name within a longer one does not count."""
        spans: list[tuple[int, int, set[str]]] = []
        for size in range(min(self.longest, len(asked)), 0, -1):
            for start in range(len(asked) - size + 1):
                named = self.names.get(tuple(asked[start : start + size]))
                inside = any(a <= start and start + size <= b for a, b, _ in spans)
                if named and not inside:
                    spans.append((start, start + size, named))
        return spans

    def ask(self, question: str, *, least: float = LEAST) -> Answered:
        """The answers to a question by paths that score at least `least` (0 to 1), or why there
        are none."""
        asked = words(question)
        spans = self.things(asked)
        if not spans:
            return Answered(question, problem="no thing in the question is in the graph")
        named = {iri for _, _, iris in spans for iri in iris}
        best: tuple[float, str, Kind] | None = None
        for start, end, iris in spans:
            for iri in sorted(iris):
                for score, kind in self._scored(asked, (start, end), iri):
                    if (best is None or score > best[0]) and self._ends(iri, kind, named):
                        best = score, iri, kind
        if best is None or best[0] < least:
            things = ", ".join(sorted({self.label(iri) for iri in named}))
            return Answered(
                question,
                score=best[0] if best else 0.0,
                problem=f"{things}: in the graph, but with no fact like what is asked",
            )
        score, iri, kind = best
        answers = tuple(self._answers(iri, kind, named))
        return Answered(question, answers, score)

    # -- paths -------------------------------------------------------------------------------------

    def _steps(self, iri: str) -> list[Step]:
        ahead = islice(facts.edges(self.store, iri), MOST)
        behind = islice(facts.edges(self.store, into=iri), MOST)
        return [Step(edge, False) for edge in ahead] + [Step(edge, True) for edge in behind]

    def _kinds(self, iri: str) -> dict[Kind, str]:
        """The kinds of paths from a thing, with an end of each."""
        kinds: dict[Kind, str] = {}
        first = self._steps(iri)
        for step in first:
            kinds.setdefault(((step.edge.relation, step.backward),), step.end)
        for step in first:
            if step.edge.is_value:
                continue
            for second in self._steps(step.end):
                if second.end != iri:
                    kind = (
                        (step.edge.relation, step.backward),
                        (
                            second.edge.relation,
                            second.backward,
                        ),
                    )
                    kinds.setdefault(kind, second.end)
        return kinds

    def _scored(
        self, asked: Sequence[str], place: tuple[int, int], iri: str
    ) -> Iterator[tuple[float, Kind]]:
        """How well each kind of path from a thing at `place` fits what is asked, best first."""
        kinds = self._kinds(iri)
        rest = [*asked[: place[0]], *asked[place[1] :]]
        meaning = {stem(word) for word in rest if word not in EMPTY}
        cosines = self._cosines(" ".join(rest), {r for kind in kinds for r, _ in kind})
        scored = []
        for kind, end in kinds.items():
            steps = [self._meaning(relation) for relation, _ in kind]
            near = [cosines.get(relation, 0.0) for relation, _ in kind]
            if len(kind) == 2 and not all(
                step & meaning or cosine >= MEANT for step, cosine in zip(steps, near, strict=True)
            ):
                continue
            score = overlap(set().union(*steps), meaning) + max(0.0, sum(near) / len(near))
            score *= SECOND_STEP if len(kind) == 2 else 1.0
            score *= 1.0 if self._in_order(asked, place, kind[0]) else AGAINST
            score += KIND_BONUS if score and self._is_expected(asked, end) else 0.0
            scored.append((min(1.0, score), kind))
        return iter(sorted(scored, key=lambda pair: (-pair[0], len(pair[1]), pair[1])))

    def _meaning(self, relation: str) -> set[str]:
        return {stem(word) for word in words(self.label(relation)) if word not in EMPTY}

    def _cosines(self, question: str, relations: set[str]) -> dict[str, float]:
        """How near each relation's name is to what is asked; nothing without an encoder."""
        if self.encode is None:
            return {}
        new = sorted(relations - self.vectors.keys())
        vectors = self.encode([question, *map(self.label, new)])
        self.vectors |= dict(zip(new, vectors[1:], strict=True))
        return {relation: float(self.vectors[relation] @ vectors[0]) for relation in relations}

    def _in_order(
        self, asked: Sequence[str], place: tuple[int, int], step: tuple[str, bool]
    ) -> bool:
        """Whether a fact is read as the question has its words: "who works for X" ends in X, so
        its fact is read backward; "the capital of X" and "X's capital" begin with it."""
        relation, backward = step
        label = words(self.label(relation))
        wanted = self._meaning(relation)
        at = [i for i, word in enumerate(asked) if stem(word) in wanted]
        if not at:
            return True
        behind = place[0] > max(at)
        of = behind and "of" in asked[max(at) : place[0]] and label[-1:] != ["of"]
        return backward == (behind and not of)

    def _is_expected(self, asked: Sequence[str], end: str) -> bool:
        wanted = {kind for word in asked for kind in EXPECTED.get(word, ())}
        return any(self.label(kind).lower() in wanted for kind in self.types.get(end, ()))

    def _ends(self, iri: str, kind: Kind, named: set[str]) -> bool:
        return next(self._paths(iri, kind, named), None) is not None

    def _paths(self, iri: str, kind: Kind, named: set[str]) -> Iterator[tuple[Step, ...]]:
        """The paths of a kind; what the question names is no answer."""
        (relation, backward), *rest = kind
        for step in self._steps(iri):
            if (step.edge.relation, step.backward) != (relation, backward):
                continue
            if rest and not step.edge.is_value:
                for path in self._paths(step.end, tuple(rest), {*named, iri}):
                    yield (step, *path)
            elif not rest and step.end not in named:
                yield (step,)

    def _answers(self, iri: str, kind: Kind, named: set[str]) -> Iterable[Answer]:
        answers: dict[str, Answer] = {}
        for path in self._paths(iri, kind, named):
            end = path[-1]
            if end.end not in answers:
                label = end.end if end.edge.is_value else self.label(end.end)
                told = tuple(
                    Step(s.edge, s.backward, tuple(facts.evidence(self.store, s.edge)))
                    for s in path
                )
                answers[end.end] = Answer(end.end, label, told)
        return sorted(answers.values(), key=lambda answer: (answer.label, answer.iri))


def overlap(known: set[str], asked: set[str]) -> float:
    """The F-measure (0 to 1) of the words that a path's relations share with the question."""
    return 2 * len(known & asked) / (len(known) + len(asked)) if known & asked else 0.0


def stem(word: str) -> str:
    """An English word without its endings, so that "directed" and "director" meet; others as they
    are. Porter's rules would know more, and reading their library takes longer than answering."""
    if not word.isascii() or not word.isalpha():
        return word
    return re.sub("(?<=..)[eiy]$", "", _ENDING.sub("", word))
