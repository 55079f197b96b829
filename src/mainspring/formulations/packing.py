"""Several short examples in one row, each blind to the others.

    source    a a a a b b c c c .        segments  0 0 0 0 1 1 2 2 2 -1
    target    a a b b b c . .            segments  0 0 1 1 1 2 -2 -2

A token sees only its own segment, in the encoder, in the decoder and from one to the other, so
each example has the loss and the gradients that it has alone. Positions restart with each segment;
a relative bias depends on differences only and needs nothing.
"""

from collections.abc import Sequence
from itertools import chain

import numpy as np

from mainspring.formulations import EncodedRow, Parts
from mainspring.formulations.inputs import padded

ROW = 256  # tokens of a packed row on both sides together, unless an example is longer
AT_ONCE = 512  # examples that rows are filled from
SOURCE_PADDING, TARGET_PADDING = -1, -2  # segments that see nothing but themselves


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


def pack_all(
    lengths: Sequence[tuple[int, int]], tokens: int, seed: int
) -> tuple[tuple[int, ...], ...]:
    """Packed rows of all examples, a function of their lengths and the seed alone.

    Rows are filled from a few hundred examples drawn at random at a time. `tokens` are those of a
    batch, above which no row is made of several examples.
    """
    source, target = row_lengths(lengths, tokens)
    bits = np.random.PCG64(np.random.SeedSequence([seed])).random_raw(len(lengths))
    order = np.argsort(bits, kind="stable").tolist()
    packs: list[tuple[int, ...]] = []
    for at in range(0, len(order), AT_ONCE):
        drawn = order[at : at + AT_ONCE]
        filled = pack([lengths[i] for i in drawn], source, target)
        packs += [tuple(drawn[i] for i in row) for row in filled]
    return tuple(packs)


def row_lengths(lengths: Sequence[tuple[int, int]], tokens: int) -> tuple[int, int]:
    """The (source, target) tokens that a row holds: in the proportion of all examples' tokens, and
    room for the longest example."""
    sizes = np.asarray(lengths, dtype=np.int64).reshape(-1, 2)
    shares = sizes.sum(0) / max(1, sizes.sum())
    source, target = np.maximum(sizes.max(0), (min(ROW, tokens) * shares).astype(np.int64))
    return int(source), int(target)


def joined(examples: Sequence[EncodedRow]) -> EncodedRow:
    """One row of several examples."""
    return EncodedRow(
        list(chain.from_iterable(example.source for example in examples)),
        list(chain.from_iterable(example.target for example in examples)),
        parts=tuple((len(example.source), len(example.target)) for example in examples),
    )


def source_parts(rows: Sequence[EncodedRow], multiple: int) -> Parts | None:
    """Which example each source token of packed rows belongs to; None where rows are not packed."""
    return _parts([[source for source, _ in row.parts] for row in rows], SOURCE_PADDING, multiple)


def target_parts(rows: Sequence[EncodedRow], multiple: int) -> Parts | None:
    """The same for the targets."""
    return _parts([[target for _, target in row.parts] for row in rows], TARGET_PADDING, multiple)


def _parts(rows: Sequence[Sequence[int]], padding: int, multiple: int) -> Parts | None:
    if not any(rows):
        return None
    segments = [[n for n, length in enumerate(row) for _ in range(length)] for row in rows]
    at = [[i for length in row for i in range(length)] for row in rows]
    return Parts(padded(segments, padding, multiple), padded(at, 0, multiple))
