"""Gemma 1 to 3, the text models (Gemma Team, 2024 and 2025).

Embeddings times the root of the width, and norms stored as their difference from 1. Gemma 2 and 3
normalise what each part adds as well, alternate windows with full attention, and cap scores and
logits (2) or normalise queries and keys and turn windowed layers at a rate of their own (3).
"""

from collections.abc import Collection, Iterator

from mainspring import spec
from mainspring.errors import BadOption
from mainspring.families import Config, Family
from mainspring.families.heads import (
    CAUSAL,
    causal_classes,
    causal_heads,
    causal_pairs,
    saved_config,
)
from mainspring.families.keys import Keys, activation, sliding_layers, words
from mainspring.families.layout import layer_pairs, norm
from mainspring.families.rope import rotary, stated_both_ways
from mainspring.weights.maps import Ignored, Pair, Shifted, same

_SHARED: Config = {
    "vocab_size": 256000,
    "head_dim": 256,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "rope_theta": 10_000.0,
    "rope_scaling": None,
    "rope_parameters": None,
}
_LATER: Config = {
    **_SHARED,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "layer_types": None,
}
KEYS = Keys(
    defaults={
        "gemma": {
            **_SHARED,
            "hidden_size": 3072,
            "intermediate_size": 24576,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "hidden_act": "gelu_pytorch_tanh",
            "max_position_embeddings": 8192,
        },
        "gemma2": {
            **_LATER,
            "max_position_embeddings": 8192,
            "final_logit_softcapping": 30.0,
            "attn_logit_softcapping": 50.0,
        },
        "gemma3_text": {
            **_LATER,
            "vocab_size": 262208,
            "max_position_embeddings": 131072,
            "final_logit_softcapping": None,
            "rope_theta": 1_000_000.0,
            "rope_local_base_freq": 10_000.0,
            "sliding_window_pattern": 6,
        },
    },
    fixed={
        "use_bidirectional_attention": (None, False),
        "partial_rotary_factor": (1.0, None),
        "attn_logit_softcapping": (None,),
        # Gemma 1 files state the activation twice; an empty one means the tanh form.
        "hidden_activation": (None, "gelu_pytorch_tanh"),
    },
    harmless=words("cache_implementation _sliding_window_pattern hidden_act"),
)
STEMS = {"gemma": "Gemma", "gemma2": "Gemma2", "gemma3_text": "Gemma3"}
NORM = Shifted(1.0)
_LAYER = {
    **{f"self_attention.qkv.{p}": f"self_attn.{p}_proj" for p in "qkv"},
    "self_attention.o": "self_attn.o_proj",
    "self_attention.query_norm": "self_attn.q_norm",
    "self_attention.key_norm": "self_attn.k_norm",
    "self_residual.norm": "input_layernorm",
    "feed_forward.expand.gate": "mlp.gate_proj",
    "feed_forward.expand.up": "mlp.up_proj",
    "feed_forward.down": "mlp.down_proj",
}
LAYER = {
    "pre": {**_LAYER, "feed_residual.norm": "post_attention_layernorm"},
    "sandwich": {
        **_LAYER,
        "self_residual.after": "post_attention_layernorm",
        "feed_residual.norm": "pre_feedforward_layernorm",
        "feed_residual.after": "post_feedforward_layernorm",
    },
}


def vocabulary(c: Config) -> spec.VocabularyHead:
    cap = c.get("final_logit_softcapping")
    return spec.VocabularyHead(c["vocab_size"], tied=c["tie_word_embeddings"], soft_cap=cap)


def head(name: str, config: Config) -> spec.Head:
    """A head as Gemma has it."""
    return causal_classes(config) if name == "classes" else vocabulary(KEYS.read(config))


def windowed(c: Config) -> list[bool]:
    """Whether each layer sees a window only."""
    depth = c["num_hidden_layers"]
    if "layer_types" not in c:
        return [False] * depth
    every = c.get("sliding_window_pattern", 2)
    return sliding_layers(c) or [(i + 1) % every != 0 for i in range(depth)]


def turns(c: Config) -> tuple[spec.Rotary, spec.Rotary]:
    """The rotary positions of layers that see all, and of windowed ones."""
    stated, positions = c["rope_parameters"] or {}, c["max_position_embeddings"]
    if "full_attention" in stated or "sliding_attention" in stated:
        local = stated.get("sliding_attention")
        full = {**(stated.get("full_attention") or {}), **(c["rope_scaling"] or {})}
    else:
        if stated and "rope_local_base_freq" in c:
            raise BadOption(
                "config.json: `rope_parameters` names neither `full_attention` nor "
                "`sliding_attention`, so it does not say which layers of a Gemma 3 it is for"
            )
        full = c["rope_scaling"] or stated
        local = {} if "rope_local_base_freq" in c else full
    theta = c["rope_theta"]
    local_theta = c.get("rope_local_base_freq", theta)
    return rotary(full, theta, positions), rotary(local, local_theta, positions)


def model_spec(config: Config, names: Collection[str]) -> spec.Model:
    """The spec of a Gemma `config.json`. `names` are the tensors its files hold."""
    c, kind = KEYS.read(config), config.get("model_type", "gemma")
    width, heads = c["hidden_size"], c["num_attention_heads"]
    rms = spec.RMSNorm(c["rms_norm_eps"])
    name = c.get("hidden_activation") or c["hidden_act"]
    # The first files say "gelu" and mean its tanh form.
    means = "gelu_pytorch_tanh" if kind == "gemma" and name == "gelu" else name
    feed_forward = spec.FeedForward(
        c["intermediate_size"], activation({"hidden_act": means}, "hidden_act"), gated=True
    )
    scale = c.get("query_pre_attn_scalar", c["head_dim"])
    full, local = turns(c)

    def layer(slides: bool) -> spec.Layer:
        attention = spec.Attention(
            heads,
            c["num_key_value_heads"],
            c["head_dim"],
            "qkvo" if c["attention_bias"] else "",
            scale**-0.5,
            local if slides else full,
            c["attention_dropout"] or 0.0,
            c.get("attn_logit_softcapping"),
            rms if kind == "gemma3_text" else None,
        )
        return spec.Layer(
            attention,
            feed_forward,
            rms,
            norm_placement="pre" if kind == "gemma" else "sandwich",
            mask=spec.SlidingWindow(c["sliding_window"]) if slides else spec.CausalMask(),
        )

    decoder = spec.Stack(
        width,
        spec.TokenEmbedding(c["vocab_size"], scale=width**0.5),
        tuple(layer(slides) for slides in windowed(c)),
        final_norm=rms,
    )
    return spec.Model(decoder=decoder, heads=causal_heads(config, names, vocabulary(c)))


def pairs(model: spec.Model) -> Iterator[Pair]:
    """Our tensor names beside Gemma's."""
    stack = model.decoder
    assert stack is not None and stack.final_norm is not None
    yield same("tables.tokens.weight", "model.embed_tokens.weight")
    yield from norm(stack.final_norm, "decoder.final_norm", "model.norm", NORM)
    for i, layer in enumerate(stack.layers):
        ours, names = f"decoder.layers.{i}", LAYER[layer.norm_placement]
        yield from layer_pairs(layer, ours, f"model.layers.{i}", names, NORM)
    yield from causal_pairs(model)


EXAMPLE: Config = {
    "vocab_size": 40,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 32,
    "max_position_embeddings": 30,
}

FAMILY = Family(
    name="gemma",
    model_types=tuple(STEMS),
    architecture="GemmaForCausalLM",
    spec=model_spec,
    pairs=pairs,
    aliases={"lm_head.weight": "model.embed_tokens.weight"},
    ignored=(Ignored("*.rotary_emb.inv_freq", "the rates of the rotary angles"),),
    saved_config=lambda config, model: stated_both_ways(saved_config(STEMS, CAUSAL)(config, model)),
    renames=((r"^(embed_tokens|layers|norm)\.", r"model.\1."),),  # stored without a head
    head=head,
    examples=(
        {**EXAMPLE, "model_type": "gemma", "attention_bias": True},
        {**EXAMPLE, "model_type": "gemma2", "sliding_window": 3, "query_pre_attn_scalar": 6},
        {
            **EXAMPLE,
            "model_type": "gemma3_text",
            "sliding_window": 3,
            "sliding_window_pattern": 2,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        },
    ),
)
