"""RoBERTa (Liu et al., 2019) and its relatives: XLM-RoBERTa (Conneau et al., 2020), CamemBERT.

BERT's layers with other heads. Positions count the real tokens only, wherever the padding stands,
and the position table starts with two rows for padding, which nobody needs.
"""

from collections.abc import Collection, Iterator

from mainspring import spec
from mainspring.families import Config, Family
from mainspring.families.heads import Stored, find_heads, saved_config
from mainspring.families.keys import Keys, activation, check_divides, labels
from mainspring.families.layout import layer_pairs, module, norm
from mainspring.weights.maps import Ignored, Pair, SkippedRows, same

PAD, PADDING_ROWS = 1, 2

_DEFAULTS: Config = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "classifier_dropout": None,
}
KEYS = Keys(
    defaults={
        "roberta": {"vocab_size": 50265, **_DEFAULTS},
        "xlm-roberta": {"vocab_size": 30522, **_DEFAULTS},
        "camembert": {"vocab_size": 30522, **_DEFAULTS},
    },
    # The position table's unread rows are as many as the padding id and one.
    fixed={"position_embedding_type": ("absolute",), "pad_token_id": (PAD,)},
)
STEMS = {"roberta": "Roberta", "xlm-roberta": "XLMRoberta", "camembert": "Camembert"}

HEADS = {
    "vocabulary": Stored("lm_head.bias", ("ForMaskedLM",)),
    "classes": Stored("classifier.out_proj.weight", ("ForSequenceClassification",)),
    "token_classes": Stored("classifier.weight", ("ForTokenClassification",)),
    "span": Stored("qa_outputs.weight", ("ForQuestionAnswering",)),
    "pooled": Stored("roberta.pooler.dense.weight", ("Model",)),
}
# Our modules of each head, and theirs.
MODULES = {
    "vocabulary": {"hidden.project": "lm_head.dense", "norm": "lm_head.layer_norm"},
    "classes": {"hidden.project": "classifier.dense", "out": "classifier.out_proj"},
    "token_classes": {"out": "classifier"},
    "span": {"out": "qa_outputs"},
    "pooled": {"hidden.project": "roberta.pooler.dense"},
}

LAYER = {
    "self_attention.qkv.q": "attention.self.query",
    "self_attention.qkv.k": "attention.self.key",
    "self_attention.qkv.v": "attention.self.value",
    "self_attention.o": "attention.output.dense",
    "self_residual.norm": "attention.output.LayerNorm",
    "feed_forward.expand.up": "intermediate.dense",
    "feed_forward.down": "output.dense",
    "feed_residual.norm": "output.LayerNorm",
}


def head(name: str, config: Config) -> spec.Head:
    """A head as RoBERTa has it."""
    c = KEYS.read(config)
    stated = c["classifier_dropout"]
    dropout = c["hidden_dropout_prob"] if stated is None else stated
    match name:
        case "vocabulary":
            return spec.VocabularyHead(
                c["vocab_size"],
                bias=True,
                hidden="gelu",
                hidden_norm=spec.LayerNorm(c["layer_norm_eps"]),
            )
        case "classes":
            return spec.ClassHead(labels(config), hidden="tanh", dropout=dropout)
        case "token_classes":
            return spec.TokenClassHead(labels(config), dropout)
        case "span":
            return spec.TokenClassHead(2)
        case _:
            return spec.EmbeddingHead(hidden="tanh")


def model_spec(config: Config, names: Collection[str]) -> spec.Model:
    """The spec of a RoBERTa `config.json`. `names` are the tensors its files hold."""
    c = KEYS.read(config)
    dropout, heads = c["hidden_dropout_prob"], c["num_attention_heads"]
    layer_norm = spec.LayerNorm(c["layer_norm_eps"])
    layer = spec.Layer(
        spec.Attention(
            heads,
            heads,
            check_divides(c, "hidden_size", "num_attention_heads"),
            biases="qkvo",
            dropout=c["attention_probs_dropout_prob"],
        ),
        spec.FeedForward(c["intermediate_size"], activation(c, "hidden_act"), bias=True),
        layer_norm,
        norm_placement="post",
        dropout=dropout,
    )
    encoder = spec.Stack(
        c["hidden_size"],
        spec.TokenEmbedding(c["vocab_size"], types=c["type_vocab_size"]),
        (layer,) * c["num_hidden_layers"],
        spec.Learned(c["max_position_embeddings"] - PADDING_ROWS, skips_padding=True),
        dropout=dropout,
        embedding_norm=layer_norm,
    )
    found = find_heads(config, names, HEADS)
    return spec.Model(encoder, heads=tuple((name, head(name, config)) for name in found))


def pairs(model: spec.Model) -> Iterator[Pair]:
    """Our tensor names beside RoBERTa's."""
    stack = model.encoder
    assert stack is not None and stack.embedding_norm is not None
    theirs = "roberta.embeddings"
    yield same("tables.tokens.weight", f"{theirs}.word_embeddings.weight")
    yield same("encoder.embedding.types.weight", f"{theirs}.token_type_embeddings.weight")
    yield Pair(
        ("encoder.added_positions.table.weight",),
        (f"{theirs}.position_embeddings.weight",),
        SkippedRows(PADDING_ROWS),
    )
    yield from norm(stack.embedding_norm, "encoder.embedding_norm", f"{theirs}.LayerNorm")
    for i, layer in enumerate(stack.layers):
        yield from layer_pairs(layer, f"encoder.layers.{i}", f"roberta.encoder.layer.{i}", LAYER)
    for name, _ in model.heads:
        for ours, theirs in MODULES.get(name, {}).items():
            yield from module(f"heads.{name}.{ours}", theirs, bias=True)
    if model.vocabulary_head is not None:
        yield same("heads.vocabulary.bias", "lm_head.bias")


EXAMPLE: Config = {
    "model_type": "roberta",
    "vocab_size": 40,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 32,
    "max_position_embeddings": 30,
    "type_vocab_size": 1,
}

FAMILY = Family(
    name="roberta",
    model_types=("roberta", "xlm-roberta", "camembert"),
    architecture="RobertaModel",
    spec=model_spec,
    pairs=pairs,
    aliases={
        "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
        "lm_head.decoder.bias": "lm_head.bias",
    },
    ignored=(Ignored("roberta.embeddings.position_ids", "the numbers 0, 1, 2 ... in order"),),
    saved_config=saved_config(STEMS, HEADS),
    renames=((r"^(embeddings|encoder|pooler)\.", r"roberta.\1."),),  # stored without a head
    head=head,
    examples=(
        {**EXAMPLE, "architectures": ["RobertaForMaskedLM"], "hidden_act": "gelu_new"},
        {**EXAMPLE, "architectures": ["RobertaForSequenceClassification"], "num_labels": 3},
        {
            **EXAMPLE,
            "model_type": "xlm-roberta",
            "architectures": ["XLMRobertaForTokenClassification"],
        },
        {**EXAMPLE, "architectures": ["RobertaForQuestionAnswering"]},
        {**EXAMPLE, "architectures": ["RobertaModel"]},
    ),
)
