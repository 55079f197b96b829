"""GGUF files that we write: read back, by `transformers`, by llama.cpp, and what cannot be said."""

from pathlib import Path
from typing import Any

import gguf
import gguf_oracle as oracle
import numpy as np
import pytest
import torch
import transformers
from gguf_oracle import CLOSE, MODELS, logits
from test_gguf_tokenizer import TEMPLATE, TEXTS, read, stored, trained
from tokenizers import AddedToken, normalizers

from mainspring.checkpoints.bundle import Bundle, load
from mainspring.checkpoints.gguf_file import GGUFFile
from mainspring.checkpoints.gguf_vocabulary import vocabulary_values
from mainspring.checkpoints.sentencepiece import NORMAL
from mainspring.checkpoints.tokenizer import Tokenizer, train_tokenizer
from mainspring.errors import BadOption, BadWeights, Mismatch, Missing


def opened(model: Any, folder: Path) -> Bundle:
    """A `transformers` model as a bundle of ours."""
    model.save_pretrained(folder)
    return load(folder)


@pytest.mark.parametrize("name", [name for name in MODELS if "other windows" not in name])
def test_what_is_written_is_read_back_bit_for_bit(tmp_path: Path, name: str) -> None:
    kind, more, _ = MODELS[name]
    ours = opened(oracle.tiny(kind, **more), tmp_path / "in")
    ours.save_gguf(tmp_path / "model.gguf", "f32")
    again = load(tmp_path / "model.gguf")
    for key, tensor in ours.model.state_dict().items():
        # Gemma's norms are stored with 1 added in either file.
        torch.testing.assert_close(again.model.state_dict()[key], tensor, rtol=0, atol=1e-7)
    torch.testing.assert_close(logits(again.model), logits(ours.model), **CLOSE)


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("llama", {}),
        ("llama", {"tie_word_embeddings": True}),
        ("qwen2", {}),
        # Out of a GGUF file `transformers` reads neither the width of a head of Qwen3 nor the
        # scale of Gemma's scores.
        ("qwen3", {"head_dim": 128}),
        ("gemma2", {**oracle.GEMMA, "head_dim": 256, "sliding_window": 4}),
    ],
)
def test_transformers_reads_what_is_written(tmp_path: Path, kind: str, more: dict) -> None:
    model = oracle.tiny(kind, **more)
    opened(model, tmp_path / "in").save_gguf(tmp_path / "model.gguf", "f32")
    theirs = oracle.opened_by_transformers(tmp_path / "model.gguf")
    torch.testing.assert_close(logits(theirs), logits(model), **CLOSE)


@pytest.mark.parametrize(("kind", "error"), [("f16", 2e-3), ("bf16", 1.6e-2), ("q8_0", 4e-2)])
def test_smaller_kinds_are_the_librarys_own(tmp_path: Path, kind: str, error: float) -> None:
    """Matrices in the kind asked for, bit for bit as the `gguf` library rounds them; vectors in
    float32; what does not fill its blocks in float16."""
    model = oracle.tiny("llama", intermediate_size=40)
    ours = opened(model, tmp_path / "in")
    ours.save_gguf(tmp_path / "model.gguf", kind)
    written = GGUFFile(tmp_path / "model.gguf")
    down, up = written.stored["blk.0.ffn_down.weight"], written.stored["blk.0.ffn_up.weight"]
    types = gguf.GGMLQuantizationType
    assert types(down.kind).name == ("F16" if kind == "q8_0" else kind.upper())
    assert types(up.kind).name == kind.upper()
    assert types(written.stored["blk.0.attn_norm.weight"].kind) == types.F32
    weights = model.model.layers[0].mlp.up_proj.weight.detach().numpy()
    stated = gguf.dequantize(gguf.quantize(weights, types(up.kind)), types(up.kind))
    assert np.array_equal(written["blk.0.ffn_up.weight"].float().numpy(), stated)
    again = load(tmp_path / "model.gguf")
    off = (logits(again.model) - logits(model)).abs().max() / logits(model).abs().max()
    assert 0 < off < error


@pytest.mark.parametrize("name", ["gpt-2", "smollm", "llama-bpe", "qwen2", "tekken", "default"])
def test_tokenizers_survive(tmp_path: Path, name: str) -> None:
    given = read(stored(trained(name), name, tmp_path / "t.gguf", padding_token_id=2))
    model = oracle.tiny("llama", vocab_size=512)
    ours = opened(model, tmp_path / "in")
    files = {"chat_template.jinja": TEMPLATE.encode()}
    ours.tokenizer = Tokenizer(given.backend, given.special, files)
    ours.save_gguf(tmp_path / "model.gguf", "f32")
    written = GGUFFile(tmp_path / "model.gguf").metadata
    assert written["tokenizer.ggml.pre"] == name
    assert len(written["tokenizer.ggml.tokens"]) == 512
    again = load(tmp_path / "model.gguf").tokenizer
    assert again is not None and again.chat_template == TEMPLATE
    assert again.special == given.special and again.vocabulary == given.vocabulary
    for text in TEXTS:
        assert again.encode(text) == given.encode(text)
        assert again.decode(given.encode(text)) == given.decode(given.encode(text))


def sentencepiece_file(file: Path, *, prefix: bool) -> Path:
    """A SentencePiece vocabulary with pieces of several letters, merged by their scores."""
    letters = sorted({c for text in TEXTS for c in text if c.isalpha()})
    words = {"▁": -100.0, "▁t": -3.0, "he": -2.0, "▁the": -1.0, "12": -4.0, "▁▁": -5.0}
    known = [*(f"<0x{i:02X}>" for i in range(256)), *letters, "1", "2"]
    tokens = ["<unk>", "<s>", "</s>", *known, *words]
    types = [2, 3, 3, *[6] * 256, *[NORMAL] * (len(letters) + 2 + len(words))]
    return oracle.with_tokenizer(
        file,
        "llama",
        tokens,
        types,
        scores=[0.0] * 3 + [-float(200 + i) for i in range(len(known))] + list(words.values()),
        unknown_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        add_space_prefix=prefix,
    )


@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepiece_survives(tmp_path: Path, prefix: bool) -> None:
    given = read(sentencepiece_file(tmp_path / "t.gguf", prefix=prefix))
    assert "▁the" in given.tokens(given.encode("a the"))
    ours = opened(oracle.tiny("llama", vocab_size=512), tmp_path / "in")
    ours.tokenizer = given
    ours.save_gguf(tmp_path / "model.gguf", "q8_0")
    again = load(tmp_path / "model.gguf").tokenizer
    assert again is not None and again.special == given.special
    for text in TEXTS:
        assert again.encode(text) == given.encode(text), text


# -- what cannot be written -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "more", "says"),
    [
        (
            "mistral",
            {"sliding_window": 4},
            r"`llama` cannot say all .* model.decoder.layers.0.mask is Slid",
        ),
        ("smollm3", {"no_rope_layer_interval": 2}, r"layers.1.attention.rotary is None"),
        ("llama", {"hidden_act": "gelu"}, "feed_forward.activation is 'gelu', and would be 'silu'"),
        ("gemma2", {**oracle.WINDOWED, "query_pre_attn_scalar": 8}, r"layers.0.attention.scale is"),
        (
            "gemma3_text",
            MODELS["gemma3, other windows"][1],
            r"layers.1.attention.rotary.theta is 10000.0",
        ),
    ],
)
def test_what_a_file_cannot_say_is_refused(
    tmp_path: Path, kind: str, more: dict, says: str
) -> None:
    ours = opened(oracle.tiny(kind, **more), tmp_path / "in")
    (tmp_path / "model.gguf").write_text("before")
    with pytest.raises(Mismatch, match=says):
        ours.save_gguf(tmp_path / "model.gguf")
    assert (tmp_path / "model.gguf").read_text() == "before"
    assert not list(tmp_path.glob(".model.gguf*"))


def test_real_numbers_written_as_whole_ones_stay_real(tmp_path: Path) -> None:
    caps = {"attn_logit_softcapping": 20.0, "final_logit_softcapping": 10.0}
    ours = opened(oracle.tiny("gemma2", **oracle.WINDOWED, **caps), tmp_path / "in")
    ours.config |= {name: int(value) for name, value in caps.items()}
    ours.save_gguf(tmp_path / "model.gguf", "f32")
    written = GGUFFile(tmp_path / "model.gguf").metadata
    for name, value in caps.items():
        assert isinstance(written[f"gemma2.{name}"], float) and written[f"gemma2.{name}"] == value


def test_other_families_kinds_and_tokenizers_are_refused(tmp_path: Path) -> None:
    ours = opened(oracle.tiny("llama", vocab_size=512), tmp_path / "in")
    with pytest.raises(BadOption, match="unknown kind of GGUF file `q8_1`; did you mean `q8_0`"):
        ours.save_gguf(tmp_path / "model.gguf", "q8_1")
    ours.tokenizer = train_tokenizer(TEXTS * 9, 500, "unigram")
    with pytest.raises(BadOption, match="a Unigram tokenizer cannot be written as GGUF"):
        ours.save_gguf(tmp_path / "model.gguf")
    ours.tokenizer = None
    ours.model.tables["tokens"].weight.data[3, 3] = 7e4
    with pytest.raises(BadOption, match=r"`token_embd.weight` has numbers beyond float16's"):
        ours.save_gguf(tmp_path / "model.gguf", "f16")
    ours.save_gguf(tmp_path / "model.gguf", "bf16")
    ours.config["model_type"] = "t5"
    with pytest.raises(
        BadOption, match="a `t5` model cannot be written as GGUF; can: llama, mistr"
    ):
        ours.save_gguf(tmp_path / "model.gguf")


def test_a_head_that_classifies_has_no_place(tmp_path: Path) -> None:
    plain = oracle.tiny("llama")
    ours = opened(transformers.LlamaForSequenceClassification(plain.config), tmp_path / "in")
    with pytest.raises(Mismatch, match=r"GGUF has no place for the tensor `score.weight`"):
        ours.save_gguf(tmp_path / "model.gguf")


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = opened(oracle.tiny("llama"), tmp_path / "in")
    (tmp_path / "file").write_text("")
    with pytest.raises(BadWeights, match="could not be written"):
        ours.save_gguf(tmp_path / "file" / "model.gguf")
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(Missing, match=r"pip install 'mainspring\[gguf\]'"):
        ours.save_gguf(tmp_path / "model.gguf")


def test_a_way_to_split_without_a_name(tmp_path: Path) -> None:
    given = trained("smollm")
    from tokenizers import pre_tokenizers

    given.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Punctuation(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    with pytest.raises(BadOption, match="has no name in GGUF; known: gpt-2, smollm"):
        vocabulary_values(Tokenizer(given, {}), 480)


def with_tokenizer(folder: Path, change: Any = lambda tokenizer: None) -> Bundle:
    """A Llama with a tokenizer that `change` has changed."""
    given = read(stored(trained("smollm"), "smollm", folder / "t.gguf", padding_token_id=2))
    change(given.backend)
    ours = opened(oracle.tiny("llama", vocab_size=512), folder / "in")
    ours.tokenizer = Tokenizer(given.backend, given.special)
    return ours


def test_all_tokens_that_end_a_text_survive(tmp_path: Path) -> None:
    ours = with_tokenizer(tmp_path)
    eos = ours.tokenizer.eos_id
    for ends in ([eos], [7, eos], [7, eos, 9]):
        ours.generation = {**ours.generation, "eos_token_id": ends}
        ours.save_gguf(tmp_path / "model.gguf", "f32")
        again = load(tmp_path / "model.gguf").generation["eos_token_id"]
        assert {again} if isinstance(again, int) else set(again) == set(ends)
    ours.generation = {**ours.generation, "eos_token_id": [5, 7, 9, eos]}
    with pytest.raises(Mismatch, match="ends at any of 4 tokens"):
        ours.save_gguf(tmp_path / "model.gguf", "f32")


@pytest.mark.parametrize("name", ["NFC", "NFKC", "Strip"])
def test_a_normaliser_that_a_file_cannot_say_is_refused(tmp_path: Path, name: str) -> None:
    def change(backend: Any) -> None:
        backend.normalizer = getattr(normalizers, name)()

    with pytest.raises(Mismatch, match="how this model's tokenizer cuts"):
        with_tokenizer(tmp_path, change).save_gguf(tmp_path / "model.gguf", "f32")


def test_an_added_token_that_takes_the_blanks_beside_it_is_refused(tmp_path: Path) -> None:
    def change(backend: Any) -> None:
        backend.add_special_tokens([AddedToken("<X>", lstrip=True)])

    with pytest.raises(Mismatch, match="cuts 'a <X> b'"):
        with_tokenizer(tmp_path, change).save_gguf(tmp_path / "model.gguf", "f32")
