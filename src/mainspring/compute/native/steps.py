"""A decoder's step, one new token a row through all its layers, as one call of our own kernels."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mainspring import spec
from mainspring.compute.native.library import TURNS, Kernels, Layer, Norm, Step, address, in_rows
from mainspring.compute.native.parts import (
    FEW_QUERIES,
    NativeGatedUp,
    NativeNorm,
    NativeProjection,
    NativeUp,
)
from mainspring.compute.projections import ProjectedUp
from mainspring.core.masks import AttentionMask
from mainspring.core.stack import Stack

NONE = -1


@dataclass(frozen=True)
class NativeSteps:
    """The layers of a stack as the kernels' records. Weights stay with the stack's modules."""

    kernels: Kernels
    layers: ctypes.Array[Layer]
    width: int
    heads: int
    key_heads: int
    head_width: int

    @classmethod
    def of(cls, stack: Stack, described: spec.Stack, kernels: Kernels) -> "NativeSteps | None":
        """None where a layer is of another kind than `decode_step` knows."""
        ways = list(stack.angles)
        turns = [NONE if name is None else ways.index(name) for name in stack.turns]
        layers = list(map(_layer, stack.layers, described.layers, turns))
        known = [layer for layer in layers if layer is not None]
        own = described.layers[0].attention
        if len(known) < len(layers) or own.heads > own.key_value_heads * FEW_QUERIES:
            return None
        if len(ways) > TURNS:
            return None
        sizes = own.heads, own.key_value_heads, own.head_width
        return cls(kernels, (Layer * len(known))(*known), described.width, *sizes)

    def cached(self, rows: int) -> tuple[int, int, int, int]:
        """The shape BKSE of a layer's keys or values of one position."""
        return rows, self.key_heads, 1, self.head_width

    def run(
        self,
        x_BD: Tensor,
        turns: Sequence[tuple[Tensor, Tensor]],
        bias_1H1S: Tensor | None,
        mask: AttentionMask,
        own: tuple[Tensor, int],
        memory: Sequence[tuple[Tensor, Tensor]],
        memory_mask: AttentionMask | None,
    ) -> Tensor:
        """The stream behind the last layer (B, width), float32, of x_BD, which is not changed.

        `own` is a `StackedCache`'s tensor, and the position in it that the new keys and values go
        to; `turns` are as `Kernels.turn_and_keep` takes them, in the order of the stack's
        `angles`. `memory` are each layer's keys and
        values of the sources (BKSE, contiguous), which rows / sources sequences read: at most
        `FEW_QUERIES`. `mask` is over all positions. All but x_BD is bfloat16.
        """
        held, start = own
        x_BD = x_BD.to(torch.float32, copy=True)
        one_place = not turns or len(turns[0][0]) == 1
        angles = ctypes.c_void_p * TURNS
        parts = [part.data_ptr() for pair in memory for part in pair]
        pointers = (ctypes.c_void_p * len(parts))(*parts)
        sources, _, memory_keys, _ = memory[0][0].shape if memory else (0, 0, 0, 0)
        keep = in_rows(mask.keep_BS)
        memory_keep = None if memory_mask is None else in_rows(memory_mask.keep_BS)
        layer, part, row, head, place, _ = held.stride()
        step = Step(
            *(len(x_BD), len(self.layers), self.width),
            *(self.heads, self.key_heads, self.head_width, start),
            *(angles(*(turn[i].data_ptr() for turn in turns)) for i in range(2)),
            0 if one_place else self.head_width,
            *(address(bias_1H1S), 0 if bias_1H1S is None else bias_1H1S.stride(1)),
            *(address(keep), 0 if keep is None else keep.stride(0)),
            *(held.data_ptr(), layer, part, row, head, place),
            *(ctypes.addressof(pointers), sources, memory_keys),
            *(address(memory_keep), 0 if memory_keep is None else memory_keep.stride(0)),
        )
        if not self.kernels.library.decode_step(self.layers, ctypes.byref(step), x_BD.data_ptr()):
            raise MemoryError(f"no memory for a step of {len(x_BD)} rows")
        return x_BD


def serves(sequences: int, sources: int) -> bool:
    """Whether so many sequences may read so many sources."""
    return sequences <= sources * FEW_QUERIES


def _layer(layer: Any, described: spec.Layer, turn: int) -> Layer | None:
    own, cross, feed = layer.self_attention, layer.cross_attention, layer.feed_forward
    attention, memory = described.attention, described.cross_attention
    closes = described.norm_placement == "post"
    residuals = [layer.self_residual, layer.feed_residual]
    parts = [own.qkv.joined, own.o, _up(feed.expand), feed.down]
    if cross is not None:
        residuals.append(layer.cross_residual)
        parts += [cross.q, cross.o]
    narrow = []  # norms of what products have given
    if described.norm_placement == "sandwich":
        narrow += [residual.after for residual in residuals]
    normed = attention.query_key_norm is not None
    if normed:
        narrow += [own.query_norm, own.key_norm]
    streams = torch.float32 if closes else torch.bfloat16
    known = (
        all(_is_native(residual.norm, streams) for residual in residuals)
        and all(_is_native(norm, torch.bfloat16) for norm in narrow)
        and all(map(_plain, parts))
    )
    if not known:
        return None
    heads = {"query": own.query_norm.described, "key": own.key_norm.described} if normed else {}
    return Layer(
        **_norms("own", layer.self_residual, described),
        **({} if cross is None else _norms("cross", layer.cross_residual, described)),
        **_norms("feed", layer.feed_residual, described),
        **heads,
        qkv=own.qkv.joined.address,
        own_out=own.o.address,
        q=None if cross is None else cross.q.address,
        cross_out=None if cross is None else cross.o.address,
        up=_up(feed.expand).address,
        down=feed.down.address,
        window=described.mask.size if isinstance(described.mask, spec.SlidingWindow) else 0,
        closes=closes,
        turn=turn,
        gate=feed.expand.gate if type(feed.expand) is NativeGatedUp else NONE,
        active=feed.expand.active if type(feed.expand) is NativeUp else NONE,
        own_scale=own.scale,
        own_cap=attention.soft_cap or 0.0,
        cross_scale=1.0 if cross is None else cross.scale,
        cross_cap=0.0 if memory is None else memory.soft_cap or 0.0,
    )


def _up(expand: Any) -> Any:
    match expand:
        case NativeGatedUp():
            return expand.joined
        case NativeUp() | ProjectedUp():
            return expand.up
    return None


def _plain(part: Any) -> bool:
    """Whether a projection is the kernels' own, nothing left to do behind it."""
    return (
        type(part) is NativeProjection and part.activation is None and part.result is torch.bfloat16
    )


def _is_native(norm: Any, dtype: torch.dtype) -> bool:
    return type(norm) is NativeNorm and norm.dtype is dtype


def _norms(name: str, residual: Any, described: spec.Layer) -> dict[str, Norm]:
    """The norm of the stream around a part, and where there is one that of what the part gives."""
    found = {name: residual.norm.described}
    if described.norm_placement == "sandwich":
        found[f"{name}_after"] = residual.after.described
    return found
