"""Compute copies of weights: cast once per optimizer step instead of once per use."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


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
        if self._weight is None or self._seen != [p._version for p in self.parameters]:
            self.refresh()
        assert self._weight is not None
        return self._weight

    def bias(self) -> Tensor | None:
        self.weight()
        return self._bias

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

    def gradients(self, dweight: Tensor, dbias: Tensor | None) -> list[Tensor]:
        """The gradients of `parameters`, in their type, from those of the copy."""
        made = [
            torch.empty_like(leaf.weight).copy_(part)
            for leaf, part in zip(self.leaves, dweight.split(self.rows), strict=True)
        ]
        if dbias is not None:
            for leaf, part in zip(self.leaves, dbias.split(self.rows), strict=True):
                if leaf.bias is not None:
                    made.append(part.to(leaf.bias.dtype))
        return made
