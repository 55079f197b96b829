"""Weights as bfloat16 panels for products both ways: what training multiplies with on a CPU."""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from mainspring.compute.native.library import (
    AFTER,
    BFLOAT16,
    Dropped,
    Kernels,
    Linear,
    address,
    room_for_panels,
    settings,
)


class Panels:
    """`Products` by our own kernels. `both` is False where nobody asks for gradients.

    They know weights of any type; results are bfloat16.
    """

    def __init__(self, kernels: Kernels, *, both: bool = True):
        self.kernels, self.both = kernels, both
        self.outputs = self.inputs = 0
        self._forth: Tensor | None = None
        self._back: Tensor | None = None
        self._bias: Tensor | None = None

    @staticmethod
    def fit(weights: Sequence[Tensor]) -> bool:
        """Whether each of the weights but the last ends where a block of 32 outputs does."""
        return all(len(weight) % 32 == 0 for weight in weights[:-1])

    def pack(self, weights: Sequence[Tensor], bias: Tensor | None = None) -> None:
        if self._forth is None:
            self.outputs, self.inputs = sum(map(len, weights)), weights[0].shape[1]
            self._forth = room_for_panels(self.outputs, 2 * self.inputs)
            if self.both:
                self._back = room_for_panels(self.inputs, 2 * self.outputs)
        at = 0
        for weight in weights:
            wide = weight.detach().float()
            self.kernels.pack_both(wide, at, self.outputs, self._forth, self._back)
            at += len(weight)
        self._bias = None if bias is None else bias.detach().float().contiguous()

    def forth(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        return self._product(self._forward(), x, onto)

    def back(self, dy: Tensor, onto: Tensor | None = None) -> Tensor:
        return self._product(self._backward(), dy, onto)

    def relu(self, x: Tensor, dropped: Dropped | None) -> Tensor:
        """dropout(max(x weightᵀ + bias, 0))."""
        described = self._forward()
        described.after = AFTER["relu"]
        described.drop, described.seed, described.kept = settings(dropped)
        return self._product(described, x)

    def back_through_relu(self, dy: Tensor, hidden: Tensor, dropped: Dropped | None) -> Tensor:
        """dy weight, where `dy` is the gradient of a product with `hidden`, which another's `relu`
        gave: the gradient of what went into that ReLU. `hidden` is contiguous bfloat16."""
        described = self._backward()
        described.after, described.where = AFTER["where"], hidden.data_ptr()
        described.kept = settings(dropped)[2]
        return self._product(described, dy)

    def _forward(self) -> Linear:
        assert self._forth is not None
        sizes = self.outputs, self.inputs, BFLOAT16
        return Linear(self._forth.data_ptr(), None, None, address(self._bias), *sizes)

    def _backward(self) -> Linear:
        assert self._back is not None
        return Linear(self._back.data_ptr(), None, None, None, self.inputs, self.outputs, BFLOAT16)

    def _product(self, described: Linear, x: Tensor, onto: Tensor | None = None) -> Tensor:
        x = x.to(torch.bfloat16).contiguous()
        if onto is None:
            y = torch.empty((*x.shape[:-1], described.outputs), dtype=torch.bfloat16)
        else:
            y, described.after = onto, AFTER["add"]
            assert y.is_contiguous()
        self.kernels.linear(ctypes.addressof(described), x, y)
        return y
