"""Formulations: machinery that tasks share, between the user's fields and the core's tensors.

A `Formulation` says what a model must have, turns a row into token ids, token ids into a batch,
and a batch into one loss per example, in nats. What a task adds is vocabulary (see `tasks`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mainspring import spec

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from mainspring.checkpoints.tokenizer import Tokenizer
    from mainspring.core.model import Transformer


@dataclass(frozen=True)
class Limits:
    """The longest source and target that are read, in tokens, special tokens included."""

    source: int
    target: int


@dataclass(frozen=True)
class EncodedRow:
    """One row as token ids, and how many tokens of it the limits cut off."""

    source: "Sequence[int]"
    target: "Sequence[int]"
    source_lost: int = 0
    target_lost: int = 0


@dataclass(frozen=True)
class SpecialIds:
    """The token ids a batch is built with. `start` begins every decoder input."""

    pad: int
    eos: int
    start: int


@dataclass(frozen=True)
class Batch:
    """Tensors of one micro-batch.

    `keep_BS` is False at source padding, None where there is none. `labels_BT` are the targets,
    -100 at padding; `decoder_ids_BT` are the same shifted right. `target_tokens` counts the labels.
    """

    source_BS: "Tensor"
    keep_BS: "Tensor | None"
    decoder_ids_BT: "Tensor"
    labels_BT: "Tensor"
    source_tokens: int
    target_tokens: int

    def to(self, device: "torch.device") -> "Batch":
        """The same batch on another device."""
        keep = None if self.keep_BS is None else self.keep_BS.to(device)
        tensors = (self.source_BS, self.decoder_ids_BT, self.labels_BT)
        source, decoder_ids, labels = (tensor.to(device) for tensor in tensors)
        return replace(
            self, source_BS=source, keep_BS=keep, decoder_ids_BT=decoder_ids, labels_BT=labels
        )


@dataclass(frozen=True)
class Formulation:
    """One way to pose a task to a model.

    `lacks(model)` says what a model spec is missing for it, or None.
    `encode(texts, targets, tokenizer, limits, prefix)` makes examples of texts; `targets` is None
    when there are none (inference).
    `collate(examples, ids, seed, multiple)` makes the batch; `seed` is for formulations that draw
    random numbers (corruption), `multiple` rounds lengths up as the batch plan does.
    `losses(model, batch)` gives the summed loss of each example's target tokens, in nats (B).
    `generates` is whether predictions are made by decoding tokens.
    """

    name: str
    lacks: Callable[[spec.Model], str | None]
    encode: (
        "Callable[[Sequence[str], Sequence[str] | None, Tokenizer, Limits, str], list[EncodedRow]]"
    )
    collate: Callable[[Sequence[EncodedRow], SpecialIds, int, int], Batch]
    losses: "Callable[[Transformer, Batch], Tensor]"
    lengths: Callable[[EncodedRow], tuple[int, int]]
    generates: bool = True


def special_ids(tokenizer: "Tokenizer", config: Mapping[str, Any]) -> SpecialIds:
    """The ids a checkpoint's batches are built with, from its config and tokenizer."""
    from mainspring.errors import Mismatch

    pad = config.get("pad_token_id", tokenizer.pad_id)
    eos = config.get("eos_token_id", tokenizer.eos_id)
    if isinstance(eos, list):
        eos = eos[0]
    if pad is None or eos is None:
        raise Mismatch(
            "the checkpoint names no padding or no end token (`pad_token_id`, `eos_token_id` in "
            "config.json); training needs both"
        )
    if pad == eos:
        raise Mismatch(
            f"padding and end of text are the same token ({pad}); a model trained so never learns "
            "to stop. Give the checkpoint a padding token of its own"
        )
    start = config.get("decoder_start_token_id")
    return SpecialIds(pad, eos, pad if start is None else start)
