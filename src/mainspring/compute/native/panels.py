"""Weights as bfloat16 panels for products both ways: what training multiplies with on a CPU."""

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
        assert self._forth is not None
        return self._product(self._forth, self._bias, x, self.outputs, onto)

    def back(self, dy: Tensor, onto: Tensor | None = None) -> Tensor:
        assert self._back is not None
        return self._product(self._back, None, dy, self.inputs, onto)

    def _product(
        self, panels: Tensor, bias: Tensor | None, x: Tensor, outputs: int, onto: Tensor | None
    ) -> Tensor:
        x = x.to(torch.bfloat16).contiguous()
        y = torch.empty((*x.shape[:-1], outputs), dtype=torch.bfloat16) if onto is None else onto
        assert y.is_contiguous()
        described = Linear(
            *(panels.data_ptr(), None, None, None if bias is None else bias.data_ptr()),
            *(outputs, x.shape[-1], BFLOAT16, AFTER["none" if onto is None else "add"], 0),
        )
        self.kernels.linear(ctypes.addressof(described), x, y)
        return y
