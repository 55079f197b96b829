"""Float32 weights as bfloat16 panels for products both ways: what training multiplies with."""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from mainspring.compute.native.library import (
    AFTER,
    BFLOAT16,
    Kernels,
    Linear,
    room_for_panels,
)


class Panels:
    """Weights (outputs, inputs) side by side; the height of each but the last is a multiple of 32.

    `both` is False where nobody asks for gradients. `bias` is float32 and read where it lies.
    """

    def __init__(
        self,
        kernels: Kernels,
        weights: Sequence[Tensor],
        bias: Tensor | None = None,
        *,
        both: bool = True,
    ):
        self.kernels, self.bias = kernels, bias
        self.outputs, self.inputs = sum(map(len, weights)), weights[0].shape[1]
        self._forth = room_for_panels(self.outputs, 2 * self.inputs)
        # Rows are blocks of 32 outputs: what fills the last up is packed as zeros.
        self._back = room_for_panels(self.inputs, 2 * self.outputs) if both else None
        none = None if bias is None else bias.data_ptr()
        self._linear_forth = self._described(self._forth, none, self.outputs, self.inputs)
        if self._back is not None:
            self._linear_back = self._described(self._back, None, self.inputs, self.outputs)
        self.pack(weights)

    @staticmethod
    def _described(panels: Tensor, bias: int | None, outputs: int, inputs: int) -> Linear:
        where = panels.data_ptr(), None, None, bias
        return Linear(*where, outputs, inputs, BFLOAT16, AFTER["none"], 0)

    def pack(self, weights: Sequence[Tensor]) -> None:
        """Takes the weights as they are now: float32, or a type that is made so."""
        at = 0
        for weight in weights:
            wide = weight.detach().float()
            self.kernels.pack_both(wide, at, self.outputs, self._forth, self._back)
            at += len(weight)

    def forth(self, x: Tensor) -> Tensor:
        """x weightᵀ + bias in bfloat16."""
        return self._product(self._linear_forth, x, self.outputs)

    def back(self, dy: Tensor) -> Tensor:
        """dy weight in bfloat16."""
        return self._product(self._linear_back, dy, self.inputs)

    def _product(self, described: Linear, x: Tensor, outputs: int) -> Tensor:
        y = torch.empty((*x.shape[:-1], outputs), dtype=torch.bfloat16)
        self.kernels.linear(ctypes.addressof(described), x.contiguous(), y)
        return y
