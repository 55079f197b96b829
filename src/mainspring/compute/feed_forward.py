"""Feed-forward networks for training: both products and what is between them in one function.

With ReLU one hidden tensor is kept. It is zero where ReLU or dropout made it so, and the gradient
is zero at the same places: it is its own mask. With smooth activations, plain or gated, what goes
into the activation and what comes out of it are kept; what is between the products is done a few
rows at a time, which stay in a core's cache.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mainspring.compute.copies import ComputeCopy
from mainspring.compute.dropout import LANES, PIECE, Draw, kept_scale
from mainspring.compute.native import library
from mainspring.compute.native.library import Dropped, Kernels
from mainspring.compute.native.parts import ACTIVE
from mainspring.core.feed_forward import ACTIVATIONS, FeedForward, GatedUp

ROWS = 256  # rows handled at a time

aten = torch.ops.aten


@dataclass(frozen=True)
class Smooth:
    """An activation and its gradient, each into a tensor that is there: `forward(x, out)` and
    `backward(dy, x, out)`. `gate` is its number in the kernels that know it as a gate's."""

    forward: Callable[[Tensor, Tensor], Tensor]
    backward: Callable[[Tensor, Tensor, Tensor], Tensor]
    gate: int | None = None


def _gelu(approximate: str, gate: int | None = None) -> Smooth:
    return Smooth(
        lambda x, out: aten.gelu.out(x, approximate=approximate, out=out),
        lambda dy, x, out: aten.gelu_backward.grad_input(
            dy, x, approximate=approximate, grad_input=out
        ),
        gate,
    )


SMOOTH: dict[Callable[[Tensor], Tensor], Smooth] = {
    F.silu: Smooth(
        lambda x, out: aten.silu.out(x, out=out),
        lambda dy, x, out: aten.silu_backward.grad_input(dy, x, grad_input=out),
        ACTIVE[ACTIVATIONS["silu"]],
    ),
    F.gelu: _gelu("none"),
    ACTIVATIONS["gelu_tanh"]: _gelu("tanh", ACTIVE[ACTIVATIONS["gelu_tanh"]]),
}


def drop_(x: Tensor, share: float) -> Tensor:
    """Zeroes a share of a contiguous tensor in place, without scaling the rest."""
    lanes = x.view(LANES[x.element_size()]).view(-1)
    draw = Draw(min(lanes.numel(), PIECE), lanes.dtype, lanes.device)
    for piece in lanes.split(PIECE):
        piece.bitwise_and_(draw.dropped(piece.numel(), share).sub_(1))
    return x


class _ReluFeedForward(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, x: Tensor, up: ComputeCopy, down: ComputeCopy, share: float, *parameters: Tensor
    ) -> Tensor:
        kernels = library.kernels() if x.dtype is torch.bfloat16 else None
        panels = up.panels if kernels is not None else None
        dropped = Dropped.drawn(share) if kernels is not None else None
        kept_up: tuple[Tensor, ...] = ()
        if panels is not None:
            hidden = panels.relu(x, dropped)
        elif kernels is not None:
            wide, kept_up = up.multiply(x)
            hidden = kernels.relu_drop(wide.contiguous(), dropped)
        else:
            wide, kept_up = up.multiply(x)
            hidden = wide.relu_()
            if share:
                hidden = drop_(hidden.contiguous(), share).mul_(kept_scale(share))
        y, kept_down = down.multiply(hidden)
        ctx.save_for_backward(x, hidden, *kept_up, *kept_down)
        ctx.kernels, ctx.dropped, ctx.share = kernels, dropped, share
        ctx.up, ctx.down, ctx.ups = up, down, len(kept_up)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor):  # type: ignore[no-untyped-def]
        x, hidden, *kept = ctx.saved_tensors
        wants_x, _, _, _, *wants = ctx.needs_input_grad
        kept_up, kept_down = kept[: ctx.ups], kept[ctx.ups :]
        ups = len(ctx.up.parameters)
        low = ctx.down.low_gradient(dy)
        ddown = ctx.down.gradients(dy, low, hidden, kept_down, wants[ups:])
        panels = ctx.down.panels if ctx.kernels is not None else None
        if panels is not None:
            dhidden = panels.back_through_relu(dy, hidden, ctx.dropped)
        elif ctx.kernels is not None:
            dhidden = ctx.down.input_gradient(dy, low, kept_down)
            ctx.kernels.relu_back(hidden, dhidden, ctx.dropped)
        else:
            dhidden = ctx.down.input_gradient(dy, low, kept_down)
            aten.threshold_backward.grad_input(dhidden, hidden, 0, grad_input=dhidden)
            if ctx.share:
                dhidden.mul_(kept_scale(ctx.share))
        low = ctx.up.low_gradient(dhidden)
        dup = ctx.up.gradients(dhidden, low, x, kept_up, wants[:ups])
        dx = ctx.up.input_gradient(dhidden, low, kept_up) if wants_x else None
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
        return _ReluFeedForward.apply(x, up, down, share, *up.parameters, *down.parameters)


class _SmoothFeedForward(torch.autograd.Function):
    """down(activation(up x)), or with a gate down(activation(gate x) * up x)."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, x: Tensor, up: ComputeCopy, down: ComputeCopy, smooth: Smooth, *parameters: Tensor
    ) -> Tensor:
        wide, kept_up = up.multiply(x)
        wide_NF = wide.flatten(0, -2)
        active_NF = wide_NF.new_empty(len(wide_NF), down.leaves[0].in_features)
        gated = wide_NF.shape[1] > active_NF.shape[1]
        hidden_NF = torch.empty_like(active_NF) if gated else active_NF
        for at in range(0, len(wide_NF), ROWS):
            rows = slice(at, at + ROWS)
            gate_RF, other_RF = _halves(wide_NF[rows], gated)
            active_RF = smooth.forward(gate_RF, active_NF[rows])
            if other_RF is not None:
                torch.mul(active_RF, other_RF, out=hidden_NF[rows])
        y, kept_down = down.multiply(hidden_NF)
        ctx.save_for_backward(x, wide_NF, active_NF, *kept_up, *kept_down)
        ctx.up, ctx.down, ctx.smooth, ctx.ups, ctx.gated = up, down, smooth, len(kept_up), gated
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor):  # type: ignore[no-untyped-def]
        x, wide_NF, active_NF, *kept = ctx.saved_tensors
        up, down, smooth = ctx.up, ctx.down, ctx.smooth
        kept_up, kept_down = kept[: ctx.ups], kept[ctx.ups :]
        wants_x, _, _, _, *wants = ctx.needs_input_grad
        ups = len(up.parameters)
        dy_ND = dy.flatten(0, -2).contiguous()
        low = down.low_gradient(dy_ND)
        dhidden_NF = down.input_gradient(dy_ND, low, kept_down)
        # What the second product had is wanted again only where its weights learn.
        again = ctx.gated and any(wants[ups:])
        hidden_NF = torch.empty_like(active_NF) if again else active_NF
        dwide_NF = wide_NF.new_empty(wide_NF.shape)
        for at in range(0, len(wide_NF), ROWS):
            rows = slice(at, at + ROWS)
            gate_RF, other_RF = _halves(wide_NF[rows], ctx.gated)
            dgate_RF, dother_RF = _halves(dwide_NF[rows], ctx.gated)
            d_RF, active_RF = dhidden_NF[rows], active_NF[rows]
            if other_RF is not None and dother_RF is not None:
                torch.mul(d_RF, active_RF, out=dother_RF)
                d_RF.mul_(other_RF)
                if again:
                    torch.mul(active_RF, other_RF, out=hidden_NF[rows])
            smooth.backward(d_RF, gate_RF, dgate_RF)
        ddown = down.gradients(dy_ND, low, hidden_NF, kept_down, wants[ups:])
        low = up.low_gradient(dwide_NF)
        dup = up.gradients(dwide_NF, low, x.flatten(0, -2), kept_up, wants[:ups])
        dx = up.input_gradient(dwide_NF, low, kept_up).view(x.shape) if wants_x else None
        return dx, None, None, None, *dup, *ddown


def _halves(wide_RF: Tensor, gated: bool) -> tuple[Tensor, Tensor | None]:
    """What goes into the activation, and what it gates."""
    if not gated:
        return wide_RF, None
    gate_RF, other_RF = wide_RF.chunk(2, 1)
    return gate_RF, other_RF


class _GatedByKernel(torch.autograd.Function):
    """As `_SmoothFeedForward` with a gate: what is between the products in one pass each way."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx,
        kernels: Kernels,
        x: Tensor,
        up: ComputeCopy,
        down: ComputeCopy,
        gate: int,
        *parameters: Tensor,
    ) -> Tensor:
        wide, kept_up = up.multiply(x)
        wide_NF = wide.flatten(0, -2).contiguous()
        hidden_NF = wide_NF.new_empty(len(wide_NF), down.leaves[0].in_features)
        kernels.gate(wide_NF, gate, hidden_NF)
        y, kept_down = down.multiply(hidden_NF)
        ctx.save_for_backward(x, wide_NF, *kept_up, *kept_down)
        ctx.kernels, ctx.up, ctx.down, ctx.gate, ctx.ups = kernels, up, down, gate, len(kept_up)
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor):  # type: ignore[no-untyped-def]
        x, wide_NF, *kept = ctx.saved_tensors
        up, down = ctx.up, ctx.down
        kept_up, kept_down = kept[: ctx.ups], kept[ctx.ups :]
        _, wants_x, _, _, _, *wants = ctx.needs_input_grad
        ups = len(up.parameters)
        dy_ND = dy.flatten(0, -2).contiguous()
        low = down.low_gradient(dy_ND)
        dhidden_NF = down.input_gradient(dy_ND, low, kept_down)
        hidden_NF = torch.empty_like(dhidden_NF) if any(wants[ups:]) else None
        dwide_NF = ctx.kernels.gate_back(wide_NF, dhidden_NF, ctx.gate, hidden_NF)
        ddown: list[Tensor | None] = [None] * len(wants[ups:])
        if hidden_NF is not None:
            ddown = down.gradients(dy_ND, low, hidden_NF, kept_down, wants[ups:])
        low = up.low_gradient(dwide_NF)
        dup = up.gradients(dwide_NF, low, x.flatten(0, -2), kept_up, wants[:ups])
        dx = up.input_gradient(dwide_NF, low, kept_up).view(x.shape) if wants_x else None
        return None, dx, None, None, None, *dup, *ddown


class SmoothFeedForward(nn.Module):
    """In the place of a `FeedForward` without dropout whose activation is in `SMOOTH`."""

    def __init__(self, old: FeedForward, up: ComputeCopy, down: ComputeCopy):
        super().__init__()
        self.expand, self.dropout, self.down = old.expand, old.dropout, old.down
        self.up_copy, self.down_copy = up, down
        self.smooth = SMOOTH[old.expand.activation]

    def forward(self, x: Tensor) -> Tensor:
        up, down = self.up_copy, self.down_copy
        x = x.to(up.dtype)
        parameters = *up.parameters, *down.parameters
        kernels = library.kernels() if up.dtype is torch.bfloat16 else None
        if kernels is not None and self.smooth.gate is not None and len(up.leaves) > 1:
            return _GatedByKernel.apply(kernels, x, up, down, self.smooth.gate, *parameters)
        return _SmoothFeedForward.apply(x, up, down, self.smooth, *parameters)


def is_smooth(old: FeedForward) -> bool:
    """Whether `SmoothFeedForward` can take its place."""
    return old.expand.activation in SMOOTH and old.dropout.p == 0.0


def expanding_leaves(old: FeedForward) -> list[nn.Linear]:
    """The linear leaves before the activation: one, or the gate and what it gates."""
    if isinstance(old.expand, GatedUp):
        return [old.expand.gate, old.expand.up]
    return [old.expand.up]
