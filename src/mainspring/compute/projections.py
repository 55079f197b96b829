"""Linear layers for inference: activation(x weightᵀ + bias), the weights in the narrow type.

Each is built from a float32 weight, which may be several side by side: one product for queries,
keys and values, one for gate and up. They hold buffers, not parameters: none can be trained.

    PlainProjection   any type and device, by torch's own linear: the tested reference
    PackedProjection  bfloat16 on a CPU, the weight laid out once for its matrix unit
    Int8Projection    8-bit weights, one scale per output; 8-bit activations, one scale per row
    BagRow            single rows by bfloat16 weights
    Int8Row           single rows of bfloat16 activations by 8-bit weights
    ByRow             two of them: one for single rows, one for several
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mainspring.compute import packed
from mainspring.core.attention import KeyValue, QueryKeyValue
from mainspring.core.feed_forward import GatedUp, Up
from mainspring.core.heads import VocabularyHead

Activation = Callable[[Tensor], Tensor]
Make = Callable[..., nn.Module]
"""make(weight_OI, bias_O or None, activation or None) -> a projection, or two `ByRow`."""

ROWS = 256  # rows quantised at a time: they stay in a core's cache
LEVELS = 127.0  # the largest 8-bit magnitude used; -128 is left out, so that signs are alike


class Projection(nn.Module):
    """What the kinds share: the activation, which a kernel may have applied already."""

    kernel_activations: ClassVar[dict[Activation, str]] = {}
    dtype = torch.bfloat16

    def __init__(self, activation: Activation | None):
        super().__init__()
        self.after = self.kernel_activations.get(activation, "none") if activation else "none"
        self.activation = activation if self.after == "none" else None

    def multiply(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        y = self.multiply(x if x.dtype is self.dtype else x.to(self.dtype))
        return y if self.activation is None else self.activation(y)

    def bytes(self) -> int:
        """Memory of the weights, in bytes."""
        return sum(t.untyped_storage().nbytes() for t in self.buffers())


class PlainProjection(Projection):
    def __init__(
        self,
        weight_OI: Tensor,
        bias_O: Tensor | None,
        activation: Activation | None = None,
        *,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__(activation)
        self.dtype = dtype
        self.weight: Tensor
        self.bias: Tensor | None
        self.register_buffer("weight", weight_OI.detach().to(dtype))
        self.register_buffer("bias", None if bias_O is None else bias_O.detach().to(dtype))

    def multiply(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class PackedProjection(Projection):
    kernel_activations: ClassVar[dict[Activation, str]] = {F.relu: "relu"}

    def __init__(
        self, weight_OI: Tensor, bias_O: Tensor | None, activation: Activation | None = None
    ):
        super().__init__(activation)
        self.size = weight_OI.numel() * torch.bfloat16.itemsize
        # The packed layout belongs to this CPU and cannot be saved: an attribute, not a buffer.
        self.packed = packed.pack_bfloat16(weight_OI.detach().bfloat16())
        self.bias: Tensor | None
        self.register_buffer("bias", None if bias_O is None else bias_O.detach().bfloat16())

    def multiply(self, x: Tensor) -> Tensor:
        return packed.linear_bfloat16(x, self.packed, self.bias, self.after)

    def bytes(self) -> int:
        return self.size + super().bytes()


def quantise_weight(weight_OI: Tensor) -> tuple[Tensor, Tensor]:
    """(int8 weight, float32 scale of each output): weight = int8 * scale, rounded to nearest."""
    narrow_OI = torch.empty_like(weight_OI, dtype=torch.int8, requires_grad=False)
    scale_O = weight_OI.new_empty(len(weight_OI), dtype=torch.float32, requires_grad=False)
    # A vocabulary at once would take several times its own memory for what lies between.
    for rows in range(0, len(weight_OI), ROWS):
        here = slice(rows, rows + ROWS)
        weight = weight_OI.detach()[here].float()
        scale_O[here] = weight.abs().amax(1).clamp(min=1e-12) / LEVELS
        narrow_OI[here] = (weight / scale_O[here, None]).round_()
    return narrow_OI, scale_O


def quantise_rows(x_NI: Tensor) -> tuple[Tensor, Tensor]:
    """(int8 x, bfloat16 scale N1 of each row). Scales are rounded first, and then used as they are:
    the rounding costs nothing but a level at the rim, which is clipped."""
    scale_N1 = (x_NI.abs().amax(1, keepdim=True).float() / LEVELS).clamp_(min=1e-12).bfloat16()
    return (x_NI / scale_N1.float()).round_().clamp_(-LEVELS, LEVELS).to(torch.int8), scale_N1


class Int8Projection(Projection):
    kernel_activations: ClassVar[dict[Activation, str]] = {F.relu: "relu"}

    def __init__(
        self,
        weight_OI: Tensor,
        bias_O: Tensor | None,
        activation: Activation | None = None,
    ):
        super().__init__(activation)
        weight, scale = quantise_weight(weight_OI)
        self.out, self.size = len(weight), weight.numel()
        self.packed = packed.pack_int8(weight) if packed.has_int8() else None
        self.weight: Tensor | None
        self.scale: Tensor
        self.zeros: Tensor
        self.bias: Tensor | None
        self.register_buffer("weight", weight if self.packed is None else None)
        self.register_buffer("scale", scale)
        self.register_buffer("zeros", torch.zeros(self.out, dtype=torch.int32))
        self.register_buffer("bias", None if bias_O is None else bias_O.detach().bfloat16())

    def multiply(self, x: Tensor) -> Tensor:
        x_NI = x.reshape(-1, x.shape[-1])
        if len(x_NI) <= ROWS:
            y_NO = self._rows(x_NI)
        else:
            y_NO = torch.cat([self._rows(part) for part in x_NI.split(ROWS)])
        return y_NO.view(*x.shape[:-1], self.out)

    def _rows(self, x_NI: Tensor) -> Tensor:
        if self.packed is None:
            assert self.weight is not None
            y_NO = F.linear(x_NI, self.weight.to(x_NI.dtype)).mul_(self.scale)
        else:
            x_int8, scale_N1 = quantise_rows(x_NI)
            after = self.after if self.bias is None else "none"
            y_NO = packed.linear_int8(x_int8, self.packed, self.scale, self.zeros, None, after)
            y_NO.mul_(scale_N1)
            if self.bias is None:
                return y_NO
        if self.bias is not None:
            y_NO += self.bias
        return y_NO.relu_() if self.after == "relu" else y_NO

    def bytes(self) -> int:
        return (self.size if self.packed is not None else 0) + super().bytes()


class BagRow(Projection):
    """A row times a weight is a weighted sum of the weight's columns: an embedding bag.

    torch reads bfloat16 weights faster so than by its packed product, which is made for many rows
    (benchmarks/LOG.md). The outputs are split among the threads: each has a bag of its own.
    """

    def __init__(
        self, weight_OI: Tensor, bias_O: Tensor | None, activation: Activation | None = None
    ):
        super().__init__(activation)
        (out, width), threads = weight_OI.shape, torch.get_num_threads()
        self.bags = threads if out % threads == 0 else 1
        columns_IO = weight_OI.detach().bfloat16().t().contiguous()
        self.weight: Tensor
        self.bias: Tensor | None
        self.register_buffer("weight", columns_IO.view(width * self.bags, -1))
        self.register_buffer("bias", None if bias_O is None else bias_O.detach().bfloat16())
        self.places, self.starts = _bags(width, self.bags)

    def multiply(self, x: Tensor) -> Tensor:
        shares = x.reshape(1, -1).expand(self.bags, -1).reshape(-1)
        y = torch.embedding_bag(
            self.weight, self.places, self.starts, mode=0, per_sample_weights=shares
        )[0].view(*x.shape[:-1], -1)
        return y if self.bias is None else y.add_(self.bias)


@cache
def _bags(width: int, bags: int) -> tuple[Tensor, Tensor]:
    """(the rows of each bag one after another, where each bag begins): all layers share them."""
    places = torch.arange(width * bags).view(width, bags).t().reshape(-1)
    return places, torch.arange(0, width * bags, width)


class Int8Row(Projection):
    """The activations stay bfloat16: at one row reading the weights is all that counts."""

    def __init__(
        self, weight_OI: Tensor, bias_O: Tensor | None, activation: Activation | None = None
    ):
        super().__init__(activation)
        weight, scale = quantise_weight(weight_OI)
        self.weight: Tensor
        self.scale: Tensor
        self.bias: Tensor | None
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale.bfloat16())
        self.register_buffer("bias", None if bias_O is None else bias_O.detach().bfloat16())

    def multiply(self, x: Tensor) -> Tensor:
        y_NO = packed.row_int8(x.reshape(-1, x.shape[-1]), self.weight, self.scale)
        if self.bias is not None:
            y_NO += self.bias
        return y_NO.view(*x.shape[:-1], -1)


class ByRow(nn.Module):
    """Two layouts of one weight: for a single row and for several."""

    def __init__(
        self,
        weight_OI: Tensor,
        bias_O: Tensor | None,
        activation: Activation | None = None,
        *,
        make_row: Make,
        make_many: Make,
    ):
        super().__init__()
        self.row = make_row(weight_OI, bias_O, activation)
        self.many = make_many(weight_OI, bias_O, activation)

    def forward(self, x: Tensor) -> Tensor:
        return (self.row if x.numel() == x.shape[-1] else self.many).forward(x)


# -- in the places of the core's small modules --------------------------------------------------


def _joined(make: Make, leaves: Sequence[Any], activation: Activation | None = None) -> nn.Module:
    """One projection of several linear leaves, their outputs side by side."""
    weight = torch.cat([leaf.weight.detach() for leaf in leaves])
    bias = None
    if any(leaf.bias is not None for leaf in leaves):
        none = [weight.new_zeros(leaf.out_features) for leaf in leaves]
        parts = zip(leaves, none, strict=True)
        bias = torch.cat([zero if leaf.bias is None else leaf.bias for leaf, zero in parts])
    return make(weight, bias, activation)


class JoinedProjections(nn.Module):
    """In the place of `QueryKeyValue` or `KeyValue`: one product for all."""

    def __init__(self, old: QueryKeyValue | KeyValue, make: Make):
        super().__init__()
        leaves: list[Any] = list(old.children())
        self.sizes = [leaf.out_features for leaf in leaves]
        self.joined = _joined(make, leaves)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.joined(x).split(self.sizes, -1)


class ProjectedUp(nn.Module):
    """In the place of `Up`: the activation in the product's kernel where it can be."""

    def __init__(self, old: Up, make: Make):
        super().__init__()
        self.up = _joined(make, [old.up], old.activation)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.up(x_BTD)


class JoinedGatedUp(nn.Module):
    """In the place of `GatedUp`: one product for both."""

    def __init__(self, old: GatedUp, make: Make):
        super().__init__()
        self.activation = old.activation
        self.joined = _joined(make, [old.gate, old.up])

    def forward(self, x_BTD: Tensor) -> Tensor:
        gate, up = self.joined(x_BTD).chunk(2, -1)
        return self.activation(gate) * up


class ProjectedVocabularyHead(nn.Module):
    """In the place of `VocabularyHead`: it owns a packed copy of a tied table, `scale` included.

    Its input is divided by `smoothing` (D), its weights multiplied.
    """

    def __init__(
        self,
        old: VocabularyHead,
        table: nn.Embedding | None,
        make: Make,
        dtype: torch.dtype,
        smoothing: Tensor | None = None,
    ):
        super().__init__()
        self.hidden, self.norm = old.hidden.to(dtype), old.norm.to(dtype)
        self.bias, self.soft_cap = old.bias, old.soft_cap
        if old.out is None:
            assert table is not None
            weight = table.weight.detach()
        else:
            weight = old.out.weight.detach()
        # The scale of T5's hidden states is taken into the weight: one pass less at each step.
        weight = weight if old.scale == 1.0 else weight * old.scale
        self.shrink: Tensor | None
        self.register_buffer("shrink", None if smoothing is None else (1 / smoothing).to(dtype))
        self.out = make(weight if smoothing is None else weight * smoothing, None, None)

    def forward(
        self, x_BTD: Tensor, table: nn.Embedding | None, keep_BT: Tensor | None = None
    ) -> Tensor:
        x_BTD = self.norm(self.hidden(x_BTD))
        if self.shrink is not None:
            x_BTD = x_BTD * self.shrink
        logits_BTV = self.out(x_BTD)
        if self.bias is not None:
            logits_BTV = logits_BTV + self.bias
        if self.soft_cap is not None:
            logits_BTV = self.soft_cap * torch.tanh(logits_BTV / self.soft_cap)
        return logits_BTV
