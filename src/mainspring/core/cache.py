"""What decoding remembers: keys and values of earlier positions. An argument, not module state."""

import torch
from torch import Tensor


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
            self.capacity = max(self.capacity, end if self._keys is None else 2 * end)
            self._keys = self._grown(self._keys, keys_BKSE)
            self._values = self._grown(self._values, values_BKSE)
        self._keys[:, :, self.length : end] = keys_BKSE
        self._values[:, :, self.length : end] = values_BKSE
        self.length = end
        return self._keys[:, :, :end], self._values[:, :, :end]

    def _grown(self, old: Tensor | None, like_BKSE: Tensor) -> Tensor:
        batch, heads, _, width = like_BKSE.shape
        grown = like_BKSE.new_empty(batch, heads, self.capacity, width)
        if old is not None:
            grown[:, :, : self.length] = old[:, :, : self.length]
        return grown

    def reorder(self, rows: Tensor) -> None:
        """Keeps `rows` (indices into the batch, repeats allowed) of the self-attention part."""
        if self._keys is None or self._values is None:
            return
        keys, values = self._keys[:, :, : self.length], self._values[:, :, : self.length]
        if len(rows) == len(self._keys):
            self._keys[:, :, : self.length] = keys[rows]
            self._values[:, :, : self.length] = values[rows]
            return
        self._keys = self._grown(keys[rows], keys[rows])
        self._values = self._grown(values[rows], values[rows])


class Cache:
    """The caches of a decoder's layers. `capacity` is in positions; it grows when exceeded."""

    def __init__(self, layers: int, capacity: int):
        self.layers = [LayerCache(capacity) for _ in range(layers)]

    @property
    def length(self) -> int:
        """Positions held so far."""
        return self.layers[0].length if self.layers else 0

    def reorder(self, rows: Tensor, cross_rows: Tensor | None = None) -> None:
        """Keeps and repeats batch rows; `cross_rows` does the same for the source rows."""
        for layer in self.layers:
            layer.reorder(rows)
            if cross_rows is not None and layer.cross is not None:
                keys, values = layer.cross
                layer.cross = keys[cross_rows], values[cross_rows]

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
