"""A cache that holds all layers' keys and values in one tensor, for `StepDecoder`."""

from weakref import proxy

from torch import Tensor

from mainspring.core.cache import Cache, LayerCache, grown, moved_places
from mainspring.core.masks import AttentionMask


class StackedLayerCache(LayerCache):
    """One layer's view of a `StackedCache`."""

    def __init__(self, whole: "StackedCache", layer: int, capacity: int):
        super().__init__(capacity)
        # Held weakly: in a cycle both would wait for the garbage collector with all they hold.
        self.whole, self.layer = proxy(whole), layer

    def append(self, keys_BKSE: Tensor, values_BKSE: Tensor) -> tuple[Tensor, Tensor]:
        end = self.length + keys_BKSE.shape[2]
        held = self.whole.room(end, keys_BKSE)[self.layer]
        held[0, :, :, self.length : end] = keys_BKSE
        held[1, :, :, self.length : end] = values_BKSE
        self.length = end
        return held[0, :, :, :end], held[1, :, :, :end]


class StackedCache(Cache):
    """As `Cache`, with the self-attention part of all layers in one tensor: (layers, keys and
    values, B, K, S, E). A reordering is then one operation, and so is looking at what is held."""

    def __init__(self, layers: int, capacity: int):
        self.capacity = capacity
        self.held: Tensor | None = None
        self.layers: list[LayerCache] = [
            StackedLayerCache(self, layer, capacity) for layer in range(layers)
        ]
        self.memory_mask: tuple[Tensor | None, AttentionMask] | None = None

    @property
    def rows(self) -> int:
        return 0 if self.held is None else self.held.shape[2]

    def room(self, end: int, like_BKSE: Tensor) -> Tensor:
        """The tensor that holds all, with room for `end` positions of rows such as `like_BKSE`."""
        if self.held is None or end > self.capacity:
            self.capacity = max(self.capacity, end if self.held is None else grown(end))
            batch, heads, _, width = like_BKSE.shape
            self.held = self._grown(self.held, (batch, heads, width), like_BKSE)
        return self.held

    def _grown(self, old: Tensor | None, shape: tuple[int, int, int], like: Tensor) -> Tensor:
        batch, heads, width = shape
        grown = like.new_empty(len(self.layers), 2, batch, heads, self.capacity, width)
        if old is not None:
            # Within one pass some layers may hold a position more than others: copy them all.
            length = max(layer.length for layer in self.layers)
            grown[..., :length, :] = old[..., :length, :]
        return grown

    def advance(self, like_BKSE: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Adds one position: (where each layer writes it, what each layer then holds).

        A layer's place has the shape (B, 2, K, 1, E), keys and values; what is held is, in turn,
        the first layer's keys BKSE, its values, the next layer's keys and so on.
        """
        start = self.length
        held = self.room(start + 1, like_BKSE)
        self.move_to(start + 1)
        places = held.narrow(4, start, 1).transpose(1, 2).unbind(0)
        return places, held.narrow(4, 0, start + 1).flatten(0, 1).unbind(0)

    def move_to(self, end: int) -> None:
        """Says that all layers hold `end` positions."""
        for layer in self.layers:
            layer.length = end

    def reorder(self, rows: Tensor, cross_rows: Tensor | None = None, *, since: int = 0) -> None:
        if self.held is not None and len(rows) > self.rows:
            old = self.held[..., : self.length, :].index_select(2, rows)
            _, _, batch, heads, _, width = old.shape
            self.held = self._grown(old, (batch, heads, width), old)
        elif self.held is not None:
            moved = moved_places(rows)
            if len(moved) and since < self.length:
                part = self.held[..., since : self.length, :]
                part.index_copy_(2, moved, part.index_select(2, rows[moved]))
            self.held = self.held[:, :, : len(rows)]
        super().reorder(rows[:0], cross_rows)

    def bytes(self) -> int:
        cross = sum(t.untyped_storage().nbytes() for c in self.layers for t in (c.cross or ()))
        return cross + (0 if self.held is None else self.held.untyped_storage().nbytes())
