"""RoBERTa, XLM-RoBERTa and DistilBERT against `transformers`."""

import pytest
import transformers
from family_oracle import assert_same, lean, padded_rows, twins
from hypothesis import given
from hypothesis import strategies as st

from mainspring.errors import BadOption
from mainspring.families.roberta import EXAMPLE, FAMILY

HEADS = {
    "ForMaskedLM": ("vocabulary", "logits"),
    "ForSequenceClassification": ("classes", "logits"),
    "ForTokenClassification": ("token_classes", "logits"),
    "Model": ("pooled", "pooler_output"),
}
STEMS = ("Roberta", "XLMRoberta", "Camembert")
options = st.fixed_dictionaries(
    {
        "num_hidden_layers": st.sampled_from((1, 2)),
        "hidden_act": st.sampled_from(("gelu", "gelu_new", "relu")),
        "type_vocab_size": st.sampled_from((1, 2)),
        "num_labels": st.sampled_from((2, 4)),
        "layer_norm_eps": st.sampled_from((1e-12, 1e-2)),
        "tie_word_embeddings": st.booleans(),
    }
)


@lean
@given(
    st.sampled_from(("Roberta", "XLMRoberta", "Camembert")), st.sampled_from(sorted(HEADS)), options
)
def test_roberta_equals_transformers(stem, end, more):
    head, field = HEADS[end]
    ids, mask = padded_rows(40, 15, 1)
    config = getattr(transformers, f"{stem}Config")(
        vocab_size=40,
        hidden_size=24,
        num_attention_heads=3,
        intermediate_size=32,
        max_position_embeddings=20,
        **more,
    )
    with twins(stem + end, config) as pair:
        out = pair.theirs(input_ids=ids, attention_mask=mask)
        ours = pair.ours(ids, mask).readings[head]
        if ours.dim() == 3:
            assert_same(ours, out[field], mask)
        else:
            assert_same(ours[[0, 2]], out[field][[0, 2]])


@lean
@given(
    st.sampled_from(("Model", "ForMaskedLM", "ForSequenceClassification")),
    st.sampled_from(("gelu", "relu")),
    st.booleans(),
    st.booleans(),
)
def test_distilbert_equals_transformers(end, activation, sinusoidal, tied):
    ids, mask = padded_rows(40, 15, 0)
    config = transformers.DistilBertConfig(
        vocab_size=40,
        dim=24,
        n_heads=3,
        n_layers=2,
        hidden_dim=32,
        max_position_embeddings=20,
        activation=activation,
        sinusoidal_pos_embds=sinusoidal,
        tie_word_embeddings=tied,
    )
    with twins("DistilBert" + end, config) as pair:
        out = pair.theirs(input_ids=ids, attention_mask=mask)
        ours = pair.ours(ids, mask)
        if end == "Model":
            assert_same(ours.last_hidden_state, out.last_hidden_state, mask)
        elif end == "ForMaskedLM":
            assert_same(ours.logits, out.logits, mask)
        else:
            assert_same(ours.logits[[0, 2]], out.logits[[0, 2]])


def test_another_padding_id_is_an_error_that_names_the_key():
    with pytest.raises(BadOption, match="pad_token_id"):
        FAMILY.spec({**EXAMPLE, "pad_token_id": 0}, ())
