"""Linear layers for training: float32 weights, matrix products in bfloat16."""

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mainspring.compute.copies import ComputeCopy
from mainspring.core.attention import KeyValue, QueryKeyValue


class _Linear(torch.autograd.Function):
    """What the copy makes of x; `parameters` are its float32 ones, here for their gradients."""

    @staticmethod
    def forward(ctx, x: Tensor, copy: ComputeCopy, *parameters: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        y, kept = copy.multiply(x)
        learns = any(ctx.needs_input_grad[2:])
        ctx.copy = copy
        ctx.save_for_backward(x if learns else None, *kept)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor):  # type: ignore[no-untyped-def]
        x, *kept = ctx.saved_tensors
        wants_x, _, *wants = ctx.needs_input_grad
        dy = dy.contiguous()
        low = ctx.copy.low_gradient(dy)
        dx = ctx.copy.input_gradient(dy, low, kept) if wants_x else None
        return dx, None, *ctx.copy.gradients(dy, low, x, kept, wants)


def linear(x: Tensor, copy: ComputeCopy) -> Tensor:
    """x Wᵀ + b in the copy's type, which is also the result's."""
    return _Linear.apply(x.to(copy.dtype), copy, *copy.parameters)


class CopiedLinear(nn.Linear):
    """In the place of an `nn.Linear`, with the same parameters (an adapter's too)."""

    def __init__(self, old: nn.Linear, copy: ComputeCopy):
        nn.Module.__init__(self)
        self.__dict__.update(old.__dict__)
        self.copy = copy

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.copy)


class FusedProjections(nn.Module):
    """In the place of `QueryKeyValue` or `KeyValue`: one matrix product for all projections."""

    def __init__(self, old: QueryKeyValue | KeyValue, copy: ComputeCopy):
        super().__init__()
        for name, leaf in old.named_children():
            self.add_module(name, leaf)
        self.copy = copy

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return linear(x, self.copy).split(self.copy.rows, -1)
