"""The Llama line: Llama 1 to 3 (Touvron et al., 2023; Dubey et al., 2024), SmolLM2, Mistral, Qwen2
to Qwen3, SmolLM3.

RMS norms before each part, rotary positions, a gated feed-forward, fewer key/value heads. They
differ in which projections carry a bias, in norms of the queries and keys, and in windows.
"""

from collections.abc import Collection, Iterator

from mainspring import spec
from mainspring.errors import BadOption
from mainspring.families import Config, Family, TokenLayout
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
from mainspring.weights.maps import Ignored, Pair, same

_SHARED: Config = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "head_dim": None,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "attention_dropout": 0.0,
    "rope_theta": 10_000.0,
    "rope_scaling": None,
    "rope_parameters": None,
}
_QWEN: Config = {
    **_SHARED,
    "vocab_size": 151936,
    "intermediate_size": 22016,
    "num_key_value_heads": 32,
    "max_position_embeddings": 32768,
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 28,
    "layer_types": None,
}
KEYS = Keys(
    defaults={
        "llama": {
            **_SHARED,
            "vocab_size": 32000,
            "intermediate_size": 11008,
            "num_key_value_heads": None,
            "max_position_embeddings": 2048,
            "attention_bias": False,
            "mlp_bias": False,
        },
        "mistral": {
            **_SHARED,
            "vocab_size": 32000,
            "intermediate_size": 14336,
            "num_key_value_heads": 8,
            "max_position_embeddings": 131072,
            "sliding_window": 4096,
        },
        "qwen2": _QWEN,
        "qwen3": {**_QWEN, "head_dim": 128, "attention_bias": False},
        "smollm3": {
            **_SHARED,
            "vocab_size": 128256,
            "hidden_size": 2048,
            "intermediate_size": 11008,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 4,
            "max_position_embeddings": 32768,
            "tie_word_embeddings": True,
            "rope_theta": 2_000_000.0,
            "attention_bias": False,
            "mlp_bias": False,
            "no_rope_layers": None,
            "no_rope_layer_interval": 4,
            "use_sliding_window": False,
            "sliding_window": None,
            "layer_types": None,
        },
    },
    fixed={
        "partial_rotary_factor": (1.0, None),
        "rope_interleaved": (False,),
        "use_mrope": (False,),
    },
    harmless=words("is_llama_config max_window_layers max_sequence_length cache_implementation"),
)
STEMS = {
    "llama": "Llama",
    "mistral": "Mistral",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "smollm3": "SmolLM3",
}
LAYER = {
    **{f"self_attention.qkv.{p}": f"self_attn.{p}_proj" for p in "qkv"},
    "self_attention.o": "self_attn.o_proj",
    "self_attention.query_norm": "self_attn.q_norm",
    "self_attention.key_norm": "self_attn.k_norm",
    "self_residual.norm": "input_layernorm",
    "feed_forward.expand.gate": "mlp.gate_proj",
    "feed_forward.expand.up": "mlp.up_proj",
    "feed_forward.down": "mlp.down_proj",
    "feed_residual.norm": "post_attention_layernorm",
}


def vocabulary(c: Config) -> spec.VocabularyHead:
    return spec.VocabularyHead(c["vocab_size"], tied=c["tie_word_embeddings"])


def head(name: str, config: Config) -> spec.Head:
    """A head as the Llama line has it."""
    return causal_classes(config) if name == "classes" else vocabulary(KEYS.read(config))


def turns(c: Config) -> list[bool]:
    """Whether each layer has rotary positions."""
    depth, interval = c["num_hidden_layers"], c.get("no_rope_layer_interval")
    if c.get("no_rope_layers") is not None:
        return [bool(turn) for turn in c["no_rope_layers"]]
    return [interval is None or (i + 1) % interval != 0 for i in range(depth)]


def masks(c: Config) -> list[spec.Mask]:
    """The mask of each layer."""
    depth, window = c["num_hidden_layers"], c.get("sliding_window")
    if not c.get("use_sliding_window", True):
        window = None
    slides = sliding_layers(c)
    if slides is None:
        first = c.get("max_window_layers", 0)
        slides = [window is not None and i >= first for i in range(depth)]
        if "no_rope_layers" in c:
            slides = [window is not None and not turn for turn in turns(c)]
    if any(slides) and window is None:
        raise BadOption("config.json: `layer_types` has sliding layers, but no `sliding_window`")
    return [spec.SlidingWindow(window or 0) if slide else spec.CausalMask() for slide in slides]


def biases(kind: str, c: Config) -> str:
    """The projections of the attention that carry a bias."""
    if kind == "qwen2":
        return "qkv"
    return "qkvo" if c.get("attention_bias") else ""


def model_spec(config: Config, names: Collection[str]) -> spec.Model:
    """The spec of a `config.json` of the Llama line. `names` are the tensors its files hold."""
    c, kind = KEYS.read(config), config.get("model_type", "llama")
    width, heads = c["hidden_size"], c["num_attention_heads"]
    head_width = c["head_dim"] or width // heads
    rms = spec.RMSNorm(c["rms_norm_eps"])
    positions = c["max_position_embeddings"]
    turn = rotary(c["rope_scaling"] or c["rope_parameters"], c["rope_theta"], positions)
    feed_forward = spec.FeedForward(
        c["intermediate_size"], activation(c, "hidden_act"), True, bias=bool(c.get("mlp_bias"))
    )

    def layer(turned: bool, mask: spec.Mask) -> spec.Layer:
        attention = spec.Attention(
            heads,
            c["num_key_value_heads"] or heads,
            head_width,
            biases(kind, c),
            rotary=turn if turned else None,
            dropout=c["attention_dropout"] or 0.0,
            query_key_norm=rms if kind == "qwen3" else None,
        )
        return spec.Layer(attention, feed_forward, rms, mask=mask)

    decoder = spec.Stack(
        width,
        spec.TokenEmbedding(c["vocab_size"]),
        tuple(layer(*parts) for parts in zip(turns(c), masks(c), strict=True)),
        final_norm=rms,
    )
    return spec.Model(decoder=decoder, heads=causal_heads(config, names, vocabulary(c)))


def pairs(model: spec.Model) -> Iterator[Pair]:
    """Our tensor names beside those of the Llama line."""
    stack = model.decoder
    assert stack is not None and stack.final_norm is not None
    yield same("tables.tokens.weight", "model.embed_tokens.weight")
    yield from norm(stack.final_norm, "decoder.final_norm", "model.norm")
    for i, layer in enumerate(stack.layers):
        yield from layer_pairs(layer, f"decoder.layers.{i}", f"model.layers.{i}", LAYER)
    yield from causal_pairs(model)


def _saved(config: Config, model: spec.Model) -> Config:
    head = model.vocabulary_head
    named = stated_both_ways(saved_config(STEMS, CAUSAL)(config, model))
    return named if head is None else {**named, "tie_word_embeddings": head.tied}


def _size(depth: int, width: int, key_value_heads: int) -> Config:
    """Heads of 64, and a gated feed-forward of as many weights as a plain one of 4 times the
    width (Shazeer, 2020), rounded to what kernels like."""
    return {
        "model_type": "llama",
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": width // 64,
        "num_key_value_heads": key_value_heads,
        "intermediate_size": -(-8 * width // 3 // 64) * 64,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 2048,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": True,
    }


EXAMPLE: Config = {
    "vocab_size": 40,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 30,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}

FAMILY = Family(
    name="llama",
    model_types=tuple(STEMS),
    architecture="LlamaForCausalLM",
    spec=model_spec,
    pairs=pairs,
    aliases={"lm_head.weight": "model.embed_tokens.weight"},
    ignored=(Ignored("*.rotary_emb.inv_freq", "the rates of the rotary angles"),),
    saved_config=_saved,
    renames=((r"^(embed_tokens|layers|norm)\.", r"model.\1."),),  # stored without a head
    head=head,
    # As wide as T5's sizes of these names.
    sizes={"llama-tiny": _size(4, 256, 2), "llama-mini": _size(8, 384, 2)},
    tokens=TokenLayout(
        {"unk": "<unk>", "bos": "<s>", "eos": "</s>", "pad": "<pad>"}, before=("bos",)
    ),
    examples=(
        {**EXAMPLE, "model_type": "llama", "rope_scaling": LLAMA3, "tie_word_embeddings": True},
        {**EXAMPLE, "model_type": "llama", "attention_bias": True, "mlp_bias": True},
        {**EXAMPLE, "model_type": "mistral", "sliding_window": 4, "head_dim": 8},
        {
            **EXAMPLE,
            "model_type": "qwen2",
            "use_sliding_window": True,
            "sliding_window": 3,
            "max_window_layers": 1,
        },
        {**EXAMPLE, "model_type": "qwen3", "head_dim": 10},
        {**EXAMPLE, "model_type": "smollm3", "no_rope_layer_interval": 2},
        {
            **EXAMPLE,
            "model_type": "qwen3",
            "architectures": ["Qwen3ForSequenceClassification"],
        },
    ),
)
