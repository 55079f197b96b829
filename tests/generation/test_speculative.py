"""A draft model changes how fast a text is written, not which."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.compute.precision import prepare
from mainspring.errors import BadOption, Mismatch
from mainspring.generation.options import GenerationOptions
from mainspring.generation.search import generate, stream
from mainspring.generation.speculative import Draft, _Decider
from mainspring.testing import tiny, tiny_inputs

FAMILIES = [("gpt2", 0), ("llama", 1), ("llama", 2), ("gemma", 1), ("t5", 0), ("bart", 0)]
MODELS = {family: tiny(*family) for family in FAMILIES}
# A draft that often agrees: the same weights, a little moved.
DRAFTS = {family: tiny(*family) for family in FAMILIES}
for made in DRAFTS.values():
    generator = torch.Generator().manual_seed(3)
    for parameter in made.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
prepare(MODELS["llama", 2], "float32")
prepare(DRAFTS["gpt2", 0], "float32")

SPECIAL = {"pad_token_id": 0, "decoder_start_token_id": 0}
options = st.fixed_dictionaries(
    {"max_new_tokens": st.integers(1, 14), "eos_token_id": st.sampled_from((None, 7, [3, 11, 19]))},
    optional={
        "repetition_penalty": st.sampled_from((0.8, 1.5)),
        "no_repeat_ngram_size": st.integers(1, 3),
        "min_new_tokens": st.integers(0, 5),
        "suppress_tokens": st.just([3, 4]),
        "forced_eos_token_id": st.just(2),
    },
)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    family=st.sampled_from(FAMILIES),
    given_options=options,
    length=st.integers(1, 9),
    pads=st.integers(0, 3),
    ahead=st.integers(1, 6),
)
def test_greedy_output_is_that_of_the_model_alone(family, given_options, length, pads, ahead):
    model, draft = MODELS[family], Draft(DRAFTS[family], ahead)
    ids = tiny_inputs(model, 1, length)["input_ids"]
    mask = torch.ones_like(ids)
    mask[:, : min(pads, length - 1)] = 0
    merged = GenerationOptions.merge(SPECIAL, **given_options)
    plain = generate(model, ids, mask, merged)
    steps = []
    fast = generate(model, ids, mask, merged, lambda rows, new: steps.append(int(new)), draft=draft)
    assert torch.equal(fast.sequences, plain.sequences)
    assert (fast.stops, fast.tokens) == (plain.stops, plain.tokens)
    assert steps == fast.new_ids(0) == list(stream(model, ids, mask, merged, draft=draft))
    assert 0 <= draft.accepted <= draft.proposed and 0 <= draft.share <= 1


def test_a_draft_that_agrees_saves_passes(monkeypatch):
    model = MODELS["llama", 1]
    passes = []
    decode = model.decode
    monkeypatch.setattr(
        model, "decode", lambda ids, *more, **named: passes.append(1) or decode(ids, *more, **named)
    )
    draft = Draft(tiny("llama", 1), 4)
    merged = GenerationOptions(max_new_tokens=20)
    generate(model, torch.tensor([[5, 6]]), None, merged, draft=draft)
    assert (draft.share, draft.proposed, len(passes)) == (1.0, 16, 4)


def test_stop_strings_end_a_drafted_text_too():
    model = MODELS["gpt2", 0]
    decode = lambda ids: "".join(chr(97 + i) for i in ids)  # noqa: E731
    ids = torch.tensor([[5, 6, 7]])
    whole = generate(model, ids, None, GenerationOptions(max_new_tokens=12)).new_ids(0)
    stop = decode(whole[4:6])
    merged = GenerationOptions(max_new_tokens=12, stop_strings=stop)
    plain = generate(model, ids, None, merged, decode=decode)
    fast = generate(model, ids, None, merged, decode=decode, draft=Draft(tiny("gpt2"), 5))
    assert plain.stops == fast.stops == ["stop"]
    assert torch.equal(plain.sequences, fast.sequences)


def test_sampled_tokens_follow_the_probabilities_of_the_model():
    generator = torch.Generator().manual_seed(0)
    scores, believed = torch.randn(2, 1, 6, generator=generator) * 1.5
    scores[0, 2] = believed[0, 4] = -torch.inf  # what the other may choose
    draws = 6000
    chance = torch.rand(3, draws, dtype=torch.float64, generator=generator)
    decide = _Decider(chance)
    sequences = torch.zeros(1, draws, dtype=torch.long)
    counts, kept = torch.zeros(6), 0
    for at in range(draws):
        sequences[:, at] = decide.guess(believed, at)
        token, agreed = decide(scores, believed, sequences, at)
        counts[token] += 1
        kept += agreed
    shares, other = scores.softmax(-1)[0], believed.softmax(-1)[0]
    # Sampling noise: the mean distance between 6000 draws of six tokens and their law is 0.012.
    assert (counts / draws - shares).abs().sum() / 2 < 0.02
    assert kept / draws == pytest.approx(float(torch.minimum(shares, other).sum()), abs=0.02)


def test_sampling_is_repeatable_and_an_equal_draft_is_always_believed():
    model, draft = MODELS["gpt2", 0], Draft(tiny("gpt2"), 3)
    merged = GenerationOptions(max_new_tokens=12, do_sample=True, seed=4, top_k=10)
    ids = torch.tensor([[5, 6, 7]])
    first = generate(model, ids, None, merged, draft=draft)
    assert draft.share > 0.99
    again = generate(model, ids, None, merged, draft=draft)
    assert torch.equal(first.sequences, again.sequences)


def test_drafts_that_do_not_fit_are_refused():
    model, ids = MODELS["gpt2", 0], torch.tensor([[5, 6]])
    good = Draft(tiny("gpt2"))
    with pytest.raises(BadOption, match="one sequence"):
        generate(model, ids, None, GenerationOptions(num_beams=2), draft=good)
    with pytest.raises(BadOption, match="one sequence"):
        generate(model, ids.repeat(2, 1), None, GenerationOptions(), draft=good)
    with pytest.raises(BadOption, match="1 token ahead"):
        Draft(tiny("gpt2"), 0)
    with pytest.raises(Mismatch, match="no decoder"):
        generate(model, ids, None, GenerationOptions(), draft=Draft(tiny("bert")))
    with pytest.raises(Mismatch, match=r"encoder|vocabulary"):
        generate(model, ids, None, GenerationOptions(), draft=Draft(tiny("t5")))
