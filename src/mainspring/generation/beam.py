"""Beam search (Graves, 2012, section 3), with the semantics of transformers' `generate`.

Each step scores all continuations of an input's `num_beams` sequences, takes the best
`(1 + number of eos tokens) * num_beams`, at least twice the beams, and splits them: those that end
go to the finished ones, if they are among the best `num_beams`; the best others are continued.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mainspring.generation.options import GenerationOptions
from mainspring.generation.processors import Processor, Written, process
from mainspring.generation.state import State, repeated, staying
from mainspring.generation.stopping import Ending
from mainspring.generation.top import top_k

# A score that no sequence of tokens has: what is not there, or may not be chosen.
NONE = -1.0e9


@dataclass
class Finished:
    """The best finished sequences of each input so far: N inputs, W beams, best first.

    `scores` NW, `ids` NWT (prompt included), `tokens` NW (new ones), `real` NW (False: a place
    still empty).
    """

    scores: Tensor
    ids: Tensor
    tokens: Tensor
    real: Tensor

    def add(self, scores: Tensor, ids: Tensor, tokens: int, real: Tensor) -> None:
        """Merges candidates (NC, ids NCT) of `tokens` new tokens; `real` tells which end now."""
        lengths = torch.full_like(real, tokens, dtype=self.tokens.dtype)
        self.scores, best = torch.cat([self.scores, scores], 1).topk(self.scores.shape[1])
        self.ids = _pick(torch.cat([self.ids, ids], 1), best)
        self.tokens = torch.cat([self.tokens, lengths], 1).gather(1, best)
        self.real = torch.cat([self.real, real], 1).gather(1, best)

    @property
    def full(self) -> Tensor:
        """Which inputs have `num_beams` finished sequences, as N."""
        return self.real.all(1)

    def select(self, inputs: Tensor) -> "Finished":
        return Finished(
            self.scores[inputs], self.ids[inputs], self.tokens[inputs], self.real[inputs]
        )

    def put(self, inputs: Tensor, other: "Finished") -> None:
        """Writes `other` to the places `inputs`."""
        self.scores[inputs], self.ids[inputs] = other.scores, other.ids
        self.tokens[inputs], self.real[inputs] = other.tokens, other.real


def beam_search(
    state: State,
    prompt: Tensor,
    options: GenerationOptions,
    processors: list[Processor],
    ending: Ending,
) -> tuple[Tensor, Tensor, Tensor]:
    """(sequences, new tokens of each, scores), `num_return_sequences` an input, best first."""
    beams, penalty, device = options.num_beams, options.length_penalty, prompt.device
    early = options.early_stopping is True
    first = prompt.shape[1]
    longest, _ = options.limits(first)
    choose = _chooser(options, device)

    numbers = torch.arange(len(prompt), device=device)  # which input stands at each place
    ids = prompt.new_full((len(prompt), beams, longest), _filler(options))
    ids[:, :, :first] = prompt[:, None]
    scores = torch.full((len(prompt), beams), NONE, device=device)
    scores[:, 0] = 0.0  # the beams still are the same: one of them is continued
    found = Finished(
        torch.full_like(scores, NONE),
        ids.clone(),
        torch.zeros_like(ids[:, :, 0]),
        torch.zeros_like(scores, dtype=torch.bool),
    )
    answer = found.select(numbers)
    hopeful = torch.ones_like(numbers, dtype=torch.bool)  # a running beam may yet get in

    logits = repeated(state.advance(prompt), beams)
    state.widen(beams)
    for length in range(first, longest):
        tokens = length + 1 - first
        if length > first:
            logits = state.advance(ids[:, :, length - 1].reshape(-1, 1))
        log_probabilities = logits.log_softmax(-1, dtype=torch.float32)
        if processors:
            written = Written(ids[:, :, :length].flatten(0, 1), repeated(numbers, beams))
            log_probabilities = process(processors, log_probabilities, written)
        best, parents, newest = choose(log_probabilities, scores)

        ended = ending.is_eos(newest)
        if ending.stops:
            grown = _grown(ids, parents, newest, length)[:, :, : length + 1]
            ended |= ending.is_stopped(grown.flatten(0, 1)).view_as(ended)
        if tokens == longest - first:
            ended = torch.ones_like(ended)
        if bool(ended.any()):
            # Only the best `beams` candidates may finish; the others are there to go on from.
            real = ended.clone()
            real[:, beams:] = False
            real &= best > -torch.inf  # a banned token ends nothing
            closed = ~hopeful | (found.full & early)
            final = best / tokens**penalty + NONE * ((~real).float() + closed[:, None])
            found.add(final, _grown(ids, parents, newest, length), tokens, real)
            if tokens == longest - first:
                break
        scores, order = (best + NONE * ended).topk(beams)
        parents, newest = parents.gather(1, order), newest.gather(1, order)
        _follow(state, ids[:, :, :length], parents)
        ids = _grown(ids, parents, newest, length)

        if not bool(found.full.any()):
            continue
        hopeful = hopeful & _may_improve(scores, found, tokens, longest - first, options)
        closed = ~hopeful | (found.full & early)
        if bool(closed.all()):
            break
        if bool(closed.any()):
            answer.put(numbers[closed], found.select(closed))
            places = staying(~closed)
            state.select(places)
            found = found.select(places)
            numbers, ids, scores, hopeful = (t[places] for t in (numbers, ids, scores, hopeful))
    answer.put(numbers, found)

    returned = slice(options.num_return_sequences)
    lengths = answer.tokens[:, returned].flatten()
    sequences = answer.ids[:, returned].flatten(0, 1)[:, : first + int(lengths.max())]
    return sequences, lengths, answer.scores[:, returned].flatten()


def _chooser(
    options: GenerationOptions, device: torch.device
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """choose(log-probabilities (NW)V, scores NW) -> (scores, beams, tokens) of candidates, NC."""
    count = max(2, 1 + len(options.eos_ids)) * options.num_beams

    def likeliest(log_probabilities: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        each = min(count, log_probabilities.shape[1])  # no beam can give more
        values, tokens = top_k(log_probabilities, each)
        values = values.view(*scores.shape, each) + scores[..., None]
        best, places = values.flatten(1).topk(count)
        return best, places // each, tokens.view(len(scores), -1).gather(1, places)

    generator = None
    if options.seed is not None:
        generator = torch.Generator(device).manual_seed(options.seed)

    def drawn(log_probabilities: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        vocabulary = log_probabilities.shape[1]
        values = log_probabilities.view(*scores.shape, vocabulary) + scores[..., None]
        values = values.flatten(1)
        places = values.softmax(-1).multinomial(count, generator=generator)
        return values.gather(1, places), places // vocabulary, places % vocabulary

    return drawn if options.do_sample else likeliest


def _follow(state: State, ids: Tensor, parents: Tensor) -> None:
    """Lets each beam's cache go on from its parent's. `ids` NWT are those the cache holds.

    What beams have in common is the same in their caches: copying starts where they part.
    """
    differ = (_pick(ids, parents) != ids).flatten(0, 1).any(0)
    if bool(differ.any()):
        offset = torch.arange(len(parents), device=parents.device)[:, None] * parents.shape[1]
        state.reorder((parents + offset).flatten(), int(differ.int().argmax()))


def _may_improve(
    scores: Tensor, found: Finished, tokens: int, most: int, options: GenerationOptions
) -> Tensor:
    """Which inputs have a running beam that may yet beat their worst finished sequence, as N.

    The best that a beam can still reach is guessed from the length it has now; under
    `early_stopping="never"`, where longer is better, from the greatest length.
    """
    penalty = options.length_penalty
    length = most if options.early_stopping == "never" and penalty > 0 else tokens
    reachable = scores[:, 0] / length**penalty
    return ~found.full | (reachable > found.scores.amin(1))


def _filler(options: GenerationOptions) -> int:
    """What fills a row up after its end.

    As in transformers: where padding is token 0, the end-of-sequence token takes its place.
    """
    if options.eos_ids:
        return options.pad_id or options.eos_ids[0]
    return -1


def _grown(ids: Tensor, parents: Tensor, newest: Tensor, length: int) -> Tensor:
    """The ids NWT of `parents` with their next token `newest` (both NC) at `length`: NCT."""
    grown = _pick(ids, parents)
    grown[:, :, length] = newest
    return grown


def _pick(x: Tensor, places: Tensor) -> Tensor:
    """x[n, places[n, c]] for NWT and NC: NCT."""
    return x.gather(1, places[..., None].expand(-1, -1, x.shape[2]))
