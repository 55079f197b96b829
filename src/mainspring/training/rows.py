"""Encoded rows, kept flat: two integer arrays and their offsets instead of a list per row."""

import hashlib
from array import array
from collections.abc import Iterable, Sequence

import numpy as np

from mainspring.formulations import IGNORED, EncodedRow
from mainspring.formulations.packing import joined


class EncodedRows:
    """Examples as int32 arrays, about 4 bytes a token. Indexing gives the `EncodedRow` back."""

    def __init__(self, examples: Iterable[EncodedRow]):
        sources, targets, weights, places = array("i"), array("i"), array("f"), array("i")
        ends, lost = array("q"), array("q")
        for example in examples:
            sources.extend(example.source)
            targets.extend(example.target)
            weights.extend(example.weights)
            places.extend(example.places)
            ends.extend((len(sources), len(targets), len(weights), len(places)))
            lost.extend((example.source_lost, example.target_lost, example.second))
        self._sources = np.array(sources, dtype=np.int32)
        self._targets = np.array(targets, dtype=np.int32)
        self._weights = np.array(weights, dtype=np.float32)
        self._places = np.array(places, dtype=np.int32)
        self._source_ends, self._target_ends, self._weight_ends, self._place_ends = (
            np.array(ends, dtype=np.int64).reshape(-1, 4).T
        )
        self._rest = np.array(lost, dtype=np.int64).reshape(-1, 3)

    def __len__(self) -> int:
        return len(self._rest)

    @property
    def lost(self) -> np.ndarray:
        """Tokens of each row that the limits cut off: source, target (N x 2)."""
        return self._rest[:, :2]

    def __getitem__(self, row: int) -> EncodedRow:
        source = self._sources[_start(self._source_ends, row) : self._source_ends[row]]
        target = self._targets[_start(self._target_ends, row) : self._target_ends[row]]
        weights = self._weights[_start(self._weight_ends, row) : self._weight_ends[row]]
        places = self._places[_start(self._place_ends, row) : self._place_ends[row]]
        lost, target_lost, second = self._rest[row].tolist()
        return EncodedRow(
            source.tolist(),
            target.tolist(),
            lost,
            target_lost,
            second,
            tuple(weights.tolist()),
            tuple(places.tolist()),
        )

    @property
    def token_counts(self) -> np.ndarray:
        """Kept tokens of each row: those read, those that carry loss (N x 2)."""
        learnt = np.concatenate([[0], np.cumsum(self._targets != IGNORED)])[self._target_ends]
        return np.stack([np.diff(ends, prepend=0) for ends in (self._source_ends, learnt)], 1)

    def source_count(self, token: int) -> tuple[int, int]:
        """How many of the tokens that are read are this one, and how many there are."""
        return int((self._sources == token).sum()), len(self._sources)

    @property
    def hash(self) -> str:
        """Changes when anything of any row, or their order, changes."""
        digest = hashlib.sha256()
        parts = (self._sources, self._source_ends, self._targets, self._target_ends)
        for part in (*parts, self._rest[:, 2], self._weights, self._places):
            digest.update(part.tobytes())
        return digest.hexdigest()


def _start(ends: np.ndarray, row: int) -> int:
    return 0 if row == 0 else int(ends[row - 1])


class PackedRows:
    """Rows of several of the encoded `rows`, by their numbers in `packs`; each is put together when
    it is asked for."""

    def __init__(self, rows: EncodedRows, packs: Sequence[tuple[int, ...]]):
        self.rows, self.packs = rows, packs

    def __len__(self) -> int:
        return len(self.packs)

    def __getitem__(self, row: int) -> EncodedRow:
        return joined([self.rows[number] for number in self.packs[row]])

    @property
    def hash(self) -> str:
        """Changes when anything of any row changes, or which of them stand together."""
        digest = hashlib.sha256(self.rows.hash.encode())
        for pack in self.packs:
            digest.update(np.array([len(pack), *pack], dtype="<i8").tobytes())
        return digest.hexdigest()
