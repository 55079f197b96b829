"""BART (Lewis et al., 2020) and the encoder-decoders stored like it: mBART (Liu et al., 2020),
Pegasus (Zhang et al., 2020), Marian (Junczys-Dowmunt et al., 2018) and M2M100 with NLLB (Fan et
al., 2021; NLLB Team, 2022).

They differ in where the norms stand and in the positions; `TRAITS` says how.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from mainspring import spec
from mainspring.errors import BadOption
from mainspring.families import Config, Family
from mainspring.families.heads import Stored, find_heads, saved_config
from mainspring.families.keys import Keys, activation, check_divides, labels, words
from mainspring.families.layout import layer_pairs, module, norm
from mainspring.weights.maps import Ignored, LeadingAxis, Pair, SkippedRows, is_sinusoid, same


@dataclass(frozen=True)
class Traits:
    """What sets a model type apart. Norms before each part come with a last norm."""

    norm_placement: Literal["pre", "post"]
    positions: Literal["learned", "sinusoidal", "counted"]
    embedding_norm: bool = False
    logits_bias: bool = True


TRAITS = {
    "bart": Traits("post", "learned", embedding_norm=True),
    "mbart": Traits("pre", "learned", embedding_norm=True),
    "pegasus": Traits("pre", "sinusoidal"),
    "marian": Traits("post", "sinusoidal"),
    "m2m_100": Traits("pre", "counted", logits_bias=False),
}
STEMS = {"bart": "Bart", "mbart": "MBart", "pegasus": "Pegasus", "m2m_100": "M2M100"}
# BART's tables of learned positions start with two rows that nobody reads.
UNREAD_ROWS = 2
NORM = spec.LayerNorm(1e-5)

_DEFAULTS: Config = {
    "vocab_size": 50265,
    "d_model": 1024,
    "encoder_layers": 12,
    "encoder_ffn_dim": 4096,
    "encoder_attention_heads": 16,
    "decoder_layers": 12,
    "decoder_ffn_dim": 4096,
    "decoder_attention_heads": 16,
    "activation_function": "gelu",
    "dropout": 0.1,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "classifier_dropout": 0.0,
    "max_position_embeddings": 1024,
    "scale_embedding": False,
    "tie_word_embeddings": True,
}
_MARIAN: Config = {"vocab_size": 58101, "share_encoder_decoder_embeddings": True}
_M2M: Config = {
    "vocab_size": 128112,
    "activation_function": "relu",
    "attention_dropout": 0.1,
    "scale_embedding": True,
    "pad_token_id": 1,
}
KEYS = Keys(
    defaults={
        "bart": _DEFAULTS,
        "mbart": _DEFAULTS,
        "pegasus": _DEFAULTS,
        "marian": {**_DEFAULTS, **_MARIAN, "decoder_vocab_size": None},
        "m2m_100": {**_DEFAULTS, **_M2M},
    },
    # Left by versions of the library in which one class served all of these models.
    harmless=words(
        "add_bias_logits add_final_layer_norm normalize_before normalize_embedding "
        "do_blenderbot_90_layernorm extra_pos_embeddings force_bos_token_to_be_generated "
        "classif_dropout save_step variance"
    ),
)

HEADS = {
    "vocabulary": Stored("final_logits_bias", ("ForConditionalGeneration", "MTModel")),
    "classes": Stored("classification_head.out_proj.weight", ("ForSequenceClassification",)),
    "span": Stored("qa_outputs.weight", ("ForQuestionAnswering",)),
}
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


def head(name: str, config: Config) -> spec.Head:
    """A head as BART has it. Classes are read at the last token of the decoder."""
    c, kind = KEYS.read(config), config.get("model_type", "bart")
    match name:
        case "vocabulary":
            rows = c.get("decoder_vocab_size") or c["vocab_size"]
            return spec.VocabularyHead(
                rows, c["tie_word_embeddings"], bias=TRAITS[kind].logits_bias
            )
        case "classes":
            number = labels(config, 3 if kind == "bart" else 2)
            return spec.ClassHead(number, "last", "tanh", dropout=c["classifier_dropout"])
        case _:
            return spec.TokenClassHead(2)


def model_spec(config: Config, names: Collection[str]) -> spec.Model:
    """The spec of a `config.json` of these types. `names` are the tensors its files hold."""
    c, kind = KEYS.read(config), config.get("model_type", "bart")
    traits, width = TRAITS[kind], c["d_model"]
    scale = width**0.5 if c["scale_embedding"] else 1.0
    length = c["max_position_embeddings"]
    positions: spec.StackPositions
    match traits.positions:
        case "learned":
            positions = spec.Learned(length)
        case "sinusoidal":
            positions = spec.Sinusoidal(length)
        case "counted":
            first = c["pad_token_id"] + 1
            positions = spec.Sinusoidal(length, True, first, closed=True, extends=True)

    def stack(side: str, embedding: spec.TokenEmbedding, mask: spec.Mask) -> spec.Stack:
        heads = c[f"{side}_attention_heads"]
        head_width = check_divides(c, "d_model", f"{side}_attention_heads")
        attention = spec.Attention(heads, heads, head_width, "qkvo", dropout=c["attention_dropout"])
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
            traits.norm_placement,
            mask,
            c["dropout"],
        )
        return spec.Stack(
            width,
            embedding,
            (layer,) * c[f"{side}_layers"],
            positions,
            NORM if traits.norm_placement == "pre" else None,
            c["dropout"],
            embedding_norm=NORM if traits.embedding_norm else None,
        )

    source = target = spec.TokenEmbedding(c["vocab_size"], scale)
    shared = c.get("share_encoder_decoder_embeddings", True)
    if shared and not c["tie_word_embeddings"]:
        raise BadOption(
            "config.json: `tie_word_embeddings` is false, which `transformers` 4 takes for a head "
            "of its own and 5 for three tables of their own; neither is read"
        )
    if not shared:
        source = spec.TokenEmbedding(c["vocab_size"], scale, "source")
        target = spec.TokenEmbedding(c["decoder_vocab_size"] or c["vocab_size"], scale)
    reader = next(
        (name for name in find_heads(config, names, HEADS) if name != "vocabulary"), "vocabulary"
    )
    kind_of_head = head(reader, config)
    if isinstance(kind_of_head, spec.VocabularyHead) and names:
        kind_of_head = spec.VocabularyHead(
            target.vocabulary,
            kind_of_head.tied and "lm_head.weight" not in names,
            bias="final_logits_bias" in names,
        )
    return spec.Model(
        stack("encoder", source, spec.FullMask()),
        stack("decoder", target, spec.CausalMask()),
        ((reader, kind_of_head),),
    )


def pairs(model: spec.Model) -> Iterator[Pair]:
    """Our tensor names beside BART's."""
    assert model.encoder is not None and model.decoder is not None
    if model.encoder.embedding == model.decoder.embedding:
        yield same("tables.tokens.weight", "model.shared.weight")
    else:
        yield same("tables.source.weight", "model.encoder.embed_tokens.weight")
        yield same("tables.tokens.weight", "model.decoder.embed_tokens.weight")
    for side, stack in (("encoder", model.encoder), ("decoder", model.decoder)):
        if isinstance(stack.positions, spec.Learned):
            table, stored = "added_positions.table.weight", "embed_positions.weight"
            skipped = SkippedRows(UNREAD_ROWS)
            yield Pair((f"{side}.{table}",), (f"model.{side}.{stored}",), skipped)
        if stack.embedding_norm is not None:
            yield from norm(NORM, f"{side}.embedding_norm", f"model.{side}.layernorm_embedding")
        if stack.final_norm is not None:
            yield from norm(NORM, f"{side}.final_norm", f"model.{side}.layer_norm")
        for i, layer in enumerate(stack.layers):
            yield from layer_pairs(layer, f"{side}.layers.{i}", f"model.{side}.layers.{i}", LAYER)
    for name, kind in model.heads:
        match kind:
            case spec.VocabularyHead():
                if not kind.tied:
                    yield same(f"heads.{name}.out.weight", "lm_head.weight")
                if kind.bias:
                    yield Pair((f"heads.{name}.bias",), ("final_logits_bias",), LeadingAxis())
            case spec.ClassHead():
                stored = "classification_head"
                yield from module(f"heads.{name}.hidden.project", f"{stored}.dense", bias=True)
                yield from module(f"heads.{name}.out", f"{stored}.out_proj", bias=True)
            case _:
                yield from module(f"heads.{name}.out", "qa_outputs", bias=True)


def _saved(config: Config, model: spec.Model) -> Config:
    if config.get("model_type") == "marian":
        return {**config, "architectures": ["MarianMTModel"]}
    return saved_config(STEMS, HEADS)(config, model)


EXAMPLE: Config = {
    "vocab_size": 40,
    "d_model": 24,
    "encoder_layers": 2,
    "encoder_ffn_dim": 32,
    "encoder_attention_heads": 3,
    "decoder_layers": 2,
    "decoder_ffn_dim": 28,
    "decoder_attention_heads": 2,
    "max_position_embeddings": 30,
}

FAMILY = Family(
    name="bart",
    model_types=tuple(TRAITS),
    architecture="BartForConditionalGeneration",
    spec=model_spec,
    pairs=pairs,
    aliases={
        "model.encoder.embed_tokens.weight": "model.shared.weight",
        "model.decoder.embed_tokens.weight": "model.shared.weight",
        "lm_head.weight": "model.shared.weight",
    },
    ignored=(
        Ignored(
            "model.*coder.embed_positions.weight",
            "the fixed sines and cosines, as a table",
            holds=is_sinusoid,
        ),
        Ignored("model.*coder.embed_positions.weights", "those of M2M100, which are never learned"),
        Ignored("model.*coder.version", "a mark of the library that trained the model"),
    ),
    saved_config=_saved,
    renames=((r"^(shared|encoder|decoder)\.", r"model.\1."),),  # stored without a head
    head=head,
    examples=(
        {**EXAMPLE, "model_type": "bart"},
        {**EXAMPLE, "model_type": "bart", "architectures": ["BartForSequenceClassification"]},
        {**EXAMPLE, "model_type": "mbart", "scale_embedding": True},
        {**EXAMPLE, "model_type": "pegasus", "activation_function": "relu"},
        {
            **EXAMPLE,
            "model_type": "marian",
            "share_encoder_decoder_embeddings": False,
            "decoder_vocab_size": 36,
            "tie_word_embeddings": False,
            "activation_function": "swish",
        },
        {**EXAMPLE, "model_type": "m2m_100"},
    ),
)
