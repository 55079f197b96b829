"""Greedy decoding, sampling and streaming, against `transformers` and against themselves."""

import math
from collections import Counter

import pytest
import torch
from generation_oracle import (
    VOCABULARY,
    assert_same_tokens,
    decoder_only,
    ending_token,
    rows_with_padding,
    t5,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.errors import BadOption, Mismatch
from mainspring.generation.choice import draw
from mainspring.generation.options import GenerationOptions
from mainspring.generation.search import generate, stream

KINDS = ("plain", "gated")
ALL = ("plain", "gated", "gpt2", "llama")

# Every option that changes which tokens may come next, each off in most examples.
constraints = st.fixed_dictionaries(
    {},
    optional={
        "no_repeat_ngram_size": st.integers(1, 3),
        "repetition_penalty": st.sampled_from((0.8, 1.3, 2.0)),
        "encoder_repetition_penalty": st.sampled_from((0.7, 1.5)),
        "encoder_no_repeat_ngram_size": st.integers(1, 2),
        "min_new_tokens": st.integers(0, 8),
        "bad_words_ids": st.just([[5], [6, 7], [9, 9], [8, 3, 4]]),
        "suppress_tokens": st.just([3, 4]),
        "begin_suppress_tokens": st.just([3, 10, 20]),
        "forced_eos_token_id": st.just(2),
        "exponential_decay_length_penalty": st.just((3, 1.2)),
        "sequence_bias": st.just([[[7], 2.0], [[7, 8], -3.0]]),
        "renormalize_logits": st.just(True),
        "max_new_tokens": st.sampled_from((1, 2, 9)),
    },
)


@pytest.mark.parametrize("kind", ALL)
def test_greedy_tokens_are_those_of_transformers(kind):
    ids, mask = rows_with_padding(60, 17, 1, "either" if kind in KINDS else "left")
    got = assert_same_tokens(kind, ids, mask)
    ends = (got == ending_token(kind)).any(1)
    assert ends.any() and not ends.all()  # ragged: some rows leave, some stay to the end
    assert_same_tokens(kind, ids[:1], None)
    assert_same_tokens(kind, ids, mask, eos_token_id=None, pad_token_id=0)
    assert_same_tokens(kind, ids, mask, eos_token_id=[ending_token(kind), 4, 5])


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(st.sampled_from(ALL), st.integers(1, 4), st.integers(0, 1000), constraints)
def test_constrained_tokens_are_those_of_transformers(kind, beams, seed, options):
    ids, mask = rows_with_padding(9, 11, seed, "either" if kind in KINDS else "left")
    assert_same_tokens(kind, ids, mask, num_beams=beams, **options)


@pytest.mark.parametrize("beams", (1, 3))
def test_lengths_are_those_of_transformers(beams):
    ids, mask = rows_with_padding(12, 11, 4)
    for lengths in (
        {"max_new_tokens": None, "max_length": 7},
        {"max_new_tokens": None},  # neither: 20 new tokens
        {"min_length": 6},
        {"min_length": 6, "min_new_tokens": 2},
        {"forced_bos_token_id": 7},
        {"forced_bos_token_id": 7, "begin_suppress_tokens": [7, 8, 9]},
        {"decoder_start_token_id": list(range(12))},
    ):
        assert_same_tokens("plain", ids, mask, num_beams=beams, **lengths)


def test_an_output_can_be_begun_for_the_decoder():
    theirs, bundle = t5("plain")
    ids, mask = rows_with_padding(6, 11, 4)
    begun = torch.randint(2, VOCABULARY, (6, 4))
    for given_ids in (begun, torch.cat([torch.zeros(6, 1, dtype=torch.long), begun], 1)):
        for beams in (1, 3):
            options = {"eos_token_id": 16, "max_new_tokens": 9, "num_beams": beams}
            expected = theirs.generate(
                ids, attention_mask=mask, decoder_input_ids=given_ids, **options
            )
            merged = GenerationOptions.merge(bundle.generation, **options)
            got = generate(bundle.model, ids, mask, merged, decoder_input_ids=given_ids)
            assert torch.equal(got.sequences, expected)


@pytest.mark.parametrize("kind", ALL)
def test_padding_without_a_mask_is_treated_as_by_transformers(kind):
    ids, _ = rows_with_padding(9, 11, 5, "left")
    assert_same_tokens(kind, ids, None)


@pytest.mark.parametrize("kind", ("plain", "llama"))
@pytest.mark.parametrize("options", ({}, {"do_sample": True, "seed": 3, "temperature": 0.3}))
def test_rows_that_leave_change_no_other_row(kind, options):
    """Each row alone gives what it gives in a batch from which rows leave all the time."""
    _, bundle = t5(kind) if kind in KINDS else decoder_only(kind)
    ids, mask = rows_with_padding(24, 13, 6, "left")
    merged = GenerationOptions.merge(
        bundle.generation, eos_token_id=[ending_token(kind), 3, 4], max_new_tokens=20, **options
    )
    together = generate(bundle.model, ids, mask, merged)
    assert Counter(together.stops)["eos"] > 5
    if not options:
        for row in range(len(ids)):
            alone = generate(bundle.model, ids[row : row + 1], mask[row : row + 1], merged)
            assert alone.new_ids(0) == together.new_ids(row)
            assert alone.stops[0] == together.stops[row]
    else:  # a row's luck is its number's: the same rows before it may end or not
        endless = generate(
            bundle.model,
            ids,
            mask,
            GenerationOptions.merge(
                bundle.generation, eos_token_id=None, max_new_tokens=20, **options
            ),
        )
        for row in range(len(ids)):
            written = together.new_ids(row)
            assert endless.new_ids(row)[: len(written)] == written


class Spy:
    """Counts the rows of every decoder pass."""

    def __init__(self, model, monkeypatch):
        self.rows, self.caches, self.sources = [], [], []
        decode = model.decode

        def counted(ids, memory=None, *args, cache, **more):
            self.rows.append(len(ids))
            self.caches.append(cache)
            out = decode(ids, memory, *args, cache=cache, **more)
            self.sources.append(len(cache.layers[0].cross[0]))
            return out

        monkeypatch.setattr(model, "decode", counted)


@pytest.mark.parametrize("beams", (1, 4))
def test_finished_rows_leave_and_the_cache_never_grows(beams, monkeypatch):
    _, bundle = t5("plain")
    ids, mask = rows_with_padding(24, 13, 6)
    spy = Spy(bundle.model, monkeypatch)
    merged = GenerationOptions.merge(
        bundle.generation,
        eos_token_id=[16, 3, 4],
        max_new_tokens=20,
        num_beams=beams,
        early_stopping=True,
    )
    out = generate(bundle.model, ids, mask, merged)
    assert spy.rows[0] == 24  # the first pass reads each prompt once
    assert all(a >= b for a, b in zip(spy.rows[1:], spy.rows[2:], strict=False))
    assert 24 * beams >= spy.rows[1] > spy.rows[-1]
    # Cross-attention is kept once per input, whatever the number of beams.
    assert spy.sources[1:] == [rows // beams for rows in spy.rows[1:]]
    cache = spy.caches[-1]
    assert {layer.capacity for layer in cache.layers} == {20}
    if beams == 1:  # no work is done for rows that are finished
        assert sum(spy.rows) == sum(out.tokens)


@pytest.mark.parametrize("kind", ALL)
def test_each_token_is_the_best_of_a_full_pass(kind):
    _, bundle = t5(kind) if kind in KINDS else decoder_only(kind)
    ids, mask = rows_with_padding(12, 13, 7, "left")
    merged = GenerationOptions.merge(bundle.generation, eos_token_id=None, max_new_tokens=15)
    out = generate(bundle.model, ids, mask, merged)
    written = out.sequences
    with torch.no_grad():
        if kind in KINDS:
            logits = bundle.model(ids, mask, written).logits
        else:
            full = torch.cat([mask, torch.ones(12, 15, dtype=torch.long)], 1)
            at = (full.cumsum(1) - 1).clamp(min=0)
            logits = bundle.model(written, full, position_ids=at).logits
    assert torch.equal(logits[:, out.prompt - 1 : -1].argmax(-1), written[:, out.prompt :])


def test_what_is_returned_besides_the_tokens():
    _, bundle = t5("plain")
    ids, mask = rows_with_padding(24, 13, 6)
    merged = GenerationOptions.merge(bundle.generation, eos_token_id=16, max_new_tokens=20)
    steps = []
    out = generate(bundle.model, ids, mask, merged, lambda rows, new: steps.append((rows, new)))
    assert out.sequences.dtype == torch.long and not out.sequences.is_inference()
    assert out.prompt == 1 and out.scores is None
    seen = [[] for _ in ids]
    for rows, new in steps:
        for row, token in zip(rows.tolist(), new.tolist(), strict=True):
            seen[row].append(token)
    for row, stop in enumerate(out.stops):
        assert out.new_ids(row) == seen[row] and len(seen[row]) == out.tokens[row]
        assert (stop == "eos") == (seen[row][-1] == 16)
        assert stop == "eos" or len(seen[row]) == 20
        rest = out.sequences[row, 1 + out.tokens[row] :]
        assert (rest == 0).all()


# -- streaming ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("options", ({}, {"do_sample": True, "seed": 5}))
def test_a_stream_gives_the_same_tokens_one_by_one(kind, options):
    _, bundle = t5(kind) if kind in KINDS else decoder_only(kind)
    merged = GenerationOptions.merge(
        bundle.generation, eos_token_id=ending_token(kind), max_new_tokens=15, **options
    )
    for seed in range(4):
        ids, mask = rows_with_padding(1, 9, seed)
        streamed = stream(bundle.model, ids, mask, merged)
        first = next(streamed)
        assert not torch.is_inference_mode_enabled()  # between tokens the caller is untouched
        assert [first, *streamed] == generate(bundle.model, ids, mask, merged).new_ids(0)


def test_a_stream_is_of_one_row():
    _, bundle = t5("plain")
    ids, mask = rows_with_padding(2, 9, 0)
    for rows, options in ((2, {}), (1, {"num_beams": 2})):
        merged = GenerationOptions.merge(bundle.generation, **options)
        with pytest.raises(BadOption, match="one sequence of one input"):
            next(stream(bundle.model, ids[:rows], mask[:rows], merged))


# -- sampling ----------------------------------------------------------------------------------


def test_draws_follow_the_probabilities():
    torch.manual_seed(0)
    logits = torch.randn(5) * 2
    logits[2] = -math.inf
    chance = torch.rand(20_000, dtype=torch.float64)
    counts = draw(logits.expand(len(chance), 5), chance).bincount(minlength=5)
    p = logits.softmax(-1)
    spread = (p * (1 - p) / len(chance)).sqrt()
    assert ((counts / len(chance) - p).abs() <= 4 * spread).all()
    assert counts[2] == 0
    edges = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert draw(torch.tensor([[-math.inf, 0.0, 0.0, -math.inf]] * 2), edges).tolist() == [1, 2]


def test_first_tokens_are_sampled_from_the_model_after_all_processors():
    theirs, bundle = t5("gated")
    ids, mask = rows_with_padding(1, 9, 1)
    options = {"do_sample": True, "temperature": 2.0, "top_k": 12, "top_p": 0.9, "min_p": 0.02}
    merged = GenerationOptions.merge(
        bundle.generation, num_return_sequences=4000, max_new_tokens=1, seed=7, **options
    )
    tokens = generate(bundle.model, ids, mask, merged).sequences[:, 1]
    scores = theirs.generate(
        ids,
        attention_mask=mask,
        max_new_tokens=1,
        output_scores=True,
        return_dict_in_generate=True,
        **options,
    ).scores[0]
    p = scores[0].softmax(-1)
    share = tokens.bincount(minlength=VOCABULARY) / len(tokens)
    spread = (p * (1 - p) / len(tokens)).sqrt()
    assert ((share - p).abs() <= 4 * spread).all()
    assert (share[p == 0] == 0).all() and (p > 0).sum() > 3


@pytest.mark.parametrize("kind", ("plain", "llama"))
def test_a_seed_repeats_a_sample_and_sequences_of_an_input_differ(kind):
    _, bundle = t5(kind) if kind in KINDS else decoder_only(kind)
    ids, mask = rows_with_padding(7, 9, 2, "left")
    options = {
        "do_sample": True,
        "num_return_sequences": 3,
        "max_new_tokens": 12,
        "eos_token_id": [ending_token(kind), 3, 4],
        "top_k": 0,
    }

    def sample(**more):
        merged = GenerationOptions.merge(bundle.generation, **options, **more)
        return generate(bundle.model, ids, mask, merged)

    first, again, other = sample(seed=1), sample(seed=1), sample(seed=2)
    assert torch.equal(first.sequences, again.sequences) and first.stops == again.stops
    assert first.sequences.shape != other.sequences.shape or not torch.equal(
        first.sequences, other.sequences
    )
    assert len(first.stops) == 21 and set(first.stops) == {"eos", "length"}
    assert len({tuple(first.new_ids(row)) for row in range(21)}) > 15
    for row, stop in enumerate(first.stops):
        new = first.new_ids(row)
        ends = [token in options["eos_token_id"] for token in new]
        assert not any(ends[:-1]) and ends[-1] == (stop == "eos")
        assert (first.sequences[row, first.prompt + len(new) :] == 0).all()
    torch.manual_seed(9)
    unseeded = sample()
    torch.manual_seed(9)
    assert torch.equal(unseeded.sequences, sample().sequences)


def test_sampling_from_one_token_is_greedy():
    _, bundle = t5("plain")
    ids, mask = rows_with_padding(9, 9, 3)
    sampled = bundle.generate(ids, mask, do_sample=True, top_k=1, seed=0)
    assert torch.equal(sampled, bundle.generate(ids, mask))


# -- what cannot be done -----------------------------------------------------------------------


def test_what_does_not_fit_is_refused():
    _, bundle = t5("plain")
    ids, mask = rows_with_padding(2, 9, 0)

    def run(config=bundle.generation, **options):
        return generate(bundle.model, ids, mask, GenerationOptions.merge(config, **options))

    with pytest.raises(BadOption, match="prompt has 1 tokens and `max_length` is 1"):
        run(max_length=1)
    with pytest.raises(BadOption, match="`decoder_start_token_id` or `bos_token_id`"):
        run({}, max_new_tokens=2)
    with pytest.raises(BadOption, match="3 tokens for 2 inputs"):
        run(decoder_start_token_id=[1, 2, 3])
    with pytest.raises(BadOption, match="`bad_words_ids` holds token id 60"):
        run(bad_words_ids=[[4], [60]])
    with pytest.raises(BadOption, match="needs a tokenizer"):
        run(stop_strings=["x"])
    bundle.model.train()
    with pytest.raises(Mismatch, match="training mode"):
        run()
    bundle.model.eval()
