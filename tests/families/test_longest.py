"""Texts longer than a model has positions."""

import pytest
import torch
import transformers
from family_oracle import assert_same, twins

from mainspring.core.init import build
from mainspring.errors import Mismatch
from mainspring.families.gpt2 import EXAMPLE as GPT2
from mainspring.families.gpt2 import FAMILY as GPT2_FAMILY
from mainspring.families.roberta import EXAMPLE as ROBERTA
from mainspring.families.roberta import FAMILY as ROBERTA_FAMILY
from mainspring.generation.options import GenerationOptions
from mainspring.generation.search import generate

LONG = {
    "gpt2": "n_positions",
    "bert": "max_position_embeddings",
    "roberta": "max_position_embeddings",
    "distilbert": "max_position_embeddings",
    "bart": "max_position_embeddings",
    "marian": "max_position_embeddings",
    "pegasus": "max_position_embeddings",
    "m2m_100": "max_position_embeddings",
}


@pytest.mark.parametrize("kind", LONG)
def test_a_text_longer_than_the_positions_is_refused_where_transformers_fails(kind: str) -> None:
    """M2M100 alone makes more positions, with the same result as `transformers`."""
    small = {"vocab_size": 40, "n_embd": 12, "n_head": 2, "n_layer": 1, "hidden_size": 12}
    small |= {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    small |= {"d_model": 12, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16}
    small |= {"decoder_ffn_dim": 16, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    small |= {"dim": 12, "n_layers": 1, "n_heads": 2, "hidden_dim": 16, "pad_token_id": 1}
    known = transformers.CONFIG_MAPPING[kind]
    names = set(known().to_dict())
    config = known(**{k: v for k, v in small.items() if k in names}, **{LONG[kind]: 8})
    cls = {"gpt2": transformers.AutoModelForCausalLM}.get(kind, transformers.AutoModelForMaskedLM)
    if config.is_encoder_decoder:
        cls = transformers.AutoModelForSeq2SeqLM
    model = cls.from_config(config)
    with twins(type(model).__name__, config) as pair:
        room = 8 - 2 * (kind == "roberta")  # of its table two rows are for padding
        for length in (room, room + 1):
            ids = torch.arange(2, 2 + length)[None]
            given = {"decoder_input_ids": ids[:, :4]} if config.is_encoder_decoder else {}
            if length == room or kind == "m2m_100":
                wanted = pair.theirs(ids, **given).logits
                assert_same(pair.ours(ids, **given).logits, wanted)
                continue
            with pytest.raises((IndexError, RuntimeError)):
                pair.theirs(ids, **given)
            with pytest.raises(Mismatch, match=rf"{length} tokens.*{room} positions"):
                pair.ours(ids, **given)
            if given:
                with pytest.raises(Mismatch, match=rf"{length} tokens.*{room} positions"):
                    pair.ours(ids[:, :4], decoder_input_ids=ids)


def test_padding_takes_no_positions_where_they_count_real_tokens() -> None:
    model = build(ROBERTA_FAMILY.spec({**ROBERTA, "max_position_embeddings": 8}, ()), seed=0).eval()
    ids = torch.full((2, 9), 1)
    ids[:, :6] = 7
    mask = (ids != 1).long()
    padded = model(ids, mask).last_hidden_state[:, :6]
    torch.testing.assert_close(padded, model(ids[:, :6]).last_hidden_state)
    with pytest.raises(Mismatch, match="7 tokens"):
        model(ids, torch.ones(2, 9).scatter(1, torch.tensor([[7, 8], [7, 8]]), 0).long())


@pytest.mark.parametrize("beams", (1, 2))
def test_writing_beyond_the_positions_is_refused(beams: int) -> None:
    model = build(GPT2_FAMILY.spec({**GPT2, "n_positions": 8}, ()), seed=0).eval()
    ids = torch.randint(2, 40, (2, 5))
    mask = torch.tensor([[0, 1, 1, 1, 1], [1, 1, 1, 1, 1]])
    for keep in (None, mask):
        # The last token is written, and never read: it needs no position.
        kept = GenerationOptions(max_new_tokens=4, num_beams=beams)
        assert generate(model, ids, keep, kept).sequences.shape == (2, 9)
        with pytest.raises(Mismatch, match=r"9 tokens.*8 positions.*max_new_tokens"):
            generate(model, ids, keep, GenerationOptions(max_new_tokens=6, num_beams=beams))
