"""Compute copies of weights: cast once per optimizer step instead of once per use."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mainspring.compute.native import library
from mainspring.compute.native.library import Kernels
from mainspring.compute.native.panels import Panels

TILE = 256
LONG = 1024  # rows from which laying a factor out anew is cheaper than multiplying it as it lies


def transposed(x: Tensor, into: Tensor) -> Tensor:
    """`into` filled with xᵀ, a few rows of x at a time: twice as fast as all at once."""
    for at in range(0, len(x), TILE):
        into[:, at : at + TILE] = x[at : at + TILE].t()
    return into


def weight_gradient(dy_ND: Tensor, x_NF: Tensor) -> Tensor:
    """dyᵀ x, in float32 by our own kernel where it serves, else in their type. oneDNN reads a left
    factor that lies transposed at half of its rate, so the narrower of the two is laid out anew:
    dyᵀ, or xᵀ for (xᵀ dy)ᵀ, which is then a transposed view."""
    kernels = library.kernels() if dy_ND.device.type == "cpu" else None
    narrow = dy_ND.dtype is x_NF.dtype is torch.bfloat16
    if kernels is not None and narrow and not dy_ND.shape[1] % 16 and not x_NF.shape[1] % 16:
        return kernels.weight_gradient(dy_ND.contiguous(), x_NF.contiguous())
    if len(x_NF) < LONG or x_NF.device.type != "cpu":
        return dy_ND.t() @ x_NF
    if dy_ND.shape[1] <= x_NF.shape[1]:
        return transposed(dy_ND, dy_ND.new_empty(dy_ND.shape[::-1])) @ x_NF
    return (transposed(x_NF, x_NF.new_empty(x_NF.shape[::-1])) @ dy_ND).t()


class ComputeCopy:
    """The weights (and biases) of one or more linear leaves side by side, in `dtype`.

    The float32 parameters stay where they are. The copy is made anew when torch's version counter
    says that one of them has changed, or by `refresh` after a change that does not count
    (through `.data`).
    """

    def __init__(self, leaves: Sequence[nn.Linear], dtype: torch.dtype):
        self.leaves, self.dtype = leaves, dtype
        self.rows = [leaf.out_features for leaf in leaves]
        self._weight: Tensor | None = None
        self._bias: Tensor | None = None
        self._seen: list[int] = []

    @property
    def parameters(self) -> list[Tensor]:
        """The weights, then the biases (a leaf without one leaves it out)."""
        biases = [leaf.bias for leaf in self.leaves if leaf.bias is not None]
        return [*(leaf.weight for leaf in self.leaves), *biases]

    def weight(self) -> Tensor:
        self._settle()
        assert self._weight is not None
        return self._weight

    def bias(self) -> Tensor | None:
        self._settle()
        return self._bias

    def _settle(self) -> None:
        """Sees to it that the copy is of the parameters as they are."""
        if self._seen != [p._version for p in self.parameters]:
            self.refresh()

    def refresh(self) -> None:
        """Copies the weights as they are now."""
        first = self.leaves[0].weight
        # Made as an ordinary tensor also where a model is first used in inference mode.
        with torch.inference_mode(False), torch.no_grad():
            if self._weight is None or self._weight.device != first.device:
                self._weight = torch.empty(
                    sum(self.rows), first.shape[1], dtype=self.dtype, device=first.device
                )
                if any(leaf.bias is not None for leaf in self.leaves):
                    self._bias = torch.zeros(sum(self.rows), dtype=self.dtype, device=first.device)
            at = 0
            for leaf, rows in zip(self.leaves, self.rows, strict=True):
                self._weight[at : at + rows].copy_(leaf.weight)
                if self._bias is not None and leaf.bias is not None:
                    self._bias[at : at + rows].copy_(leaf.bias)
                at += rows
        self._seen = [p._version for p in self.parameters]

    def multiply(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """x Wᵀ + b of an x in `dtype`, and what else the gradients will need."""
        return F.linear(x, self.weight(), self.bias()), ()

    def low_gradient(self, dy: Tensor) -> Tensor | None:
        """What both gradients below are made with, beside `dy`: nothing here."""
        return None

    def input_gradient(self, dy: Tensor, low: Tensor | None, kept: Sequence[Tensor]) -> Tensor:
        """The gradient of x, from that of what `multiply` made of it."""
        return dy @ self.weight()

    def gradients(
        self,
        dy: Tensor,
        low: Tensor | None,
        x: Tensor | None,
        kept: Sequence[Tensor],
        wanted: Sequence[bool],
    ) -> list[Tensor | None]:
        """The gradients of those of `parameters` that are wanted, in their type."""
        if not any(wanted):
            return [None] * len(wanted)
        assert x is not None
        dy_NO = dy.flatten(0, -2)
        dweight = weight_gradient(dy_NO, x.flatten(0, -2))
        made = [
            part if part.dtype is leaf.weight.dtype else torch.empty_like(leaf.weight).copy_(part)
            for leaf, part in zip(self.leaves, dweight.split(self.rows), strict=True)
        ]
        if self.bias() is not None:
            dbias = dy_NO.sum(0, dtype=torch.float32)
            for leaf, part in zip(self.leaves, dbias.split(self.rows), strict=True):
                if leaf.bias is not None:
                    made.append(part.to(leaf.bias.dtype))
        return [d if wants else None for d, wants in zip(made, wanted, strict=True)]


class PanelCopy(ComputeCopy):
    """As `ComputeCopy` on a CPU that our kernels know, in their layout: one copy for products with
    the weights, one for those with their transpose, which a gradient needs. Both are bfloat16,
    biases float32."""

    def __init__(self, leaves: Sequence[nn.Linear], kernels: Kernels):
        super().__init__(leaves, torch.bfloat16)
        self.kernels = kernels
        self._panels: Panels | None = None

    @staticmethod
    def serves(leaves: Sequence[nn.Linear]) -> bool:
        """Whether each leaf but the last ends where a block of 32 outputs does."""
        return all(leaf.out_features % 32 == 0 for leaf in leaves[:-1])

    def refresh(self) -> None:
        weights = [leaf.weight for leaf in self.leaves]
        with torch.inference_mode(False), torch.no_grad():
            if self._panels is None:
                if any(leaf.bias is not None for leaf in self.leaves):
                    self._bias = torch.zeros(sum(self.rows))
                self._panels = Panels(self.kernels, weights, self._bias)
            else:
                self._panels.pack(weights)
            if self._bias is not None:
                for leaf, part in zip(self.leaves, self._bias.split(self.rows), strict=True):
                    if leaf.bias is not None:
                        part.copy_(leaf.bias)
        self._seen = [p._version for p in self.parameters]

    def multiply(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        self._settle()
        assert self._panels is not None
        return self._panels.forth(x), ()

    def input_gradient(self, dy: Tensor, low: Tensor | None, kept: Sequence[Tensor]) -> Tensor:
        self._settle()
        assert self._panels is not None
        return self._panels.back(dy)
