import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

import nano
from mainspring.checkpoints.bundle import Bundle, load
from mainspring.checkpoints.tokenizer import Tokenizer
from mainspring.data.batches import rounded
from mainspring.formulations import EncodedRow, Limits, Setup, SpecialIds, special_ids
from mainspring.formulations.sequence_to_sequence import (
    IGNORED,
    collate,
    cut,
    encode,
    losses,
    shift_right,
)

lean = settings(max_examples=30, deadline=None, derandomize=True, database=None)

IDS = SpecialIds(pad=0, eos=1, start=0)
ODD_IDS = SpecialIds(pad=3, eos=2, start=7)

token = st.integers(10, 90)
tokens = st.lists(token, max_size=40)
targets = st.lists(token, max_size=20).map(lambda ids: [*ids, IDS.eos])
rows = st.lists(st.builds(EncodedRow, tokens, targets), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return nano.tokenizer()


@lean
@given(ids=tokens, limit=st.integers(1, 50), ends=st.booleans())
def test_a_cut_text_still_ends_and_what_it_lost_is_counted(
    ids: list[int], limit: int, ends: bool
) -> None:
    kept, lost = cut([*ids, 1] if ends else ids, limit, 1)
    assert len(kept) <= limit
    assert kept[-1] == 1 and 1 not in kept[:-1]
    assert kept[:-1] == ids[: len(kept) - 1]
    assert lost == len(ids) - len(kept[:-1])
    assert lost == 0 or len(kept) == limit


words = st.lists(st.sampled_from([*nano.WORDS, "Δ", "x\ny"]), min_size=1, max_size=30)


@lean
@given(st.lists(st.tuples(words, words), min_size=1, max_size=4), st.integers(2, 20))
def test_encode_cuts_both_sides_and_always_learns_the_end(
    tokenizer: Tokenizer, pairs: list[tuple[list[str], list[str]]], limit: int
) -> None:
    sources = [" ".join(source) for source, _ in pairs]
    wanted = [" ".join(target) for _, target in pairs]
    given = [{"text": s, "target": t} for s, t in zip(sources, wanted, strict=True)]
    made = encode(given, tokenizer, Setup(Limits(limit, limit + 1), "shorten: "))
    assert len(made) == len(pairs)
    for row, source, target in zip(made, sources, wanted, strict=True):
        for ids, lost, text, most in (
            (row.source, row.source_lost, "shorten: " + source, limit),
            (row.target, row.target_lost, target, limit + 1),
        ):
            whole = tokenizer.encode(text)
            assert ids[-1] == tokenizer.eos_id
            assert list(ids[:-1]) == whole[: len(ids) - 1]
            assert len(ids) + lost == len(whole)
            assert len(ids) <= most


@lean
@given(rows, st.sampled_from([1, 4, 16]), st.sampled_from([IDS, ODD_IDS]))
def test_collate_puts_loss_on_targets_and_on_nothing_else(
    examples: list[EncodedRow], multiple: int, ids: SpecialIds
) -> None:
    batch = collate(examples, ids, 0, multiple)
    longest = [max(1, max(len(side) for side in sides)) for sides in _sides(examples)]
    widths = [batch.source_BS.shape[1], batch.labels_BT.shape[1]]
    assert widths == rounded(torch.tensor(longest).numpy(), multiple).tolist()
    for number, example in enumerate(examples):
        source, target = list(example.source), list(example.target)
        gap = [ids.pad] * (widths[0] - len(source))
        assert batch.source_BS[number].tolist() == source + gap
        labels = target + [IGNORED] * (widths[1] - len(target))
        assert batch.labels_BT[number].tolist() == labels
        shifted = [ids.start, *(ids.pad if label == IGNORED else label for label in labels[:-1])]
        assert batch.decoder_ids_BT[number].tolist() == shifted
        if batch.keep_BS is not None:
            assert batch.keep_BS[number].tolist() == [True] * len(source) + [False] * len(gap)
    assert (batch.keep_BS is None) == all(len(e.source) == widths[0] for e in examples)
    assert batch.source_tokens == sum(len(e.source) for e in examples)
    assert batch.target_tokens == int((batch.labels_BT != IGNORED).sum())


def _sides(examples: list[EncodedRow]) -> tuple[list[list[int]], list[list[int]]]:
    return [list(e.source) for e in examples], [list(e.target) for e in examples]


@lean
@given(rows)
def test_decoder_inputs_are_those_of_transformers(examples: list[EncodedRow]) -> None:
    config = transformers.T5Config(**{**nano.SIZE, "vocab_size": 100})
    oracle = transformers.T5ForConditionalGeneration._shift_right
    labels_BT = collate(examples, IDS, 0, 16).labels_BT
    theirs = oracle(_Configured(config), labels_BT)
    assert shift_right(labels_BT, IDS).tolist() == theirs.tolist()


class _Configured:
    """All that `_shift_right` asks of a model."""

    def __init__(self, config: transformers.T5Config):
        self.config = config


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, transformers.PreTrainedModel]:
    """The same weights here and in `transformers`, without dropout."""
    folder = tmp_path_factory.mktemp("twins")
    nano.bundle(seed=3, dropout=0.0).save(folder)
    theirs = transformers.T5ForConditionalGeneration.from_pretrained(folder)
    return load(folder), theirs.eval()


@settings(lean, max_examples=15)
@given(rows)
def test_losses_are_those_of_transformers(
    twins: tuple[Bundle, transformers.PreTrainedModel], examples: list[EncodedRow]
) -> None:
    ours, theirs = twins
    examples = [EncodedRow([*e.source, IDS.eos], e.target) for e in examples]
    batch = collate(examples, special_ids(nano.tokenizer(), ours.config), 0, 16)
    with torch.no_grad():
        nats_B = losses(ours.model, batch)
        mask = None if batch.keep_BS is None else batch.keep_BS.long()
        whole = theirs(batch.source_BS, attention_mask=mask, labels=batch.labels_BT).loss
        alone = [
            theirs(torch.tensor([e.source]), labels=torch.tensor([e.target])).loss * len(e.target)
            for e in examples
        ]
    assert nats_B.dtype == torch.float32
    torch.testing.assert_close(nats_B.sum() / batch.target_tokens, whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(nats_B, torch.stack(alone), atol=1e-4, rtol=1e-5)
