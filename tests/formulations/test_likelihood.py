import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.formulations import IGNORED
from mainspring.formulations.causal import FORMULATION
from mainspring.formulations.likelihood import continued, nats, rolling, start_id
from nano import decoder


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.integers(3, 99), max_size=30), st.integers(1, 12))
def test_each_token_is_predicted_once_and_seen_before_the_next(ids: list[int], size: int) -> None:
    windows = rolling(ids, 1, size)
    assert [i for window in windows for i in window.target if i != IGNORED] == ids
    assert all(len(window.source) <= size + 1 for window in windows)
    done = 0
    for window in windows:
        learnt = sum(i != IGNORED for i in window.target)
        whole = [1, *ids[: done + learnt]]
        assert list(window.source) == whole[-len(window.source) :]
        assert len(window.source) == min(size + 1, len(whole))
        assert window.target[0] == IGNORED
        done += learnt


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(3, 99), min_size=1, max_size=9),
    st.lists(st.integers(3, 99), min_size=1, max_size=9),
    st.integers(2, 20),
)
def test_a_continuation_keeps_its_end(context: list[int], ids: list[int], size: int) -> None:
    row = continued(context, ids, size)
    learnt = [i for i in row.target if i != IGNORED]
    assert learnt == ids[-min(len(ids), size) :]
    assert list(row.source) == [*context, *ids][-size - 1 :]
    assert row.target[0] == IGNORED


def test_losses_are_those_of_the_logits() -> None:
    bundle = decoder()
    tokenizer = bundle.tokenizer
    assert tokenizer is not None
    texts = ["The quiet river.", "painter " * 20, "Winter", "early market window"]
    rows = [rolling(tokenizer.encode(t, special=False), start_id(tokenizer), 16) for t in texts]
    examples = [example for row in rows for example in row]
    found = list(nats(bundle, FORMULATION, examples, tokens=64))
    for example, value in zip(examples, found, strict=True):
        ids = torch.tensor([list(example.source)])
        with torch.inference_mode():
            logits = bundle.model.read("vocabulary", bundle.model.decode(ids)).float()
        scores = logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None]).T
        learnt = torch.tensor([label != IGNORED for label in example.target[1:]])
        assert value == pytest.approx(-float(scores[0, learnt].sum()), rel=1e-4)
