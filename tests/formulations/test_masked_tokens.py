"""BERT's objective: what is hidden, what is asked for, and the loss beside `transformers`'."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

import mainspring
import nano
from mainspring.checkpoints.bundle import load, new_bundle
from mainspring.checkpoints.heads import with_head
from mainspring.checkpoints.tokenizer import Tokenizer, train_tokenizer
from mainspring.errors import Mismatch
from mainspring.families.bert import FAMILY
from mainspring.formulations import IGNORED, EncodedRow, Limits, Setup, SpecialIds
from mainspring.formulations.masked_tokens import (
    FORMULATION,
    collate,
    encode,
    hide,
    losses,
    picture,
)

lean = settings(max_examples=40, deadline=None, derandomize=True, database=None)

CLS, SEP, MASK = 3, 2, 999  # texts use ids from 10 to 499
IDS = SpecialIds(0, mask=MASK, vocabulary=1000)
texts = st.lists(st.integers(10, 499), min_size=1, max_size=300)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return word_tokenizer()


def word_tokenizer() -> Tokenizer:
    texts = [row["article"] for row in nano.pairs(60)]
    return train_tokenizer(texts, 250, layout=FAMILY.tokens)


def framed(ids: Sequence[int]) -> EncodedRow:
    return EncodedRow([CLS, *ids, SEP], [IGNORED, *ids, IGNORED])


@lean
@given(texts, st.integers(0, 2**32))
def test_the_labels_and_what_is_left_are_the_text(ids: list[int], seed: int) -> None:
    row = hide(framed(ids), IDS, np.random.default_rng(seed))
    source, labels = np.array(row.source), np.array(row.target)
    asked = labels != IGNORED
    assert asked.sum() == max(1, round(0.15 * len(ids)))
    assert np.where(asked, labels, source).tolist() == [CLS, *ids, SEP]
    assert not asked[0] and not asked[-1]


def test_of_what_is_asked_for_a_tenth_is_replaced_and_a_tenth_left() -> None:
    random = np.random.default_rng(0)
    ids = random.integers(10, 500, 20_000)
    row = hide(framed(ids), IDS, random)
    source, labels = np.array(row.source), np.array(row.target)
    asked = labels != IGNORED
    hidden, left = source[asked] == MASK, source[asked] == labels[asked]
    assert abs(hidden.mean() - 0.8) < 0.02 and abs(left.mean() - 0.1) < 0.02
    drawn = source[asked][~hidden & ~left]
    assert drawn.min() < 50 and drawn.max() > 950  # from all of the vocabulary
    assert (np.diff(np.flatnonzero(asked)) == 1).mean() < 0.2  # single tokens, not spans


@lean
@given(
    st.lists(st.lists(st.sampled_from(nano.WORDS), min_size=1, max_size=40), min_size=1),
    st.integers(5, 60),
)
def test_encode_loses_no_token_and_fits_the_limit(
    tokenizer: Tokenizer, words: list[list[str]], limit: int
) -> None:
    joined = [" ".join(text) for text in words]
    rows = encode([{"text": text} for text in joined], tokenizer, Setup(Limits(limit, 1)))
    whole = [id_ for text in joined for id_ in tokenizer.encode(text, special=False)]
    assert [label for row in rows for label in row.target if label != IGNORED] == whole
    before, after = tokenizer.frame
    for row in rows:
        assert len(row.source) == len(row.target) <= limit and FORMULATION.lengths(row) == (
            len(row.source),
            0,
        )
        assert row.source[0] == before[0] and row.source[-1] == after[0]
        assert all(s == t for s, t in zip(row.source, row.target, strict=True) if t != IGNORED)


def test_texts_stand_one_after_the_other(tokenizer: Tokenizer) -> None:
    rows = encode([{"text": "quiet river"}, {"text": "old"}], tokenizer, Setup(Limits(40, 1)))
    (row,) = rows
    sep = tokenizer.id_of("[SEP]")
    assert list(row.source).count(sep) == 2 and row.target[-1] == IGNORED
    assert "[MASK]" in picture(row, tokenizer, Setup(Limits(40, 1)))


def test_what_is_hidden_follows_from_the_seed_alone() -> None:
    rows = [framed(range(10, 80)), framed(range(10, 30))]
    first, again, other = (collate(rows, IDS, seed, 16) for seed in (5, 5, 6))
    assert torch.equal(first.source_BS, again.source_BS)
    assert torch.equal(first.labels_BT, again.labels_BT)
    assert not torch.equal(first.labels_BT, other.labels_BT)
    assert first.target_tokens == 10 + 3 and first.source_tokens == 72 + 22 - 13
    assert first.keep_BS is not None and first.keep_BS.sum(1).tolist() == [72, 22]


def test_a_tokenizer_without_a_mask_is_refused() -> None:
    with pytest.raises(Mismatch, match="mask token"):
        encode([{"text": "quiet river"}], nano.tokenizer(), Setup(Limits(20, 20)))


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_the_loss_is_that_of_transformers(kind: str, tmp_path: Path) -> None:
    pad = 1 if kind == "roberta" else 0
    common = {"vocab_size": 1000, "pad_token_id": pad}
    torch.manual_seed(0)
    theirs: transformers.PreTrainedModel
    if kind == "distilbert":
        small = {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 2}
        theirs = transformers.DistilBertForMaskedLM(
            transformers.DistilBertConfig(**common, **small)
        )
    else:
        sizes = {"hidden_size": 32, "intermediate_size": 64}
        sizes |= {"num_hidden_layers": 2, "num_attention_heads": 2}
        if kind == "bert":
            theirs = transformers.BertForMaskedLM(transformers.BertConfig(**common, **sizes))
        else:
            theirs = transformers.RobertaForMaskedLM(
                transformers.RobertaConfig(**common, **sizes, max_position_embeddings=514)
            )
    theirs.eval().save_pretrained(tmp_path)
    model = load(tmp_path).model.eval()
    ids = SpecialIds(pad, mask=MASK, vocabulary=1000)
    batch = collate([framed(range(10, 80)), framed(range(10, 30))], ids, 1, 16)
    with torch.inference_mode():
        found = losses(model, batch).sum() / batch.target_tokens
        wanted = theirs(batch.source_BS, attention_mask=batch.keep_BS, labels=batch.labels_BT).loss
    assert abs(float(found) - float(wanted)) < 1e-5


@pytest.mark.slow
def test_an_encoder_learns_a_language_and_then_a_task(tmp_path: Path) -> None:
    """A word that a text repeats is told from the others; the body is another task's start."""
    lines = [" ".join([word] * 29) for word in nano.WORDS * 8]  # a piece each, with its end
    text = tmp_path / "text.txt"
    text.write_text("\n".join(lines), encoding="utf-8")
    options = {"max_source": 32, "batch_tokens": 1024, "evaluate_every": 50}
    result = mainspring.fit(
        "pretrain",
        text,
        from_scratch="bert-tiny",
        out=tmp_path / "body",
        steps=100,
        learning_rate=2e-3,
        vocabulary=300,
        **options,
    )
    assert result.scores["loss"] < 0.1 * math.log(20)  # by frequency alone: ln 20
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "body")
    body = load(tmp_path / "body")
    tagged = with_head(body, "token_classes", ("O", "B-X"), 0).model.state_dict()
    wanted = theirs.state_dict()["bert.encoder.layer.0.output.dense.weight"]
    assert torch.equal(tagged["encoder.layers.0.feed_forward.down.weight"], wanted)


def test_a_class_head_does_not_begin_with_the_vocabulary_heads_layer() -> None:
    """Only what is stored under one name is one thing: the pooler, not the layer before words."""
    bundle = new_bundle("bert-tiny", word_tokenizer(), 3)
    masked = with_head(bundle, "vocabulary", (), 3)
    made = with_head(masked, "classes", ("a", "b"), 4).model.state_dict()
    before = masked.model.state_dict()["heads.vocabulary.hidden.project.weight"]
    assert not torch.equal(made["heads.classes.hidden.project.weight"], before)
    pooled = with_head(bundle, "pooled", (), 3)
    again = with_head(pooled, "classes", ("a", "b"), 4).model.state_dict()
    pooler = pooled.model.state_dict()["heads.pooled.hidden.project.weight"]
    assert torch.equal(again["heads.classes.hidden.project.weight"], pooler)


def test_it_is_for_training_only() -> None:
    assert FORMULATION.predict is None
