"""A decoder whose single-token steps run as one short sequence of operations.

At one new token a row, a step's arithmetic is small and each operation costs as much to call as to
run. `StepDecoder` stands in the place of a decoder stack of pre-norm layers, and runs such steps
with as few operations as the parts allow: one projection for q/k/v, one copy into a cache that
holds all layers in one tensor, the row of relative biases cut out of a table that is made once.
Everything else (prompts of several tokens, packed rows) goes through the core's own stack, which is
also the tested meaning of the step.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from mainspring import spec
from mainspring.core.cache import Cache, LayerCache, moved_places
from mainspring.core.masks import AttentionMask
from mainspring.core.positions import RelativePositionBias
from mainspring.core.stack import Stack


class StackedLayerCache(LayerCache):
    """One layer's view of a `StackedCache`."""

    def __init__(self, whole: "StackedCache", layer: int, capacity: int):
        super().__init__(capacity)
        self.whole, self.layer = whole, layer

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
            self.capacity = max(self.capacity, end if self.held is None else 2 * end)
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
        for layer in self.layers:
            layer.length = start + 1
        places = held.narrow(4, start, 1).transpose(1, 2).unbind(0)
        return places, held.narrow(4, 0, start + 1).flatten(0, 1).unbind(0)

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


@dataclass(frozen=True)
class _Parts:
    """What a step calls of one layer, looked up once."""

    norm: Any
    qkv: Any
    head_width: int
    scale: float
    attend: Any
    o: Any
    cross_norm: Any
    cross: Any
    feed_norm: Any
    expand: Any
    down: Any


def fits(stack: spec.Stack) -> bool:
    """Whether `StepDecoder` knows all that this decoder's layers do.

    Each record is compared with one that states only what the step knows, so that a kind the spec
    learns later is never left out in silence.
    """
    embedding = stack.embedding
    if not isinstance(embedding, spec.TokenEmbedding) or embedding.types:
        return False
    known = spec.Stack(stack.width, embedding, stack.layers, stack.positions, stack.final_norm)
    known = replace(known, dropout=stack.dropout, final_dropout=stack.final_dropout)
    return known == stack and all(map(_fits, stack.layers))


def _fits(layer: spec.Layer) -> bool:
    own, causal = layer.attention, spec.CausalMask()
    plain = spec.Attention(own.heads, own.heads, own.head_width, own.biases, own.scale)
    known = spec.Layer(replace(plain, dropout=own.dropout), layer.feed_forward, layer.norm)
    known = replace(known, cross_attention=layer.cross_attention, mask=causal)
    return replace(known, dropout=layer.dropout) == layer


class StepDecoder(nn.Module):
    """In the place of a decoder `Stack` that `fits`; called alike. Makes its own kind of cache."""

    def __init__(self, stack: Stack, dtype: torch.dtype):
        super().__init__()
        self.stack, self.dtype = stack, dtype
        self._bias_1H1S: Tensor | None = None
        self._parts = [_parts(layer) for layer in stack.layers]

    def new_cache(self, capacity: int) -> StackedCache:
        return StackedCache(len(self.stack.layers), capacity)

    def forward(
        self,
        inputs: Tensor,
        table: nn.Embedding | None,
        keep_BS: Tensor | None = None,
        memory_BSD: Tensor | None = None,
        memory_keep_BS: Tensor | None = None,
        cache: Cache | None = None,
        at_BT: Tensor | None = None,
        segments: tuple[Tensor, Tensor] | None = None,
        memory_segments: tuple[Tensor, Tensor] | None = None,
        types_BT: Tensor | None = None,
    ) -> Tensor:
        single = inputs.shape[1] == 1 and types_BT is None
        if (
            single
            and isinstance(cache, StackedCache)
            and (segments, memory_segments) == (None,) * 2
        ):
            return self.step(inputs, table, keep_BS, memory_BSD, memory_keep_BS, cache, at_BT)
        return self.stack(
            inputs,
            table,
            keep_BS,
            memory_BSD,
            memory_keep_BS,
            cache,
            at_BT,
            segments,
            memory_segments,
            types_BT,
        )

    def step(
        self,
        ids_B1: Tensor,
        table: nn.Embedding | None,
        keep_BS: Tensor | None,
        memory_BSD: Tensor | None,
        memory_keep_BS: Tensor | None,
        cache: StackedCache,
        at_B1: Tensor | None,
    ) -> Tensor:
        """The stack's forward pass for one new token a row, as B1D."""
        stack, start, device = self.stack, cache.length, ids_B1.device
        x_BD = stack.embedding(ids_B1, table, None)
        if stack.added_positions is not None:
            at = at_B1
            if at is None:
                at = stack.count(torch.arange(start, start + 1, device=device), keep_BS)
            x_BD = stack.added_positions(x_BD, at)
        x_BD = x_BD[:, 0]
        batch = len(x_BD)
        bias = None if stack.position_bias is None else self.bias_row(start + 1)
        mask = AttentionMask(spec.CausalMask(), 1, start + 1, device, start, keep_BS)
        memory_mask = None
        if memory_BSD is not None:
            memory_mask = _memory_mask(cache, memory_keep_BS, batch, memory_BSD)
        places: tuple[Tensor, ...] = ()
        held: tuple[Tensor, ...] = ()
        for i, part in enumerate(self._parts):
            qkv = part.qkv(part.norm(x_BD)).view(batch, 3, -1, 1, part.head_width)
            q_BHTE = qkv.select(1, 0)
            if not places:
                places, held = cache.advance(q_BHTE)
            places[i].copy_(qkv.narrow(1, 1, 2))
            y_BHTE = part.attend(q_BHTE, held[2 * i], held[2 * i + 1], mask, bias, part.scale)
            x_BD = x_BD + part.o(y_BHTE.transpose(1, 2).reshape(batch, -1))
            if part.cross is not None:
                y_BD = part.cross_norm(x_BD)
                x_BD = x_BD + self._cross(part, y_BD, memory_BSD, memory_mask, cache.layers[i])
            x_BD = x_BD + part.down(part.expand(part.feed_norm(x_BD)))
        return stack.final_norm(x_BD)[:, None]

    def _cross(
        self,
        part: _Parts,
        x_BD: Tensor,
        memory_BSD: Tensor | None,
        mask: AttentionMask | None,
        cache: LayerCache,
    ) -> Tensor:
        cross = part.cross
        if cache.cross is None or not cache.cross[0].is_contiguous():
            keys, values = cache.cross or map(cross.split, cross.kv(memory_BSD))
            cache.cross = keys.contiguous(), values.contiguous()
        k_BKSE, v_BKSE = cache.cross
        # The sequences of one source are so many queries of one row, as in the core.
        q_BHTE = cross.q.forward(x_BD).view(len(k_BKSE), -1, k_BKSE.shape[1], cross.head_width)
        y_BHTE = cross.attend(
            q_BHTE.transpose(1, 2), k_BKSE, v_BKSE, mask, None, cross.scale, **cross.cap
        )
        return cross.o.forward(y_BHTE.transpose(1, 2).reshape(len(x_BD), -1))

    def bias_row(self, keys: int) -> Tensor:
        """The biases 1H1S of the last of `keys` positions towards all of them.

        They depend on the distance alone: a row for fewer keys is the end of one for more.
        """
        made = self._bias_1H1S
        if made is None or made.shape[-1] < keys:
            position_bias = self.stack.position_bias
            assert isinstance(position_bias, RelativePositionBias)
            at_S = torch.arange(max(2 * keys, 128), device=position_bias.table.weight.device)
            made = position_bias(at_S[-1:], at_S).to(self.dtype)
            self._bias_1H1S = made
        return made[..., made.shape[-1] - keys :]


def _parts(layer: Any) -> _Parts:
    """The calls go to `forward` at once, past hooks: there are a hundred of them in a step.

    `qkv` must give queries, keys and values side by side: see `JoinedProjections`.
    """
    own, cross = layer.self_attention, layer.cross_attention
    return _Parts(
        norm=layer.self_residual.norm.forward,
        qkv=own.qkv.joined.forward,
        head_width=own.head_width,
        scale=own.scale,
        attend=own.attend,
        o=own.o.forward,
        cross_norm=None if layer.cross_residual is None else layer.cross_residual.norm.forward,
        cross=cross,
        feed_norm=layer.feed_residual.norm.forward,
        expand=layer.feed_forward.expand.forward,
        down=layer.feed_forward.down.forward,
    )


def _memory_mask(
    cache: StackedCache, keep_BS: Tensor | None, batch: int, memory_BSD: Tensor
) -> AttentionMask:
    """The mask over the sources: what it makes of `keep_BS` is kept from step to step."""
    sources, keys = memory_BSD.shape[:2]
    queries = batch // sources
    if cache.memory_mask is not None:
        made_of, mask = cache.memory_mask
        if made_of is keep_BS and (mask.queries, mask.keys) == (queries, keys):
            return mask
    hides = keep_BS is not None and not bool(keep_BS.all())
    mask = AttentionMask(
        spec.FullMask(), queries, keys, memory_BSD.device, keep_BS=keep_BS if hides else None
    )
    cache.memory_mask = keep_BS, mask
    return mask
