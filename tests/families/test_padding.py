"""Rows of nothing but padding: attention that sees no token adds nothing but its bias.

`transformers` has no one rule for such a row (some of its attentions average over the padding, some
give not-a-number). The oracle here is its model with every attention over that row given zeros.
"""

import re

import pytest
import torch
import transformers
from family_oracle import CLOSE, assert_same, padded_rows, twins

BOTH = {
    "d_model": 24,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 28,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 2,
}
T5 = {"d_model": 24, "d_kv": 6, "d_ff": 32, "num_layers": 2, "num_heads": 3}
ONE = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 32,
}
BERT = {**ONE, "num_key_value_heads": None}
# Class -> its type, its sizes, and the projections behind its attentions over the padded row.
MODELS = {
    "BertForMaskedLM": ("bert", BERT, r"attention\.output\.dense$"),
    "GPT2LMHeadModel": ("gpt2", {"n_embd": 24, "n_head": 3, "n_layer": 2}, r"attn\.c_proj$"),
    "LlamaForCausalLM": ("llama", {**ONE, "attention_bias": True}, r"self_attn\.o_proj$"),
    "Qwen3ForCausalLM": ("qwen3", {**ONE, "head_dim": 6}, r"self_attn\.o_proj$"),
    "Gemma3ForCausalLM": ("gemma3_text", {**ONE, "head_dim": 6}, r"self_attn\.o_proj$"),
    "BartForConditionalGeneration": ("bart", BOTH, r"encoder\..*self_attn\.out|encoder_attn\.out"),
    "PegasusForConditionalGeneration": ("pegasus", BOTH, r"encoder\..*f_attn\.out|r_attn\.out"),
    "T5ForConditionalGeneration": ("t5", T5, r"encoder\..*SelfAttention\.o$|EncDecAttention\.o$"),
}


@pytest.mark.parametrize("cls", MODELS)
def test_a_row_of_padding_reads_nothing_and_changes_no_other(cls: str) -> None:
    kind, sizes, projections = MODELS[cls]
    sizes = {name: size for name, size in sizes.items() if size is not None}
    config = transformers.CONFIG_MAPPING[kind](vocab_size=40, pad_token_id=0, **sizes)
    ids, mask = padded_rows(40, 12, 0)
    given = {}
    if config.is_encoder_decoder:
        given = {"decoder_input_ids": torch.randint(5, 40, (4, 7))}
    with twins(cls, config) as pair:
        ours = pair.ours(ids, mask, **given).logits
        for row in range(4):
            one = slice(row, row + 1)
            rest = {name: tensor[one] for name, tensor in given.items()}
            alone = pair.ours(ids[one], mask[one], **rest).logits[0]
            torch.testing.assert_close(alone, ours[row], **CLOSE)
        found = [m for name, m in pair.theirs.named_modules() if re.search(projections, name)]
        assert len(found) >= 2
        hooks = [
            module.register_forward_pre_hook(lambda _, x: (torch.zeros_like(x[0]),))
            for module in found
        ]
        rest = {name: tensor[3:] for name, tensor in given.items()}
        wanted = pair.theirs(input_ids=ids[3:], **rest).logits
        for hook in hooks:
            hook.remove()
        assert_same(ours[3:], wanted)
