"""Compute copies of weights: cast once per optimizer step instead of once per use."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mainspring.compute.native import library
from mainspring.compute.native.panels import Panels
from mainspring.compute.products import Products, products

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
        self.biased = any(leaf.bias is not None for leaf in leaves)
        self._products = products([leaf.weight for leaf in leaves], dtype)
        self._seen: list[int] = []

    @property
    def parameters(self) -> list[Tensor]:
        """The weights, then the biases (a leaf without one leaves it out)."""
        return own(self.leaves)

    def refresh(self) -> None:
        """Copies the weights as they are now."""
        # Made as ordinary tensors also where a model is first used in inference mode.
        with torch.inference_mode(False), torch.no_grad():
            self._products.pack([leaf.weight for leaf in self.leaves], self._bias())
        self._seen = [p._version for p in self.parameters]

    def _bias(self) -> Tensor | None:
        """All biases side by side, zeros where a leaf has none; None where none has."""
        if not self.biased:
            return None
        none = (leaf.weight.new_zeros(leaf.out_features) for leaf in self.leaves)
        parts = zip(self.leaves, none, strict=True)
        return torch.cat([zero if leaf.bias is None else leaf.bias for leaf, zero in parts])

    def _settled(self) -> Products:
        """The copy, of the parameters as they are."""
        if self._seen != [p._version for p in self.parameters]:
            self.refresh()
        return self._products

    @property
    def panels(self) -> Panels | None:
        """The copy where nothing comes between its products and what follows them, and our own
        kernels make them."""
        copy = self._settled()
        return copy if isinstance(copy, Panels) else None

    def multiply(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """x Wᵀ + b of an x in `dtype`, and what else the gradients will need."""
        return self._settled().forth(x), ()

    def low_gradient(self, dy: Tensor) -> Tensor | None:
        """What both gradients below are made with, beside `dy`: nothing here."""
        return None

    def input_gradient(self, dy: Tensor, low: Tensor | None, kept: Sequence[Tensor]) -> Tensor:
        """The gradient of x, from that of what `multiply` made of it."""
        return self._settled().back(dy)

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
        if self.biased:
            dbias = dy_NO.sum(0, dtype=torch.float32)
            for leaf, part in zip(self.leaves, dbias.split(self.rows), strict=True):
                if leaf.bias is not None:
                    made.append(part.to(leaf.bias.dtype))
        return [d if wants else None for d, wants in zip(made, wanted, strict=True)]


def own(leaves: Sequence[nn.Linear]) -> list[Tensor]:
    """The leaves' own weights, then their biases."""
    biases = [leaf.bias for leaf in leaves if leaf.bias is not None]
    return [*(leaf.weight for leaf in leaves), *biases]
