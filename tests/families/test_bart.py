"""BART, mBART, Pegasus, Marian and M2M100 against `transformers`."""

import pytest
import torch
import transformers
from family_oracle import CLOSE, assert_same, lean, padded_rows, stepwise, twins
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from transformers import CONFIG_MAPPING

from mainspring.checkpoints.bundle import load
from mainspring.errors import BadOption, BadWeights
from mainspring.families.bart import EXAMPLE, FAMILY

CLASSES = {
    "bart": "BartForConditionalGeneration",
    "mbart": "MBartForConditionalGeneration",
    "pegasus": "PegasusForConditionalGeneration",
    "marian": "MarianMTModel",
    "m2m_100": "M2M100ForConditionalGeneration",
}
options = st.fixed_dictionaries(
    {
        "encoder_layers": st.sampled_from((1, 2)),
        "decoder_layers": st.sampled_from((1, 2)),
        "encoder_attention_heads": st.sampled_from((1, 3)),
        "activation_function": st.sampled_from(("gelu", "relu", "swish")),
        "scale_embedding": st.booleans(),
    }
)


def small(kind: str, **more):
    return CONFIG_MAPPING[kind](
        vocab_size=40,
        d_model=24,
        encoder_ffn_dim=32,
        decoder_attention_heads=2,
        decoder_ffn_dim=28,
        max_position_embeddings=25,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=2,
        forced_eos_token_id=2,
        **more,
    )


def check(kind: str, **more) -> None:
    ids, mask = padded_rows(36, 15, 1)
    targets, target_mask = padded_rows(36, 11, 1, seed=1)
    targets, target_mask = targets[[2, 0, 2, 0]], target_mask[[2, 0, 2, 0]]
    with twins(CLASSES[kind], small(kind, **more)) as pair:
        theirs = pair.theirs(
            input_ids=ids,
            attention_mask=mask,
            decoder_input_ids=targets,
            decoder_attention_mask=target_mask,
        ).logits
        ours = pair.ours(ids, mask, targets, target_mask).logits
        assert_same(ours[:3], theirs[:3], target_mask[:3])
        assert ours.isfinite().all()
        memory = pair.ours.encode(ids, mask.bool())
        seen = {"memory_BSD": memory, "memory_keep_BS": mask.bool(), "keep_BS": target_mask.bool()}
        torch.testing.assert_close(
            stepwise(pair.ours, targets, **seen)[target_mask.bool()],
            ours[target_mask.bool()],
            **CLOSE,
        )


@lean
@given(st.sampled_from(("bart", "mbart", "pegasus")), options)
def test_bart_and_its_likes_equal_transformers(kind, more):
    check(kind, **more)


@lean
@given(st.sampled_from(("marian", "m2m_100")), st.booleans(), st.booleans(), options)
def test_marian_and_m2m100_equal_transformers(kind, shared, tied, more):
    if kind == "marian" and not shared:
        more |= {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 36}
        more |= {"tie_word_embeddings": tied}
    check(kind, **more)


def test_untied_shared_tables_are_an_error_that_names_the_key():
    with pytest.raises(BadOption, match="tie_word_embeddings"):
        FAMILY.spec({**EXAMPLE, "tie_word_embeddings": False}, ())


def test_classes_are_read_at_the_end_of_the_decoder():
    ids = torch.tensor([[0, 7, 8, 9, 2, 1], [0, 7, 12, 2, 1, 1], [0, 30, 8, 9, 31, 2]])
    mask = (ids != 1).long()
    shifted = torch.cat([torch.full((3, 1), 2), ids[:, :-1]], 1)
    config = small("bart", encoder_layers=1, decoder_layers=1, encoder_attention_heads=2)
    with twins("BartForSequenceClassification", config) as pair:
        theirs = pair.theirs(input_ids=ids, attention_mask=mask).logits
        # `transformers` shows the decoder the padding too: causal, it changes nothing before.
        assert_same(pair.ours(ids, mask, shifted, mask).logits, theirs)


@pytest.mark.parametrize(("kind", "dtype"), [("pegasus", torch.float32), ("marian", torch.float16)])
def test_a_stored_table_of_positions_must_be_that_of_the_formula(tmp_path, kind, dtype):
    config = small(kind, encoder_attention_heads=2)
    model = getattr(transformers, CLASSES[kind])(config).to(dtype)
    table = model.model.encoder.embed_positions.weight
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tensors["model.encoder.embed_positions.weight"] = table.detach().clone()
    (tmp_path / "config.json").write_text(model.config.to_json_string(), encoding="utf-8")
    save_file(tensors, tmp_path / "model.safetensors")
    load(tmp_path)
    tensors["model.encoder.embed_positions.weight"][3, 0] += 0.1
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(BadWeights, match=r"differs .*encoder\.embed_positions"):
        load(tmp_path)
