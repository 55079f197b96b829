"""RMS norm and the residual step for training: float32 between the layers, bfloat16 in them.

torch decomposes its RMS norm into many passes on a CPU. Here norm and residual sum work on a few
rows at a time, which stay in a core's cache, and the gradient that comes back along the residual
connection is added in the norm's last pass. Our own kernels, where the machine has them, do each in
one pass.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mainspring.compute.dropout import LANES, apply_mask_, keep_mask, kept_scale
from mainspring.compute.native import library
from mainspring.compute.native.library import Dropped, Kernels, Norm
from mainspring.core.layer import PreNorm

ROWS = 256  # rows handled at a time


def _epsilon(norm: nn.RMSNorm) -> float:
    return torch.finfo(torch.float32).eps if norm.eps is None else norm.eps


class _NormFork(torch.autograd.Function):
    """x / rms(x) * weight in `dtype`, and x itself to go on along the residual connection."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, x: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        x_ND = x.reshape(-1, x.shape[-1])
        y_ND = torch.empty_like(x_ND, dtype=dtype)
        size = torch.linalg.vector_norm(x_ND, dim=-1, keepdim=True)
        factor_N1 = size.square_().div_(x_ND.shape[-1]).add_(epsilon).rsqrt_()
        unit_RD = x_ND.new_empty(min(ROWS, len(x_ND)), x_ND.shape[-1])
        for at in range(0, len(x_ND), ROWS):
            rows = slice(at, at + ROWS)
            unit = torch.mul(x_ND[rows], factor_N1[rows], out=unit_RD[: len(x_ND[rows])])
            y_ND[rows] = unit.mul_(weight)
        ctx.save_for_backward(x, weight, factor_N1)
        ctx.set_materialize_grads(False)
        return y_ND.view_as(x), x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor | None, dskip: Tensor | None):  # type: ignore[no-untyped-def]
        x, weight, factor_N1 = ctx.saved_tensors
        if dy is None:
            return dskip, None, None, None
        width = x.shape[-1]
        x_ND, dy_ND = x.reshape(-1, width), dy.reshape(-1, width)
        dskip_ND = None if dskip is None else dskip.reshape(-1, width)
        dx_ND = torch.empty_like(x_ND)
        dweight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        scratch = [x_ND.new_empty(min(ROWS, len(x_ND)), width) for _ in range(2)]
        for at in range(0, len(x_ND), ROWS):
            rows = slice(at, at + ROWS)
            factor, here = factor_N1[rows], x_ND[rows]
            d, product = (part[: len(factor)] for part in scratch)
            torch.mul(d.copy_(dy_ND[rows]), here, out=product)
            if dweight is not None:
                dweight += factor[:, 0] @ product
            inner_N1 = (product @ weight)[:, None].mul_(factor.pow(3)).div_(-width)
            d.mul_(weight)
            if dskip_ND is None:
                torch.mul(d, factor, out=dx_ND[rows])
            else:
                torch.addcmul(dskip_ND[rows], d, factor, out=dx_ND[rows])
            dx_ND[rows].addcmul_(here, inner_N1)
        return dx_ND.view_as(x), dweight, None, None


class _NormForkByKernel(torch.autograd.Function):
    """As `_NormFork`, in one pass each way."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, kernels: Kernels, x: Tensor, weight: Tensor, epsilon: float
    ) -> tuple[Tensor, Tensor]:
        y = torch.empty_like(x, dtype=torch.bfloat16)
        kernels.norm_rows(Norm(weight.data_ptr(), None, epsilon, False), x, y)
        ctx.save_for_backward(x, weight)
        ctx.kernels, ctx.epsilon = kernels, epsilon
        ctx.set_materialize_grads(False)
        return y, x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor | None, dskip: Tensor | None):  # type: ignore[no-untyped-def]
        x, weight = ctx.saved_tensors
        if dy is None:
            return None, dskip, None, None
        dweight_PD = None
        if ctx.needs_input_grad[2]:
            dweight_PD = weight.new_zeros(torch.get_num_threads(), len(weight))
        skip = None if dskip is None else dskip.contiguous()
        dx = ctx.kernels.norm_back(x, dy.contiguous(), weight, ctx.epsilon, skip, dweight_PD)
        return None, dx, None if dweight_PD is None else dweight_PD.sum(0), None


class _AddDroppedByKernel(torch.autograd.Function):
    """As `_AddDropped`, in one pass each way: which numbers are dropped follows from a seed and
    their places, and is not kept."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, kernels: Kernels, x: Tensor, y: Tensor, share: float
    ) -> Tensor:
        ctx.kernels, ctx.dropped = kernels, Dropped.drawn(share)
        return kernels.add_dropped(x, y, ctx.dropped)

    @staticmethod
    @once_differentiable
    def backward(ctx, dtotal: Tensor):  # type: ignore[no-untyped-def]
        dtotal = dtotal.contiguous()
        return None, dtotal, ctx.kernels.dropped(dtotal, ctx.dropped, torch.bfloat16), None


class _AddDropped(torch.autograd.Function):
    """x + dropout(y): x in float32, y in the type of the layers."""

    @staticmethod
    def forward(ctx, x: Tensor, y: Tensor, share: float) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.share, ctx.type = share, y.dtype
        if not share:
            return _sum(x, y)
        mask = keep_mask(y.numel(), share, LANES[y.element_size()], y.device)
        ctx.save_for_backward(mask)
        width = x.shape[-1]
        total = torch.empty_like(x)
        x_ND, y_ND, mask_ND, total_ND = (t.reshape(-1, width) for t in (x, y, mask, total))
        kept_RD = mask.new_empty(min(ROWS, len(x_ND)), width)
        wide_RD = x_ND.new_empty(kept_RD.shape)
        for at in range(0, len(x_ND), ROWS):
            rows = slice(at, at + ROWS)
            here = slice(len(x_ND[rows]))
            torch.bitwise_and(y_ND[rows].view(mask.dtype), mask_ND[rows], out=kept_RD[here])
            wide = wide_RD[here].copy_(kept_RD[here].view(y.dtype))
            torch.add(x_ND[rows], wide, alpha=kept_scale(share), out=total_ND[rows])
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, dtotal: Tensor):  # type: ignore[no-untyped-def]
        if not ctx.share:
            return dtotal, dtotal.to(ctx.type), None
        (mask,) = ctx.saved_tensors
        dtotal = dtotal.contiguous()
        dy = torch.empty_like(dtotal, dtype=ctx.type)
        dtotal_ND, dy_ND = (t.view(-1, dy.shape[-1]) for t in (dtotal, dy))
        scaled_RD = dtotal_ND.new_empty(min(ROWS, len(dy_ND)), dy.shape[-1])
        for at in range(0, len(dy_ND), ROWS):
            rows = slice(at, at + ROWS)
            scaled = scaled_RD[: len(dy_ND[rows])]
            dy_ND[rows] = torch.mul(dtotal_ND[rows], kept_scale(ctx.share), out=scaled)
        return dtotal, apply_mask_(dy, mask), None


def _sum(x: Tensor, y: Tensor) -> Tensor:
    """x + y in x's type, a few rows at a time: y in that type never leaves the cache."""
    total = torch.empty_like(x, memory_format=torch.contiguous_format)
    width = x.shape[-1]
    x_ND, y_ND, total_ND = (t.reshape(-1, width) for t in (x, y, total))
    wide_RD = x_ND.new_empty(min(ROWS, len(x_ND)), width)
    for at in range(0, len(x_ND), ROWS):
        rows = slice(at, at + ROWS)
        wide = wide_RD[: len(x_ND[rows])].copy_(y_ND[rows])
        torch.add(x_ND[rows], wide, out=total_ND[rows])
    return total


def rms_norm(x: Tensor, norm: nn.RMSNorm, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The norm of x in `dtype`, computed in float32, and x to go on with."""
    if x.device.type != "cpu":  # torch has kernels for these elsewhere
        x = x.float()
        y = F.rms_norm(x, norm.normalized_shape, norm.weight, norm.eps)
        return y.to(dtype), x
    kernels = library.kernels()
    if kernels is not None and dtype is torch.bfloat16:
        x = x.float().contiguous()
        return _NormForkByKernel.apply(kernels, x, norm.weight, _epsilon(norm))
    return _NormFork.apply(x.float(), norm.weight, _epsilon(norm), dtype)


def add_dropped(x: Tensor, y: Tensor, share: float) -> Tensor:
    """x + dropout(y), in x's type."""
    if x.device.type != "cpu":
        return x + F.dropout(y, share)
    kernels = library.kernels()
    if kernels is not None and (x.dtype, y.dtype) == (torch.float32, torch.bfloat16):
        return _AddDroppedByKernel.apply(kernels, x.contiguous(), y.contiguous(), share)
    return _AddDropped.apply(x, y.contiguous() if share else y, share)


class ResidualStep(nn.Module):
    """In the place of `PreNorm`: x + dropout(part(norm x)), x in float32, the part in `dtype`."""

    def __init__(self, old: PreNorm, dtype: torch.dtype):
        super().__init__()
        self.norm, self.dropout, self.dtype = old.norm, old.dropout, dtype

    def forward(self, x_BTD: Tensor, part: Callable[[Tensor], Tensor]) -> Tensor:
        if isinstance(self.norm, nn.RMSNorm):
            y_BTD, x_BTD = rms_norm(x_BTD, self.norm, self.dtype)
        else:
            y_BTD = self.norm(x_BTD).to(self.dtype)
        return add_dropped(x_BTD, part(y_BTD), self.dropout.p if self.training else 0.0)


class NarrowRMSNorm(nn.RMSNorm):
    """In the place of an `nn.RMSNorm`: computed in float32, given in `dtype`."""

    def __init__(self, old: nn.RMSNorm, dtype: torch.dtype):
        super().__init__(old.normalized_shape, old.eps, elementwise_affine=False)
        self.weight, self.dtype = old.weight, dtype

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self, self.dtype)[0]
