"""Phrases that must occur in the output."""

import pytest
import torch
from generation_oracle import VOCABULARY, decoder_only, ending_token, t5
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mainspring.checkpoints.bundle import Bundle
from mainspring.errors import BadOption
from mainspring.generation.forced import Held, generate_with
from mainspring.generation.options import GenerationOptions

KINDS = ("plain", "gpt2", "llama")


def model_of(kind: str) -> Bundle:
    return (t5(kind) if kind == "plain" else decoder_only(kind))[1]


def ids_of(seed: int, length: int = 6) -> Tensor:
    return torch.randint(3, VOCABULARY, (1, length), generator=torch.manual_seed(seed))


def options(kind: str, **given: object) -> GenerationOptions:
    ends = {"eos_token_id": ending_token(kind)}
    return GenerationOptions.merge(model_of(kind).generation, **{**ends, **given})


def holds(ids: list[int], phrase: tuple[int, ...]) -> bool:
    return any(tuple(ids[i : i + len(phrase)]) == phrase for i in range(len(ids)))


phrases_ = st.lists(
    st.lists(st.integers(10, 20), min_size=1, max_size=3).map(tuple), min_size=1, max_size=3
)


@settings(max_examples=12, deadline=None, derandomize=True, database=None)
@given(st.sampled_from(KINDS), st.integers(0, 99), phrases_, st.integers(0, 4), st.booleans())
def test_every_phrase_is_in_the_answer(
    kind: str, seed: int, phrases: list[tuple[int, ...]], more: int, repeats: bool
) -> None:
    end = ending_token(kind)
    phrases = [tuple(i + (i == end) for i in phrase) for phrase in phrases]
    room = sum(map(len, set(phrases))) + 1 + more
    made = generate_with(
        model_of(kind).model,
        ids_of(seed),
        None,
        options(kind, max_new_tokens=room, num_beams=2, no_repeat_ngram_size=int(repeats)),
        phrases,
    )
    new = made.new_ids(0)
    assert all(holds(new, phrase) for phrase in phrases)
    assert len(new) == made.tokens[0] <= room
    assert made.stops == ["eos" if new[-1] == end else "length"]
    assert end not in new[:-1]


def scores_of_all(bundle: Bundle, ids: Tensor, count: int) -> dict[tuple[int, ...], float]:
    """The log-probability of every continuation of `count` tokens of a decoder-only model."""
    found: dict[tuple[int, ...], float] = {(): 0.0}
    for _ in range(count):
        rows = torch.tensor([[*ids[0].tolist(), *before] for before in found])
        with torch.inference_mode():
            hidden = bundle.model.decode(rows)
            steps = bundle.model.read("vocabulary", hidden[:, -1]).log_softmax(-1)
        found = {
            (*before, token): score + float(steps[row, token])
            for row, (before, score) in enumerate(found.items())
            for token in range(VOCABULARY)
        }
    return found


@pytest.mark.parametrize("phrase", [(15,), (15, 16)])
def test_the_answer_is_the_likeliest_there_is(phrase: tuple[int, ...]) -> None:
    bundle, ids = model_of("llama"), ids_of(5)
    scores = scores_of_all(bundle, ids, 2)
    best = max((s for s in scores if holds(list(s), phrase)), key=scores.__getitem__)
    chosen = options("llama", eos_token_id=None, max_new_tokens=2, num_beams=VOCABULARY)
    made = generate_with(bundle.model, ids, None, chosen, [phrase])
    assert tuple(made.new_ids(0)) == best
    assert made.scores is not None
    assert float(made.scores[0]) == pytest.approx(scores[best] / 2, abs=1e-5)


def test_a_phrase_that_is_written_anyway_costs_nothing() -> None:
    bundle, ids = model_of("plain"), ids_of(3)
    chosen = options("plain", max_new_tokens=10, num_beams=4)
    free = generate_with(bundle.model, ids, None, chosen, [])
    phrase = tuple(free.new_ids(0)[:2])
    made = generate_with(bundle.model, ids, None, chosen, [phrase])
    assert holds(made.new_ids(0), phrase)
    assert free.scores is not None and made.scores is not None
    assert float(made.scores[0]) >= float(free.scores[0]) - 1e-6  # it has the same way open


def test_phrases_begun_and_left_count_for_nothing() -> None:
    phrases = ((1, 2, 3), (1, 4))
    held = Held()
    for token, count in zip((1, 2, 1, 2, 3, 9, 1, 4), (1, 2, 1, 2, 3, 3, 4, 5), strict=True):
        held = held.after(token, phrases)
        assert held.count(phrases) == count
    assert held.complete == {0, 1} and held.following(phrases) is None


def test_a_forced_first_token_comes_before_any_phrase() -> None:
    bundle = model_of("plain")
    chosen = options("plain", max_new_tokens=4, forced_bos_token_id=7)
    made = generate_with(bundle.model, ids_of(1), None, chosen, [(12, 13)])
    assert made.new_ids(0)[0] == 7 and holds(made.new_ids(0), (12, 13))


def test_what_cannot_be() -> None:
    model, ids = model_of("plain").model, ids_of(1)
    phrase = list(range(10, 15))
    with pytest.raises(BadOption, match="5 tokens and only 4 may be written"):
        generate_with(model, ids, None, options("plain", max_new_tokens=5), [phrase])
    for bad in ({"do_sample": True}, {"num_beams": 2, "num_return_sequences": 2}):
        with pytest.raises(BadOption, match="one answer to one input"):
            generate_with(model, ids, None, options("plain", max_new_tokens=9, **bad), [phrase])
