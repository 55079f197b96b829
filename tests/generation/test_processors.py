"""Each logits processor against the one of `transformers` on the same scores."""

import math

import pytest
import torch
from generation_oracle import VOCABULARY
from transformers.generation import logits_process as theirs

from mainspring.errors import BadOption
from mainspring.generation import processors as ours
from mainspring.generation.options import GenerationOptions
from mainspring.generation.processors import Written, build_processors, process

ROWS, LENGTH = 6, 10


def some_scores(seed: int) -> torch.Tensor:
    torch.manual_seed(seed)
    scores = torch.randn(ROWS, VOCABULARY) * 4
    scores[0, ::3] = -math.inf
    return scores


def some_ids(seed: int) -> torch.Tensor:
    torch.manual_seed(seed)
    return torch.randint(0, 5, (ROWS, LENGTH))  # few tokens: n-grams repeat


EOS = torch.tensor([3, 7])
PAIRS = {
    "temperature": (ours.Temperature(0.7), theirs.TemperatureLogitsWarper(0.7)),
    "top-k": (ours.TopK(9), theirs.TopKLogitsWarper(9)),
    "top-k, two kept": (ours.TopK(1, 2), theirs.TopKLogitsWarper(1, min_tokens_to_keep=2)),
    "top-k, more than there are": (ours.TopK(99), theirs.TopKLogitsWarper(99)),
    "top-p": (ours.TopP(0.8), theirs.TopPLogitsWarper(0.8)),
    "top-p, three kept": (ours.TopP(0.1, 3), theirs.TopPLogitsWarper(0.1, min_tokens_to_keep=3)),
    "min-p": (ours.MinP(0.1), theirs.MinPLogitsWarper(0.1)),
    "min-p, three kept": (ours.MinP(0.9, 3), theirs.MinPLogitsWarper(0.9, min_tokens_to_keep=3)),
    "repetition": (ours.RepetitionPenalty(1.7), theirs.RepetitionPenaltyLogitsProcessor(1.7)),
    "1-grams": (ours.NoRepeatNgram(1), theirs.NoRepeatNGramLogitsProcessor(1)),
    "2-grams": (ours.NoRepeatNgram(2), theirs.NoRepeatNGramLogitsProcessor(2)),
    "3-grams": (ours.NoRepeatNgram(3), theirs.NoRepeatNGramLogitsProcessor(3)),
    "12-grams": (ours.NoRepeatNgram(12), theirs.NoRepeatNGramLogitsProcessor(12)),
    "too short": (
        ours.Suppress((3, 7), below=11),
        theirs.MinLengthLogitsProcessor(11, EOS),
    ),
    "long enough": (
        ours.Suppress((3, 7), below=10),
        theirs.MinLengthLogitsProcessor(10, EOS),
    ),
    "suppressed": (ours.Suppress((3, 9)), theirs.SuppressTokensLogitsProcessor([3, 9])),
    "suppressed at the beginning": (
        ours.Suppress((3, 9), only_at=LENGTH),
        theirs.SuppressTokensAtBeginLogitsProcessor([3, 9], LENGTH),
    ),
    "forced at the end": (
        ours.Force((4,), only_at=LENGTH),
        theirs.ForcedEOSTokenLogitsProcessor(LENGTH + 1, 4),
    ),
    "not yet forced": (
        ours.Force((4,), only_at=LENGTH + 1),
        theirs.ForcedEOSTokenLogitsProcessor(LENGTH + 2, 4),
    ),
    "bias": (
        ours.SequenceBias((((5,), 2.0), ((1, 6), -1.5), ((4, 2, 6), 9.0))),
        theirs.SequenceBiasLogitsProcessor([[[5], 2.0], [[1, 6], -1.5], [[4, 2, 6], 9.0]]),
    ),
    "decay": (
        ours.ExponentialDecay(6, 1.3, (3, 7)),
        theirs.ExponentialDecayLengthPenalty((2, 1.3), EOS, 4),
    ),
    "renormalised": (ours.Renormalise(), theirs.LogitNormalization()),
}


@pytest.mark.parametrize("name", PAIRS)
def test_scores_are_those_of_transformers(name):
    mine, other = PAIRS[name]
    for seed in range(5):
        ids, scores = some_ids(seed), some_scores(seed)
        got = mine(scores.clone(), Written(ids, torch.arange(ROWS)))
        torch.testing.assert_close(got, other(ids, scores.clone()), atol=1e-6, rtol=1e-6)


def test_invalid_values_are_removed_as_by_transformers():
    scores = some_scores(0)
    scores[1, 2], scores[2, 3] = math.nan, math.inf
    got = ours.RemoveInvalid()(scores.clone(), Written(some_ids(0), torch.arange(ROWS)))
    assert torch.equal(got, theirs.InfNanRemoveLogitsProcessor()(some_ids(0), scores))


def test_processors_that_look_at_the_input():
    """Also when rows have left and the others stand elsewhere."""
    source = torch.randint(0, 6, (ROWS, 8), generator=torch.Generator().manual_seed(3))
    pads = torch.tensor([0, 3, 1, 0, 2, 5])
    pairs = (
        (
            ours.EncoderRepetitionPenalty(1.5, source),
            theirs.EncoderRepetitionPenaltyLogitsProcessor(1.5, source),
        ),
        (ours.NoRepeatNgram(2, source), theirs.EncoderNoRepeatNGramLogitsProcessor(2, source)),
        (ours.NoRepeatNgram(1, source), theirs.EncoderNoRepeatNGramLogitsProcessor(1, source)),
        (
            ours.RepetitionPenalty(1.5, pads),
            theirs.RepetitionPenaltyLogitsProcessor(1.5, prompt_ignore_length=pads),
        ),
    )
    stay = torch.tensor([5, 1, 3])
    for mine, other in pairs:
        ids, scores = some_ids(1), some_scores(1)
        expected = other(ids, scores.clone())
        got = mine(scores.clone(), Written(ids, torch.arange(ROWS)))
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-6)
        got = mine(scores[stay], Written(ids[stay], stay))
        torch.testing.assert_close(got, expected[stay], atol=1e-6, rtol=1e-6)


def test_the_order_is_that_of_transformers():
    """Everything at once: each step sees what the one before left."""
    options = GenerationOptions.merge(
        {"eos_token_id": [3, 7], "pad_token_id": 0},
        do_sample=True,
        temperature=0.6,
        top_k=20,
        top_p=0.9,
        min_p=0.01,
        repetition_penalty=1.3,
        no_repeat_ngram_size=2,
        min_new_tokens=9,
        suppress_tokens=[1],
        bad_words_ids=[[2, 8]],
        renormalize_logits=True,
        max_new_tokens=20,
    )
    made = build_processors(options, prompt=4, vocabulary=VOCABULARY)
    chain = theirs.LogitsProcessorList(
        [
            theirs.RepetitionPenaltyLogitsProcessor(1.3),
            theirs.NoRepeatNGramLogitsProcessor(2),
            theirs.NoBadWordsLogitsProcessor([[2, 8]], EOS),
            theirs.MinNewTokensLengthLogitsProcessor(4, 9, EOS),
            theirs.SuppressTokensLogitsProcessor([1]),
            theirs.TemperatureLogitsWarper(0.6),
            theirs.TopKLogitsWarper(20),
            theirs.TopPLogitsWarper(0.9),
            theirs.MinPLogitsWarper(0.01),
            theirs.LogitNormalization(),
        ]
    )
    assert len(made) == len(chain)
    ids, scores = some_ids(2), some_scores(2)
    got = process(made, scores.clone(), Written(ids, torch.arange(ROWS)))
    torch.testing.assert_close(got, chain(ids, scores), atol=1e-6, rtol=1e-6)


def test_defaults_make_no_processor():
    options = GenerationOptions.merge({"eos_token_id": 1}, temperature=0.5, top_p=0.3)
    assert build_processors(options, prompt=1, vocabulary=9) == []


def test_options_about_the_input_need_token_ids():
    for name, value in (("encoder_no_repeat_ngram_size", 2), ("encoder_repetition_penalty", 1.5)):
        options = GenerationOptions.merge({}, **{name: value})
        with pytest.raises(BadOption, match=name):
            build_processors(options, prompt=1, vocabulary=9)
