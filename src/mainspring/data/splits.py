"""Training and validation rows: the splits a user gives, or a seeded one that never changes.

A drawn split depends on what the rows say and on the seed, not on their order: equal rows fall on
the same side, and a row keeps its side when others are added, but for the few at the border.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mainspring.errors import BadData, BadOption

SHARE = 0.05
MOST = 500


def row_id(values: Mapping[str, Any], seed: int = 0) -> int:
    """64 bits that tell what a row says, mixed with `seed`; equal rows have equal ids."""
    text = json.dumps([seed, values], sort_keys=True, ensure_ascii=False, default=str)
    digest = hashlib.blake2b(text.encode("utf-8", "backslashreplace"), digest_size=8)
    return int.from_bytes(digest.digest(), "big")


@dataclass(frozen=True)
class Splits:
    """Row numbers of each side, in the order of the rows; every row is on exactly one side.

    `origin` says where the split comes from. `shared` counts the validation rows whose twin is
    among the training rows (none in a drawn split).
    """

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]
    ids: NDArray[np.uint64]
    origin: str
    shared: int = 0

    def counts(self) -> dict[str, int]:
        return {name: len(rows) for name, rows in self._sides().items() if len(rows)}

    def save(self, path: str | Path) -> None:
        """Writes origin, counts, and the ids of the validation rows (16 hex digits each)."""
        validation = [f"{i:016x}" for i in self.ids[self.validation].tolist()]
        record = {
            "origin": self.origin,
            "rows": self.counts(),
            "shared": self.shared,
            "validation": validation,
        }
        Path(path).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    def _sides(self) -> dict[str, NDArray[np.int64]]:
        return {"train": self.train, "validation": self.validation, "test": self.test}


def split_rows(
    ids: ArrayLike | Sequence[int],
    given: Sequence[str | None] | None = None,
    *,
    seed: int,
    share: float = SHARE,
    most: int = MOST,
) -> Splits:
    """Splits rows by their `ids` (`row_id` of each, with the same seed).

    `given` names the split of each row where the data says so; None, or a row's None, counts as
    training data. Without a given validation split about `share` of the training rows are drawn,
    at least one and at most `most`. Raises BadData where no row is left to train on.
    """
    if not 0 < share < 1:
        raise BadOption(f"the validation share must lie between 0 and 1, not {share}")
    ids = np.asarray(ids, dtype=np.uint64)
    names = np.array([name or "train" for name in given or [None] * len(ids)], dtype=object)
    train, validation, test = (
        np.flatnonzero(names == name) for name in ("train", "validation", "test")
    )
    if not len(train):
        raise BadData(f"no training rows: only {', '.join(sorted(set(names))) or 'nothing'}")
    if len(validation):
        shared = int(np.isin(ids[validation], ids[train]).sum())
        return Splits(train, validation, test, ids, "as given", shared)
    drawn = _drawn(ids[train], max(1, min(most, round(share * len(train)))))
    origin = f"drawn with seed {seed}"
    return Splits(train[~drawn], train[drawn], test, ids, origin)


def _drawn(ids: NDArray[np.uint64], wanted: int) -> NDArray[np.bool_]:
    """True for the rows with the smallest ids: about `wanted`, twins together, never all."""
    distinct, counts = np.unique(ids, return_counts=True)
    if len(distinct) < 2:
        raise BadData("at least two different rows are needed, one of them to validate on")
    groups = max(1, int(np.searchsorted(np.cumsum(counts), wanted, side="right")))
    return ids <= distinct[min(groups, len(distinct) - 1) - 1]
