"""Specs to JSON and back."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring import registry, spec

lean = settings(max_examples=60, deadline=None, derandomize=True, database=None)

small = st.integers(1, 9)
norms = st.one_of(
    st.builds(spec.LayerNorm, st.floats(1e-9, 1e-3)), st.builds(spec.RMSNorm, st.floats(1e-9, 1e-3))
)
masks = st.one_of(
    st.just(spec.FullMask()), st.just(spec.CausalMask()), st.builds(spec.SlidingWindow, small)
)
attentions = st.builds(
    spec.Attention,
    small,
    small,
    small,
    biases=st.sampled_from(("", "qv", "qkvo")),
    scale=st.none() | st.floats(0.1, 2),
    rotary=st.none() | st.builds(spec.Rotary, st.floats(10, 1e6)),
)
layers = st.builds(
    spec.Layer,
    attentions,
    st.builds(spec.FeedForward, small, st.sampled_from(("relu", "silu")), st.booleans()),
    norms,
    norm_placement=st.sampled_from(("pre", "post")),
    mask=masks,
)
stacks = st.builds(
    spec.Stack,
    small,
    st.builds(spec.TokenEmbedding, small, st.floats(0.5, 3)),
    st.lists(layers, min_size=1, max_size=3).map(tuple),
    st.one_of(
        st.none(),
        st.builds(spec.Learned, small),
        st.builds(spec.Sinusoidal, small),
        st.builds(spec.RelativeBias, small, small),
    ),
    st.none() | norms,
)
heads = st.builds(spec.VocabularyHead, small, st.booleans(), st.floats(0.1, 1))
models = st.builds(
    spec.Model, stacks, st.none() | stacks, heads.map(lambda head: (("vocabulary", head),))
)


@lean
@given(models)
def test_a_spec_comes_back_from_json_as_it_was(model: spec.Model) -> None:
    assert spec.from_dict(json.loads(json.dumps(spec.to_dict(model)))) == model


def test_every_size_of_every_family_comes_back() -> None:
    for name in registry.names("families"):
        family = registry.find("families", name)
        for config in family.sizes.values():
            model = family.spec({**config, "vocab_size": 100}, ())
            assert spec.from_dict(json.loads(json.dumps(spec.to_dict(model)))) == model


def test_unknown_kinds_and_fields_are_named() -> None:
    with pytest.raises(ValueError, match="unknown kind 'Spiral'"):
        spec.from_dict({"kind": "Spiral"})
    with pytest.raises(ValueError, match="RMSNorm has no field momentum"):
        spec.from_dict({"kind": "RMSNorm", "epsilon": 1e-6, "momentum": 0.1})


def test_a_model_needs_a_stack_and_cross_attention_an_encoder() -> None:
    with pytest.raises(ValueError, match="an encoder, a decoder or both"):
        spec.Model()
    attention = spec.Attention(1, 1, 1)
    layer = spec.Layer(attention, spec.FeedForward(1, "relu"), spec.RMSNorm(), attention)
    with pytest.raises(ValueError, match="no encoder"):
        spec.Model(decoder=spec.Stack(1, spec.TokenEmbedding(1), (layer,)))
