"""The keys of `config.json`: defaults as `transformers` has them, nothing passed over."""

import json

import pytest
from family_oracle import family_of
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CONFIG_MAPPING

from mainspring import registry
from mainspring.errors import BadOption
from mainspring.families.bert import EXAMPLE, FAMILY

TYPES = [
    kind
    for name in registry.names("families")
    for kind in registry.find("families", name).model_types
]


@pytest.mark.parametrize("kind", TYPES)
def test_an_empty_config_means_what_it_does_to_transformers(kind):
    """Also: every key that `transformers` writes is known."""
    full = json.loads(CONFIG_MAPPING[kind]().to_json_string(use_diff=False))
    needed = {
        key: full[key]
        for key in ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads")
        if kind in ("t5", "mt5")
    }
    family = family_of(kind)
    needed |= {"feed_forward_proj": full["feed_forward_proj"]} if needed else {}
    assert family.spec({"model_type": kind, **needed}, ()) == family.spec(full, ())


@pytest.mark.parametrize("head", ["ForTokenClassification", "ForQuestionAnswering"])
def test_heads_that_decoders_do_not_have_here_are_named(head):
    example = family_of("qwen2").examples[0]
    with pytest.raises(BadOption, match=f"the head of a Qwen2{head} is not supported"):
        family_of("qwen2").spec({**example, "architectures": [f"Qwen2{head}"]}, ())


def test_what_sentence_transformers_writes_of_its_own_is_harmless():
    own = {"sentence_transformers": {"version": "4.1"}}
    assert FAMILY.spec({**EXAMPLE, **own}, ()) == FAMILY.spec(EXAMPLE, ())


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(st.text("abcdefghij_", min_size=1, max_size=12), st.none() | st.integers() | st.booleans())
def test_a_key_that_nobody_knows_is_named(key, value):
    with pytest.raises(BadOption, match=f"`{key}`"):
        FAMILY.spec({**EXAMPLE, key: value}, ())


def test_a_misspelt_key_gets_the_nearest_and_all_faults_are_told_at_once():
    with pytest.raises(BadOption) as error:
        FAMILY.spec({**EXAMPLE, "hiden_size": 3, "position_embedding_type": "relative_key"}, ())
    assert "did you mean `hidden_size`" in str(error.value)
    assert "`position_embedding_type` is 'relative_key'; supported: 'absolute'" in str(error.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("is_decoder", True),
        ("add_cross_attention", True),
        ("pruned_heads", {"0": [1]}),
        ("quantization_config", {"quant_method": "gptq"}),
        ("per_layer_config", {"0": {"hidden_size": 3}}),
        ("hidden_act", "mish"),
        ("hidden_size", 25),
    ],
)
def test_a_value_that_is_not_supported_names_its_key(key, value):
    with pytest.raises(BadOption, match=f"`{key}`"):
        FAMILY.spec({**EXAMPLE, key: value}, ())
