"""The decode loop: model step, processors, choice, stopping.

    prompt ──> advance ──> process ──> choose ──> written ──> finished?
                  ^                                   │
                  └───────────── next token ──────────┘

Greedy decoding and sampling are here, beam search in `beam`. Finished rows leave the batch: no
work is done for them, and the tokens of the rows that stay do not depend on them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mainspring import spec
from mainspring.core.cache import Cache
from mainspring.core.model import Transformer
from mainspring.errors import BadOption, Mismatch
from mainspring.generation.beam import beam_search
from mainspring.generation.choice import chooser
from mainspring.generation.constrained import Constraint
from mainspring.generation.options import GenerationOptions
from mainspring.generation.processors import Processor, Written, build_processors, process
from mainspring.generation.speculative import Draft, check_draft, speculative_steps
from mainspring.generation.state import State, members, repeated, start, staying
from mainspring.generation.stopping import Ending, stop_reasons

Decode = Callable[[list[int]], str]


@dataclass(frozen=True)
class Generated:
    """What was generated, laid out as by transformers' `generate`.

    `sequences` (int64) are prompt (or decoder start token) and continuation, filled up on the
    right; the `num_return_sequences` of an input stand side by side. `stops` says why each row
    ended: "eos", "length" or "stop" (a stop string). `tokens` counts each row's new tokens, the
    end-of-sequence token included. `scores` are those of a beam search: the sum of
    log-probabilities / new tokens ** length_penalty.
    """

    sequences: Tensor
    stops: list[str]
    tokens: list[int]
    prompt: int
    scores: Tensor | None = None

    def new_ids(self, row: int) -> list[int]:
        """The new tokens of one row, without what fills it up."""
        return self.sequences[row, self.prompt : self.prompt + self.tokens[row]].tolist()


def generate(
    model: Transformer,
    input_ids: Tensor,
    attention_mask: Tensor | None,
    options: GenerationOptions,
    on_tokens: Callable[[Tensor, Tensor], object] | None = None,
    *,
    decoder_input_ids: Tensor | None = None,
    decode: Decode | None = None,
    constraint: Constraint | None = None,
    draft: Draft | None = None,
    cache: Cache | None = None,
    memory: Tensor | None = None,
    rules: Sequence[Processor] = (),
) -> Generated:
    """Continues prompts (BT), or writes from an encoder's inputs.

    `attention_mask` is 1 at real tokens; prompts of a decoder-only model are padded on the left.
    `decoder_input_ids` (BT) is what an encoder-decoder's output begins with. `on_tokens(rows, ids)`
    is called after each step of greedy decoding and sampling. `decode` turns ids into text and is
    needed for `stop_strings`. `constraint` is what the output must fit, `draft` a smaller model
    that writes ahead, `cache` one that holds the beginning of the prompt already (see `session`).
    `memory` (BSD) is what the encoder made of the inputs, where it has read them already; `rules`
    are processors beyond those of the options. BadOption where the options do not fit the input.
    """
    ending = Ending(options, decode)
    scores = None
    with torch.inference_mode():
        begun = _begin(
            model,
            input_ids,
            attention_mask,
            options,
            decoder_input_ids,
            constraint,
            draft,
            cache,
            memory,
            rules,
        )
        prompt = begun.prompt
        if options.num_beams > 1:
            sequences, tokens, scores = beam_search(
                begun.state, prompt, options, begun.processors, ending
            )
        else:
            sequences, tokens = _room(prompt, options)
            for rows, ids in begun.steps(options, ending, sequences, tokens):
                if on_tokens is not None:
                    on_tokens(rows, ids)
            sequences = sequences[:, : prompt.shape[1] + int(tokens.max())]
    # Copies made outside inference mode are ordinary tensors, which training can use.
    counts = tokens.tolist()
    return Generated(
        sequences.clone(),
        stop_reasons(sequences, prompt.shape[1], counts, ending),
        counts,
        prompt.shape[1],
        None if scores is None else scores.clone(),
    )


@torch.inference_mode()
def stream(
    model: Transformer,
    input_ids: Tensor,
    attention_mask: Tensor | None,
    options: GenerationOptions,
    *,
    decoder_input_ids: Tensor | None = None,
    decode: Decode | None = None,
    constraint: Constraint | None = None,
    draft: Draft | None = None,
    cache: Cache | None = None,
) -> Iterator[int]:
    """The new tokens of one input, each as soon as it is chosen; see `generate`."""
    if options.num_beams > 1 or options.num_return_sequences > 1 or len(input_ids) > 1:
        raise BadOption(
            "streaming gives one sequence of one input, greedy or sampled: a beam search knows "
            "its first word only at the end"
        )
    ending = Ending(options, decode)
    begun = _begin(
        model, input_ids, attention_mask, options, decoder_input_ids, constraint, draft, cache
    )
    sequences, tokens = _room(begun.prompt, options)
    for _, ids in begun.steps(options, ending, sequences, tokens):
        yield int(ids)


@dataclass(frozen=True)
class _Begun:
    """All that is there before the prompt is read."""

    state: State
    prompt: Tensor
    processors: list[Processor]
    draft: Draft | None
    drafting: State | None

    def steps(
        self, options: GenerationOptions, ending: Ending, sequences: Tensor, tokens: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See `_steps`."""
        what = options, self.processors, ending, sequences, tokens
        if self.draft is None or self.drafting is None:
            return _steps(self.state, self.prompt, *what)
        first = self.prompt.shape[1]
        return speculative_steps(self.state, self.drafting, self.draft, first, *what)


def _begin(
    model: Transformer,
    inputs: Tensor,
    attention_mask: Tensor | None,
    options: GenerationOptions,
    decoder_input_ids: Tensor | None,
    constraint: Constraint | None,
    draft: Draft | None,
    cache: Cache | None,
    memory: Tensor | None = None,
    rules: Sequence[Processor] = (),
) -> _Begun:
    if cache is not None and (model.encoder is not None or len(inputs) > 1):
        raise Mismatch("a cache is read on from by one row of a decoder-only model")
    state, prompt = start(model, inputs, attention_mask, options, decoder_input_ids, cache, memory)
    head = dict(model.spec.heads)["vocabulary"]
    assert isinstance(head, spec.VocabularyHead)
    processors = build_processors(
        options,
        prompt=prompt.shape[1],
        vocabulary=head.vocabulary,
        encoder_ids=None if inputs.is_floating_point() else inputs,
        pads=None if state.keep_BS is None else state.keep_BS.int().argmax(1),
        constraint=constraint,
        rules=rules,
    )
    drafting = None
    if draft is not None:
        check_draft(model, draft, options, len(prompt))
        drafting, _ = start(draft.model, inputs, attention_mask, options, decoder_input_ids)
    return _Begun(state, prompt, processors, draft, drafting)


def _room(prompt: Tensor, options: GenerationOptions) -> tuple[Tensor, Tensor]:
    """(the prompts with room for all that may follow, the most new tokens of each row)."""
    longest, _ = options.limits(prompt.shape[1])
    prompt = repeated(prompt, options.num_return_sequences)
    sequences = prompt.new_full((len(prompt), longest), options.pad_id or 0)
    sequences[:, : prompt.shape[1]] = prompt
    return sequences, prompt.new_full((len(prompt),), longest - prompt.shape[1])


def _steps(
    state: State,
    prompt: Tensor,
    options: GenerationOptions,
    processors: list[Processor],
    ending: Ending,
    sequences: Tensor,
    tokens: Tensor,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Fills `sequences` one position at a time, and `tokens` with the lengths of rows that end.

    After each step gives the numbers of the rows that were written to, and their new ids.
    """
    first, longest, pad = prompt.shape[1], sequences.shape[1], options.pad_id or 0
    choose = chooser(options, len(sequences), longest - first, prompt.device)
    rows = torch.arange(len(sequences), device=prompt.device)  # which row stands at each place
    ids = torch.empty_like(rows)
    done = torch.zeros_like(rows, dtype=torch.bool)
    waiting = False  # whether rows are done and wait for others that read the same input

    # Each prompt is read once; then every sequence of an input goes its own way from there.
    sources = torch.arange(len(prompt), device=prompt.device)
    logits = state.advance(prompt[:, state.cache.length :])
    if processors:
        scores = logits.to(torch.float32, copy=True)
        logits = process(processors, scores, Written(prompt, sources))
    sources, logits = (repeated(t, options.num_return_sequences) for t in (sources, logits))
    state.widen(options.num_return_sequences)

    for length in range(first, longest):
        if length > first:
            logits = state.advance(ids[:, None])
            if processors:
                scores = logits.to(torch.float32, copy=True)
                written = Written(sequences[rows, :length], sources[rows])
                logits = process(processors, scores, written)
        ids = choose(logits, rows, length - first)
        if waiting:
            ids = ids.masked_fill(done, pad)
        sequences[rows, length] = ids
        yield (rows[~done], ids[~done]) if waiting else (rows, ids)

        ended = ending.is_eos(ids)
        if ending.stops:
            ended = ended | ending.is_stopped(sequences[rows, : length + 1])
        if waiting:
            ended = ended & ~done
        if not ended.any():
            continue
        tokens[rows[ended]] = length + 1 - first
        done = done | ended
        left = done.view(-1, state.group).all(1)
        if left.all():
            return
        if left.any():
            inputs = staying(~left)
            state.select(inputs)
            places = members(inputs, state.group)
            rows, ids, done = rows[places], ids[places], done[places]
        waiting = bool(done.any())
