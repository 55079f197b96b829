"""Speculative decoding (Leviathan et al., 2023; Chen et al., 2023): a small model drafts some
tokens, the model reads them in one pass and keeps those that it would have written itself.

Greedy output is that of the model alone, token for token (but where rounding decides between two
equally likely ones: several positions are computed together); sampled output follows its
probabilities exactly. One row at a time, since rows would keep different numbers of tokens.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mainspring.core.model import Transformer
from mainspring.errors import BadOption, Mismatch
from mainspring.generation.choice import draw_by, random_numbers
from mainspring.generation.options import GenerationOptions
from mainspring.generation.processors import Processor, Written, process
from mainspring.generation.state import State
from mainspring.generation.stopping import Ending
from mainspring.generation.top import argmax


@dataclass
class Draft:
    """A smaller model with the same vocabulary, which writes `ahead` tokens at a time.

    `proposed` and `accepted` count its tokens over all calls.
    """

    model: Transformer
    ahead: int = 4
    proposed: int = 0
    accepted: int = 0

    def __post_init__(self) -> None:
        if self.ahead < 1:
            raise BadOption(f"a draft writes 1 token ahead or more, and not {self.ahead}")

    @property
    def share(self) -> float:
        """The share of proposed tokens that were accepted; 0 before the first."""
        return self.accepted / max(self.proposed, 1)


def check_draft(model: Transformer, draft: Draft, options: GenerationOptions, rows: int) -> None:
    """BadOption or Mismatch where the draft cannot be used."""
    if rows > 1 or options.num_beams > 1 or options.num_return_sequences > 1:
        raise BadOption("a draft model serves one sequence of one input, greedy or sampled")
    ours, theirs = model.spec.vocabulary_head, draft.model.spec.vocabulary_head
    if theirs is None or draft.model.decoder is None:
        raise Mismatch("the draft model cannot write: it has no decoder with a vocabulary head")
    if ours is None or ours.vocabulary != theirs.vocabulary:
        raise Mismatch(
            f"the draft model has a vocabulary of {theirs.vocabulary} tokens, the model one of "
            f"{ours.vocabulary if ours else 0}: they must share one"
        )
    if (model.encoder is None) != (draft.model.encoder is None):
        raise Mismatch("only one of the model and the draft has an encoder")


def speculative_steps(
    state: State,
    drafting: State,
    draft: Draft,
    first: int,
    options: GenerationOptions,
    processors: list[Processor],
    ending: Ending,
    sequences: Tensor,
    tokens: Tensor,
) -> Iterator[tuple[Tensor, Tensor]]:
    """As the plain steps of `search`, for the one row of `sequences`, which begins with a prompt of
    `first` tokens: fills it, and `tokens` with its length where it ends."""
    longest, row = sequences.shape[1], torch.zeros(1, dtype=torch.long, device=sequences.device)
    decide = _decider(options, longest, sequences.device)

    def scored(logits_1V: Tensor, length: int) -> Tensor:
        scores = logits_1V.to(torch.float32, copy=True)
        return process(processors, scores, Written(sequences[:, :length], row))

    length = first  # of what is written for good
    while length < longest:
        # The pass over the drafted tokens gives one more than it accepts: that of the model.
        guesses: list[Tensor] = []
        while len(guesses) < min(draft.ahead, longest - length - 1):
            at = length + len(guesses)
            logits = drafting.advance(sequences[:, drafting.cache.length : at])
            guesses.append(scored(logits, at))
            guess = decide.guess(guesses[-1], at)
            sequences[:, at] = guess
            if bool(ending.is_eos(guess)):
                break
        unread = sequences[:, state.cache.length : length + len(guesses)]
        logits_TV = state.read(unread, last=len(guesses) + 1)[0]
        draft.proposed += len(guesses)
        for place, logits in enumerate(logits_TV):
            guessed = guesses[place] if place < len(guesses) else None
            newest, agreed = decide(scored(logits[None], length), guessed, sequences, length)
            draft.accepted += agreed
            if not agreed:
                # What was read from here on is forgotten at once: the caller may leave.
                state.cache.truncate(length)
                drafting.cache.truncate(length)
            sequences[:, length] = newest
            length += 1
            yield row, newest
            stopped = bool(ending.is_eos(newest))
            if ending.stops:
                stopped = stopped or bool(ending.is_stopped(sequences[:, :length]))
            if stopped:
                tokens[0] = length - first
                return
            if not agreed:
                break


@dataclass(frozen=True)
class _Decider:
    """Keeps a guess or replaces it.

    A sampled guess d is kept with the probability min(1, p(d) / q(d)), p being the model's
    probabilities and q the draft's; what replaces it is drawn by max(0, p - q). `chance` holds
    three random numbers for every position: of the guess, of keeping it, of what replaces it.
    """

    chance: Tensor | None

    def guess(self, scores: Tensor, at: int) -> Tensor:
        if self.chance is None:
            return argmax(scores)
        return draw_by(scores.softmax(-1), self.chance[0, at : at + 1])

    def __call__(
        self, scores: Tensor, guessed: Tensor | None, sequences: Tensor, at: int
    ) -> tuple[Tensor, bool]:
        """(the token at `at`, whether it is the guess). `guessed` are the draft's scores."""
        guess = sequences[:, at]
        if self.chance is None:
            best = argmax(scores)
            return best, guessed is not None and bool(best == guess)
        shares = scores.softmax(-1)
        if guessed is None:
            return draw_by(shares, self.chance[2, at : at + 1]), False
        believed = guessed.softmax(-1)
        ratio = shares[:, guess] / believed[:, guess]
        if bool(self.chance[1, at] < ratio):
            return guess.clone(), True
        left = (shares - believed).clamp(min=0)
        return draw_by(left, self.chance[2, at : at + 1]), False


def _decider(options: GenerationOptions, longest: int, device: torch.device) -> _Decider:
    if not options.do_sample:
        return _Decider(None)
    return _Decider(random_numbers(options, (3, longest), device))
