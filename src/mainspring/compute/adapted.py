"""The compute copy of linear leaves that carry LoRA adapters: frozen weights, low-rank gradients.

The frozen weights of the leaves stand side by side in bfloat16, cast once, and below them, as more
rows, the A of every adapter: one product gives both what the weights make of x and A x.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mainspring.compute.copies import ComputeCopy, weight_gradient
from mainspring.compute.dropout import LANES, apply_mask_, keep_mask, kept_scale
from mainspring.compute.lora import LoraLinear, LowRank


class AdaptedCopy(ComputeCopy):
    """As `ComputeCopy`, for leaves of which at least one is a `LoraLinear` and none else learns.

    `refresh` casts the adapters anew, and the frozen weights only where they have changed.
    """

    def __init__(self, leaves: Sequence[nn.Linear], dtype: torch.dtype):
        super().__init__(leaves, dtype)
        adapted = [leaf for leaf in leaves if isinstance(leaf, LoraLinear)]
        self.parts: list[LowRank] = list(dict.fromkeys(leaf.part for leaf in adapted))
        self.out = sum(self.rows)
        self.ranks = [len(part.a) for part in self.parts]
        self._spread: Tensor | None = None
        self._low_seen: list[int] = []

    @property
    def parameters(self) -> list[Tensor]:
        """A and B of each adapter."""
        return [factor for part in self.parts for factor in (part.a, part.b)]

    def _frozen(self) -> list[Tensor]:
        return ComputeCopy.parameters.fget(self)  # type: ignore[attr-defined]

    def weight(self) -> Tensor:
        """The frozen weights, and below them the A of every adapter."""
        current = self._weight is not None and self._low_seen == [
            p._version for p in self.parameters
        ]
        if not current or self._seen != [p._version for p in self._frozen()]:
            self.refresh()
        assert self._weight is not None
        return self._weight

    def spread(self) -> Tensor:
        """scale * B of every adapter as (outputs, all ranks): zero where a leaf has another."""
        self.weight()
        assert self._spread is not None
        return self._spread

    def refresh(self) -> None:
        first = self.leaves[0].weight
        with torch.inference_mode(False), torch.no_grad():
            fresh = self._weight is None or self._weight.device != first.device
            if fresh:
                height = self.out + sum(self.ranks)
                self._weight = first.new_empty(height, first.shape[1], dtype=self.dtype)
                self._spread = first.new_zeros(self.out, sum(self.ranks), dtype=self.dtype)
                if any(leaf.bias is not None for leaf in self.leaves):
                    self._bias = first.new_zeros(height, dtype=self.dtype)
            assert self._weight is not None and self._spread is not None
            seen = [p._version for p in self._frozen()]
            if fresh or seen != self._seen:
                self._copy_frozen()
                self._seen = seen
            at = self.out
            for part, rank in zip(self.parts, self.ranks, strict=True):
                self._weight[at : at + rank].copy_(part.a)
                at += rank
            for leaf, rows, columns in self._blocks():
                part = leaf.part
                self._spread[rows, columns] = part.b[leaf.rows] * part.scale
        self._low_seen = [p._version for p in self.parameters]

    def _copy_frozen(self) -> None:
        assert self._weight is not None
        at = 0
        for leaf, rows in zip(self.leaves, self.rows, strict=True):
            self._weight[at : at + rows].copy_(leaf.weight)
            if self._bias is not None and leaf.bias is not None:
                self._bias[at : at + rows].copy_(leaf.bias)
            at += rows

    def _blocks(self) -> list[tuple[LoraLinear, slice, slice]]:
        """Each adapted leaf with its outputs and the columns of its adapter in `spread`."""
        columns: dict[LowRank, slice] = {}
        at = 0
        for part, rank in zip(self.parts, self.ranks, strict=True):
            columns[part] = slice(at, at + rank)
            at += rank
        found: list[tuple[LoraLinear, slice, slice]] = []
        at = 0
        for leaf, rows in zip(self.leaves, self.rows, strict=True):
            if isinstance(leaf, LoraLinear):
                found.append((leaf, slice(at, at + rows), columns[leaf.part]))
            at += rows
        return found

    def _share(self) -> float:
        """The share of x that the adapters' dropout takes now."""
        drop = self.parts[0].dropout
        return drop.p if drop.training else 0.0

    def multiply(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        share, weight, bias = self._share(), self.weight(), self.bias()
        kept: tuple[Tensor, ...] = ()
        if share:
            y = F.linear(x, weight[: self.out], None if bias is None else bias[: self.out])
            y_NO = y.flatten(0, -2)
            mask = keep_mask(x.numel(), share, LANES[x.element_size()], x.device)
            low_NR = self._dropped(x.flatten(0, -2).clone(), mask) @ weight[self.out :].t()
            kept = (mask,)
        else:
            y = F.linear(x, weight, bias)
            y_NO = y.flatten(0, -2)
            low_NR = y_NO[:, self.out :].contiguous()
            y, y_NO = y[..., : self.out], y_NO[:, : self.out]
        y_NO.addmm_(low_NR, self.spread().t())
        return y, (low_NR, *kept)

    def low_gradient(self, dy: Tensor) -> Tensor:
        """The gradient of what every A makes of x."""
        return dy.flatten(0, -2) @ self.spread()

    def input_gradient(self, dy: Tensor, low: Tensor | None, kept: Sequence[Tensor]) -> Tensor:
        assert low is not None
        weight = self.weight()
        dx = dy @ weight[: self.out]
        if len(kept) == 1:
            dx.flatten(0, -2).addmm_(low, weight[self.out :])
            return dx
        through = low @ weight[self.out :]
        return dx.add_(self._dropped(through, kept[1]).view(dx.shape))

    def gradients(
        self,
        dy: Tensor,
        low: Tensor | None,
        x: Tensor | None,
        kept: Sequence[Tensor],
        wanted: Sequence[bool],
    ) -> list[Tensor | None]:
        if not any(wanted):
            return [None] * len(wanted)
        assert x is not None and low is not None
        x_NI = x.flatten(0, -2)
        if len(kept) > 1:
            x_NI = self._dropped(x_NI.clone(), kept[1])
        da = weight_gradient(low, x_NI)
        dspread = weight_gradient(dy.flatten(0, -2), kept[0])
        made: dict[int, Tensor] = {}
        for part, part_da in zip(self.parts, da.split(self.ranks), strict=True):
            made[id(part.a)] = part_da.to(part.a.dtype)
            made[id(part.b)] = torch.zeros_like(part.b)
        for leaf, rows, columns in self._blocks():
            part = leaf.part
            torch.mul(dspread[rows, columns], part.scale, out=made[id(part.b)][leaf.rows])
        return [
            made[id(parameter)] if wants else None
            for parameter, wants in zip(self.parameters, wanted, strict=True)
        ]

    def _dropped(self, x_NI: Tensor, mask: Tensor) -> Tensor:
        """x with what dropout leaves of it, in place."""
        return apply_mask_(x_NI.mul_(kept_scale(self.parts[0].dropout.p)), mask)
