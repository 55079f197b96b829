"""Two texts as one input: [CLS] first [SEP] second [SEP], with the tokens this tokenizer sets, and
the second in windows where it is long."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mainspring import spec
from mainspring.checkpoints.tokenizer import Tokenizer
from mainspring.errors import BadOption
from mainspring.formulations import Setup, Values
from mainspring.formulations.long_texts import tokens_of

STRIDE = 128  # tokens that neighbouring windows share


@dataclass(frozen=True)
class PairLayout:
    """The special tokens before, between and behind two texts."""

    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def tokens(self) -> int:
        return len(self.before) + len(self.between) + len(self.after)

    def joined(self, first: Sequence[int], second: Sequence[int]) -> tuple[list[int], int]:
        """The ids of a pair, and where its second text begins."""
        start = [*self.before, *first, *self.between]
        return [*start, *second, *self.after], len(start)


def pair_layout(tokenizer: Tokenizer) -> PairLayout:
    """How the tokenizer lays out a pair, read off a pair of two letters."""
    pair = tokenizer.backend.encode("x", "x")
    sides, ids = pair.sequence_ids, pair.ids
    first = [at for at, side in enumerate(sides) if side == 0]
    second = [at for at, side in enumerate(sides) if side == 1]
    return PairLayout(
        tuple(ids[: first[0]]),
        tuple(ids[first[-1] + 1 : second[0]]),
        tuple(ids[second[-1] + 1 :]),
    )


@dataclass(frozen=True)
class Frame:
    """The special tokens around a single text."""

    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def tokens(self) -> int:
        return len(self.before) + len(self.after)

    def framed(self, ids: Sequence[int]) -> list[int]:
        return [*self.before, *ids, *self.after]


def frame(tokenizer: Tokenizer) -> Frame:
    """What the tokenizer sets around a text, read off one of a letter."""
    text = tokenizer.backend.encode("x")
    inside = [at for at, side in enumerate(text.sequence_ids) if side == 0]
    return Frame(tuple(text.ids[: inside[0]]), tuple(text.ids[inside[-1] + 1 :]))


def has_types(model: spec.Model) -> bool:
    """Whether the model tells first and second text apart by token types."""
    stack = model.encoder
    embedding = None if stack is None else stack.embedding
    return isinstance(embedding, spec.TokenEmbedding) and embedding.types > 1


# -- windows over the second text ------------------------------------------------------------------


@dataclass(frozen=True)
class Window:
    """A question with tokens `first` to `first + tokens` of its context, which begin at position
    `second` of `ids`."""

    ids: list[int]
    second: int
    first: int
    tokens: int


@dataclass(frozen=True)
class Pair:
    """A question and its context. `room` is how many tokens of the context fit beside the question,
    `places` are the characters of all of them (N x 2). `question_tokens` counts what the question
    has, also where it is cut because it would take more than half of what is read."""

    layout: PairLayout
    question: list[int]
    context: Sequence[int]
    places: np.ndarray
    room: int
    question_tokens: int

    @property
    def question_lost(self) -> int:
        return self.question_tokens - len(self.question)

    def window(self, first: int) -> Window:
        """The window that begins at this token of the context."""
        part = self.context[first : first + self.room]
        ids, second = self.layout.joined(self.question, part)
        return Window(ids, second, first, len(part))

    def length(self, first: int) -> int:
        """How many ids the window that begins at this token has."""
        part = min(self.room, len(self.context) - first)
        return self.layout.tokens + len(self.question) + part

    def firsts(self, stride: int) -> range:
        """Where windows over the whole context begin that share `stride` tokens (half of one at
        most); there is at least one, also of no tokens."""
        step = self.room - min(stride, self.room // 2)
        count = 1 + max(0, -(-(len(self.context) - self.room) // step))
        return range(0, count * step, step)

    def windows(self, stride: int) -> list[Window]:
        """All of these windows."""
        return [self.window(first) for first in self.firsts(stride)]


def pair_up(rows: Sequence[Values], tokenizer: Tokenizer, setup: Setup) -> Iterator[Pair]:
    """Each row's `question` with its `context`."""
    layout, limit = pair_layout(tokenizer), setup.limits.source
    room = limit - layout.tokens
    if room < 4:
        raise BadOption(f"--max-source {limit} leaves no room for a question and a text")
    questions = tokenizer.encode_many([row["question"].strip() for row in rows], special=False)
    contexts = list(dict.fromkeys(row["context"] for row in rows))  # many questions about each
    found = zip(contexts, tokens_of(contexts, tokenizer), strict=True)
    read = {text: (tokens.ids, tokens.places) for text, tokens in found}
    for row, question in zip(rows, questions, strict=True):
        asked = question[: room // 2]
        yield Pair(layout, asked, *read[row["context"]], room - len(asked), len(question))


def stride(setup: Setup) -> int:
    """How many tokens neighbouring windows share."""
    return int(setup.options.get("stride", STRIDE))
