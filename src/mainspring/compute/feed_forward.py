"""The ReLU feed-forward network for training: both products, ReLU and dropout in one function.

One hidden tensor is kept. It is zero where ReLU or dropout made it so, and the gradient is zero at
the same places: it is its own mask.
"""

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mainspring.compute.copies import ComputeCopy
from mainspring.compute.dropout import LANES, PIECE, Draw, kept_scale
from mainspring.compute.linear import parameter_gradients
from mainspring.core.feed_forward import FeedForward


def drop_(x: Tensor, share: float) -> Tensor:
    """Zeroes a share of a contiguous tensor in place, without scaling the rest."""
    lanes = x.view(LANES[x.element_size()]).view(-1)
    draw = Draw(min(lanes.numel(), PIECE), lanes.dtype, lanes.device)
    for piece in lanes.split(PIECE):
        piece.bitwise_and_(draw.dropped(piece.numel(), share).sub_(1))
    return x


class _FeedForward(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, x: Tensor, up: ComputeCopy, down: ComputeCopy, share: float, *parameters: Tensor
    ) -> Tensor:
        hidden = torch.nn.functional.linear(x, up.weight(), up.bias()).relu_()
        if share:
            drop_(hidden, share)
        y = hidden @ down.weight().t()
        if share:
            y.mul_(kept_scale(share))
        bias = down.bias()
        ctx.save_for_backward(x, hidden)
        ctx.up, ctx.down, ctx.share = up, down, share
        return y if bias is None else y.add_(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor):  # type: ignore[no-untyped-def]
        x, hidden = ctx.saved_tensors
        wants_x, _, _, _, *wants = ctx.needs_input_grad
        ups = len(ctx.up.parameters)
        scale = kept_scale(ctx.share) if ctx.share else 1.0
        scaled = dy.contiguous() if scale == 1.0 else dy * scale
        ddown: list[Tensor | None] = [None] * (len(wants) - ups)
        if any(wants[ups:]):
            ddown = parameter_gradients(ctx.down, scaled, hidden, wants[ups:])
            if scale != 1.0 and len(ddown) > 1 and wants[-1]:
                ddown[-1] = dy.flatten(0, -2).sum(0, dtype=torch.float32)
        dhidden = scaled @ ctx.down.weight()
        torch.ops.aten.threshold_backward.grad_input(dhidden, hidden, 0, grad_input=dhidden)
        dup: list[Tensor | None] = [None] * ups
        if any(wants[:ups]):
            dup = parameter_gradients(ctx.up, dhidden, x, wants[:ups])
        dx = dhidden @ ctx.up.weight() if wants_x else None
        return dx, None, None, None, *dup, *ddown


class ReluFeedForward(nn.Module):
    """In the place of a `FeedForward` whose activation is ReLU."""

    def __init__(self, old: FeedForward, up: ComputeCopy, down: ComputeCopy):
        super().__init__()
        self.expand, self.dropout, self.down = old.expand, old.dropout, old.down
        self.up_copy, self.down_copy = up, down

    def forward(self, x: Tensor) -> Tensor:
        up, down = self.up_copy, self.down_copy
        share = self.dropout.p if self.training else 0.0
        x = x.to(up.dtype)
        return _FeedForward.apply(x, up, down, share, *up.parameters, *down.parameters)
