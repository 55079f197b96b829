"""The Llama line against `transformers`."""

import pytest
import torch
import transformers
from family_oracle import CLOSE, assert_same, lean, padded_rows, stepwise, twins
from hypothesis import given
from hypothesis import strategies as st

from mainspring.errors import BadOption
from mainspring.families.llama import EXAMPLE, FAMILY

SCALINGS = {
    "default": {},
    "linear": {"factor": 2.5},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 8},
    "yarn all": {
        "factor": 4.0,
        "original_max_position_embeddings": 8,
        "mscale": 0.7,
        "mscale_all_dim": 1.2,
        "beta_fast": 20.0,
        "beta_slow": 0.5,
        "truncate": False,
    },
}
TYPES = {
    "llama": "Llama",
    "mistral": "Mistral",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "smollm3": "SmolLM3",
}
FULL, SLIDING = "full_attention", "sliding_attention"
shapes = st.fixed_dictionaries(
    {
        "num_hidden_layers": st.sampled_from((1, 3)),
        "num_key_value_heads": st.sampled_from((1, 2, 4)),
        "tie_word_embeddings": st.booleans(),
        "head_dim": st.sampled_from((6, 10)),
        "rms_norm_eps": st.sampled_from((1e-6, 1e-2)),
        "hidden_act": st.sampled_from(("silu", "gelu")),
    }
)


def rope(name: str, theta: float = 10_000.0) -> dict:
    return {"rope_type": name.split()[0], "rope_theta": theta, **SCALINGS[name]}


def check(cls: str, config) -> None:
    """Logits in one pass, with padding, and step by step."""
    ids, mask = padded_rows(40, 18, 0)
    with twins(cls, config) as pair:
        plain = pair.ours(ids).logits
        assert_same(plain, pair.theirs(ids).logits)
        assert_same(pair.ours(ids, mask).logits, pair.theirs(ids, mask).logits, mask)
        torch.testing.assert_close(stepwise(pair.ours, ids), plain, **CLOSE)


def small(kind: str, **more):
    config = transformers.CONFIG_MAPPING[kind]
    return config(
        vocab_size=40,
        hidden_size=24,
        num_attention_heads=4,
        intermediate_size=32,
        max_position_embeddings=64,
        **more,
    )


@lean
@given(st.sampled_from(sorted(SCALINGS)), st.booleans(), st.booleans(), shapes)
def test_llama_equals_transformers(scaling, attention_bias, mlp_bias, more):
    more |= {"attention_bias": attention_bias, "mlp_bias": mlp_bias}
    check("LlamaForCausalLM", small("llama", rope_parameters=rope(scaling, 500.0), **more))


@lean
@given(
    st.sampled_from(("mistral", "qwen2", "qwen3")),
    st.sampled_from((None, 1, 4)),
    st.booleans(),
    st.booleans(),
    shapes,
)
def test_windows_biases_and_head_norms_equal_transformers(kind, window, biased, stated, more):
    more["sliding_window"] = window
    if kind != "mistral":
        more |= {"use_sliding_window": window is not None, "max_window_layers": 1}
    if kind == "qwen2":
        del more["head_dim"]
    if kind == "qwen3":
        more["attention_bias"] = biased
    if kind != "mistral" and stated:
        kinds = (FULL, SLIDING if window else FULL)
        more["layer_types"] = [kinds[i % 2] for i in range(more["num_hidden_layers"])]
    check(f"{TYPES[kind]}ForCausalLM", small(kind, **more))


smollm3 = st.fixed_dictionaries(
    {
        "attention_bias": st.booleans(),
        "mlp_bias": st.booleans(),
        "tie_word_embeddings": st.booleans(),
        "num_key_value_heads": st.sampled_from((1, 2, None)),
        "rms_norm_eps": st.sampled_from((1e-6, 1e-2)),
        "no_rope_layer_interval": st.sampled_from((2, 3)),
        "no_rope_layers": st.sampled_from((None, [0, 1, 1])),
        "use_sliding_window": st.booleans(),
        "sliding_window": st.sampled_from((None, 3)),
    }
)


@lean
@given(smollm3, st.sampled_from((None, [SLIDING, FULL, FULL])))
def test_layers_without_rotary_positions_equal_transformers(more, kinds):
    if more["use_sliding_window"] and more["sliding_window"]:
        more["layer_types"] = kinds
    check("SmolLM3ForCausalLM", small("smollm3", num_hidden_layers=3, pad_token_id=0, **more))


@pytest.mark.parametrize("kind", (*TYPES, "gemma", "gemma2"))
def test_layers_without_a_head_are_opened_as_such(kind):
    """What `AutoModel` saves: no prefix, and no head where it would have a matrix of its own."""
    more = {"num_hidden_layers": 1, "num_key_value_heads": 2, "pad_token_id": 0, "head_dim": 6}
    config = small(kind, tie_word_embeddings=False, **more)
    ids, mask = padded_rows(40, 9, 0)
    with twins(f"{TYPES.get(kind, kind.capitalize())}Model", config) as pair:
        assert pair.ours.spec.heads == ()
        theirs = pair.theirs(ids, mask).last_hidden_state
        assert_same(pair.ours.decode(ids, keep_BS=mask.bool()), theirs, mask)
        named = {**pair.config, "architectures": ["LlamaForCausalLM"]}
        kept = pair.family.spec(named, ["model.norm.weight"])
        assert kept.vocabulary_head is not None and not kept.vocabulary_head.tied


def test_classes_are_read_at_the_last_real_token():
    ids, mask = padded_rows(40, 9, 0)
    config = small("llama", num_hidden_layers=1, num_key_value_heads=2, pad_token_id=0)
    with twins("LlamaForSequenceClassification", config) as pair:
        assert_same(pair.ours(ids, mask).logits[:3], pair.theirs(ids, mask).logits[:3])


def test_the_older_way_to_state_rotary_positions_means_the_same():
    old = {"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 2.0}}
    new = {"rope_parameters": {"rope_theta": 500.0, "rope_type": "linear", "factor": 2.0}}
    llama = {**EXAMPLE, "model_type": "llama"}
    assert FAMILY.spec({**llama, **old}, ()) == FAMILY.spec({**llama, **new}, ())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rope_scaling", {"rope_type": "dynamic", "factor": 2.0}),
        ("rope_scaling", {"rope_type": "longrope", "factor": 2.0}),
        ("rope_scaling", {"rope_type": "linear", "factor": 2.0, "faktor": 3.0}),
        ("rope_scaling", {"rope_type": "linear"}),
        ("partial_rotary_factor", 0.5),
        ("rope_scaling", "dynamic"),
        ("layer_types", ["full_attention", "chunked_attention"]),
        ("use_mrope", True),
        ("num_experts", 8),
    ],
)
def test_what_is_not_supported_is_an_error(key, value):
    with pytest.raises(BadOption) as error:
        FAMILY.spec({**EXAMPLE, "model_type": "qwen2", key: value}, ())
    wanted = "rotary" if key == "rope_scaling" else key
    assert wanted in str(error.value)


@pytest.mark.parametrize("name", SCALINGS)
def test_a_saved_config_states_positions_for_v4_too(name: str) -> None:
    """v4 of `transformers` reads `rope_theta` and `rope_scaling`, and leaves `rope_parameters`."""
    config = {**EXAMPLE, "model_type": "llama", "rope_parameters": rope(name, 1234.0)}
    config = {key: value for key, value in config.items() if key not in ("rope_theta",)}
    model = FAMILY.spec(config, ())
    saved = FAMILY.saved_config(config, model)
    assert FAMILY.spec(saved, ()) == model
    old = {key: value for key, value in saved.items() if key != "rope_parameters"}
    assert FAMILY.spec(old, ()) == model and old["rope_theta"] == 1234.0
    assert (old["rope_scaling"] is None) == (name == "default")
    theirs = transformers.LlamaConfig(**saved)
    assert theirs.rope_parameters == transformers.LlamaConfig(**config).rope_parameters
