"""A decoder whose single-token steps run as one short sequence of operations.

At one new token a row, a step's arithmetic is small and each operation costs as much to call as to
run. `StepDecoder` stands in the place of a decoder stack, and runs such steps with as few
operations as the parts allow: one projection for q/k/v, queries and keys turned together and in
place, one copy into a cache that holds all layers in one tensor, the queries that share a key head
read as so many queries of that head, the row of relative biases cut out of a table that is made
once. Where our own kernels know all kinds of its layers, they take the whole stack in one call
(`native/steps.py`). Everything else (prompts of several tokens, packed rows) goes through the
core's own stack, which is also the tested meaning of the step.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mainspring import spec
from mainspring.compute.native.library import Kernels
from mainspring.compute.native.steps import NativeSteps, serves
from mainspring.compute.stacked_cache import StackedCache
from mainspring.compute.step_parts import Parts, layer_parts
from mainspring.core.cache import Cache, LayerCache
from mainspring.core.masks import AttentionMask
from mainspring.core.positions import RelativePositionBias
from mainspring.core.stack import Stack

Turn = tuple[Tensor, Tensor]
Keep = Callable[[int, Tensor, Turn | None], tuple[Tensor, Tensor]]
"""Turns the queries and keys of a layer, stores its keys and values, and gives all it holds then:
`keep(layer, qkv_BNE, turn) -> (keys BKSE, values BKSE)`."""


class StepDecoder(nn.Module):
    """In the place of a decoder `Stack` that `fits`; called alike. Makes its own kind of cache."""

    def __init__(
        self, stack: Stack, described: spec.Stack, dtype: torch.dtype, kernels: Kernels | None
    ):
        super().__init__()
        self.stack, self.dtype = stack, dtype
        self._bias_1H1S: Tensor | None = None
        layers = zip(stack.layers, described.layers, stack.turns, strict=True)
        self.parts = [layer_parts(*layer) for layer in layers]
        self._turn_and_keep = _turn_and_keep if kernels is None else kernels.turn_and_keep
        self.native = None if kernels is None else NativeSteps.of(stack, described, kernels)
        self.windows = {part.window for part in self.parts}

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
        at, end = at_B1, start + 1
        if at is None:
            at = stack.count(torch.arange(start, end, device=device), keep_BS)
        bias = None if stack.position_bias is None else self.bias_row(end)
        memory_mask = None
        if memory_BSD is not None:
            memory_mask = _memory_mask(cache, memory_keep_BS, len(ids_B1), memory_BSD)
        native = self.native
        if native is not None and (memory_BSD is None or serves(len(ids_B1), len(memory_BSD))):
            x_BD, turns = self._begin(ids_B1, table, at)
            mask = _mask(None, end, device, keep_BS)
            own = cache.room(end, x_BD.new_empty(native.cached(len(x_BD)), dtype=self.dtype)), start
            memories = () if memory_BSD is None else range(len(self.parts))
            memory = [self._memory(cache.layers[i], i, memory_BSD) for i in memories]
            x_BD = native.run(x_BD, [*turns.values()], bias, mask, own, memory, memory_mask)
            cache.move_to(end)
            return stack.final_norm(x_BD)[:, None]
        masks = {window: _mask(window, end, device, keep_BS) for window in self.windows}
        places: tuple[Tensor, ...] = ()
        held: tuple[Tensor, ...] = ()

        def keep(i: int, qkv_BNE: Tensor, turn: Turn | None) -> tuple[Tensor, Tensor]:
            nonlocal places, held
            part = self.parts[i]
            if not places:
                key_heads = part.turned - part.heads
                places, held = cache.advance(qkv_BNE.narrow(1, 0, key_heads)[:, :, None])
            self._turn_and_keep(qkv_BNE, part.heads, turn, places[i])
            keys, values = held[2 * i], held[2 * i + 1]
            seen = masks[part.window].keys
            if seen < end:
                keys, values = (x.narrow(2, end - seen, seen) for x in (keys, values))
            return keys, values

        def cross(i: int, y_BD: Tensor) -> Tensor:
            return self.read_memory(
                self.parts[i], y_BD, self._memory(cache.layers[i], i, memory_BSD), memory_mask
            )

        return self.run_layers(ids_B1, table, at, bias, masks, keep, cross)

    def run_layers(
        self,
        ids_B1: Tensor,
        table: nn.Embedding | None,
        at: Tensor,
        bias: Tensor | None,
        masks: dict[int | None, AttentionMask],
        keep: Keep,
        cross: Callable[[int, Tensor], Tensor],
    ) -> Tensor:
        """The new tokens' way through the stack, as B1D. `masks` are by window, `cross(i, y_BD)` is
        what layer i reads of the memory."""
        x_BD, turns = self._begin(ids_B1, table, at)
        batch = len(x_BD)
        added: Tensor | None = None
        for i, part in enumerate(self.parts):
            x_BD, y_BD = part.norms.enter(x_BD, added)
            qkv_BNE = part.qkv(y_BD).view(batch, -1, part.head_width)
            if part.head_norms is not None:
                qk_BNE = qkv_BNE.narrow(1, 0, part.turned)
                qk_BNE.copy_(part.head_norms(qk_BNE))
            keys, values = keep(i, qkv_BNE, None if part.turn is None else turns[part.turn])
            q_BKGE = qkv_BNE.narrow(1, 0, part.heads)
            q_BKGE = q_BKGE.view(batch, part.turned - part.heads, -1, part.head_width)
            mask = masks[part.window]
            y = part.attend(q_BKGE, keys, values, mask, bias, part.scale, **part.cap)
            x_BD, added = part.norms.leave(x_BD, part.o(y.reshape(batch, -1)))
            if part.cross is not None:
                x_BD, y_BD = part.cross_norms.enter(x_BD, added)
                x_BD, added = part.cross_norms.leave(x_BD, cross(i, y_BD))
            x_BD, y_BD = part.feed_norms.enter(x_BD, added)
            x_BD, added = part.feed_norms.leave(x_BD, part.down(part.expand(y_BD)))
        return self.stack.final_norm(x_BD if added is None else x_BD + added)[:, None]

    def _begin(
        self, ids_B1: Tensor, table: nn.Embedding | None, at: Tensor
    ) -> tuple[Tensor, dict[str, Turn]]:
        """What the first layer reads, and the turns at the tokens' positions by their names."""
        stack = self.stack
        x_B1D = stack.embedding(ids_B1, table, None)
        if stack.added_positions is not None:
            x_B1D = stack.added_positions(x_B1D, at)
        turns = {name: self._turn(angles(at)) for name, angles in stack.angles.items()}
        return stack.embedding_norm(x_B1D)[:, 0], turns

    def _memory(
        self, cache: LayerCache, i: int, memory_BSD: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The keys and values of the memory for layer i, kept from step to step."""
        cross = self.parts[i].cross
        if cache.cross is None or not cache.cross[0].is_contiguous():
            keys, values = cache.cross or map(cross.split, cross.kv(memory_BSD))
            cache.cross = keys.contiguous(), values.contiguous()
        return cache.cross

    def read_memory(
        self,
        part: Parts,
        x_BD: Tensor,
        memory: tuple[Tensor, Tensor],
        mask: AttentionMask | None,
    ) -> Tensor:
        """A layer's cross-attention to the memory's keys and values, both BKSE."""
        cross = part.cross
        k_BKSE, v_BKSE = memory
        # The sequences of one source are so many queries of one row, as in the core.
        q_BHTE = cross.q.forward(x_BD).view(len(k_BKSE), -1, k_BKSE.shape[1], cross.head_width)
        y_BHTE = cross.attend(
            q_BHTE.transpose(1, 2), k_BKSE, v_BKSE, mask, None, cross.scale, **cross.cap
        )
        return cross.o.forward(y_BHTE.transpose(1, 2).reshape(len(x_BD), -1))

    def _turn(self, angles: Turn) -> Turn:
        """Cosines and sines of the rows' positions as B1E, the sines of the left half negative."""
        cos, sin = (part.reshape(-1, 1, part.shape[-1]) for part in angles)
        left, right = sin.chunk(2, -1)
        return cos.to(self.dtype), torch.cat([-left, right], -1).to(self.dtype)

    def bias_row(self, keys: int) -> Tensor:
        """The biases 1H1S of the last of `keys` positions towards all of them.

        They depend on the distance alone: a row for fewer keys is the end of one for more.
        """
        made = self._bias_1H1S
        if made is None or made.shape[-1] < keys:
            position_bias = self.stack.position_bias
            assert isinstance(position_bias, RelativePositionBias)
            at_S = torch.arange(max(2 * keys, 128), device=position_bias.table.weight.device)
            made = position_bias(at_S[-1:], at_S).to(self.dtype).contiguous()
            self._bias_1H1S = made
        return made[..., made.shape[-1] - keys :]


def rotate_(x_BNE: Tensor, cos_B1E: Tensor, sin_B1E: Tensor) -> None:
    """As the core's `rotate`, in place, with sines whose left half is negative."""
    halves_BNE = x_BNE.roll(x_BNE.shape[-1] // 2, -1)  # right and left change places
    torch.addcmul(x_BNE * cos_B1E, halves_BNE, sin_B1E, out=x_BNE)


def _turn_and_keep(
    qkv_BNE: Tensor, heads: int, turn: tuple[Tensor, Tensor] | None, place_B2K1E: Tensor
) -> None:
    """Turns queries and keys in place, and copies keys and values to their place in the cache."""
    batch, every, width = qkv_BNE.shape
    key_heads = (every - heads) // 2
    if turn is not None:
        rotate_(qkv_BNE.narrow(1, 0, heads + key_heads), *turn)
    place_B2K1E.copy_(qkv_BNE.narrow(1, heads, 2 * key_heads).view(batch, 2, key_heads, 1, width))


def _mask(
    window: int | None, end: int, device: torch.device, keep_BS: Tensor | None
) -> AttentionMask:
    """The mask of the newest of `end` positions over those that it sees: the last `window`."""
    keys = end if window is None else min(window, end)
    keep_BS = None if keep_BS is None else keep_BS[:, end - keys :].bool()
    return AttentionMask(spec.FullMask(), 1, keys, device, keep_BS=keep_BS)


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
    hidden = None if keep_BS is None or bool(keep_BS.all()) else keep_BS.bool()
    mask = AttentionMask(spec.FullMask(), queries, keys, memory_BSD.device, keep_BS=hidden)
    cache.memory_mask = keep_BS, mask
    return mask
