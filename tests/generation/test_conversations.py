"""Conversations that keep what they have read, against fresh starts."""

from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.compute.precision import prepare
from mainspring.core.model import Transformer
from mainspring.errors import BadOption, Mismatch
from mainspring.generation.options import GenerationOptions
from mainspring.generation.search import generate
from mainspring.generation.session import Conversation
from mainspring.generation.speculative import Draft
from mainspring.testing import tiny

# GPT-2 (learned positions), Mistral (rotary, windows of 4), SmolLM3 (layers without positions),
# Gemma 3 (two rates, windows of 3, head norms); odd ones prepared for inference.
MODELS = [("gpt2", 0), ("llama", 2), ("llama", 5), ("gemma", 2)]
TOKENS = 40


def model(number: int) -> Transformer:
    made = tiny(*MODELS[number])
    if number % 2:
        prepare(made, "float32")
    return made


MADE = [model(number) for number in range(len(MODELS))]
turns = st.lists(
    st.tuples(
        st.sampled_from(("go on", "change", "shorten", "again")),
        st.lists(st.integers(2, TOKENS - 1), min_size=1, max_size=3),
        st.integers(1, 4),
        st.sampled_from(("generate", "stream", "leave", "draft")),
    ),
    min_size=1,
    max_size=4,
)


@settings(deadline=None, max_examples=30, derandomize=True)
@given(number=st.integers(0, len(MODELS) - 1), turns=turns)
def test_every_turn_equals_a_fresh_start(number, turns):
    made = MADE[number]
    talk, ids = Conversation(made), [5]
    for what, more, new, how in turns:
        if what == "go on":
            ids = [*ids, *more]
        elif what == "change":
            ids = [*ids[: len(ids) // 2], *more]
        elif what == "shorten":
            ids = ids[: max(1, len(ids) - 2)]
        held = len(talk.read)
        options = GenerationOptions(max_new_tokens=new, eos_token_id=1)
        fresh = generate(made, torch.tensor([ids]), None, options).new_ids(0)
        if how == "stream":
            got = list(talk.stream(ids, options))
        elif how == "leave":
            got, fresh = list(islice(talk.stream(ids, options), 1)), fresh[:1]
        else:
            draft = Draft(MADE[number], 2) if how == "draft" else None
            got = talk.generate(ids, options, draft=draft).new_ids(0)
        assert got == fresh
        if what in ("go on", "again") and len(ids) > 1:
            assert talk.reused >= min(held, len(ids) - 1) - 3
        assert talk.read == [*ids, *got][: len(talk.read)]
        assert talk.cache.length == len(talk.read) and talk.bytes() > 0
        ids = [*ids, *got][-20:] if len(ids) > 20 else [*ids, *got]


def test_a_call_that_fails_leaves_a_conversation_that_can_go_on():
    talk = Conversation(MADE[0])
    options = GenerationOptions(max_new_tokens=6)

    def interrupt(rows, ids):
        if talk.cache.length > 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        talk.generate([5, 6, 7], options, interrupt)
    assert talk.read == [5, 6, 7]
    fresh = generate(MADE[0], torch.tensor([[5, 6, 7, 8]]), None, options).new_ids(0)
    assert talk.generate([5, 6, 7, 8], options).new_ids(0) == fresh
    assert talk.reused == 3


def test_the_cache_grows_in_steps_and_says_what_it_takes():
    talk = Conversation(MADE[1])
    sizes = []
    for length in (2, 40, 80):
        talk.generate([5] * length, GenerationOptions(max_new_tokens=40))
        sizes.append(talk.bytes())
    layers, heads, width = 2, 2, 8
    position = layers * 2 * heads * width * 4
    assert sizes == sorted(sizes)
    assert all(
        held * position <= size <= (held * 1.25 + 65) * position
        for held, size in zip((41, 79, 119), sizes, strict=True)
    )


def test_what_a_conversation_cannot_do_is_said():
    with pytest.raises(Mismatch, match="decoder-only"):
        Conversation(tiny("t5"))
    talk = Conversation(MADE[0])
    with pytest.raises(BadOption, match="empty"):
        talk.generate([], GenerationOptions())
    with pytest.raises(BadOption, match="one sequence"):
        talk.generate([3], GenerationOptions(num_beams=2))
