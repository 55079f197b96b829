"""The tokens of texts of any length, as one call of the tokenizer would give them.

A tokenizer's own record of a text is far larger than the text. A long one is read in blocks that
overlap; two are joined in the middle of what they share, where both found the same tokens.

    block     river is quiet . The bridge is in sil ver
    next                 uiet . The bridge is in silver . The road
                              └ same ─────┘
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mainspring.checkpoints.tokenizer import Tokenizer
from mainspring.formulations.inputs import in_chunks

BLOCK = 50_000  # characters of a long text that are given to the tokenizer at once
OVERLAP = 2_000  # characters that blocks share at first
TOGETHER = 200_000  # characters of short texts that are given to the tokenizer at once


def _numbers() -> "array[int]":
    return array("i")


@dataclass(frozen=True)
class Tokens:
    """Ids without special tokens, and the characters of the text that each stands for."""

    ids: "array[int]" = field(default_factory=_numbers)
    starts: "array[int]" = field(default_factory=_numbers)
    ends: "array[int]" = field(default_factory=_numbers)

    @property
    def places(self) -> NDArray[np.int32]:
        """Where each token starts and ends (N x 2)."""
        return np.stack([np.asarray(self.starts), np.asarray(self.ends)], axis=1)

    def part(self, first: int, last: int) -> tuple["array[int]", ...]:
        return self.ids[first:last], self.starts[first:last], self.ends[first:last]

    def replace_from(self, first: int, others: "Tokens", at: int = 0) -> None:
        """Those of `others` behind their first `at` take the place of all behind the `first`."""
        for mine, theirs in (
            (self.ids, others.ids),
            (self.starts, others.starts),
            (self.ends, others.ends),
        ):
            del mine[first:]
            mine.extend(theirs[at:])


def tokens_of(texts: Sequence[str], tokenizer: Tokenizer) -> Iterator[Tokens]:
    """The tokens of each text."""
    for chunk in in_chunks(texts, len(texts), length=len, total=TOGETHER):
        if len(chunk) == 1 and len(chunk[0]) > BLOCK:
            yield _in_blocks(chunk[0], tokenizer)
        else:
            for ids, places in tokenizer.offsets_many(chunk):
                yield _tokens(ids, places, 0)


def _tokens(ids: Sequence[int], places: Sequence[tuple[int, int]], begin: int) -> Tokens:
    return Tokens(
        array("i", ids),
        array("i", [begin + start for start, _ in places]),
        array("i", [begin + end for _, end in places]),
    )


def _in_blocks(text: str, tokenizer: Tokenizer) -> Tokens:
    """The tokens of a long text. Where two blocks do not agree on any token in the middle of what
    they share (it is one long word, say), they share more; at worst the text is read as a whole."""
    read, end, overlap = Tokens(), 0, OVERLAP
    while end < len(text):
        begin = max(0, end - overlap)
        limit = min(len(text), begin + max(BLOCK, 4 * overlap))
        [(ids, places)] = tokenizer.offsets_many([text[begin:limit]])
        block = _tokens(ids, places, begin)
        joint = (0, 0) if begin == 0 else _joint(read, block, begin, end)
        if joint is None:
            overlap *= 2
        else:
            read.replace_from(joint[0], block, joint[1])
            end = limit
    return read


def _joint(before: Tokens, block: Tokens, begin: int, end: int) -> tuple[int, int] | None:
    """The first token, in both, of the middle of the characters from `begin` to `end`; None where
    they have not the same tokens there, or none."""
    quarter = (end - begin) // 4
    middle = (begin + quarter, end - quarter)
    mine, theirs = ([bisect_left(one.starts, at) for at in middle] for one in (before, block))
    if mine[0] == mine[1] or before.part(*mine) != block.part(*theirs):
        return None
    return mine[0], theirs[0]
