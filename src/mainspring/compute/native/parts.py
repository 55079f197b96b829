"""Projections and norms by our own kernels, in the places of those in torch's operators."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mainspring import spec
from mainspring.compute.native.library import (
    AFTER,
    BFLOAT16,
    INT8,
    Kernels,
    Linear,
    Norm,
    address,
)
from mainspring.compute.projections import Activation, Projection, quantise_weight
from mainspring.core.attention import Attend
from mainspring.core.feed_forward import ACTIVATIONS
from mainspring.core.layer import PreNorm
from mainspring.core.masks import AttentionMask

ALL_ROWS = 2**62
# Those that the kernels know beside ReLU, which products do on the way.
ACTIVE = {ACTIVATIONS["silu"]: 0, ACTIVATIONS["gelu_tanh"]: 1, ACTIVATIONS["gelu"]: 2}
FEW_QUERIES = 8  # of one key head: more are taken 16 at a time, by tiles


class NativeProjection(Projection):
    """One layout of the weights for any number of rows.

    `weight_dtype` is bfloat16, or int8 with a scale for each output. 8-bit weights meet activations
    of 15 bits where there are at most `exact_rows` of them, else of 8 bits.
    """

    kernel_activations: ClassVar[dict[Activation, str]] = {F.relu: "relu"}

    def __init__(
        self,
        weight_OI: Tensor,
        bias_O: Tensor | None,
        activation: Activation | None = None,
        *,
        kernels: Kernels,
        weight_dtype: torch.dtype = torch.bfloat16,
        result: torch.dtype = torch.bfloat16,
        exact_rows: int = ALL_ROWS,
    ):
        super().__init__(activation)
        self.kernels, self.result = kernels, result
        self.out, inputs = weight_OI.shape
        self.scale: Tensor | None
        self.sums: Tensor | None
        self.bias: Tensor | None
        scale = sums = None
        if weight_dtype is torch.int8:
            narrow, scale = quantise_weight(weight_OI)
            sums = narrow.sum(1, dtype=torch.int32)
        else:
            narrow = weight_OI.detach().bfloat16()
        # The layout belongs to this kind of CPU and is not saved: attributes, not buffers.
        self.panels = kernels.pack(narrow)
        self.register_buffer("scale", scale)
        self.register_buffer("sums", sums)
        self.register_buffer("bias", None if bias_O is None else bias_O.detach().float())
        # Held beside the buffers, which `.to()` replaces: the kernel keeps the addresses.
        self.read = (self.scale, self.sums, self.bias)
        pointers = [None if t is None else t.data_ptr() for t in self.read]
        self.described = Linear(
            *(self.panels.data_ptr(), *pointers, self.out, inputs),
            *(INT8 if scale is not None else BFLOAT16, AFTER[self.after], exact_rows),
        )
        self.address = ctypes.addressof(self.described)

    def forward(self, x: Tensor) -> Tensor:
        # The kernel reads bfloat16 and float32 alike.
        y = self.multiply(x)
        return y if self.activation is None else self.activation(y)

    def multiply(self, x: Tensor) -> Tensor:
        if not x.is_contiguous():
            x = x.contiguous()
        y = torch.empty((*x.shape[:-1], self.out), dtype=self.result)
        self.kernels.linear(self.address, x, y)
        return y

    def bytes(self) -> int:
        return self.panels.numel() + super().bytes()


class NativeNorm(nn.Module):
    """In the place of an `nn.RMSNorm` or `nn.LayerNorm`: float32 rows in, `dtype` out."""

    def __init__(self, old: nn.RMSNorm | nn.LayerNorm, dtype: torch.dtype, kernels: Kernels):
        super().__init__()
        self.kernels, self.dtype = kernels, dtype
        centred = isinstance(old, nn.LayerNorm)
        (width,) = old.normalized_shape
        self.weight: Tensor
        self.bias: Tensor | None
        for name, plain in (("weight", torch.ones(width)), ("bias", None)):
            given = old._parameters.get(name)
            held = plain if given is None else given.detach().float().contiguous()
            self.register_buffer(name, held)
        epsilon = torch.finfo(torch.float32).eps if old.eps is None else old.eps
        self.read = (self.weight, self.bias)  # beside the buffers, which `.to()` replaces
        self.described = Norm(self.weight.data_ptr(), address(self.bias), epsilon, centred)

    def forward(self, x: Tensor) -> Tensor:
        x = x.float().contiguous()
        y = torch.empty_like(x, dtype=self.dtype)
        self.kernels.norm_rows(self.described, x, y)
        return y

    def after_sum(self, x: Tensor, added: Tensor) -> tuple[Tensor, Tensor]:
        """(x + added, its norm) for float32 x."""
        total, y = torch.empty_like(x), torch.empty_like(x, dtype=self.dtype)
        self.kernels.norm_rows(self.described, x, y, added.contiguous(), total)
        return total, y


class NativePreNorm(nn.Module):
    """In the place of `PreNorm`: the part's result is added to the float32 stream where it lies."""

    def __init__(self, old: PreNorm, kernels: Kernels):
        super().__init__()
        self.norm, self.kernels = old.norm, kernels

    def forward(self, x_BTD: Tensor, part: Callable[[Tensor], Tensor]) -> Tensor:
        y_BTD = part(self.norm(x_BTD))
        if x_BTD.dtype is torch.float32 and x_BTD.is_contiguous():
            return self.kernels.add(x_BTD, y_BTD)
        return x_BTD + y_BTD


class NativeGatedUp(nn.Module):
    """In the place of `GatedUp`: one product for both, then the gate in one pass."""

    def __init__(self, joined: nn.Module, activation: int, kernels: Kernels):
        super().__init__()
        self.joined, self.gate, self.kernels = joined, activation, kernels

    def forward(self, x_BTD: Tensor) -> Tensor:
        both = self.joined.forward(x_BTD)
        y = both.new_empty((*both.shape[:-1], both.shape[-1] // 2))
        self.kernels.gate(both, self.gate, y)
        return y


class NativeUp(nn.Module):
    """In the place of `Up` with an activation that products do not do on the way."""

    def __init__(self, up: nn.Module, activation: int, kernels: Kernels):
        super().__init__()
        self.up, self.active, self.kernels = up, activation, kernels

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.kernels.activate(self.up.forward(x_BTD), self.active)


@dataclass(frozen=True)
class NativeAttend:
    """In the place of `core.attention.attend` for what the kernels know, in bfloat16; else as
    before."""

    kernels: Kernels
    before: Attend

    def __call__(
        self,
        q_BHTE: Tensor,
        k_BKSE: Tensor,
        v_BKSE: Tensor,
        mask: AttentionMask,
        bias_1HTS: Tensor | None,
        scale: float,
        dropout: float = 0.0,
        soft_cap: float | None = None,
    ) -> Tensor:
        queries, keep = q_BHTE.shape[2], mask.keep_BS
        whole = mask.hides_nothing or isinstance(mask.kind, spec.FullMask)
        by_tiles = queries > FEW_QUERIES
        known = (
            _narrow(q_BHTE, k_BKSE, v_BKSE)
            and mask.segments is None
            and dropout == 0.0
            and (whole or (by_tiles and _sees_to_the_end(mask)))
            and (keep is None or (keep.dtype is torch.bool and keep.stride(-1) == 1))
            and (_every_query(bias_1HTS) if by_tiles else _one_row(bias_1HTS))
            and not (by_tiles and soft_cap)
        )
        if not known:
            cap = {} if soft_cap is None else {"soft_cap": soft_cap}
            return self.before(q_BHTE, k_BKSE, v_BKSE, mask, bias_1HTS, scale, dropout, **cap)
        return self.kernels.attend(
            *(q_BHTE, k_BKSE, v_BKSE, keep, bias_1HTS, scale, soft_cap or 0.0),
            causal=not whole,
            by_tiles=by_tiles,
        )


def _narrow(q: Tensor, k: Tensor, v: Tensor) -> bool:
    return (
        q.dtype is k.dtype is v.dtype is torch.bfloat16
        and q.stride(3) == k.stride(3) == v.stride(3) == 1
    )


def _sees_to_the_end(mask: AttentionMask) -> bool:
    """Whether it is causal, and the last query sees the last key."""
    return isinstance(mask.kind, spec.CausalMask) and mask.start + mask.queries == mask.keys


def _one_row(bias_1HTS: Tensor | None) -> bool:
    """Whether a bias, if any, is the same for all queries."""
    return bias_1HTS is None or (
        bias_1HTS.dtype is torch.bfloat16 and bias_1HTS.shape[2] == 1 and bias_1HTS.stride(3) == 1
    )


def _every_query(bias_1HTS: Tensor | None) -> bool:
    """Whether a bias, if any, is the same for all rows of a batch."""
    return bias_1HTS is None or (
        bias_1HTS.dtype in (torch.bfloat16, torch.float32)
        and len(bias_1HTS) == 1
        and bias_1HTS.stride(3) == 1
    )
