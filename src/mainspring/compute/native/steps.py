"""A decoder's step, one new token a row through all its layers, as one call of our own kernels."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mainspring import spec
from mainspring.compute.native.library import Kernels, Layer, Norm, Step, address
from mainspring.compute.native.parts import (
    FEW_QUERIES,
    NativeGatedUp,
    NativeProjection,
    NativeRMSNorm,
)
from mainspring.compute.projections import ProjectedUp
from mainspring.core.masks import AttentionMask
from mainspring.core.stack import Stack

NO_GATE = -1


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
        """None where a layer is of another kind than `decode_step` knows: norms before the parts
        and behind none, no norms of heads, no caps, one way to turn."""
        layers = list(map(_layer, stack.layers, described.layers))
        known = [layer for layer in layers if layer is not None]
        own = described.layers[0].attention
        if len(known) < len(layers) or own.heads > own.key_value_heads * FEW_QUERIES:
            return None
        if len({*stack.turns} - {None}) > 1:
            return None
        sizes = own.heads, own.key_value_heads, own.head_width
        return cls(kernels, (Layer * len(known))(*known), described.width, *sizes)

    def cached(self, rows: int) -> tuple[int, int, int, int]:
        """The shape BKSE of a layer's keys or values of one position."""
        return rows, self.key_heads, 1, self.head_width

    def run(
        self,
        x_BD: Tensor,
        turn: tuple[Tensor, Tensor] | None,
        bias_1H1S: Tensor | None,
        mask: AttentionMask,
        own: tuple[Tensor, int],
        memory: Sequence[tuple[Tensor, Tensor]],
        memory_mask: AttentionMask | None,
    ) -> Tensor:
        """The stream behind the last layer (B, width), float32, of x_BD, which is not changed.

        `own` is a `StackedCache`'s tensor, and the position in it that the new keys and values go
        to; `turn` is as `Kernels.turn_and_keep` takes it. `memory` are each layer's keys and
        values of the sources (BKSE, contiguous), which rows / sources sequences read: at most
        `FEW_QUERIES`. `mask` is over all positions. All but x_BD is bfloat16.
        """
        held, start = own
        x_BD = x_BD.to(torch.float32, copy=True)
        cosines, sines = turn or (None, None)
        parts = [part.data_ptr() for pair in memory for part in pair]
        pointers = (ctypes.c_void_p * len(parts))(*parts)
        sources, _, memory_keys, _ = memory[0][0].shape if memory else (0, 0, 0, 0)
        memory_keep = None if memory_mask is None else memory_mask.keep_BS
        layer, part, row, head, place, _ = held.stride()
        step = Step(
            *(len(x_BD), len(self.layers), self.width),
            *(self.heads, self.key_heads, self.head_width, start),
            *(address(cosines), address(sines)),
            0 if cosines is None or len(cosines) == 1 else self.head_width,
            *(address(bias_1H1S), 0 if bias_1H1S is None else bias_1H1S.stride(1)),
            *(address(mask.keep_BS), 0 if mask.keep_BS is None else mask.keep_BS.stride(0)),
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


def _layer(layer: Any, described: spec.Layer) -> Layer | None:
    own, cross, feed = layer.self_attention, layer.cross_attention, layer.feed_forward
    norms = [layer.self_residual.norm, layer.feed_residual.norm]
    parts = [own.qkv.joined, own.o, _up(feed.expand), feed.down]
    if cross is not None:
        norms.append(layer.cross_residual.norm)
        parts += [cross.q, cross.o]
    attentions = [a for a in (described.attention, described.cross_attention) if a is not None]
    known = (
        described.norm_placement == "pre"
        and described.attention.query_key_norm is None
        and all(attention.soft_cap is None for attention in attentions)
        and all(type(norm) is NativeRMSNorm and norm.dtype is torch.bfloat16 for norm in norms)
        and all(map(_plain, parts))
    )
    if not known:
        return None
    return Layer(
        own=_norm(layer.self_residual.norm),
        cross=Norm() if cross is None else _norm(layer.cross_residual.norm),
        feed=_norm(layer.feed_residual.norm),
        qkv=own.qkv.joined.address,
        own_out=own.o.address,
        q=None if cross is None else cross.q.address,
        cross_out=None if cross is None else cross.o.address,
        up=_up(feed.expand).address,
        down=feed.down.address,
        window=described.mask.size if isinstance(described.mask, spec.SlidingWindow) else 0,
        turned=described.attention.rotary is not None,
        gate=feed.expand.gate if type(feed.expand) is NativeGatedUp else NO_GATE,
        own_scale=own.scale,
        cross_scale=1.0 if cross is None else cross.scale,
    )


def _up(expand: Any) -> Any:
    match expand:
        case NativeGatedUp():
            return expand.joined
        case ProjectedUp():
            return expand.up
    return None


def _plain(part: Any) -> bool:
    """Whether a projection is the kernels' own, nothing left to do behind it."""
    return (
        type(part) is NativeProjection and part.activation is None and part.result is torch.bfloat16
    )


def _norm(norm: NativeRMSNorm) -> Norm:
    return Norm(norm.weight.data_ptr(), norm.epsilon)
