"""A BERT so small that a test trains it in seconds, with a tokenizer of its own."""

from functools import cache
from typing import Any

import torch

from mainspring.checkpoints.bundle import Bundle, new_bundle
from mainspring.checkpoints.heads import with_head
from mainspring.checkpoints.tokenizer import Tokenizer, train_tokenizer
from mainspring.families.bert import FAMILY as BERT
from mainspring.families.llama import FAMILY as LLAMA

TEXTS = [
    "The film was good, and the food was lovely.",
    "A sad room; today was bad.",
    "东方航空临时停牌，传将与上航合并。",
]


@cache
def tokenizer(decoder: bool = False) -> Tokenizer:
    return train_tokenizer(TEXTS * 3, 330, "byte-bpe", (LLAMA if decoder else BERT).tokens)


def encoder(labels: tuple[str, ...] = (), *, dropout: float = 0.0, **changes: Any) -> Bundle:
    """A random BERT of two layers, with a head for `labels` where there are any."""
    sizes = BERT.sizes
    assert isinstance(sizes, dict)
    sizes["bert-nano"] = {
        **sizes["bert-tiny"],
        "hidden_size": 32,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
        **changes,
    }
    try:
        bundle = new_bundle("bert-nano", tokenizer(), 0)
    finally:
        del sizes["bert-nano"]
    return with_head(bundle, "classes", labels, 0) if labels else bundle


def decoder(labels: tuple[str, ...]) -> Bundle:
    """A random Llama of two layers with a head for `labels`."""
    sizes = LLAMA.sizes
    assert isinstance(sizes, dict)
    small = {"hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2}
    sizes["llama-nano"] = {**sizes["llama-tiny"], **small, "intermediate_size": 64}
    try:
        bundle = new_bundle("llama-nano", tokenizer(decoder=True), 0)
    finally:
        del sizes["llama-nano"]
    return with_head(bundle, "classes", labels, 0)


def shaken(bundle: Bundle, scale: float = 0.05) -> Bundle:
    """The bundle with noise on every weight, so that labels get scores that differ."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in bundle.model.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)
    return bundle
