"""The compute copy of linear leaves with LoRA adapters: frozen weights, low-rank gradients."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mainspring.compute.copies import ComputeCopy, own, weight_gradient
from mainspring.compute.dropout import LANES, apply_mask_, keep_mask, kept_scale
from mainspring.compute.lora import LoraLinear, LowRank
from mainspring.compute.products import Products, products


class AdaptedCopy(ComputeCopy):
    """As `ComputeCopy`, for leaves of which at least one is a `LoraLinear` and none else learns.

    `refresh` casts the adapters anew, and the frozen weights only where they have changed. Beside
    the frozen weights there are the A of all adapters as one matrix, and `spread`: scale * B of
    each as (outputs, all ranks), zero where a leaf has another.
    """

    def __init__(self, leaves: Sequence[nn.Linear], dtype: torch.dtype):
        super().__init__(leaves, dtype)
        adapted = [leaf for leaf in leaves if isinstance(leaf, LoraLinear)]
        self.parts: list[LowRank] = list(dict.fromkeys(leaf.part for leaf in adapted))
        self.out = sum(self.rows)
        self.ranks = [len(part.a) for part in self.parts]
        self._a, self._spread = (products([self.parts[0].a], dtype) for _ in range(2))
        self._frozen_seen: list[int] = []

    @property
    def parameters(self) -> list[Tensor]:
        """A and B of each adapter."""
        return [factor for part in self.parts for factor in (part.a, part.b)]

    def _settled(self) -> Products:
        if self._frozen_seen != [p._version for p in own(self.leaves)]:
            self.refresh()
        return super()._settled()

    def refresh(self) -> None:
        seen = [p._version for p in own(self.leaves)]
        if seen != self._frozen_seen:
            super().refresh()
            self._frozen_seen = seen
        with torch.inference_mode(False), torch.no_grad():
            self._a.pack([torch.cat([part.a for part in self.parts])])
            spread = self.parts[0].b.new_zeros(self.out, sum(self.ranks))
            for leaf, rows, columns in self._blocks():
                spread[rows, columns] = leaf.part.b[leaf.rows] * leaf.part.scale
            self._spread.pack([spread])
        self._seen = [p._version for p in self.parameters]

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

    @property
    def panels(self) -> None:
        """The adapters' products come between."""
        return

    def multiply(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        y, share = self._settled().forth(x), self._share()
        x_NI = x.flatten(0, -2)
        kept: tuple[Tensor, ...] = ()
        if share:
            mask = keep_mask(x.numel(), share, LANES[x.element_size()], x.device)
            x_NI, kept = self._dropped(x_NI.clone(), mask), (mask,)
        low_NR = self._a.forth(x_NI)
        self._spread.forth(low_NR, onto=y.flatten(0, -2))
        return y, (low_NR, *kept)

    def low_gradient(self, dy: Tensor) -> Tensor:
        """The gradient of what every A makes of x."""
        self._settled()
        return self._spread.back(dy.flatten(0, -2))

    def input_gradient(self, dy: Tensor, low: Tensor | None, kept: Sequence[Tensor]) -> Tensor:
        assert low is not None
        dx = self._settled().back(dy)
        if len(kept) == 1:
            self._a.back(low, onto=dx.flatten(0, -2))
            return dx
        return dx.add_(self._dropped(self._a.back(low), kept[1]).view(dx.shape))

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
