"""Linear layers for training: float32 weights, matrix products in bfloat16."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mainspring.compute.copies import ComputeCopy
from mainspring.core.attention import KeyValue, QueryKeyValue

TILE = 256
LONG = 1024  # rows from which laying a factor out anew is cheaper than multiplying it as it lies


def transposed(x: Tensor, into: Tensor) -> Tensor:
    """`into` filled with xᵀ, a few rows of x at a time: twice as fast as all at once."""
    for at in range(0, len(x), TILE):
        into[:, at : at + TILE] = x[at : at + TILE].t()
    return into


def weight_gradient(dy_ND: Tensor, x_NF: Tensor) -> Tensor:
    """dyᵀ x. oneDNN reads a left factor that lies transposed at half of its rate, so the narrower
    of the two is laid out anew: dyᵀ, or xᵀ for (xᵀ dy)ᵀ, which is then a transposed view."""
    if len(x_NF) < LONG:
        return dy_ND.t() @ x_NF
    if dy_ND.shape[1] <= x_NF.shape[1]:
        return transposed(dy_ND, dy_ND.new_empty(dy_ND.shape[::-1])) @ x_NF
    return (transposed(x_NF, x_NF.new_empty(x_NF.shape[::-1])) @ dy_ND).t()


class _Linear(torch.autograd.Function):
    """x Wᵀ + b by the compute copy; `parameters` are its float32 ones, here for their gradients."""

    @staticmethod
    def forward(ctx, x: Tensor, copy: ComputeCopy, *parameters: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.copy = copy
        ctx.save_for_backward(x)
        return F.linear(x, copy.weight(), copy.bias())

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor):  # type: ignore[no-untyped-def]
        (x,) = ctx.saved_tensors
        wants_x, _, *wants = ctx.needs_input_grad
        dy = dy.contiguous()
        dx = dy @ ctx.copy.weight() if wants_x else None
        if not any(wants):
            return dx, None, *(None for _ in wants)
        return dx, None, *parameter_gradients(ctx.copy, dy, x, wants)


def parameter_gradients(
    copy: ComputeCopy, dy: Tensor, x: Tensor, wanted: Sequence[bool]
) -> list[Tensor | None]:
    """The gradients of a copy's parameters, from those of what it made of `x`."""
    dy_ND, x_NF = dy.flatten(0, -2), x.flatten(0, -2)
    dbias = None if copy.bias() is None else dy_ND.sum(0, dtype=torch.float32)
    made = copy.gradients(weight_gradient(dy_ND, x_NF), dbias)
    return [d if wants else None for d, wants in zip(made, wanted, strict=True)]


def linear(x: Tensor, copy: ComputeCopy) -> Tensor:
    """x Wᵀ + b in the copy's type, which is also the result's."""
    return _Linear.apply(x.to(copy.dtype), copy, *copy.parameters)


class CopiedLinear(nn.Linear):
    """In the place of an `nn.Linear`, with the same parameters."""

    def __init__(self, old: nn.Linear, copy: ComputeCopy):
        nn.Module.__init__(self)
        self.in_features, self.out_features = old.in_features, old.out_features
        self.weight, self.bias = old.weight, old.bias
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
