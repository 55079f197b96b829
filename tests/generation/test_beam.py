"""Beam search against `transformers`."""

import warnings

import pytest
import torch
from generation_oracle import assert_same_tokens, decoder_only, ending_token, rows_with_padding, t5

from mainspring.generation.options import GenerationOptions
from mainspring.generation.search import generate

SIDES = {"plain": "either", "gated": "either", "gpt2": "left", "llama": "left"}


@pytest.mark.parametrize("penalty", (-1.0, 0.0, 0.6, 1.0, 2.0))
@pytest.mark.parametrize("kind", ("plain", "gated"))
def test_tokens_are_those_of_transformers(kind, penalty):
    turn = int(5 * penalty) % 3  # all pairs of beams and early stopping, over the penalties
    for early, beams in zip((False, True, "never"), (2, 4, 5, 2, 4)[turn : turn + 3], strict=True):
        ids, mask = rows_with_padding(40, 13, int(10 * penalty) + beams + 20)
        assert_same_tokens(
            kind, ids, mask, num_beams=beams, length_penalty=penalty, early_stopping=early
        )


@pytest.mark.parametrize("kind", ("gpt2", "llama"))
def test_decoder_only_prompts_with_padding(kind):
    ids, mask = rows_with_padding(20, 13, 5, "left")
    for early in (False, True):
        assert_same_tokens(
            kind, ids, mask, num_beams=4, num_return_sequences=2, early_stopping=early
        )


@pytest.mark.parametrize("kind", SIDES)
@pytest.mark.parametrize("size", (1, 2, 3))
def test_no_repeated_ngrams_and_several_sequences(kind, size):
    ids, mask = rows_with_padding(12, 13, size, SIDES[kind])
    for returned in (1, 4):
        assert_same_tokens(
            kind,
            ids,
            mask,
            num_beams=4,
            no_repeat_ngram_size=size,
            num_return_sequences=returned,
            repetition_penalty=1.2,
            min_new_tokens=3,
        )


def test_several_ends_and_long_outputs():
    ids, mask = rows_with_padding(12, 13, 8)
    for kind in ("plain", "gated"):
        ends = [ending_token(kind), 3, 4]
        assert_same_tokens(kind, ids, mask, num_beams=3, eos_token_id=ends, max_new_tokens=40)
        assert_same_tokens(kind, ids, mask, num_beams=3, eos_token_id=None, max_new_tokens=40)


@pytest.mark.parametrize("penalty", (0.0, 1.0, 2.0))
def test_scores_are_those_of_transformers(penalty):
    theirs, bundle = t5("plain")
    ids, mask = rows_with_padding(16, 13, 9)
    options = {
        "num_beams": 4,
        "num_return_sequences": 3,
        "eos_token_id": 16,
        "length_penalty": penalty,
        "max_new_tokens": 12,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = theirs.generate(
            ids, attention_mask=mask, output_scores=True, return_dict_in_generate=True, **options
        )
    out = generate(bundle.model, ids, mask, GenerationOptions.merge(bundle.generation, **options))
    assert torch.equal(out.sequences, expected.sequences)
    torch.testing.assert_close(out.scores, expected.sequences_scores, atol=1e-5, rtol=1e-5)
    assert set(out.stops) == {"eos", "length"}
    for row, stop in enumerate(out.stops):
        new = out.new_ids(row)
        assert (new[-1] == 16) == (stop == "eos") and 16 not in new[:-1]
        assert stop == "eos" or len(new) == 12


@pytest.mark.parametrize("kind", ("plain", "llama"))
def test_inputs_that_leave_change_no_other_input(kind):
    _, bundle = t5(kind) if kind == "plain" else decoder_only(kind)
    ids, mask = rows_with_padding(16, 13, 6, "left")
    merged = GenerationOptions.merge(
        bundle.generation,
        num_beams=3,
        eos_token_id=[ending_token(kind), 3, 4],
        max_new_tokens=20,
        early_stopping=True,
    )
    together = generate(bundle.model, ids, mask, merged)
    for row in range(len(ids)):
        alone = generate(bundle.model, ids[row : row + 1], mask[row : row + 1], merged)
        assert alone.new_ids(0) == together.new_ids(row)
        torch.testing.assert_close(alone.scores[0], together.scores[row], atol=1e-5, rtol=1e-5)


def test_sampled_beams_repeat_with_a_seed_and_end_well():
    _, bundle = t5("gated")
    ids, mask = rows_with_padding(6, 13, 2)

    def sample(seed):
        merged = GenerationOptions.merge(
            bundle.generation,
            num_beams=3,
            num_return_sequences=2,
            do_sample=True,
            seed=seed,
            temperature=3.0,
            eos_token_id=ending_token("gated"),
            max_new_tokens=10,
        )
        return generate(bundle.model, ids, mask, merged)

    first, again, other = sample(1), sample(1), sample(2)
    assert torch.equal(first.sequences, again.sequences)
    assert (
        first.sequences.shape != other.sequences.shape or (first.sequences != other.sequences).any()
    )
    assert (first.scores.view(6, 2).diff(dim=1) <= 0).all()  # best first
