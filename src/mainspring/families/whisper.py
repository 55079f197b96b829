"""Whisper (Radford et al., 2022): speech to text, in many languages.

Two convolutions over log-mel frames before the encoder, norms before each part, no bias on the
keys. The encoder's positions are fixed sines, but stored, and so read like learned ones.
"""

from collections.abc import Collection, Iterator

from mainspring import spec
from mainspring.families import Config, Family
from mainspring.families.heads import Stored, saved_config
from mainspring.families.keys import Keys, activation, check_divides, words
from mainspring.families.layout import layer_pairs, module, norm
from mainspring.weights.maps import Pair, same

KEYS = Keys(
    defaults={
        "whisper": {
            "vocab_size": 51865,
            "num_mel_bins": 80,
            "d_model": 384,
            "encoder_layers": 4,
            "encoder_attention_heads": 6,
            "encoder_ffn_dim": 1536,
            "decoder_layers": 4,
            "decoder_attention_heads": 6,
            "decoder_ffn_dim": 1536,
            "activation_function": "gelu",
            "dropout": 0.0,
            "attention_dropout": 0.0,
            "activation_dropout": 0.0,
            "max_source_positions": 1500,
            "max_target_positions": 448,
            "tie_word_embeddings": True,
        }
    },
    fixed={
        "scale_embedding": (False,),
        "use_weighted_layer_sum": (False,),
        "apply_spec_augment": (False,),
    },
    # Of augmentation (which is off), timestamps and a classifier of sound.
    harmless=words(
        "mask_time_prob mask_time_length mask_time_min_masks mask_feature_prob "
        "mask_feature_length mask_feature_min_masks median_filter_width classifier_proj_size "
        "alignment_heads lang_ids"
    ),
)
HEADS = {"vocabulary": Stored("proj_out.weight", ("ForConditionalGeneration",))}
NORM = spec.LayerNorm(1e-5)
LAYER = {
    **{f"self_attention.qkv.{p}": f"self_attn.{p}_proj" for p in "qkv"},
    "self_attention.o": "self_attn.out_proj",
    "self_residual.norm": "self_attn_layer_norm",
    "cross_attention.q": "encoder_attn.q_proj",
    "cross_attention.kv.k": "encoder_attn.k_proj",
    "cross_attention.kv.v": "encoder_attn.v_proj",
    "cross_attention.o": "encoder_attn.out_proj",
    "cross_residual.norm": "encoder_attn_layer_norm",
    "feed_forward.expand.up": "fc1",
    "feed_forward.down": "fc2",
    "feed_residual.norm": "final_layer_norm",
}


def model_spec(config: Config, names: Collection[str]) -> spec.Model:
    """The spec of a Whisper `config.json`. `names` are the tensors its files hold."""
    c = KEYS.read(config)

    def stack(side: str, embedding: spec.Embedding, length: int, mask: spec.Mask) -> spec.Stack:
        heads = c[f"{side}_attention_heads"]
        width = check_divides(c, "d_model", f"{side}_attention_heads")
        attention = spec.Attention(heads, heads, width, "qvo", dropout=c["attention_dropout"])
        feed_forward = spec.FeedForward(
            c[f"{side}_ffn_dim"],
            activation(c, "activation_function"),
            bias=True,
            dropout=c["activation_dropout"],
        )
        layer = spec.Layer(
            attention,
            feed_forward,
            NORM,
            attention if side == "decoder" else None,
            mask=mask,
            dropout=c["dropout"],
        )
        layers = (layer,) * c[f"{side}_layers"]
        positions = spec.Learned(length)
        return spec.Stack(c["d_model"], embedding, layers, positions, NORM, c["dropout"])

    tied = c["tie_word_embeddings"] and "proj_out.weight" not in names
    sound, tokens = spec.AudioEmbedding(c["num_mel_bins"]), spec.TokenEmbedding(c["vocab_size"])
    return spec.Model(
        stack("encoder", sound, c["max_source_positions"], spec.FullMask()),
        stack("decoder", tokens, c["max_target_positions"], spec.CausalMask()),
        (("vocabulary", spec.VocabularyHead(c["vocab_size"], tied)),),
    )


def pairs(model: spec.Model) -> Iterator[Pair]:
    """Our tensor names beside Whisper's."""
    yield from module("encoder.embedding.first", "model.encoder.conv1", bias=True)
    yield from module("encoder.embedding.second", "model.encoder.conv2", bias=True)
    yield same("tables.tokens.weight", "model.decoder.embed_tokens.weight")
    for side, stack in (("encoder", model.encoder), ("decoder", model.decoder)):
        assert stack is not None
        theirs = f"model.{side}"
        yield same(f"{side}.added_positions.table.weight", f"{theirs}.embed_positions.weight")
        yield from norm(NORM, f"{side}.final_norm", f"{theirs}.layer_norm")
        for i, layer in enumerate(stack.layers):
            yield from layer_pairs(layer, f"{side}.layers.{i}", f"{theirs}.layers.{i}", LAYER)
    head = model.vocabulary_head
    if head is not None and not head.tied:
        yield same("heads.vocabulary.out.weight", "proj_out.weight")


EXAMPLE: Config = {
    "model_type": "whisper",
    "vocab_size": 40,
    "num_mel_bins": 6,
    "d_model": 24,
    "encoder_layers": 2,
    "encoder_attention_heads": 3,
    "encoder_ffn_dim": 32,
    "decoder_layers": 2,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 28,
    "max_source_positions": 12,
    "max_target_positions": 30,
}

FAMILY = Family(
    name="whisper",
    model_types=("whisper",),
    architecture="WhisperForConditionalGeneration",
    spec=model_spec,
    pairs=pairs,
    aliases={"proj_out.weight": "model.decoder.embed_tokens.weight"},
    saved_config=saved_config({"whisper": "Whisper"}, HEADS),
    renames=((r"^(encoder|decoder)\.", r"model.\1."),),  # stored without a head
    examples=(EXAMPLE, {**EXAMPLE, "tie_word_embeddings": False, "activation_function": "relu"}),
)
