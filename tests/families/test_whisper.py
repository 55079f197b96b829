"""Whisper against `transformers`."""

import torch
from family_oracle import CLOSE, assert_same, lean, padded_rows, stepwise, twins
from hypothesis import given
from hypothesis import strategies as st
from transformers import WhisperConfig

options = st.fixed_dictionaries(
    {
        "encoder_layers": st.sampled_from((1, 2)),
        "decoder_layers": st.sampled_from((1, 2)),
        "encoder_attention_heads": st.sampled_from((1, 3)),
        "activation_function": st.sampled_from(("gelu", "relu")),
        "tie_word_embeddings": st.booleans(),
        "num_mel_bins": st.sampled_from((4, 7)),
    }
)


@lean
@given(options)
def test_logits_equal_those_of_transformers(more):
    config = WhisperConfig(
        vocab_size=40,
        d_model=24,
        encoder_ffn_dim=32,
        decoder_attention_heads=2,
        decoder_ffn_dim=28,
        max_source_positions=12,
        max_target_positions=20,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        suppress_tokens=None,
        begin_suppress_tokens=None,
        **more,
    )
    frames = torch.randn(4, more["num_mel_bins"], 24)
    ids, mask = padded_rows(40, 15, 0)
    ids, mask = ids[[0, 2, 0, 2]], mask[[0, 2, 0, 2]]
    with twins("WhisperForConditionalGeneration", config) as pair:
        theirs = pair.theirs(frames, decoder_input_ids=ids, decoder_attention_mask=mask).logits
        ours = pair.ours(
            input_features=frames, decoder_input_ids=ids, decoder_attention_mask=mask
        ).logits
        assert_same(ours, theirs, mask)
        memory = pair.ours.encode(frames)
        steps = stepwise(pair.ours, ids, memory_BSD=memory, keep_BS=mask.bool())
        torch.testing.assert_close(steps[mask.bool()], ours[mask.bool()], **CLOSE)
