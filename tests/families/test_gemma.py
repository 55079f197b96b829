"""Gemma 1 to 3 against `transformers`."""

import pytest
import torch
from family_oracle import CLOSE, assert_same, lean, padded_rows, stepwise, twins
from hypothesis import given
from hypothesis import strategies as st
from transformers import CONFIG_MAPPING

from mainspring.errors import BadOption
from mainspring.families.gemma import EXAMPLE, FAMILY

CLASSES = {
    "gemma": "GemmaForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
}
options = st.fixed_dictionaries(
    {
        "num_hidden_layers": st.sampled_from((1, 3)),
        "tie_word_embeddings": st.booleans(),
        "rms_norm_eps": st.sampled_from((1e-6, 1e-2)),
        "layer_types": st.booleans(),
        "activation": st.sampled_from(("gelu_pytorch_tanh", "silu")),
        "num_key_value_heads": st.sampled_from((1, 4)),
        "attention_bias": st.booleans(),
        "sliding_window": st.sampled_from((1, 5, 64)),
        "query_pre_attn_scalar": st.sampled_from((4, 9)),
        "final_logit_softcapping": st.sampled_from((None, 2.0)),
        "attn_logit_softcapping": st.sampled_from((None, 1.5)),
        "sliding_window_pattern": st.sampled_from((2, 3)),
        "rope_scaling": st.sampled_from((None, {"rope_type": "linear", "factor": 4.0})),
    }
)
ALL = ("num_hidden_layers", "num_key_value_heads", "attention_bias")
ALL += ("tie_word_embeddings", "rms_norm_eps", "activation")
ONLY = {
    "gemma": ALL,
    "gemma3_text": (
        *ALL,
        "layer_types",
        "sliding_window",
        "query_pre_attn_scalar",
        "final_logit_softcapping",
        "sliding_window_pattern",
        "rope_scaling",
    ),
    "gemma2": (
        *ALL,
        "layer_types",
        "sliding_window",
        "query_pre_attn_scalar",
        "final_logit_softcapping",
        "attn_logit_softcapping",
    ),
}


@lean
@given(st.sampled_from(sorted(CLASSES)), options)
def test_logits_equal_those_of_transformers(kind, more):
    more = {key: value for key, value in more.items() if key in ONLY[kind]}
    more["hidden_act" if kind == "gemma" else "hidden_activation"] = more.pop("activation")
    if more.pop("layer_types", False):
        kinds = ("full_attention", "sliding_attention")
        more["layer_types"] = [kinds[i % 2] for i in range(more["num_hidden_layers"])]
    config = CONFIG_MAPPING[kind](
        vocab_size=40,
        hidden_size=24,
        num_attention_heads=4,
        head_dim=6,
        intermediate_size=32,
        max_position_embeddings=64,
        **more,
    )
    ids, mask = padded_rows(40, 18, 0)
    with twins(CLASSES[kind], config) as pair:
        plain = pair.ours(ids).logits
        assert_same(plain, pair.theirs(ids).logits)
        assert_same(pair.ours(ids, mask).logits, pair.theirs(ids, mask).logits, mask)
        torch.testing.assert_close(stepwise(pair.ours, ids), plain, **CLOSE)


def test_the_first_files_say_gelu_and_mean_its_tanh_form():
    plain = FAMILY.spec({**EXAMPLE, "model_type": "gemma"}, ())
    older = {"hidden_act": "gelu", "hidden_activation": None}
    assert FAMILY.spec({**EXAMPLE, "model_type": "gemma", **older}, ()) == plain


def test_a_saved_config_states_positions_for_v4_too() -> None:
    full = {"rope_type": "linear", "factor": 8.0, "rope_theta": 5000.0}
    sliding = {"rope_type": "default", "rope_theta": 77.0}
    stated = {"full_attention": full, "sliding_attention": sliding}
    example = next(e for e in FAMILY.examples if e["model_type"] == "gemma3_text")
    gone = ("rope_theta", "rope_scaling", "rope_local_base_freq")
    config = {key: value for key, value in example.items() if key not in gone}
    config |= {"rope_parameters": stated}
    model = FAMILY.spec(config, ())
    saved = FAMILY.saved_config(config, model)
    assert FAMILY.spec(saved, ()) == model
    old = {key: value for key, value in saved.items() if key != "rope_parameters"}
    assert FAMILY.spec(old, ()) == model
    assert CONFIG_MAPPING["gemma3_text"](**saved).rope_parameters == stated


def test_flat_rope_parameters_of_gemma_3_say_too_little() -> None:
    example = next(e for e in FAMILY.examples if e["model_type"] == "gemma3_text")
    gone = ("rope_theta", "rope_scaling", "rope_local_base_freq")
    config = {key: value for key, value in example.items() if key not in gone}
    flat = {"rope_type": "default", "rope_theta": 99.0}
    with pytest.raises(BadOption, match="names neither `full_attention`"):
        FAMILY.spec({**config, "rope_parameters": flat}, ())
