"""BERT (Devlin et al., 2019) and the encoders stored like it: MiniLM and most sentence encoders.

Norms stand after each residual sum, positions and token types are learned and normalised together
with the tokens. The pooler, a tanh layer on the first position, belongs to the heads that read it.
"""

from collections.abc import Collection, Iterator

from mainspring import spec
from mainspring.families import Config, Family, TokenLayout
from mainspring.families.heads import (
    Stored,
    find_heads,
    masked_pairs,
    masked_tie,
    saved_config,
)
from mainspring.families.keys import Keys, activation, check_divides, labels, words
from mainspring.families.layout import layer_pairs, module, norm
from mainspring.weights.maps import SAME, Ignored, Operation, Pair, same

DEFAULTS: Config = {
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
    "tie_word_embeddings": True,
}
KEYS = Keys(
    defaults={"bert": {"vocab_size": 30522, **DEFAULTS}},
    fixed={"position_embedding_type": ("absolute",)},
    # Written by early conversions; the pooler they describe is the one that all have.
    harmless=words(
        "directionality pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers "
        "pooler_size_per_head pooler_type"
    ),
)

HEADS = {
    "vocabulary": Stored("cls.predictions.bias", ("ForMaskedLM", "ForPreTraining")),
    "classes": Stored("classifier.weight", ("ForSequenceClassification",)),
    "token_classes": Stored("classifier.weight", ("ForTokenClassification",)),
    "span": Stored("qa_outputs.weight", ("ForQuestionAnswering",)),
    "next_sentence": Stored(
        "cls.seq_relationship.weight", ("ForNextSentencePrediction", "ForPreTraining")
    ),
    "pooled": Stored("bert.pooler.dense.weight", ("Model",)),
}
MASKED_MATRIX = "cls.predictions.decoder"
POOLING = ("classes", "next_sentence", "pooled")
OUTPUTS = {
    "classes": "classifier",
    "token_classes": "classifier",
    "span": "qa_outputs",
    "next_sentence": "cls.seq_relationship",
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


def reading_head(name: str, config: Config, c: Config) -> spec.Head:
    """A head that reads vectors, as BERT and its relatives have it; `c` is the config as read."""
    stated = c["classifier_dropout"]
    dropout = c["hidden_dropout_prob"] if stated is None else stated
    match name:
        case "classes":
            return spec.ClassHead(labels(config), hidden="tanh", dropout=dropout)
        case "next_sentence":
            return spec.ClassHead(2, hidden="tanh")
        case "token_classes":
            return spec.TokenClassHead(labels(config), dropout)
        case "span":
            return spec.TokenClassHead(2)
        case _:
            return spec.EmbeddingHead(hidden="tanh")


def masked_head(c: Config, hidden: spec.Activation, tied: bool) -> spec.VocabularyHead:
    """The head that tells masked tokens."""
    norm = spec.LayerNorm(c["layer_norm_eps"])
    return spec.VocabularyHead(c["vocab_size"], tied, bias=True, hidden=hidden, hidden_norm=norm)


def head(name: str, config: Config, names: Collection[str] = ()) -> spec.Head:
    """A head as BERT has it, or as the tensors `names` say."""
    c = KEYS.read(config)
    if name == "vocabulary":
        tied = masked_tie(c, names, f"{MASKED_MATRIX}.weight")
        return masked_head(c, activation(c, "hidden_act"), tied)
    return reading_head(name, config, c)


def stack(c: Config, positions: spec.Learned) -> spec.Stack:
    """The encoder; `c` is the config as read."""
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
    return spec.Stack(
        c["hidden_size"],
        spec.TokenEmbedding(c["vocab_size"], types=c["type_vocab_size"]),
        (layer,) * c["num_hidden_layers"],
        positions,
        dropout=dropout,
        embedding_norm=layer_norm,
    )


def model_spec(config: Config, names: Collection[str]) -> spec.Model:
    """The spec of a BERT `config.json`. `names` are the tensors its files hold."""
    c = KEYS.read(config)
    found = find_heads(config, names, HEADS)
    # One pooler, owned by the first head that reads it.
    spare = [name for name in POOLING if name in found][1:]
    heads = tuple((name, head(name, config, names)) for name in found if name not in spare)
    return spec.Model(stack(c, spec.Learned(c["max_position_embeddings"])), heads=heads)


def stack_pairs(model: spec.Model, stem: str, positions: Operation = SAME) -> Iterator[Pair]:
    """Our names of the encoder's tensors beside theirs, which begin with `stem`."""
    encoder = model.encoder
    assert encoder is not None and encoder.embedding_norm is not None
    theirs = f"{stem}.embeddings"
    yield same("tables.tokens.weight", f"{theirs}.word_embeddings.weight")
    yield same("encoder.embedding.types.weight", f"{theirs}.token_type_embeddings.weight")
    table = f"{theirs}.position_embeddings.weight"
    yield Pair(("encoder.added_positions.table.weight",), (table,), positions)
    yield from norm(encoder.embedding_norm, "encoder.embedding_norm", f"{theirs}.LayerNorm")
    for i, layer in enumerate(encoder.layers):
        yield from layer_pairs(layer, f"encoder.layers.{i}", f"{stem}.encoder.layer.{i}", LAYER)


def pairs(model: spec.Model) -> Iterator[Pair]:
    """Our tensor names beside BERT's."""
    yield from stack_pairs(model, "bert")
    for name, kind in model.heads:
        ours = f"heads.{name}"
        if name in POOLING:
            yield from module(f"{ours}.hidden.project", "bert.pooler.dense", bias=True)
        if name in OUTPUTS:
            yield from module(f"{ours}.out", OUTPUTS[name], bias=True)
        if isinstance(kind, spec.VocabularyHead):
            transform = "cls.predictions.transform"
            yield from module(f"{ours}.hidden.project", f"{transform}.dense", bias=True)
            yield from module(f"{ours}.norm", f"{transform}.LayerNorm", bias=True)
            yield from masked_pairs(kind, MASKED_MATRIX, "cls.predictions.bias")


def _size(depth: int, width: int) -> Config:
    return {
        "model_type": "bert",
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": width // 64,
        "intermediate_size": 4 * width,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
    }


EXAMPLE: Config = {
    "model_type": "bert",
    "vocab_size": 40,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 32,
    "max_position_embeddings": 30,
}

FAMILY = Family(
    name="bert",
    model_types=("bert",),
    architecture="BertModel",
    spec=model_spec,
    pairs=pairs,
    aliases={
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    },
    ignored=(Ignored("bert.embeddings.position_ids", "the numbers 0, 1, 2 ... in order"),),
    saved_config=saved_config({"bert": "Bert"}, HEADS),
    renames=(
        (r"LayerNorm\.gamma$", "LayerNorm.weight"),  # files made from TensorFlow ones
        (r"LayerNorm\.beta$", "LayerNorm.bias"),
        (r"^(embeddings|encoder|pooler)\.", r"bert.\1."),  # a model stored without a head
    ),
    head=head,
    # Turc et al., "Well-Read Students Learn Better", 2019.
    sizes={
        "bert-tiny": _size(2, 128),
        "bert-mini": _size(4, 256),
        "bert-small": _size(4, 512),
    },
    tokens=TokenLayout(
        {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"},
        before=("cls",),
        after=("sep",),
        ideographs_apart=True,
    ),
    examples=tuple(
        {**EXAMPLE, **more}
        for more in (
            {"architectures": ["BertForPreTraining"], "hidden_act": "gelu_new"},
            {"architectures": ["BertForSequenceClassification"], "num_labels": 3},
            {"architectures": ["BertForTokenClassification"]},
            {"architectures": ["BertForQuestionAnswering"], "type_vocab_size": 1},
            {"architectures": ["BertModel"]},
        )
    ),
)
