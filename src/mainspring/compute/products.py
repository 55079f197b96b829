"""Matrix products of training with a narrow copy of float32 weights, both ways."""

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from mainspring.compute.native import library
from mainspring.compute.native.panels import Panels


class Products(Protocol):
    """A copy of weights (outputs, inputs) side by side, which `pack` makes and makes anew.

    `forth` gives x weightᵀ + bias, `back` dy weight, each in the copy's type; where `onto` is given
    the product is added to it in place, and it is what is returned.
    """

    def pack(self, weights: Sequence[Tensor], bias: Tensor | None = None) -> None: ...

    def forth(self, x: Tensor, onto: Tensor | None = None) -> Tensor: ...

    def back(self, dy: Tensor, onto: Tensor | None = None) -> Tensor: ...


class PlainProducts:
    """`Products` by torch's own operators: any type and device, and the tested reference."""

    def __init__(self, dtype: torch.dtype):
        self.dtype = dtype
        self._weight: Tensor | None = None
        self._bias: Tensor | None = None

    def pack(self, weights: Sequence[Tensor], bias: Tensor | None = None) -> None:
        first, height = weights[0], sum(map(len, weights))
        if self._weight is None or self._weight.device != first.device:
            self._weight = torch.empty(
                height, first.shape[1], dtype=self.dtype, device=first.device
            )
        for part, weight in zip(self._weight.split([*map(len, weights)]), weights, strict=True):
            part.copy_(weight)
        self._bias = None if bias is None else bias.to(self.dtype)

    def forth(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        assert self._weight is not None
        y = F.linear(x, self._weight, self._bias)
        return y if onto is None else onto.add_(y)

    def back(self, dy: Tensor, onto: Tensor | None = None) -> Tensor:
        assert self._weight is not None
        dx = dy @ self._weight
        return dx if onto is None else onto.add_(dx)


def products(weights: Sequence[Tensor], dtype: torch.dtype) -> Products:
    """What multiplies fastest with such weights where they are; nothing is packed yet."""
    kernels = library.kernels() if weights[0].device.type == "cpu" else None
    if kernels is not None and dtype is torch.bfloat16 and Panels.fit(weights):
        return Panels(kernels)
    return PlainProducts(dtype)
