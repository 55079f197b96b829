"""GPT-2 (Radford et al., 2019) and DistilGPT-2.

The published files store every projection's matrix transposed, and queries, keys and values as
one; the vocabulary head is the token table.
"""

from collections.abc import Collection, Iterator

from mainspring import spec
from mainspring.families import Config, Family
from mainspring.families.heads import (
    CAUSAL,
    Stored,
    causal_classes,
    causal_heads,
    causal_pairs,
    saved_config,
)
from mainspring.families.keys import Keys, activation, check_divides, words
from mainspring.families.layout import norm, norms
from mainspring.weights.maps import Ignored, Joined, Pair, Transposed, same

KEYS = Keys(
    defaults={
        "gpt2": {
            "vocab_size": 50257,
            "n_positions": 1024,
            "n_embd": 768,
            "n_layer": 12,
            "n_head": 12,
            "n_inner": None,
            "activation_function": "gelu_new",
            "resid_pdrop": 0.1,
            "embd_pdrop": 0.1,
            "attn_pdrop": 0.1,
            "layer_norm_epsilon": 1e-5,
            "scale_attn_weights": True,
            "scale_attn_by_inverse_layer_idx": False,
            "tie_word_embeddings": True,
        }
    },
    # `reorder_and_upcast_attn` changes the order of the arithmetic, not its meaning; the summary
    # keys belong to a head for multiple choice.
    harmless=words(
        "n_ctx reorder_and_upcast_attn summary_activation summary_first_dropout "
        "summary_proj_to_labels summary_type summary_use_proj"
    ),
)
LANGUAGE_MODEL = Stored("lm_head.weight", ("LMHeadModel",))
NORMS = {"self_residual.norm": "ln_1", "feed_residual.norm": "ln_2"}
PROJECTIONS = {
    "self_attention.o": "attn.c_proj",
    "feed_forward.expand.up": "mlp.c_fc",
    "feed_forward.down": "mlp.c_proj",
}


def vocabulary(c: Config) -> spec.VocabularyHead:
    return spec.VocabularyHead(c["vocab_size"], tied=c["tie_word_embeddings"])


def head(name: str, config: Config) -> spec.Head:
    """A head as GPT-2 has it."""
    if name == "classes":
        return causal_classes(config)
    return vocabulary(KEYS.read(config))


def model_spec(config: Config, names: Collection[str]) -> spec.Model:
    """The spec of a GPT-2 `config.json`. `names` are the tensors its files hold."""
    c = KEYS.read(config)
    width, heads = c["n_embd"], c["n_head"]
    head_width = check_divides(c, "n_embd", "n_head")

    def layer(i: int) -> spec.Layer:
        scale = head_width**-0.5 if c["scale_attn_weights"] else 1.0
        if c["scale_attn_by_inverse_layer_idx"]:
            scale /= i + 1
        dropout = c["attn_pdrop"]
        return spec.Layer(
            spec.Attention(heads, heads, head_width, "qkvo", scale, dropout=dropout),
            spec.FeedForward(
                c["n_inner"] or 4 * width, activation(c, "activation_function"), bias=True
            ),
            spec.LayerNorm(c["layer_norm_epsilon"]),
            mask=spec.CausalMask(),
            dropout=c["resid_pdrop"],
        )

    decoder = spec.Stack(
        width,
        spec.TokenEmbedding(c["vocab_size"]),
        tuple(layer(i) for i in range(c["n_layer"])),
        spec.Learned(c["n_positions"]),
        spec.LayerNorm(c["layer_norm_epsilon"]),
        dropout=c["embd_pdrop"],
    )
    return spec.Model(decoder=decoder, heads=causal_heads(config, names, vocabulary(c)))


def pairs(model: spec.Model) -> Iterator[Pair]:
    """Our tensor names beside GPT-2's."""
    stack = model.decoder
    assert stack is not None and stack.final_norm is not None
    yield same("tables.tokens.weight", "transformer.wte.weight")
    yield same("decoder.added_positions.table.weight", "transformer.wpe.weight")
    yield from norm(stack.final_norm, "decoder.final_norm", "transformer.ln_f")
    for i, layer in enumerate(stack.layers):
        ours, theirs = f"decoder.layers.{i}", f"transformer.h.{i}"
        qkv = [f"{ours}.self_attention.qkv.{p}" for p in "qkv"]
        for part, joined in (("weight", Joined(3, 1, transposed=True)), ("bias", Joined(3))):
            parts = tuple(f"{name}.{part}" for name in qkv)
            yield Pair(parts, (f"{theirs}.attn.c_attn.{part}",), joined)
        for mine, name in PROJECTIONS.items():
            weight, stored = f"{ours}.{mine}.weight", f"{theirs}.{name}.weight"
            yield Pair((weight,), (stored,), Transposed())
            yield same(f"{ours}.{mine}.bias", f"{theirs}.{name}.bias")
        for mine, kind in norms(layer):
            yield from norm(kind, f"{ours}.{mine}", f"{theirs}.{NORMS[mine]}")
    yield from causal_pairs(model)


EXAMPLE: Config = {
    "model_type": "gpt2",
    "vocab_size": 40,
    "n_embd": 24,
    "n_layer": 2,
    "n_head": 3,
    "n_positions": 30,
}

FAMILY = Family(
    name="gpt2",
    model_types=("gpt2",),
    architecture="GPT2LMHeadModel",
    spec=model_spec,
    pairs=pairs,
    aliases={"lm_head.weight": "transformer.wte.weight"},
    ignored=(
        Ignored("transformer.h.*.attn.bias", "the causal mask, as a table"),
        Ignored("transformer.h.*.attn.masked_bias", "the number put at hidden places"),
    ),
    saved_config=saved_config({"gpt2": "GPT2"}, {**CAUSAL, "vocabulary": LANGUAGE_MODEL}),
    renames=((r"^(wte|wpe|h|ln_f)\.", r"transformer.\1."),),  # stored without a head
    head=head,
    examples=(
        {**EXAMPLE, "architectures": ["GPT2LMHeadModel"]},
        {**EXAMPLE, "scale_attn_weights": False, "scale_attn_by_inverse_layer_idx": True},
        {**EXAMPLE, "architectures": ["GPT2ForSequenceClassification"], "n_inner": 40},
    ),
)
