"""New tokens for a model: what was there stays as it was, what is new is like it."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

import nano
from mainspring.checkpoints.bundle import Bundle, family_of_size, load, new_bundle
from mainspring.checkpoints.growing import unknown_characters, with_tokens
from mainspring.checkpoints.tokenizer import train_tokenizer
from mainspring.errors import Mismatch

TOKENS = [f"[E{n}]" for n in range(70)]


def test_the_model_says_of_old_texts_what_it_said_before() -> None:
    bundle = nano.bundle()
    grown = with_tokens(bundle, TOKENS, seed=1)
    had, rows = bundle.config["vocab_size"], grown.config["vocab_size"]
    assert rows % 64 == 0 and rows > had
    text = "The river and the mountain."
    ids = bundle.tokenizer.encode(text)
    assert grown.tokenizer.encode(text) == ids
    source = torch.tensor([ids])
    before, after = (
        b.model(source, decoder_input_ids=source).logits.detach() for b in (bundle, grown)
    )
    known = bundle.tokenizer.vocabulary
    torch.testing.assert_close(after[..., :known], before[..., :known])


def test_new_tokens_are_whole_and_come_back_as_they_are_written() -> None:
    grown = with_tokens(nano.bundle(), TOKENS, seed=1).tokenizer
    ids = grown.encode("a [E3]river[E4] by [E3]")
    assert ids.count(grown.id_of("[E3]")) == 2 and grown.id_of("[E4]") in ids
    assert "[E3]" in grown.decode(ids) and grown.decode(ids).count("[E") == 3


def test_new_rows_are_drawn_among_the_old_ones() -> None:
    bundle = nano.bundle()
    one, same, other = (with_tokens(bundle, TOKENS, seed=seed) for seed in (1, 1, 2))
    tables = [b.model.tables["tokens"].weight.detach() for b in (one, same, other)]
    assert torch.equal(tables[0], tables[1]) and not torch.equal(tables[0], tables[2])
    known = bundle.model.tables["tokens"].weight[: bundle.tokenizer.vocabulary].detach()
    new = tables[0][[one.tokenizer.id_of(token) for token in TOKENS]]
    assert (new.mean(0) - known.mean(0)).abs().max() < known.std()
    assert 0.7 < float(new.std() / known.std()) < 1.4
    assert len(new.unique(dim=0)) == len(TOKENS)


def test_tokens_that_are_there_change_nothing() -> None:
    bundle = with_tokens(nano.bundle(), TOKENS, seed=1)
    assert with_tokens(bundle, TOKENS[:5], seed=9) is bundle
    assert with_tokens(bundle, [], seed=9) is bundle


def test_spare_rows_are_used_before_the_table_grows() -> None:
    bundle = nano.bundle()
    spare = bundle.config["vocab_size"] - bundle.tokenizer.vocabulary
    assert spare > 0
    grown = with_tokens(bundle, TOKENS[:spare], seed=0)
    assert grown.config["vocab_size"] == bundle.config["vocab_size"]


@pytest.mark.parametrize("size", ["t5-tiny", "bert-tiny"])
def test_a_grown_model_is_saved_and_opens_everywhere(size: str, tmp_path: Path) -> None:
    texts = ["a fox and a dog"] * 5
    tokenizer = train_tokenizer(texts, 400, "byte-bpe", family_of_size(size).tokens)
    grown = with_tokens(new_bundle(size, tokenizer, 0), TOKENS, seed=0)
    grown.save(tmp_path)
    again, theirs = load(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert again.spec == grown.spec
    text = "a [E1]fox[E2] and a dog"
    assert again.tokenizer.encode(text) == grown.tokenizer.encode(text) == theirs(text).input_ids
    if size == "t5-tiny":
        model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
        assert model.config.vocab_size == grown.config["vocab_size"]


@pytest.mark.parametrize("size", ["t5-tiny", "bert-tiny"])
def test_characters_of_another_script_get_tokens(size: str, tmp_path: Path) -> None:
    """Each is one token at its own place, in `transformers` too, and known words are as before."""
    layout = family_of_size(size).tokens
    tokenizer = train_tokenizer(["a quiet river by a garden"] * 5, 300, layout=layout)
    texts = ["河流 and 花园", "河流,花园 𠮷 é"] * 2 + ["园丁"]
    found = unknown_characters(tokenizer, iter(texts))
    assert found[:3] == ["园", "河", "流"] and set(found) >= {"花", "𠮷", "é", ","}
    assert "丁" not in found and " " not in found  # seen once; not written as a token
    grown = with_tokens(new_bundle(size, tokenizer, 0), found, seed=0)
    assert unknown_characters(grown.tokenizer, texts) == []
    [(ids, places)] = grown.tokenizer.offsets_many(["a 花园"])
    at = ids.index(grown.tokenizer.id_of("花"))
    assert places[at : at + 2] == [(2, 3), (3, 4)]
    assert grown.tokenizer.encode("a quiet river") == tokenizer.encode("a quiet river")
    grown.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs("河流 and 花园").input_ids == grown.tokenizer.encode("河流 and 花园")
    assert "花园" in grown.tokenizer.decode(ids)


def test_a_tokenizer_of_bytes_knows_every_character() -> None:
    tokenizer = train_tokenizer(["a fox"] * 5, 400, "byte-bpe", family_of_size("bert-tiny").tokens)
    assert unknown_characters(tokenizer, ["花园 𠮷"] * 3) == []


def test_a_checkpoint_without_a_tokenizer_cannot_grow() -> None:
    bundle = nano.bundle()
    bare = Bundle(bundle.model, bundle.config, bundle.family)
    with pytest.raises(Mismatch, match="no tokenizer"):
        with_tokens(bare, TOKENS, seed=0)
