"""Models prepared for inference in float32 write the tokens that transformers writes."""

import gc
from typing import Any

import pytest
import torch
import transformers
from generation_oracle import VOCABULARY, rows_with_padding, saved_pair

from mainspring.compute.decoder import StepDecoder
from mainspring.compute.precision import prepare
from mainspring.generation.options import GenerationOptions
from mainspring.generation.search import generate
from mainspring.testing import tiny, tiny_inputs

SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "bos_token_id": 1,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
GPT2 = {"vocab_size": VOCABULARY, "n_embd": 24, "n_head": 3, "n_layer": 2, "n_positions": 64}
CONFIGS = {
    "gpt2": transformers.GPT2Config(**GPT2, bos_token_id=1, eos_token_id=1, pad_token_id=0),
    "llama": transformers.LlamaConfig(**SHAPE),
    "mistral": transformers.MistralConfig(**SHAPE, sliding_window=4),
    "qwen2": transformers.Qwen2Config(**SHAPE),
    "qwen3": transformers.Qwen3Config(**SHAPE),
    "gemma2": transformers.Gemma2Config(**SHAPE, sliding_window=5, query_pre_attn_scalar=8),
    "gemma3": transformers.Gemma3TextConfig(
        **SHAPE, sliding_window=5, layer_types=["sliding_attention", "full_attention"]
    ),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_greedy_and_beam_tokens_equal_those_of_transformers(kind: str) -> None:
    torch.manual_seed(5)
    theirs, bundle = saved_pair(transformers.AutoModelForCausalLM.from_config(CONFIGS[kind]))
    prepare(bundle.model, "float32")
    assert isinstance(bundle.model.decoder, StepDecoder)
    ids, mask = rows_with_padding(6, 8, 1, "left")
    for beams in (1, 3):
        options: dict[str, Any] = {"max_new_tokens": 12, "num_beams": beams, "do_sample": False}
        expected = theirs.generate(ids, attention_mask=mask, **options)
        assert torch.equal(bundle.generate(ids, mask, **options), expected), beams


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma", "t5", "bart"])
def test_what_decoding_held_is_freed_without_the_garbage_collector(
    family: str, prepared: bool, beams: int
) -> None:
    """Memory of a batch that waits for the collector comes on top of the next one's."""
    model = tiny(family)
    if prepared:
        prepare(model, "float32")
    ids = tiny_inputs(model, 2, 7)["input_ids"]
    options = GenerationOptions.merge(
        {"pad_token_id": 0, "decoder_start_token_id": 0}, max_new_tokens=4, num_beams=beams
    )
    generate(model, ids, None, options)  # tables that are kept are made
    gc.collect()
    gc.disable()
    try:
        before = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
        generate(model, ids, None, options)
        after = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
    finally:
        gc.enable()
    assert after == before
