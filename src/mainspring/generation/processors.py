"""Logits processors: what may be written next, and how likely it is made.

A processor takes the scores (BV, float32, which it may change in place) and what has been written
so far, and returns scores. They are logits in greedy decoding and sampling, log-probabilities in
beam search. Which ones apply, in which order and with which arithmetic follows transformers'
`generate`, so that the same options give the same tokens.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mainspring.errors import BadOption
from mainspring.generation.options import GenerationOptions, as_ids
from mainspring.generation.top import top_k

if TYPE_CHECKING:
    from mainspring.generation.constrained import Constraint


@dataclass(frozen=True)
class Written:
    """What stands when the next token is chosen.

    `ids_BT` are prompt and continuation of each row still being written, `sources_B` the number
    of the input that each row belongs to.
    """

    ids_BT: Tensor
    sources_B: Tensor

    @property
    def length(self) -> int:
        return self.ids_BT.shape[1]


Processor = Callable[[Tensor, Written], Tensor]


@dataclass(frozen=True)
class RepetitionPenalty:
    """Makes tokens already written less likely by `penalty` (Keskar et al., 2019, section 4.1).

    `pads` is the number of padding tokens on the left of each input's prompt.
    """

    penalty: float
    pads: Tensor | None = None

    def __call__(self, scores: Tensor, written: Written) -> Tensor:
        ids = written.ids_BT
        if self.pads is not None:
            pads = self.pads[written.sources_B, None]
            is_pad = torch.arange(written.length, device=ids.device) < pads
            first = ids.gather(1, pads.clamp(max=written.length - 1))
            ids = torch.where(is_pad, first, ids)  # counted twice is counted once
        return _penalise(scores, ids, self.penalty)


@dataclass(frozen=True)
class EncoderRepetitionPenalty:
    """Makes tokens of the input more likely by `penalty`."""

    penalty: float
    encoder_ids: Tensor

    def __call__(self, scores: Tensor, written: Written) -> Tensor:
        return _penalise(scores, self.encoder_ids[written.sources_B], 1 / self.penalty)


def _penalise(scores: Tensor, ids: Tensor, penalty: float) -> Tensor:
    score = scores.gather(1, ids)
    return scores.scatter_(1, ids, torch.where(score < 0, score * penalty, score / penalty))


@dataclass(frozen=True)
class NoRepeatNgram:
    """No `size` tokens in a row occur twice (Paulus et al., 2017, section 2.5).

    With `encoder_ids` those of the input must not occur in the output instead.
    """

    size: int
    encoder_ids: Tensor | None = None

    def __call__(self, scores: Tensor, written: Written) -> Tensor:
        ids, tail = written.ids_BT, self.size - 1
        if self.encoder_ids is not None:
            source = self.encoder_ids[written.sources_B]
        else:
            source = ids
        if source.shape[1] < self.size or written.length < tail:
            return scores
        ends = source[:, tail:]
        repeats = torch.ones_like(ends, dtype=torch.bool)
        for i in range(tail):  # n - 1 comparisons, whatever the length
            now = ids[:, written.length - tail + i, None]
            repeats &= source[:, i : source.shape[1] - tail + i] == now
        # The lesser of a score and -inf where it would repeat, of it and +inf elsewhere.
        bounds = torch.full_like(ends, math.inf, dtype=scores.dtype)
        bounds.masked_fill_(repeats, -math.inf)
        return scores.scatter_reduce_(1, ends, bounds, "amin")


@dataclass(frozen=True)
class SequenceBias:
    """Adds a bias to the token that would complete each of `sequences`."""

    sequences: tuple[tuple[tuple[int, ...], float], ...]

    def __call__(self, scores: Tensor, written: Written) -> Tensor:
        for (*start, last), bias in self.sequences:
            if not start:
                scores[:, last] += bias
            elif len(start) <= written.length:
                tail = written.ids_BT[:, -len(start) :]
                matches = (tail == torch.tensor(start, device=tail.device)).all(1)
                scores[:, last] += torch.where(matches, bias, 0.0)
        return scores


@dataclass(frozen=True)
class Suppress:
    """Bans tokens: at every length, at one length (`only_at`), or below a length (`below`)."""

    ids: tuple[int, ...]
    only_at: int | None = None
    below: int | None = None

    def __call__(self, scores: Tensor, written: Written) -> Tensor:
        if self.only_at is not None and written.length != self.only_at:
            return scores
        if self.below is not None and written.length >= self.below:
            return scores
        scores[:, list(self.ids)] = -math.inf
        return scores


@dataclass(frozen=True)
class Force:
    """Allows nothing but `ids` at one length."""

    ids: tuple[int, ...]
    only_at: int

    def __call__(self, scores: Tensor, written: Written) -> Tensor:
        if written.length == self.only_at:
            scores.fill_(-math.inf)
            scores[:, list(self.ids)] = 0.0
        return scores


@dataclass(frozen=True)
class RemoveInvalid:
    """NaN becomes 0, infinities the largest and lowest finite number."""

    def __call__(self, scores: Tensor, written: Written) -> Tensor:
        return scores.nan_to_num_(nan=0.0)


@dataclass(frozen=True)
class ExponentialDecay:
    """From length `start` on the end-of-sequence tokens grow likelier by `factor` per token."""

    start: int
    factor: float
    eos_ids: tuple[int, ...]

    def __call__(self, scores: Tensor, written: Written) -> Tensor:
        if written.length > self.start:
            ids = list(self.eos_ids)
            ends = scores[:, ids]
            growth = ends.abs() * (self.factor ** (written.length - self.start) - 1)
            scores[:, ids] = ends + growth.masked_fill(~ends.isfinite(), 0.0)
        return scores


# -- sampling only: `keep` is the least number of tokens left to choose from --------------------


@dataclass(frozen=True)
class Temperature:
    """Divides the scores: below 1 sharper, above 1 flatter."""

    temperature: float

    def __call__(self, scores: Tensor, written: Written) -> Tensor:
        return scores.div_(self.temperature)


@dataclass(frozen=True)
class TopK:
    """Leaves the `k` likeliest tokens, and those as likely as the last (Fan et al., 2018)."""

    k: int
    keep: int = 1

    def __call__(self, scores: Tensor, written: Written) -> Tensor:
        k = min(max(self.k, self.keep), scores.shape[-1])
        return scores.masked_fill_(scores < top_k(scores, k)[0][:, -1:], -math.inf)


@dataclass(frozen=True)
class TopP:
    """Leaves the likeliest tokens that together hold the share `p` (Holtzman et al., 2020)."""

    p: float
    keep: int = 1

    def __call__(self, scores: Tensor, written: Written) -> Tensor:
        left = int((scores > -math.inf).sum(-1).max())  # after a top-k few are
        left = min(max(left, self.keep), scores.shape[-1])
        falling, places = top_k(scores, left)
        rising, places = falling.flip(-1), places.flip(-1)
        unlikely = rising.softmax(-1).cumsum(-1) <= 1 - self.p
        unlikely[:, -self.keep :] = False
        return scores.scatter_(1, places, rising.masked_fill(unlikely, -math.inf))


@dataclass(frozen=True)
class MinP:
    """Leaves tokens at least `p` times as likely as the likeliest (Nguyen et al., 2024)."""

    p: float
    keep: int = 1

    def __call__(self, scores: Tensor, written: Written) -> Tensor:
        probabilities = scores.softmax(-1)
        unlikely = probabilities < self.p * probabilities.amax(-1, keepdim=True)
        best = top_k(probabilities, min(self.keep, scores.shape[-1]))[1]
        return scores.masked_fill_(unlikely.scatter_(1, best, False), -math.inf)


@dataclass(frozen=True)
class Renormalise:
    """Log-probabilities of what is left."""

    def __call__(self, scores: Tensor, written: Written) -> Tensor:
        return scores.log_softmax(-1)


def build_processors(
    options: GenerationOptions,
    *,
    prompt: int,
    vocabulary: int,
    encoder_ids: Tensor | None = None,
    pads: Tensor | None = None,
    constraint: "Constraint | None" = None,
    rules: Sequence[Processor] = (),
) -> list[Processor]:
    """The processors that `options` ask for, in order.

    `prompt` is the length of the prompt in tokens, `vocabulary` the number of logits.
    `encoder_ids` are the inputs BS (the prompt itself where there is no encoder), `pads` the
    number of padding tokens on the left of each prompt. `rules` are those of the kind of text, such
    as timestamps. A `constraint` decides last but for the choice by chance, and no end is forced
    before it is fulfilled.
    """
    o, eos = options, options.eos_ids
    longest, shortest = o.limits(prompt)
    made: list[Processor] = []

    def known(name: str, ids: Sequence[int]) -> tuple[int, ...]:
        beyond = [i for i in ids if not 0 <= i < vocabulary]
        if beyond:
            raise BadOption(
                f"`{name}` holds token id {beyond[0]}, and the model's vocabulary has {vocabulary}"
            )
        return tuple(ids)

    def some(ids: Sequence[int]) -> tuple[int, ...]:
        return tuple(i for i in ids if 0 <= i < vocabulary)

    if o.sequence_bias:
        for sequence, _ in o.sequence_bias:
            known("sequence_bias", sequence)
        made.append(SequenceBias(o.sequence_bias))
    if o.encoder_repetition_penalty != 1.0:
        ids = _needed("encoder_repetition_penalty", encoder_ids)
        made.append(EncoderRepetitionPenalty(o.encoder_repetition_penalty, ids))
    if o.repetition_penalty != 1.0:
        made.append(RepetitionPenalty(o.repetition_penalty, pads))
    if o.no_repeat_ngram_size:
        made.append(NoRepeatNgram(o.no_repeat_ngram_size))
    if o.encoder_no_repeat_ngram_size:
        ids = _needed("encoder_no_repeat_ngram_size", encoder_ids)
        made.append(NoRepeatNgram(o.encoder_no_repeat_ngram_size, ids))
    if o.bad_words_ids:
        words = [known("bad_words_ids", ids) for ids in o.bad_words_ids]
        single = tuple(ids[0] for ids in words if len(ids) == 1 and ids[0] not in eos)
        if single:
            made.append(Suppress(single))
        made.append(SequenceBias(tuple((ids, -math.inf) for ids in words if len(ids) > 1)))
    if shortest > prompt and some(eos):
        made.append(Suppress(some(eos), below=shortest))
    if o.forced_bos_token_id is not None:
        made.append(Force(known("forced_bos_token_id", [o.forced_bos_token_id]), only_at=1))
    if o.forced_eos_token_id is not None and constraint is None:
        ends = known("forced_eos_token_id", as_ids(o.forced_eos_token_id))
        made.append(Force(ends, only_at=longest - 1))
    if o.remove_invalid_values:
        made.append(RemoveInvalid())
    if o.exponential_decay_length_penalty is not None:
        start, factor = o.exponential_decay_length_penalty
        made.append(ExponentialDecay(prompt + start, factor, some(eos)))
    if o.suppress_tokens and some(o.suppress_tokens):
        made.append(Suppress(some(o.suppress_tokens)))
    first = prompt if prompt > 1 or o.forced_bos_token_id is None else prompt + 1
    if o.begin_suppress_tokens and some(o.begin_suppress_tokens):
        made.append(Suppress(some(o.begin_suppress_tokens), only_at=first))
    made += rules
    if constraint is not None:
        made.append(constraint.processor(first, vocabulary, eos, branches=o.num_beams > 1))
    if o.do_sample:
        # A beam must have something to go on with when all the likeliest tokens end it.
        keep = 1 if o.num_beams == 1 else max(2, len(eos) + 1)
        if o.temperature != 1.0:
            made.append(Temperature(o.temperature))
        if o.top_k:
            made.append(TopK(o.top_k, keep))
        if o.top_p < 1.0:
            made.append(TopP(o.top_p, keep))
        if o.min_p is not None:
            made.append(MinP(o.min_p, keep))
    if o.renormalize_logits:
        made.append(Renormalise())
    return made


def process(processors: Sequence[Processor], scores: Tensor, written: Written) -> Tensor:
    """What all `processors` make of `scores`, which they may overwrite."""
    for processor in processors:
        scores = processor(scores, written)
    return scores


def _needed(name: str, encoder_ids: Tensor | None) -> Tensor:
    if encoder_ids is None:
        raise BadOption(f"`{name}` needs inputs that are token ids, and this model's are not")
    return encoder_ids
