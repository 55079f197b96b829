from itertools import groupby

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import nano
from mainspring.checkpoints.tokenizer import Tokenizer
from mainspring.errors import BadOption, Mismatch
from mainspring.formulations import EncodedRow, Limits, Setup, SpecialIds, span_corruption
from mainspring.formulations.span_corruption import (
    FORMULATION,
    collate,
    corrupt,
    corrupted_lengths,
    encode,
    lengths,
    noise_counts,
    noise_mask,
    piece_length,
)

lean = settings(max_examples=40, deadline=None, derandomize=True, database=None)

EOS, SENTINEL = 1, 999  # the sentinels are 999, 998, …; texts use ids below 500
pieces = st.lists(st.integers(2, 499), min_size=2, max_size=600)
seeds = st.integers(0, 2**32)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return nano.tokenizer()


def restored(row: EncodedRow) -> list[int]:
    """The piece that was corrupted: each sentinel of the source replaced by what the target says
    it stands for."""
    hidden: dict[int, list[int]] = {}
    for token in row.target[:-1]:
        if token >= 500:
            mark = hidden.setdefault(token, [])
        else:
            mark.append(token)
    return [t for token in row.source[:-1] for t in hidden.get(token, [token])]


@lean
@given(pieces, seeds)
def test_source_and_target_together_are_the_piece(ids: list[int], seed: int) -> None:
    row = corrupt(ids, EOS, SENTINEL, np.random.default_rng(seed))
    assert restored(row) == ids
    assert (len(row.source), len(row.target)) == corrupted_lengths(len(ids))
    assert row.source[-1] == row.target[-1] == EOS


@lean
@given(pieces, seeds)
def test_sentinels_come_in_the_order_of_t5(ids: list[int], seed: int) -> None:
    row = corrupt(ids, EOS, SENTINEL, np.random.default_rng(seed))
    _, spans = noise_counts(len(ids))
    marks = [SENTINEL - number for number in range(spans)]
    for side in (row.source, row.target):
        assert [token for token in side if token >= 500] == marks


@lean
@given(st.integers(2, 3000), seeds)
def test_spans_alternate_and_hide_15_percent(tokens: int, seed: int) -> None:
    mask = noise_mask(tokens, np.random.default_rng(seed))
    noise, spans = noise_counts(tokens)
    assert len(mask) == tokens and int(mask.sum()) == noise
    runs = [kind for kind, _ in groupby(mask.tolist())]
    assert runs == [False, True] * spans
    assert abs(noise - 0.15 * tokens) <= 1
    if tokens <= 1000:  # beyond, a hundred sentinels are not enough for spans of three
        assert spans >= 1 and abs(noise - 3 * spans) <= 2


def test_every_place_but_the_ends_is_hidden_equally_often() -> None:
    random = np.random.default_rng(0)
    shares = np.mean([noise_mask(100, random) for _ in range(2000)], axis=0)
    assert shares[0] == 0 and shares[-1] == 1  # a kept span first, a hidden one last, as in T5
    assert np.abs(shares[10:-10] - 0.15).max() < 0.05


def test_the_example_of_the_t5_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["Thank", "you", "for", "inviting", "me", "to", "your", "party", "last", "week"]
    hidden = np.isin(words, ["for", "inviting", "last"])
    monkeypatch.setattr(span_corruption, "noise_mask", lambda tokens, random: hidden)
    names = dict(enumerate(words)) | {
        EOS + 500: "</s>",
        SENTINEL: "<X>",
        SENTINEL - 1: "<Y>",
    }
    row = corrupt(range(len(words)), EOS + 500, SENTINEL, np.random.default_rng(0))
    source, target = (" ".join(names[token] for token in ids) for ids in (row.source, row.target))
    assert source == "Thank you <X> me to your party <Y> week </s>"
    assert target == "<X> for inviting <Y> last </s>"


@lean
@given(
    st.lists(st.lists(st.sampled_from(nano.WORDS), min_size=1, max_size=60), min_size=1),
    st.integers(4, 60),
    st.integers(3, 30),
)
def test_encode_loses_no_token_and_fits_the_limits(
    tokenizer: Tokenizer, texts: list[list[str]], source: int, target: int
) -> None:
    joined = [" ".join(words) for words in texts]
    rows = encode([{"text": t} for t in joined], tokenizer, Setup(Limits(source, target)))
    whole = [token for text in joined for token in tokenizer.encode(text)]
    assert [token for row in rows for token in row.source] == whole
    assert all(row.target == [tokenizer.id_of("<extra_id_0>")] for row in rows)
    for row in rows:
        corrupted = lengths(row)
        assert corrupted[0] <= source and corrupted[1] <= target
        assert (row.source_lost, row.target_lost) == (0, 0)


def test_a_full_piece_of_t5_has_its_published_lengths() -> None:
    """Inputs of 512 tokens come from 568 and have targets of 114 (Raffel et al., their code)."""
    assert piece_length(Limits(512, 128)) == 568
    assert corrupted_lengths(568) == (512, 114)


def test_limits_too_small_for_any_span_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(BadOption, match=r"at least 4 .* 3"):
        encode([{"text": "quiet river"}], tokenizer, Setup(Limits(20, 2)))


def test_a_tokenizer_without_sentinels_is_refused() -> None:
    class Bare:
        eos_id = 1

        def id_of(self, token: str) -> None:
            return None

    with pytest.raises(Mismatch, match="sentinels"):
        encode([{"text": "quiet river"}], Bare(), Setup(Limits(20, 20)))  # type: ignore[arg-type]


def test_what_is_hidden_follows_from_the_seed_alone() -> None:
    examples = [EncodedRow(list(range(2, 60)), [SENTINEL]), EncodedRow([7, 8, 9], [SENTINEL])]
    ids = SpecialIds(0, EOS, 0)
    first = collate(examples, ids, 5, 16)
    torch.manual_seed(123)
    np.random.seed(123)
    again, other = collate(examples, ids, 5, 16), collate(examples, ids, 6, 16)
    assert torch.equal(first.source_BS, again.source_BS)
    assert torch.equal(first.labels_BT, again.labels_BT)
    assert not torch.equal(first.source_BS, other.source_BS)
    assert first.target_tokens == sum(lengths(example)[1] for example in examples)
    assert first.source_tokens == sum(lengths(example)[0] for example in examples)


def test_it_makes_no_predictions() -> None:
    assert not FORMULATION.generates
