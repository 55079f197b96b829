"""T5 and its relatives: T5 v1.0 (ReLU, tied), v1.1, Flan and mT5 (gated GELU, untied).

Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer",
2020; v1.1 and mT5: Xue et al., 2021. Both norms are RMS norms, scores are not scaled (the
initialisation does it), and one relative bias table per stack serves all of its layers.
"""

from collections.abc import Collection, Iterator
from typing import Any

from mainspring import spec
from mainspring.errors import BadOption
from mainspring.families import Config, Family
from mainspring.families.keys import Keys, words
from mainspring.weights.maps import Ignored, Pair, same

ACTIVATIONS: dict[str, spec.Activation] = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "silu": "silu",
}
_KEYS: Config = dict.fromkeys(
    words(
        "vocab_size d_model d_kv d_ff num_layers num_decoder_layers num_heads dropout_rate "
        "relative_attention_num_buckets relative_attention_max_distance layer_norm_epsilon "
        "feed_forward_proj dense_act_fn scale_decoder_outputs tie_word_embeddings"
    )
)
KEYS = Keys(
    defaults={"t5": _KEYS, "mt5": _KEYS},
    # `is_gated_act` repeats `feed_forward_proj`; the length of the inputs is not bound.
    harmless=words("is_gated_act n_positions classifier_dropout"),
)


def model_spec(config: Config, names: Collection[str]) -> spec.Model:
    """The spec of a T5 `config.json`. `names` are the tensors its files hold."""
    KEYS.read(config)
    kind = config.get("feed_forward_proj", "relu")
    gated, activation = kind.startswith("gated-"), kind.removeprefix("gated-")
    if kind == "gated-gelu":  # by T5's convention this name means the tanh form
        activation = "gelu_new"
    stated = config.get("dense_act_fn", activation)
    if activation not in ACTIVATIONS or stated != activation:
        raise BadOption(
            f"config.json: `feed_forward_proj` {kind!r} with `dense_act_fn` {stated!r} is not "
            f"supported; activations known here: {', '.join(ACTIVATIONS)}"
        )
    dropout = config.get("dropout_rate", 0.1)
    width, vocabulary = config["d_model"], config["vocab_size"]
    norm = spec.RMSNorm(config.get("layer_norm_epsilon", 1e-6))
    heads = config["num_heads"]
    attention = spec.Attention(heads, heads, config["d_kv"], scale=1.0, dropout=dropout)
    feed_forward = spec.FeedForward(config["d_ff"], ACTIVATIONS[activation], gated, dropout=dropout)
    bias = spec.RelativeBias(
        config.get("relative_attention_num_buckets", 32),
        config.get("relative_attention_max_distance", 128),
    )

    def stack(depth: int, mask: spec.Mask, cross: spec.Attention | None) -> spec.Stack:
        layer = spec.Layer(attention, feed_forward, norm, cross, "pre", mask, dropout)
        embedding = spec.TokenEmbedding(vocabulary)
        return spec.Stack(width, embedding, (layer,) * depth, bias, norm, dropout, dropout)

    encoder_depth = config["num_layers"]
    decoder_depth = config.get("num_decoder_layers") or encoder_depth
    head = spec.VocabularyHead(
        vocabulary, "lm_head.weight" not in names, width**-0.5 if scales_outputs(config) else 1.0
    )
    return spec.Model(
        stack(encoder_depth, spec.FullMask(), None),
        stack(decoder_depth, spec.CausalMask(), attention),
        (("vocabulary", head),),
    )


def scales_outputs(config: Config) -> bool:
    """Whether hidden states are scaled before the head: v1.0 does, v1.1 and mT5 do not.

    transformers v5 states it (`scale_decoder_outputs`); before, the tie flag stood for it.
    """
    if config.get("model_type") == "mt5":
        return False
    return bool(config.get("scale_decoder_outputs", config.get("tie_word_embeddings", True)))


def saved_config(config: Config, model: spec.Model) -> Config:
    """v4 reads scaling and tying off one flag; v5 always writes that flag as true, beside
    `scale_decoder_outputs`. Both read this."""
    head = model.vocabulary_head
    tied = head is None or head.tied
    scaled = scales_outputs(config)
    return {
        **config,
        "tie_word_embeddings": tied if config.get("model_type") == "mt5" else scaled,
        "scale_decoder_outputs": scaled,
    }


def pairs(model: spec.Model) -> Iterator[Pair]:
    """Our tensor names beside T5's."""
    yield same("tables.tokens.weight", "shared.weight")
    head = model.vocabulary_head
    if head is not None and not head.tied:
        yield same("heads.vocabulary.out.weight", "lm_head.weight")
    for side, stack in (("encoder", model.encoder), ("decoder", model.decoder)):
        assert stack is not None
        yield same(
            f"{side}.position_bias.table.weight",
            f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
        )
        yield same(f"{side}.final_norm.weight", f"{side}.final_layer_norm.weight")
        for i, layer in enumerate(stack.layers):
            ours, theirs = f"{side}.layers.{i}", f"{side}.block.{i}.layer"
            parts = [("self_attention.qkv.", "self_residual", "SelfAttention", "qkv")]
            if layer.cross_attention is not None:
                parts.append(("cross_attention.kv.", "cross_residual", "EncDecAttention", "kv"))
            for j, (inside, residual, name, grouped) in enumerate(parts):
                for p in "qkvo":
                    at = inside if p in grouped else inside.split(".")[0] + "."
                    yield same(f"{ours}.{at}{p}.weight", f"{theirs}.{j}.{name}.{p}.weight")
                yield same(f"{ours}.{residual}.norm.weight", f"{theirs}.{j}.layer_norm.weight")
            last = f"{theirs}.{len(parts)}"
            up = {"gate": "wi_0", "up": "wi_1"} if layer.feed_forward.gated else {"up": "wi"}
            for mine, name in up.items():
                yield same(
                    f"{ours}.feed_forward.expand.{mine}.weight",
                    f"{last}.DenseReluDense.{name}.weight",
                )
            yield same(f"{ours}.feed_forward.down.weight", f"{last}.DenseReluDense.wo.weight")
            yield same(f"{ours}.feed_residual.norm.weight", f"{last}.layer_norm.weight")


def _size(depth: int, width: int, heads: int, feed_forward: int) -> dict[str, Any]:
    return {
        "model_type": "t5",
        "d_model": width,
        "d_kv": 64,
        "d_ff": feed_forward,
        "num_heads": heads,
        "num_layers": depth,
        "num_decoder_layers": depth,
        "feed_forward_proj": "relu",
        "dropout_rate": 0.1,
        "layer_norm_epsilon": 1e-6,
        "initializer_factor": 1.0,
        "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128,
        "is_encoder_decoder": True,
        "tie_word_embeddings": True,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "decoder_start_token_id": 0,
    }


EXAMPLE: Config = {
    "vocab_size": 40,
    "d_model": 24,
    "d_kv": 5,
    "d_ff": 32,
    "num_heads": 3,
    "num_layers": 2,
    "num_decoder_layers": 1,
}

FAMILY = Family(
    name="t5",
    model_types=("t5", "mt5"),
    architecture="T5ForConditionalGeneration",
    spec=model_spec,
    pairs=pairs,
    saved_config=saved_config,
    aliases={
        "encoder.embed_tokens.weight": "shared.weight",
        "decoder.embed_tokens.weight": "shared.weight",
        "lm_head.weight": "shared.weight",
    },
    ignored=(
        Ignored(
            "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
            "left over from early checkpoints; cross-attention has no position bias",
        ),
    ),
    examples=(
        {**EXAMPLE, "model_type": "t5", "relative_attention_num_buckets": 8},
        {**EXAMPLE, "model_type": "mt5", "feed_forward_proj": "gated-gelu"},
    ),
    # Tiny and mini: Tay et al., "Scale Efficiently", 2021; the others: Raffel et al., 2020.
    sizes={
        "t5-tiny": _size(4, 256, 4, 1024),
        "t5-mini": _size(4, 384, 8, 1536),
        "t5-small": _size(6, 512, 8, 2048),
        "t5-base": _size(12, 768, 12, 3072),
        "t5-large": _size(24, 1024, 16, 4096),
    },
)
