"""GGUF files that we write, opened by llama.cpp: the same tokens of a text, the same words."""

from pathlib import Path

import gguf_oracle as oracle
import llamacpp
import pytest
import torch
from gguf_oracle import MODELS
from test_gguf_tokenizer import TEXTS, read, stored, trained
from test_gguf_writing import opened, sentencepiece_file
from torch.nn import Linear

from mainspring.checkpoints.bundle import load

pytest.importorskip("xllamacpp", reason="llama.cpp's binding is not installed")

PROMPTS = [[5, 17, 40, 300, 23], [260, 9, 31, 2], [77] * 12]
TOKENS = 24
SPLITS = {
    "llama": "smollm",
    "llama, biases": "gpt-2",
    "llama, bands": "llama-bpe",
    "qwen2": "qwen2",
    "qwen2, yarn": "qwen2",
    "qwen3": "qwen2",
    "mistral": "tekken",
    "smollm3": "llama-bpe",
    "gemma": "default",
    "gemma2": "smollm",
    "gemma3": "smollm",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SPLITS)
def test_llama_cpp_reads_and_writes_the_same_tokens(tmp_path: Path, name: str) -> None:
    """Every architecture with a tokenizer, greedy, from a random model in float32: its quantised
    arithmetic is another, so that near ties may fall another way."""
    kind, more, _ = MODELS[name]
    model = oracle.tiny(kind, **{**more, "vocab_size": 512, "max_position_embeddings": 512})
    ours = opened(model, tmp_path / "in")
    ours.tokenizer = read(stored(trained(SPLITS[name]), SPLITS[name], tmp_path / "t.gguf"))
    ours.save_gguf(tmp_path / "model.gguf", "f32")
    again = load(tmp_path / "model.gguf")
    assert again.tokenizer is not None
    texts, written = llamacpp.ask(tmp_path / "model.gguf", TEXTS, PROMPTS, TOKENS)
    for text, ids in zip(TEXTS, texts, strict=True):
        assert again.tokenizer.encode(text) == ids, text
    for ids, found in zip(PROMPTS, written, strict=True):
        row = torch.tensor([ids])
        options = {"min_new_tokens": TOKENS, "max_new_tokens": TOKENS, "do_sample": False}
        assert again.generate(row, **options)[0, len(ids) :].tolist() == found


@pytest.mark.slow
def test_llama_cpp_reads_the_same_tokens_of_sentencepiece(tmp_path: Path) -> None:
    ours = opened(oracle.tiny("llama", vocab_size=512), tmp_path / "in")
    ours.tokenizer = read(sentencepiece_file(tmp_path / "t.gguf", prefix=True))
    ours.save_gguf(tmp_path / "model.gguf", "f32")
    texts, _ = llamacpp.ask(tmp_path / "model.gguf", TEXTS, [], 0)
    assert [ours.tokenizer.encode(text) for text in TEXTS] == texts


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_llama_cpp_opens_the_smaller_kinds(tmp_path: Path, kind: str) -> None:
    """A model whose best token stands out is not led astray by rounded products."""
    model = oracle.tiny("llama", vocab_size=512, max_position_embeddings=512)
    model.lm_head.weight.data *= 4
    ours = opened(model, tmp_path / "in")
    ours.tokenizer = read(stored(trained("smollm"), "smollm", tmp_path / "t.gguf"))
    ours.save_gguf(tmp_path / "model.gguf", kind)
    _, written = llamacpp.ask(tmp_path / "model.gguf", [], PROMPTS, 8)
    again = load(tmp_path / "model.gguf")
    for ids, found in zip(PROMPTS, written, strict=True):
        options = {"min_new_tokens": 8, "max_new_tokens": 8, "do_sample": False}
        assert again.generate(torch.tensor([ids]), **options)[0, len(ids) :].tolist() == found


def eight_bits(x: torch.Tensor) -> torch.Tensor:
    """Numbers as llama.cpp rounds what it multiplies quantised weights with: 32 share a scale."""
    blocks = x.reshape(-1, 32)
    scale = blocks.abs().amax(1, keepdim=True) / 127
    whole = torch.where(scale > 0, torch.round(blocks / scale), 0.0)
    return (whole * scale.half().float()).reshape(x.shape)


@pytest.mark.slow
def test_where_quantised_words_part_the_rounding_of_activations_is_why(
    starter: Path, tmp_path: Path
) -> None:
    """From quantised weights the starter writes other words in llama.cpp than here. With the inputs
    of our projections rounded as llama.cpp rounds them, the words are llama.cpp's."""
    whole = load(starter)
    whole.save_gguf(tmp_path / "model.gguf", "q8_0")
    ours = load(tmp_path / "model.gguf")
    assert ours.tokenizer is not None
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    ids = ours.tokenizer.encode(ours.tokenizer.chat(messages, answer=True))
    _, [written] = llamacpp.ask(tmp_path / "model.gguf", [], [ids], 12)

    def words() -> list[int]:
        options = {"min_new_tokens": 12, "max_new_tokens": 12, "do_sample": False}
        with torch.inference_mode():
            return ours.generate(torch.tensor([ids]), **options)[0, len(ids) :].tolist()

    assert words() != written
    for part in ours.model.modules():
        if isinstance(part, Linear):
            part.register_forward_pre_hook(lambda _, given: (eight_bits(given[0]), *given[1:]))
    assert words() == written


@pytest.mark.slow
def test_the_starter_in_sixteen_bits_writes_the_same_words(starter: Path, tmp_path: Path) -> None:
    load(starter).save_gguf(tmp_path / "model.gguf", "f16")
    ours = load(tmp_path / "model.gguf")
    assert ours.tokenizer is not None
    messages = [{"role": "user", "content": "Why is the sky blue?"}]
    ids = ours.tokenizer.encode(ours.tokenizer.chat(messages, answer=True))
    _, [written] = llamacpp.ask(tmp_path / "model.gguf", [], [ids], 64)
    options = {"min_new_tokens": 64, "max_new_tokens": 64, "do_sample": False}
    assert ours.generate(torch.tensor([ids]), **options)[0, len(ids) :].tolist() == written
