"""Encoded rows, kept flat: two integer arrays and their offsets instead of a list per row."""

import hashlib
from collections.abc import Iterable
from itertools import chain

import numpy as np

from mainspring.formulations import EncodedRow


class EncodedRows:
    """Examples as int32 arrays, about 4 bytes a token. Indexing gives the `EncodedRow` back."""

    def __init__(self, examples: Iterable[EncodedRow]):
        sources, targets, lost = [], [], []
        for example in examples:
            sources.append(np.asarray(example.source, dtype=np.int32))
            targets.append(np.asarray(example.target, dtype=np.int32))
            lost.append((example.source_lost, example.target_lost))
        self._sources, self._source_ends = _flat(sources)
        self._targets, self._target_ends = _flat(targets)
        self.lost = np.asarray(lost, dtype=np.int64).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self.lost)

    def __getitem__(self, row: int) -> EncodedRow:
        source = self._sources[_start(self._source_ends, row) : self._source_ends[row]]
        target = self._targets[_start(self._target_ends, row) : self._target_ends[row]]
        return EncodedRow(source.tolist(), target.tolist(), *self.lost[row].tolist())

    @property
    def token_counts(self) -> np.ndarray:
        """Kept tokens of each row: source, target (N x 2)."""
        return np.stack(
            [np.diff(ends, prepend=0) for ends in (self._source_ends, self._target_ends)], 1
        )

    @property
    def hash(self) -> str:
        """Changes when any id of any row, or their order, changes."""
        digest = hashlib.sha256()
        for array in (self._sources, self._source_ends, self._targets, self._target_ends):
            digest.update(array.tobytes())
        return digest.hexdigest()


def _flat(rows: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    ends = np.cumsum([len(row) for row in rows], dtype=np.int64)
    flat = np.concatenate(rows) if rows else np.empty(0, dtype=np.int32)
    return flat, ends


def _start(ends: np.ndarray, row: int) -> int:
    return 0 if row == 0 else int(ends[row - 1])


def concatenated(parts: Iterable[Iterable[EncodedRow]]) -> EncodedRows:
    return EncodedRows(chain.from_iterable(parts))
