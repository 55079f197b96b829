"""BERT against `transformers`."""

import pytest
import torch
from family_oracle import assert_same, lean, padded_rows, twins
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertConfig

options = st.fixed_dictionaries(
    {
        "num_hidden_layers": st.sampled_from((1, 2)),
        "hidden_act": st.sampled_from(("gelu", "gelu_new", "relu", "silu")),
        "type_vocab_size": st.sampled_from((1, 3)),
        "layer_norm_eps": st.sampled_from((1e-12, 1e-2)),
        "num_labels": st.sampled_from((2, 4)),
        "tie_word_embeddings": st.booleans(),
    }
)
HEADS = {
    "BertForMaskedLM": ("vocabulary", "logits"),
    "BertForSequenceClassification": ("classes", "logits"),
    "BertForTokenClassification": ("token_classes", "logits"),
    "BertModel": ("pooled", "pooler_output"),
}


def small(**more) -> BertConfig:
    return BertConfig(
        vocab_size=40,
        hidden_size=24,
        num_attention_heads=3,
        intermediate_size=32,
        max_position_embeddings=20,
        **more,
    )


@lean
@given(st.sampled_from(sorted(HEADS)), options)
def test_logits_equal_those_of_transformers(cls, more):
    head, field = HEADS[cls]
    ids, mask = padded_rows(40, 15, 0)
    types = ids % more["type_vocab_size"]
    with twins(cls, small(**more)) as pair:
        out = pair.theirs(input_ids=ids, attention_mask=mask, token_type_ids=types)
        x = pair.ours.encode(ids, mask.bool(), types_BT=types)
        logits = pair.ours.read(head, x)
        if logits.dim() == 3:
            assert_same(logits, out[field], mask)
        else:  # left-padded rows are read at position 0 as well, which is padding
            assert_same(logits[[0, 2]], out[field][[0, 2]])
        full = pair.ours(ids, mask, token_type_ids=types)
        torch.testing.assert_close(full.readings[head], logits)


def test_pretraining_and_span_heads():
    ids, mask = padded_rows(40, 9, 0)
    with twins("BertForPreTraining", small(num_hidden_layers=1)) as pair:
        out, ours = pair.theirs(ids, mask), pair.ours(ids, mask)
        assert_same(ours.logits, out.prediction_logits, mask)
        assert_same(ours.readings["next_sentence"][:1], out.seq_relationship_logits[:1])
    with twins("BertForQuestionAnswering", small(num_hidden_layers=1)) as pair:
        out, ours = pair.theirs(ids, mask), pair.ours(ids, mask)
        assert_same(ours.logits[..., 0], out.start_logits, mask)
        assert_same(ours.logits[..., 1], out.end_logits, mask)


def test_older_names_and_a_head_without_its_prefix_are_read(tmp_path):
    from family_oracle import fill

    with twins("BertModel", small(num_hidden_layers=1)) as pair:
        stored = {
            "embeddings.position_ids": torch.arange(20)[None],
            **{
                name.replace("LayerNorm.weight", "LayerNorm.gamma"): tensor
                for name, tensor in pair.theirs.state_dict().items()
            },
        }
        again = fill(pair.family, pair.config, stored)
        for name, tensor in pair.ours.state_dict().items():
            assert torch.equal(again.state_dict()[name], tensor)


def test_a_folder_with_a_table_of_position_numbers_is_opened(tmp_path):
    from safetensors.torch import load_file, save_file

    from mainspring import load

    with twins("BertForMaskedLM", small(num_hidden_layers=1)) as pair:
        pair.theirs.save_pretrained(tmp_path)
        file = tmp_path / "model.safetensors"
        stored = {**load_file(file), "bert.embeddings.position_ids": torch.arange(20)[None]}
        save_file(stored, file, metadata={"format": "pt"})
        ids, mask = padded_rows(40, 9, 0)
        assert_same(load(tmp_path).model(ids, mask).logits, pair.theirs(ids, mask).logits, mask)


def test_token_types_where_there_are_none_are_an_error():
    from mainspring.core.init import build
    from mainspring.families.bert import EXAMPLE, FAMILY

    model = build(FAMILY.spec({**EXAMPLE, "type_vocab_size": 0}, ()), seed=0)
    with pytest.raises(TypeError, match="token_type_ids"):
        model(torch.ones(1, 3).long(), token_type_ids=torch.zeros(1, 3).long())
