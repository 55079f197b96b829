"""Small random models of `transformers` and ours made of their files, for the decoding tests."""

import tempfile
import warnings
from functools import cache
from typing import Any

import torch
import transformers
from torch import Tensor

from mainspring.checkpoints.bundle import Bundle, load

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

VOCABULARY = 60


def saved_pair(theirs: Any) -> tuple[Any, Bundle]:
    """A model of `transformers`, weights made uneven, and ours opened from its folder."""
    for name, parameter in theirs.named_parameters():
        if parameter.dim() == 1:
            if name.endswith("weight"):
                parameter.data = 1 + 0.3 * torch.randn_like(parameter)
        else:
            parameter.data.normal_(0, parameter.shape[1] ** -0.5)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs.save_pretrained(folder)
        return type(theirs).from_pretrained(folder).eval(), load(folder)


@cache
def t5(kind: str) -> tuple[Any, Bundle]:
    """T5 "plain" (ReLU, tied) or "gated" (gated GELU, untied). Large tables make sharp choices."""
    torch.manual_seed(len(kind))
    more: dict[str, Any] = {}
    if kind == "gated":
        more = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    config = transformers.T5Config(
        vocab_size=VOCABULARY,
        d_model=24,
        d_kv=6,
        d_ff=32,
        num_layers=2,
        num_decoder_layers=2,
        num_heads=3,
        decoder_start_token_id=0,
        **more,
    )
    theirs, _ = saved_pair(transformers.T5ForConditionalGeneration(config))
    theirs.shared.weight.data.normal_(0, 1)
    if kind == "gated":
        theirs.lm_head.weight.data.normal_(0, 0.6)
    for stack in (theirs.encoder, theirs.decoder):
        stack.block[0].layer[0].SelfAttention.relative_attention_bias.weight.data.normal_(0, 1)
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        return theirs, load(folder)


@cache
def decoder_only(kind: str) -> tuple[Any, Bundle]:
    """GPT-2 (learned positions) or Llama (rotary, shared key/value heads)."""
    torch.manual_seed(3)
    special = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
    if kind == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=VOCABULARY, n_embd=24, n_head=3, n_layer=2, n_positions=64, **special
        )
        return saved_pair(transformers.GPT2LMHeadModel(config))
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        **special,
    )
    return saved_pair(transformers.LlamaForCausalLM(config))


def rows_with_padding(
    rows: int, length: int, seed: int, side: str = "either"
) -> tuple[Tensor, Tensor]:
    """Random ids and masks; two rows in three are padded, on the left, the right or either."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, VOCABULARY, (rows, length), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(rows):
        pads = row % 3 * (length // 4)
        if pads and (side == "left" or (side == "either" and row % 2)):
            mask[row, :pads] = 0
        elif pads:
            mask[row, -pads:] = 0
    return ids * mask, mask


@cache
def ending_token(kind: str) -> int:
    """A token that greedy decoding writes often: as end of sequence it makes ragged outputs."""
    theirs, _ = t5(kind) if kind in ("plain", "gated") else decoder_only(kind)
    ids, mask = rows_with_padding(24, 16, 0, "left")
    written = theirs.generate(
        ids,
        attention_mask=mask,
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )[:, -12:]
    in_rows = torch.stack([(written == token).any(1).sum() for token in range(VOCABULARY)])
    in_rows[:2] = 0
    return int((in_rows - len(ids) // 2).abs().argmin())


def both(kind: str, ids: Tensor, mask: Tensor | None, **options: Any) -> tuple[Tensor, Tensor]:
    """(theirs, ours): what both generate for the same arguments."""
    theirs, bundle = t5(kind) if kind in ("plain", "gated") else decoder_only(kind)
    options = {"eos_token_id": ending_token(kind), "max_new_tokens": 14, **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = theirs.generate(ids, attention_mask=mask, **options)
    return expected, bundle.generate(ids, mask, **options)


def assert_same_tokens(kind: str, ids: Tensor, mask: Tensor | None, **options: Any) -> Tensor:
    expected, got = both(kind, ids, mask, **options)
    assert got.shape == expected.shape, options
    assert torch.equal(got, expected), (options, (got != expected).any(1).nonzero().flatten())
    return got
