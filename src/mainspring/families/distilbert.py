"""DistilBERT (Sanh et al., 2019): BERT's layers without token types and pooler."""

from collections.abc import Collection, Iterator

from mainspring import spec
from mainspring.families import Config, Family
from mainspring.families.heads import Stored, find_heads, masked_tie, saved_config
from mainspring.families.keys import Keys, activation, check_divides, labels, words
from mainspring.families.layout import layer_pairs, module, norm
from mainspring.weights.maps import Ignored, Pair, same

KEYS = Keys(
    defaults={
        "distilbert": {
            "vocab_size": 30522,
            "max_position_embeddings": 512,
            "n_layers": 6,
            "n_heads": 12,
            "dim": 768,
            "hidden_dim": 3072,
            "dropout": 0.1,
            "attention_dropout": 0.1,
            "activation": "gelu",
            "qa_dropout": 0.1,
            "seq_classif_dropout": 0.2,
            "tie_word_embeddings": True,
        }
    },
    # Sinusoidal position vectors are stored like learned ones.
    harmless=words("sinusoidal_pos_embds tie_weights_"),
)
NORM = spec.LayerNorm(1e-12)

HEADS = {
    "vocabulary": Stored("vocab_projector.bias", ("ForMaskedLM",)),
    "classes": Stored("pre_classifier.weight", ("ForSequenceClassification",)),
    "token_classes": Stored(
        "classifier.weight", ("ForTokenClassification",), unless="pre_classifier.weight"
    ),
    "span": Stored("qa_outputs.weight", ("ForQuestionAnswering",)),
}
# Our modules of each head, and theirs.
MODULES = {
    "vocabulary": {"hidden.project": "vocab_transform", "norm": "vocab_layer_norm"},
    "classes": {"hidden.project": "pre_classifier", "out": "classifier"},
    "token_classes": {"out": "classifier"},
    "span": {"out": "qa_outputs"},
}

LAYER = {
    "self_attention.qkv.q": "attention.q_lin",
    "self_attention.qkv.k": "attention.k_lin",
    "self_attention.qkv.v": "attention.v_lin",
    "self_attention.o": "attention.out_lin",
    "self_residual.norm": "sa_layer_norm",
    "feed_forward.expand.up": "ffn.lin1",
    "feed_forward.down": "ffn.lin2",
    "feed_residual.norm": "output_layer_norm",
}


def head(name: str, config: Config, names: Collection[str] = ()) -> spec.Head:
    """A head as DistilBERT has it, or as the tensors `names` say."""
    c = KEYS.read(config)
    match name:
        case "vocabulary":
            return spec.VocabularyHead(
                c["vocab_size"],
                masked_tie(c, names, "vocab_projector.weight"),
                bias=True,
                hidden=activation(c, "activation"),
                hidden_norm=NORM,
            )
        case "classes":
            dropout = c["seq_classif_dropout"]
            return spec.ClassHead(labels(config), hidden="relu", dropout=dropout)
        case "token_classes":
            return spec.TokenClassHead(labels(config), c["dropout"])
        case _:
            return spec.TokenClassHead(2, c["qa_dropout"])


def model_spec(config: Config, names: Collection[str]) -> spec.Model:
    """The spec of a DistilBERT `config.json`. `names` are the tensors its files hold."""
    c = KEYS.read(config)
    heads, width = c["n_heads"], check_divides(c, "dim", "n_heads")
    layer = spec.Layer(
        spec.Attention(heads, heads, width, biases="qkvo", dropout=c["attention_dropout"]),
        spec.FeedForward(c["hidden_dim"], activation(c, "activation"), bias=True),
        NORM,
        norm_placement="post",
        dropout=c["dropout"],
    )
    encoder = spec.Stack(
        c["dim"],
        spec.TokenEmbedding(c["vocab_size"]),
        (layer,) * c["n_layers"],
        spec.Learned(c["max_position_embeddings"]),
        dropout=c["dropout"],
        embedding_norm=NORM,
    )
    found = find_heads(config, names, HEADS)
    return spec.Model(encoder, heads=tuple((name, head(name, config, names)) for name in found))


def pairs(model: spec.Model) -> Iterator[Pair]:
    """Our tensor names beside DistilBERT's."""
    stack, theirs = model.encoder, "distilbert.embeddings"
    assert stack is not None
    yield same("tables.tokens.weight", f"{theirs}.word_embeddings.weight")
    yield same("encoder.added_positions.table.weight", f"{theirs}.position_embeddings.weight")
    yield from norm(NORM, "encoder.embedding_norm", f"{theirs}.LayerNorm")
    for i, layer in enumerate(stack.layers):
        at = f"distilbert.transformer.layer.{i}"
        yield from layer_pairs(layer, f"encoder.layers.{i}", at, LAYER)
    for name, _ in model.heads:
        for ours, theirs in MODULES.get(name, {}).items():
            yield from module(f"heads.{name}.{ours}", theirs, bias=True)
    if model.vocabulary_head is not None:
        yield same("heads.vocabulary.bias", "vocab_projector.bias")
        if not model.vocabulary_head.tied:
            yield same("heads.vocabulary.out.weight", "vocab_projector.weight")


EXAMPLE: Config = {
    "model_type": "distilbert",
    "vocab_size": 40,
    "dim": 24,
    "n_layers": 2,
    "n_heads": 3,
    "hidden_dim": 32,
    "max_position_embeddings": 30,
}

FAMILY = Family(
    name="distilbert",
    model_types=("distilbert",),
    architecture="DistilBertModel",
    spec=model_spec,
    pairs=pairs,
    aliases={"vocab_projector.weight": "distilbert.embeddings.word_embeddings.weight"},
    ignored=(Ignored("distilbert.embeddings.position_ids", "the numbers 0, 1, 2 ... in order"),),
    saved_config=saved_config({"distilbert": "DistilBert"}, HEADS),
    renames=((r"^(embeddings|transformer)\.", r"distilbert.\1."),),  # stored without a head
    head=head,
    examples=tuple(
        {**EXAMPLE, "architectures": [f"DistilBert{end}"]}
        for end in (
            "ForMaskedLM",
            "ForSequenceClassification",
            "ForTokenClassification",
            "ForQuestionAnswering",
            "Model",
        )
    ),
)
