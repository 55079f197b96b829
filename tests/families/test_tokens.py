"""Token by token, each kind of model writes what transformers writes: greedy and beam search."""

import pytest
import torch
import transformers
from family_oracle import padded_rows, twins

from mainspring.generation.options import GenerationOptions
from mainspring.generation.search import generate

DECODER = {
    "vocab_size": 40,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
BOTH = {
    "vocab_size": 40,
    "d_model": 24,
    "encoder_layers": 1,
    "encoder_ffn_dim": 32,
    "encoder_attention_heads": 2,
    "decoder_layers": 1,
    "decoder_ffn_dim": 28,
    "decoder_attention_heads": 2,
    "max_position_embeddings": 40,
    "bos_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "scale_embedding": False,
}
GPT2 = {"vocab_size": 40, "n_embd": 24, "n_head": 3, "n_layer": 2, "n_positions": 40}
SOUND = {
    **{key: value for key, value in BOTH.items() if key != "max_position_embeddings"},
    "num_mel_bins": 5,
    "max_source_positions": 12,
    "max_target_positions": 20,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
}
T5 = {
    "vocab_size": 40,
    "d_model": 24,
    "d_kv": 6,
    "d_ff": 32,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 3,
    "decoder_start_token_id": 0,
}
MODELS = {
    "GPT2LMHeadModel": ("gpt2", {**GPT2, "eos_token_id": 2, "bos_token_id": 1, "pad_token_id": 0}),
    "LlamaForCausalLM": ("llama", DECODER),
    "MistralForCausalLM": ("mistral", {**DECODER, "sliding_window": 4}),
    "Qwen2ForCausalLM": ("qwen2", DECODER),
    "Qwen3ForCausalLM": ("qwen3", {**DECODER, "head_dim": 6}),
    "SmolLM3ForCausalLM": ("smollm3", {**DECODER, "no_rope_layers": [1, 0]}),
    "GemmaForCausalLM": ("gemma", {**DECODER, "head_dim": 6}),
    "Gemma2ForCausalLM": ("gemma2", {**DECODER, "head_dim": 6, "sliding_window": 4}),
    "Gemma3ForCausalLM": ("gemma3_text", {**DECODER, "head_dim": 6, "sliding_window": 4}),
    "BartForConditionalGeneration": ("bart", {**BOTH, "forced_eos_token_id": 2}),
    "MBartForConditionalGeneration": ("mbart", {**BOTH, "forced_eos_token_id": 2}),
    "PegasusForConditionalGeneration": ("pegasus", {**BOTH, "forced_eos_token_id": 2}),
    "MarianMTModel": ("marian", {**BOTH, "forced_eos_token_id": 2}),
    "M2M100ForConditionalGeneration": ("m2m_100", BOTH),
    "T5ForConditionalGeneration": ("t5", T5),
    "MT5ForConditionalGeneration": ("mt5", T5),
    "WhisperForConditionalGeneration": ("whisper", SOUND),
}


@pytest.mark.parametrize("cls", MODELS)
def test_greedy_and_beam_tokens_equal_those_of_transformers(cls):
    kind, sizes = MODELS[cls]
    config = transformers.CONFIG_MAPPING[kind](**sizes)
    ids, mask = padded_rows(38, 9, config.pad_token_id)
    ids, mask = ids[[0, 1]], mask[[0, 1]]  # a full row and one padded on the left
    with twins(cls, config) as pair:
        settings = pair.theirs.generation_config.to_diff_dict()
        settings = {key: settings[key] for key in settings if key.endswith("_token_id")}
        inputs = {"input_ids": ids, "attention_mask": mask}
        given, keep = ids, mask
        if kind == "whisper":
            given, keep = torch.randn(2, 5, 24), None
            inputs = {"input_features": given}
        for more in ({}, {"num_beams": 3}, {"num_beams": 2, "length_penalty": 0.5}):
            if kind in ("m2m_100", "mbart"):
                more = {**more, "forced_bos_token_id": 7}
            more = {**more, "max_new_tokens": 8, "do_sample": False}
            # Whisper has its own `generate` for long recordings; this is the one of all models.
            theirs = transformers.GenerationMixin.generate(pair.theirs, **inputs, **more)
            ours = generate(
                pair.ours, given, keep, GenerationOptions.merge(settings, **more)
            ).sequences
            assert ours.tolist() == theirs.tolist(), more
