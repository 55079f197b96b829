"""RoBERTa (Liu et al., 2019) and its relatives: XLM-RoBERTa (Conneau et al., 2020), CamemBERT.

BERT's layers with other heads. Positions count the real tokens only, wherever the padding stands,
and the position table starts with two rows for padding, which nobody needs.
"""

from collections.abc import Collection, Iterator

from mainspring import spec
from mainspring.families import Config, Family
from mainspring.families.bert import DEFAULTS, masked_head, reading_head, stack, stack_pairs
from mainspring.families.heads import (
    Stored,
    find_heads,
    masked_pairs,
    masked_tie,
    saved_config,
)
from mainspring.families.keys import Keys
from mainspring.families.layout import module
from mainspring.weights.maps import Ignored, Pair, SkippedRows

PAD, PADDING_ROWS = 1, 2

KEYS = Keys(
    defaults={
        "roberta": {"vocab_size": 50265, **DEFAULTS},
        "xlm-roberta": {"vocab_size": 30522, **DEFAULTS},
        "camembert": {"vocab_size": 30522, **DEFAULTS},
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
MASKED_MATRIX = "lm_head.decoder"
# Our modules of each head, and theirs.
MODULES = {
    "vocabulary": {"hidden.project": "lm_head.dense", "norm": "lm_head.layer_norm"},
    "classes": {"hidden.project": "classifier.dense", "out": "classifier.out_proj"},
    "token_classes": {"out": "classifier"},
    "span": {"out": "qa_outputs"},
    "pooled": {"hidden.project": "roberta.pooler.dense"},
}


def head(name: str, config: Config, names: Collection[str] = ()) -> spec.Head:
    """A head as RoBERTa has it, or as the tensors `names` say."""
    c = KEYS.read(config)
    if name == "vocabulary":
        return masked_head(c, "gelu", masked_tie(c, names, f"{MASKED_MATRIX}.weight"))
    return reading_head(name, config, c)


def model_spec(config: Config, names: Collection[str]) -> spec.Model:
    """The spec of a RoBERTa `config.json`. `names` are the tensors its files hold."""
    c = KEYS.read(config)
    rows = c["max_position_embeddings"] - PADDING_ROWS
    encoder = stack(c, spec.Learned(rows, skips_padding=True))
    found = find_heads(config, names, HEADS)
    return spec.Model(encoder, heads=tuple((name, head(name, config, names)) for name in found))


def pairs(model: spec.Model) -> Iterator[Pair]:
    """Our tensor names beside RoBERTa's."""
    yield from stack_pairs(model, "roberta", SkippedRows(PADDING_ROWS))
    for name, _ in model.heads:
        for ours, theirs in MODULES.get(name, {}).items():
            yield from module(f"heads.{name}.{ours}", theirs, bias=True)
    if model.vocabulary_head is not None:
        yield from masked_pairs(model.vocabulary_head, MASKED_MATRIX, "lm_head.bias")


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
