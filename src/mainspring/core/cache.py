"""What decoding remembers: keys and values of earlier positions. An argument, not module state."""

import torch
from torch import Tensor

STEP = 64  # positions


def moved_places(rows: Tensor) -> Tensor:
    """The places i where `rows[i]` is not i."""
    return (rows != torch.arange(len(rows), device=rows.device)).nonzero().squeeze(1)


def take_rows(held: Tensor, rows: Tensor, moved: Tensor | None = None) -> Tensor:
    """`held[rows]`, in place and copying only rows that move, as long as they are not more."""
    if len(rows) > len(held):
        return held[rows]
    moved = moved_places(rows) if moved is None else moved
    if len(moved):
        held.index_copy_(0, moved, held.index_select(0, rows[moved]))
    return held[: len(rows)]


def grown(positions: int) -> int:
    """Room for `positions` and a quarter more, in whole steps: growing copies what is held, and
    this keeps both the copies and the room that stays empty few."""
    return -(-positions * 5 // 4 // STEP) * STEP


class LayerCache:
    """One layer's self-attention keys and values (BKSE, preallocated) and cross-attention ones.

    The cross-attention pair is set by the first pass and then reused; it may hold fewer rows than
    the batch where several sequences (beams) read the same source.
    """

    def __init__(self, capacity: int):
        self.capacity, self.length = capacity, 0
        self._keys: Tensor | None = None
        self._values: Tensor | None = None
        self.cross: tuple[Tensor, Tensor] | None = None

    def append(self, keys_BKSE: Tensor, values_BKSE: Tensor) -> tuple[Tensor, Tensor]:
        """Stores new positions and returns all positions so far, as views."""
        end = self.length + keys_BKSE.shape[2]
        if self._keys is None or self._values is None or end > self.capacity:
            self.capacity = max(self.capacity, end if self._keys is None else grown(end))
            self._keys = self._grown(self._keys, keys_BKSE)
            self._values = self._grown(self._values, values_BKSE)
        self._keys[:, :, self.length : end] = keys_BKSE
        self._values[:, :, self.length : end] = values_BKSE
        self.length = end
        return self._keys[:, :, :end], self._values[:, :, :end]

    def _grown(self, old: Tensor | None, like_BKSE: Tensor) -> Tensor:
        batch = len(like_BKSE if old is None else old)
        _, heads, _, width = like_BKSE.shape
        grown = like_BKSE.new_empty(batch, heads, self.capacity, width)
        if old is not None:
            grown[:, :, : self.length] = old[:, :, : self.length]
        return grown

    def reorder(self, rows: Tensor, moved: Tensor, since: int = 0) -> None:
        """The self-attention part of `Cache.reorder`; `moved` are the places that change."""
        if self._keys is None or self._values is None:
            return
        keys, values = self._keys[:, :, : self.length], self._values[:, :, : self.length]
        if len(rows) > len(keys):
            self._keys, self._values = (self._grown(t[rows], t) for t in (keys, values))
        else:
            for kept in (keys[:, :, since:], values[:, :, since:]):
                take_rows(kept, rows, moved)
            self._keys, self._values = self._keys[: len(rows)], self._values[: len(rows)]


class Cache:
    """The caches of a decoder's layers. `capacity` is in positions; it grows when exceeded."""

    def __init__(self, layers: int, capacity: int):
        self.layers = [LayerCache(capacity) for _ in range(layers)]

    @property
    def rows(self) -> int:
        """Rows of the batch held; 0 before the first pass."""
        keys = self.layers[0]._keys if self.layers else None
        return 0 if keys is None else len(keys)

    @property
    def length(self) -> int:
        """Positions held so far."""
        return self.layers[0].length if self.layers else 0

    def reorder(self, rows: Tensor, cross_rows: Tensor | None = None, *, since: int = 0) -> None:
        """Place i of the batch gets what row `rows[i]` held; fewer, more and repeats are allowed.

        Only places that change are copied, so leave kept rows where they are. Positions before
        `since` must be equal in a row and in the one that takes its place, and are not touched:
        the beams of one source share their beginnings. `cross_rows` does the same for the source
        rows of the cross-attention part.
        """
        moved = moved_places(rows)
        if len(moved) or self.rows != len(rows):
            for layer in self.layers:
                layer.reorder(rows, moved, since)
        if cross_rows is not None:
            moved = moved_places(cross_rows)
            for layer in self.layers:
                if layer.cross is not None:
                    keys, values = (take_rows(t, cross_rows, moved) for t in layer.cross)
                    layer.cross = keys, values

    def truncate(self, length: int) -> None:
        """Forgets positions from `length` on (speculative decoding, prefix reuse)."""
        for layer in self.layers:
            layer.length = min(layer.length, length)

    def bytes(self) -> int:
        """Memory held, in bytes."""
        held = [
            t for layer in self.layers for t in (layer._keys, layer._values, *(layer.cross or ()))
        ]
        return sum(t.untyped_storage().nbytes() for t in held if torch.is_tensor(t))
