"""Several short pairs in one row, each blind to the others.

    source    a a a a b b c c c .        segments  0 0 0 0 1 1 2 2 2 -1
    target    a a b b b c . .            segments  0 0 1 1 1 2 -2 -2

A token sees only its own segment, in the encoder, in the decoder and from one to the other, so
each pair has the loss and the gradients that it has alone. Positions restart with each segment; a
relative bias depends on differences only and needs nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mainspring.core.model import Transformer
from mainspring.formulations import IGNORED, EncodedRow, SpecialIds
from mainspring.formulations.inputs import padded
from mainspring.formulations.sequence_to_sequence import shift_right, vocabulary_nats


@dataclass(frozen=True)
class PackedBatch:
    """Rows that hold several examples each.

    Segments number the examples of a row, from 0; -1 is source padding, -2 target padding, which
    therefore see nothing but themselves. `at` are the positions within the example. `example_BT`
    is the number of the example that a target token belongs to, -1 at padding.
    """

    source_BS: Tensor
    source_segments_BS: Tensor
    source_at_BS: Tensor
    decoder_ids_BT: Tensor
    labels_BT: Tensor
    target_segments_BT: Tensor
    target_at_BT: Tensor
    example_BT: Tensor
    examples: int
    source_tokens: int
    target_tokens: int


def pack(lengths: Sequence[tuple[int, int]], source: int, target: int) -> list[list[int]]:
    """Which examples share a row: numbers into `lengths`, which are (source, target) in tokens.

    First fit, longest first (Johnson, 1973): a row holds at most `source` and `target` tokens. An
    example that is longer than a row has one of its own.
    """
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []
    order = sorted(range(len(lengths)), key=lambda i: (-sum(lengths[i]), i))
    for i in order:
        wanted = lengths[i]
        for row, left in enumerate(room):
            if wanted[0] <= left[0] and wanted[1] <= left[1]:
                rows[row].append(i)
                room[row] = left[0] - wanted[0], left[1] - wanted[1]
                break
        else:
            rows.append([i])
            room.append((source - wanted[0], target - wanted[1]))
    return rows


def collate_packed(
    examples: Sequence[EncodedRow],
    rows: Sequence[Sequence[int]],
    ids: SpecialIds,
    multiple: int = 16,
) -> PackedBatch:
    """The batch whose rows hold the examples that `rows` (from `pack`) names."""

    def side(parts: Sequence[Sequence[Sequence[int]]], blank: int) -> tuple[Tensor, Tensor]:
        """Segments and positions for rows of parts."""
        segments = [[n for n, part in enumerate(row) for _ in part] for row in parts]
        at = [[i for part in row for i in range(len(part))] for row in parts]
        return padded(segments, blank, multiple), padded(at, 0, multiple)

    def joined(parts: Sequence[Sequence[Sequence[int]]], value: int) -> Tensor:
        return padded([[id for part in row for id in part] for row in parts], value, multiple)

    sources = [[examples[i].source for i in row] for row in rows]
    targets = [[examples[i].target for i in row] for row in rows]
    # Shifted within each example: every one of them begins with the start token.
    shifted = [
        [shift_right(torch.tensor([list(part)]), ids)[0].tolist() for part in row]
        for row in targets
    ]
    owners = [[[i] * len(examples[i].target) for i in row] for row in rows]
    source_segments_BS, source_at_BS = side(sources, -1)
    target_segments_BT, target_at_BT = side(targets, -2)
    return PackedBatch(
        joined(sources, ids.pad),
        source_segments_BS,
        source_at_BS,
        joined(shifted, ids.pad),
        joined(targets, IGNORED),
        target_segments_BT,
        target_at_BT,
        joined(owners, -1),
        len(examples),
        sum(len(part) for row in sources for part in row),
        sum(len(part) for row in targets for part in row),
    )


def packed_losses(model: Transformer, batch: PackedBatch) -> Tensor:
    """The summed cross-entropy of each example's labels, in nats, float32, in the examples' order:
    what `sequence_to_sequence.losses` gives for them unpacked."""
    of_sources, of_targets = batch.source_segments_BS, batch.target_segments_BT
    memory_BSD = model.encode(
        batch.source_BS, at_BT=batch.source_at_BS, segments=(of_sources, of_sources)
    )
    hidden_BTD = model.decode(
        batch.decoder_ids_BT,
        memory_BSD,
        at_BT=batch.target_at_BT,
        segments=(of_targets, of_targets),
        memory_segments=(of_targets, of_sources),
    )
    nats_BT = vocabulary_nats(model, hidden_BTD, batch.labels_BT)
    real_BT = batch.example_BT >= 0
    total = nats_BT.new_zeros(batch.examples)
    return total.index_add(0, batch.example_BT[real_BT], nats_BT[real_BT])
