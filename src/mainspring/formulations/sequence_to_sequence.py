"""Source text in, target text out: an encoder reads, a decoder writes (summaries, translations).

source   prefix text … </s>              labels    target … </s>
decoder  <start> target …                loss on   every label, </s> included; never on padding
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from mainspring import spec
from mainspring.checkpoints.tokenizer import Tokenizer
from mainspring.core.heads import VocabularyHead
from mainspring.core.model import Transformer
from mainspring.errors import Mismatch
from mainspring.formulations import (
    IGNORED,
    Batch,
    EncodedRow,
    Formulation,
    Limits,
    Setup,
    SpecialIds,
    Values,
)
from mainspring.formulations.inputs import kept, padded
from mainspring.formulations.packing import source_parts, target_parts
from mainspring.formulations.prediction import writing
from mainspring.formulations.token_loss import token_nats


def lacks(model: spec.Model) -> str | None:
    if model.encoder is None or model.decoder is None:
        return "an encoder and a decoder"
    if not isinstance(model.encoder.embedding, spec.TokenEmbedding):
        return "an encoder that reads text"
    if "vocabulary" not in dict(model.heads):
        return "a vocabulary head"
    return None


def cut(ids: Sequence[int], limit: int, eos: int) -> tuple[list[int], int]:
    """`ids` within `limit`, ending in `eos`, and how many tokens that lost.

    The end token is always there, also on a cut text: a model that never sees it never stops.
    """
    body = list(ids[:-1]) if ids and ids[-1] == eos else list(ids)
    lost = max(0, len(body) - (limit - 1))
    return [*body[: limit - 1], eos], lost


def source_ids(texts: Sequence[str], tokenizer: Tokenizer, setup: Setup) -> list[list[int]]:
    """What the encoder reads for each text: the prefix before it, the special tokens around."""
    return tokenizer.encode_many([setup.prefix + text for text in texts])


def encode(rows: Sequence[Values], tokenizer: Tokenizer, setup: Setup) -> list[EncodedRow]:
    """Examples of rows with a `text` and a `target`."""
    eos = end_id(tokenizer)
    sources = source_ids([row["text"] for row in rows], tokenizer, setup)
    targets = tokenizer.writer.encode_many([row["target"] for row in rows])
    return within_limits(sources, targets, setup.limits, eos)


def within_limits(
    sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], limits: Limits, eos: int
) -> list[EncodedRow]:
    """Examples whose two sides are within the limits and end in `eos`."""
    examples = []
    for source, target in zip(sources, targets, strict=True):
        read, source_lost = cut(source, limits.source, eos)
        written, target_lost = cut(target, limits.target, eos)
        examples.append(EncodedRow(read, written, source_lost, target_lost))
    return examples


def end_id(tokenizer: Tokenizer) -> int:
    """The token that ends a text; Mismatch where there is none."""
    if tokenizer.eos_id is None:
        raise Mismatch("the tokenizer names no end token, so a model could not learn to stop")
    return tokenizer.eos_id


def shift_right(labels_BT: Tensor, ids: SpecialIds, begins_BT: Tensor | None = None) -> Tensor:
    """The decoder's input: labels one place later, the start token first (and wherever another
    example of the row begins), padding for -100."""
    assert ids.start is not None
    shifted_BT = labels_BT.new_full(labels_BT.shape, ids.start)
    shifted_BT[:, 1:] = labels_BT[:, :-1]
    if begins_BT is not None:
        shifted_BT = shifted_BT.masked_fill(begins_BT, ids.start)
    return shifted_BT.masked_fill(shifted_BT == IGNORED, ids.pad)


def collate(examples: Sequence[EncodedRow], ids: SpecialIds, seed: int, multiple: int) -> Batch:
    """Pads both sides to round lengths. Here, and only here, it is decided what carries
    loss."""
    del seed  # nothing is drawn here
    sources = [example.source for example in examples]
    source_BS = padded(sources, ids.pad, multiple)
    labels_BT = padded([example.target for example in examples], IGNORED, multiple)
    parts = target_parts(examples, multiple)
    return Batch(
        source_BS,
        kept(sources, source_BS.shape[1]) if parts is None else None,
        labels_BT,
        sum(map(len, sources)),
        sum(len(example.target) for example in examples),
        decoder_ids_BT=shift_right(labels_BT, ids, None if parts is None else parts.begins_BT),
        source_parts=source_parts(examples, multiple),
        target_parts=parts,
    )


def losses(model: Transformer, batch: Batch) -> Tensor:
    """The summed cross-entropy of each row's labels, in nats, float32 (B)."""
    assert batch.decoder_ids_BT is not None
    sources, targets = batch.source_parts, batch.target_parts
    if sources is None or targets is None:
        memory_BSD = model.encode(batch.source_BS, batch.keep_BS)
        hidden_BTD = model.decode(batch.decoder_ids_BT, memory_BSD, batch.keep_BS)
    else:
        of_sources, of_targets = sources.segments_BT, targets.segments_BT
        memory_BSD = model.encode(
            batch.source_BS, at_BT=sources.at_BT, segments=(of_sources, of_sources)
        )
        hidden_BTD = model.decode(
            batch.decoder_ids_BT,
            memory_BSD,
            at_BT=targets.at_BT,
            segments=(of_targets, of_targets),
            memory_segments=(of_targets, of_sources),
        )
    return vocabulary_nats(model, hidden_BTD, batch.labels_BT).sum(1)


def vocabulary_nats(model: Transformer, hidden_BTD: Tensor, labels_BT: Tensor) -> Tensor:
    """The cross-entropy BT of each label, in nats, float32; 0 where the label is -100.

    Without ever holding all logits, unless something acts on them after the product (a soft cap,
    another instrument's leaf).
    """
    head = model.heads["vocabulary"]
    if type(head) is VocabularyHead and head.soft_cap is None:
        table = model.table(model.spec.decoder or model.spec.encoder)
        out = head.out if head.out is not None else table
        if out is not None and type(out) in (nn.Linear, nn.Embedding):
            x_BTD = hidden_BTD
            if head.has_layers:
                # Layers of a head's own stay float32, whatever the product is computed in.
                x_BTD = head.norm(head.hidden(x_BTD.float())).to(x_BTD.dtype)
            nats = token_nats if head.nats is None else head.nats
            return nats(x_BTD, out.weight, labels_BT, bias_V=head.bias, scale=head.scale)
    logits_BTV = model.read("vocabulary", hidden_BTD).float()
    return F.cross_entropy(
        logits_BTV.flatten(0, 1), labels_BT.flatten(), ignore_index=IGNORED, reduction="none"
    ).view_as(labels_BT)


def lengths(example: EncodedRow) -> tuple[int, int]:
    return len(example.source), len(example.target)


predict = writing(source_ids)

FORMULATION = Formulation(
    "sequence to sequence",
    lacks,
    encode,
    collate,
    losses,
    lengths,
    predict,
    generates=True,
    packs=True,
    holds=True,
)
