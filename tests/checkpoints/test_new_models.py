"""Models and tokenizers from nothing: each family's layout of special tokens, as `transformers`
reads it."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from mainspring import registry
from mainspring.checkpoints.bundle import family_of_size, load, new_bundle
from mainspring.checkpoints.tokenizer import Tokenizer, train_tokenizer
from mainspring.errors import BadOption

TEXTS = [
    "The lazy fox 🦊 jumps over it.\nAnd then,  what?",
    "东方航空临时停牌，传将与上航合并。结果表明该方法优于现有的方法。",
] * 20
KINDS = ("unigram", "byte-bpe")


def made(size: str, kind: str = "byte-bpe") -> Tokenizer:
    return train_tokenizer(TEXTS, 400, kind, family_of_size(size).tokens)


@pytest.mark.parametrize("kind", KINDS)
def test_an_encoder_has_the_layout_of_bert(kind: str) -> None:
    tokenizer = made("bert-tiny", kind)
    assert tokenizer.tokens(range(5)) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert (tokenizer.pad_id, tokenizer.unk_id, tokenizer.eos_id) == (0, 1, None)
    assert tokenizer.id_of("<extra_id_0>") is None
    ids = tokenizer.encode("the fox 结果")
    assert (ids[0], ids[-1]) == (2, 3) and not {2, 3} & set(ids[1:-1])
    assert tokenizer.decode(ids) == "the fox 结果"
    pair = tokenizer.backend.encode("the fox", "结果")
    first, second = (tokenizer.encode(text) for text in ("the fox", "结果"))
    assert pair.ids == [*first, *second[1:]]
    assert pair.type_ids == [0] * len(first) + [1] * (len(second) - 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_decoder_has_the_layout_of_llama(kind: str) -> None:
    tokenizer = made("llama-tiny", kind)
    assert tokenizer.tokens(range(4)) == ["<unk>", "<s>", "</s>", "<pad>"]
    ids = tokenizer.encode("the fox")
    assert ids[0] == tokenizer.bos_id == 1 and ids[-1] != tokenizer.eos_id


@pytest.mark.parametrize("kind", KINDS)
def test_offsets_point_into_the_text_as_it_was(kind: str) -> None:
    """What a token stands for, taken out of the text, is what it decodes to, blanks aside; also
    behind characters of several bytes and across lines."""
    text = "The fox 🦊 jumps.\n东方航空，合并"
    tokenizer = made("bert-tiny", kind)
    encoding = tokenizer.backend.encode(text)
    covered = set()
    for (start, end), special in zip(encoding.offsets, encoding.special_tokens_mask, strict=True):
        assert 0 <= start <= end <= len(text)
        assert special == (start == end == 0) or not text[start:end].strip()
        covered |= set(range(start, end))
    assert [c for i, c in enumerate(text) if i not in covered and c.strip()] == []


@pytest.mark.parametrize("size", ["bert-tiny", "llama-tiny"])
def test_transformers_opens_a_model_from_nothing(size: str, tmp_path: Path) -> None:
    bundle = new_bundle(size, made(size), seed=0)
    bundle.save(tmp_path)
    again, theirs = load(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert again.spec == bundle.spec and again.tokenizer is not None
    assert again.tokenizer.special == bundle.tokenizer.special
    text = "The fox jumps, 结果。"
    ids = again.tokenizer.encode(text)
    assert theirs(text).input_ids == ids
    opener = AutoModel if size.startswith("bert") else AutoModelForCausalLM
    model = opener.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        ours = again.model(torch.tensor([ids])).last_hidden_state
        out = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(ours, out, atol=1e-5, rtol=1e-5)
    assert model.config.pad_token_id == again.tokenizer.pad_id
    if opener is AutoModelForCausalLM:
        assert model.generation_config.eos_token_id == again.tokenizer.eos_id


@pytest.mark.parametrize(
    "family", [name for name in registry.names("families") if registry.find("families", name).sizes]
)
def test_every_size_describes_a_model(family: str) -> None:
    found = registry.find("families", family)
    for config in found.sizes.values():
        whole = {**config, "architectures": [found.architecture], "vocab_size": 64}
        assert found.spec(whole, ()).heads


def test_a_size_that_nobody_has() -> None:
    with pytest.raises(BadOption, match="bert-mini"):
        family_of_size("bert-mni")
    with pytest.raises(BadOption, match="larger by"):
        train_tokenizer(TEXTS, 200, "byte-bpe", family_of_size("bert-tiny").tokens)
