"""GPT-2 against `transformers`."""

import torch
from family_oracle import CLOSE, assert_same, fill, lean, padded_rows, stepwise, twins
from hypothesis import given
from hypothesis import strategies as st
from transformers import GPT2Config

options = st.fixed_dictionaries(
    {
        "n_layer": st.sampled_from((1, 3)),
        "layer_norm_epsilon": st.sampled_from((1e-5, 1e-2)),
        "n_inner": st.sampled_from((None, 20)),
        "activation_function": st.sampled_from(("gelu_new", "gelu", "relu")),
        "scale_attn_weights": st.booleans(),
        "scale_attn_by_inverse_layer_idx": st.booleans(),
        "reorder_and_upcast_attn": st.booleans(),
        "tie_word_embeddings": st.booleans(),
    }
)


def small(**more) -> GPT2Config:
    return GPT2Config(vocab_size=40, n_embd=24, n_head=3, n_positions=20, **more)


@lean
@given(options)
def test_logits_equal_those_of_transformers_in_one_pass_and_step_by_step(more):
    ids, mask = padded_rows(40, 15, 0)
    at = (mask.cumsum(1) - 1).clamp(min=0)
    with twins("GPT2LMHeadModel", small(**more)) as pair:
        theirs = pair.theirs(ids, attention_mask=mask, position_ids=at).logits
        ours = pair.ours(ids, mask, position_ids=at).logits
        assert_same(ours, theirs, mask)
        plain = pair.ours(ids).logits
        assert_same(plain, pair.theirs(ids).logits)
        torch.testing.assert_close(stepwise(pair.ours, ids), plain, **CLOSE)


def test_classes_are_read_at_the_last_real_token():
    ids, mask = padded_rows(40, 9, 0)
    with twins("GPT2ForSequenceClassification", small(n_layer=1, pad_token_id=0)) as pair:
        theirs = pair.theirs(ids, attention_mask=mask).logits
        assert_same(pair.ours(ids, mask).logits[:3], theirs[:3])


def test_a_file_without_prefix_and_with_mask_tables_is_read():
    with twins("GPT2LMHeadModel", small(n_layer=1)) as pair:
        stored = dict(pair.theirs.transformer.state_dict())
        stored["h.0.attn.bias"] = torch.ones(1, 1, 20, 20).tril()
        stored["h.0.attn.masked_bias"] = torch.tensor(-1e4)
        again = fill(pair.family, pair.config, stored).state_dict()
        for name, tensor in pair.ours.state_dict().items():
            assert torch.equal(again[name], tensor)
