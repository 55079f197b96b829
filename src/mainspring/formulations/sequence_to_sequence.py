"""Source text in, target text out: an encoder reads, a decoder writes (summaries, translations).

source   prefix text … </s>              labels    target … </s>
decoder  <start> target …                loss on   every label, </s> included; never on padding
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mainspring import spec
from mainspring.checkpoints.tokenizer import Tokenizer
from mainspring.core.heads import VocabularyHead
from mainspring.core.model import Transformer
from mainspring.data.batches import rounded
from mainspring.formulations import Batch, EncodedRow, Formulation, Limits, SpecialIds
from mainspring.formulations.token_loss import IGNORED, token_nats


def lacks(model: spec.Model) -> str | None:
    if model.encoder is None or model.decoder is None:
        return "an encoder and a decoder"
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


def encode(
    texts: Sequence[str],
    targets: Sequence[str] | None,
    tokenizer: Tokenizer,
    limits: Limits,
    prefix: str,
) -> list[EncodedRow]:
    """Examples of texts and, in training, of their targets."""
    eos = tokenizer.eos_id
    assert eos is not None
    sources = tokenizer.encode_many([prefix + text for text in texts])
    wanted = [[] for _ in texts] if targets is None else tokenizer.encode_many(list(targets))
    examples = []
    for source, target in zip(sources, wanted, strict=True):
        source_ids, source_lost = cut(source, limits.source, eos)
        target_ids, target_lost = ([], 0) if targets is None else cut(target, limits.target, eos)
        examples.append(EncodedRow(source_ids, target_ids, source_lost, target_lost))
    return examples


def padded(rows: Sequence[Sequence[int]], value: int, multiple: int) -> Tensor:
    """Rows of ids as one int64 matrix, filled with `value` to a round length (`data.batches`)."""
    longest = np.array(max(1, max(map(len, rows))))
    width = int(rounded(longest, multiple))
    matrix = torch.full((len(rows), width), value, dtype=torch.int64)
    for i, row in enumerate(rows):
        matrix[i, : len(row)] = torch.as_tensor(row, dtype=torch.int64)
    return matrix


def shift_right(labels_BT: Tensor, ids: SpecialIds) -> Tensor:
    """The decoder's input: labels one place later, the start token first, padding for -100."""
    shifted_BT = labels_BT.new_full(labels_BT.shape, ids.start)
    shifted_BT[:, 1:] = labels_BT[:, :-1]
    return shifted_BT.masked_fill(shifted_BT == IGNORED, ids.pad)


def collate(examples: Sequence[EncodedRow], ids: SpecialIds, seed: int, multiple: int) -> Batch:
    """Pads both sides to round lengths. Here, and only here, it is decided what carries
    loss."""
    del seed  # nothing is drawn here
    source_BS = padded([example.source for example in examples], ids.pad, multiple)
    lengths_B = torch.tensor([len(example.source) for example in examples])
    keep_BS = torch.arange(source_BS.shape[1]) < lengths_B[:, None]
    labels_BT = padded([example.target for example in examples], IGNORED, multiple)
    return Batch(
        source_BS,
        None if bool(keep_BS.all()) else keep_BS,
        shift_right(labels_BT, ids),
        labels_BT,
        int(lengths_B.sum()),
        sum(len(example.target) for example in examples),
    )


def losses(model: Transformer, batch: Batch) -> Tensor:
    """The summed cross-entropy of each example's labels, in nats, float32 (B)."""
    memory_BSD = model.encode(batch.source_BS, batch.keep_BS)
    hidden_BTD = model.decode(batch.decoder_ids_BT, memory_BSD, batch.keep_BS)
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
            return token_nats(x_BTD, out.weight, labels_BT, bias_V=head.bias, scale=head.scale)
    logits_BTV = model.read("vocabulary", hidden_BTD).float()
    return F.cross_entropy(
        logits_BTV.flatten(0, 1), labels_BT.flatten(), ignore_index=IGNORED, reduction="none"
    ).view_as(labels_BT)


def lengths(example: EncodedRow) -> tuple[int, int]:
    return len(example.source), len(example.target)


FORMULATION = Formulation("sequence to sequence", lacks, encode, collate, losses, lengths)
