"""The batch plan: which rows go together, a function of their lengths, the seed and the epoch.

Rows of like length share a batch (length buckets), a batch holds about as many tokens as the budget
says, and the order of the batches is shuffled. Nothing else decides, in particular not the number
of workers, so a run can resume, or change its workers, in the middle of an epoch.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mainspring.errors import BadOption

Ints = NDArray[np.int64]

# Rounding a length up adds at most one part in this many.
FINENESS = 16


@dataclass(frozen=True)
class BatchPlan:
    """One epoch: every row in exactly one batch.

    `batches` are tuples of row numbers; `shapes` the (source, target) lengths each batch is padded
    to; `tokens` what the rows really hold.
    """

    batches: tuple[tuple[int, ...], ...]
    shapes: tuple[tuple[int, int], ...]
    tokens: int

    @property
    def padded_tokens(self) -> int:
        """Positions computed, padding included."""
        return sum(len(b) * sum(shape) for b, shape in zip(self.batches, self.shapes, strict=True))

    @property
    def padding(self) -> float:
        """The share (0..1) of the positions that are padding, rounding included."""
        return 1 - self.tokens / self.padded_tokens if self.batches else 0.0

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the batches, their order and their shapes."""
        digest = hashlib.sha256()
        for batch, shape in zip(self.batches, self.shapes, strict=True):
            digest.update(np.array([len(batch), *shape, *batch], dtype="<i8").tobytes())
        return digest.hexdigest()


def plan_batches(
    lengths: Sequence[tuple[int, int]] | ArrayLike,
    *,
    tokens: int | None = None,
    rows: int | None = None,
    seed: int,
    epoch: int,
    multiple: int = 16,
    max_rows: int | None = None,
) -> BatchPlan:
    """The batches of one epoch over rows of `lengths` (source tokens, target tokens).

    Say either `tokens`, the most positions a batch may have, counted as rows x (longest source +
    longest target) after rounding, or `rows`, the fixed number of rows in each. A row above the
    budget gets a batch of its own. `max_rows` bounds the rows of a batch. Lengths are rounded up
    as `rounded` says, so that few shapes occur.
    """
    sizes = np.asarray(lengths, dtype=np.int64).reshape(-1, 2)
    if (tokens is None) == (rows is None):
        raise BadOption("say either `tokens` or `rows` for a batch, not both and not neither")
    for name, value in (("tokens", tokens), ("rows", rows), ("max_rows", max_rows)):
        if value is not None and value < 1:
            raise BadOption(f"`{name}` must be at least 1, not {value}")
    if len(sizes) == 0:
        return BatchPlan((), (), 0)
    padded = rounded(sizes, multiple)
    random = _random(seed, epoch)
    order = _bucket_order(padded, random.random_raw(len(sizes)))
    limit = min(rows or len(sizes), max_rows or len(sizes))
    ends = _ends(padded[order], tokens, limit)
    starts = np.concatenate([[0], ends[:-1]])
    shapes = np.maximum.reduceat(padded[order], starts)
    shuffled = np.argsort(random.random_raw(len(ends)), kind="stable")
    batches = tuple(tuple(order[starts[b] : ends[b]].tolist()) for b in shuffled)
    return BatchPlan(batches, tuple(map(tuple, shapes[shuffled].tolist())), int(sizes.sum()))


def rounded(lengths: Ints, multiple: int) -> Ints:
    """`lengths` rounded up to a multiple of `multiple`; shorter ones to a finer power of two.

    A step is at most a sixteenth of the length, so short texts are not mostly padding: with
    `multiple` 16, 300 -> 304, 130 -> 136, 70 -> 72, 11 -> 11. 1 rounds nothing.
    """
    if multiple < 1 or multiple & (multiple - 1):
        raise BadOption(f"`multiple` must be a power of two, not {multiple}")
    octave = np.left_shift(1, np.frexp(np.maximum(lengths, 1))[1].astype(np.int64) - 1)
    step = np.clip(octave // FINENESS, 1, multiple)
    return -(-lengths // step) * step


def _random(seed: int, epoch: int) -> np.random.PCG64:
    """Raw random bits only: unlike numpy's shuffles, they never change between its versions."""
    return np.random.PCG64(np.random.SeedSequence([seed, epoch]))


def _bucket_order(padded: Ints, ties: NDArray[np.uint64]) -> Ints:
    """Rows by source length, then target length (rising and falling in turn), then at random.

    The turns keep targets alike where a batch holds the end of one bucket and the start of the
    next.
    """
    source, target = padded[:, 0], padded[:, 1]
    _, bucket = np.unique(source, return_inverse=True)
    snake = np.where(bucket % 2, -target, target)
    return np.lexsort((ties, snake, source)).astype(np.int64)


def _ends(padded: Ints, tokens: int | None, limit: int) -> Ints:
    """Where each batch ends when rows are taken in order: as many as the budget and limit allow."""
    count = len(padded)
    if tokens is None:
        return np.append(np.arange(limit, count, limit), count)
    ends = []
    start = 0
    while start < count:
        most = min(limit, max(1, tokens // max(1, int(padded[start].sum()))) + 1, count - start)
        longest = np.maximum.accumulate(padded[start : start + most]).sum(axis=1)
        fits = int(np.searchsorted(longest * np.arange(1, most + 1), tokens, side="right"))
        start += max(1, fits)
        ends.append(start)
    return np.array(ends)
