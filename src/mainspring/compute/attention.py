"""Attention for training on a CPU: with dropout, and with a bias that learns.

By our own kernels where the machine has them and they know the mask; else by torch's operators:
torch leaves its fused CPU kernel when the mask needs a gradient or there is dropout, and its path
then makes a dozen passes over all scores. Here the scores of a few heads at a time, as many as stay
in a core's cache, go through all steps before the next heads begin. One tensor of weights is kept
for the backward pass; the sign bit of a weight says that dropout took it.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mainspring.compute.dropout import LANES, Draw, kept_scale
from mainspring.compute.native import library
from mainspring.compute.native.training import attend_by_tiles, knows
from mainspring.core.attention import attend
from mainspring.core.masks import AttentionMask

PIECE = 2**19  # scores handled at a time


def _heads_at_a_time(batch: int, heads: int, scores: int) -> int:
    """Score matrices in a piece: those of some rows of the batch, or a part of one row's."""
    rows = PIECE // (heads * scores)
    if rows >= 1:
        return min(rows, batch) * heads
    fit = max(PIECE // scores, 1)
    return max(part for part in range(1, heads + 1) if heads % part == 0 and part <= fit)


def _part(x_BHTE: Tensor, at: int, end: int) -> Tensor:
    """A view of matrices `at` to `end` of the batch * heads ones, with one or two leading axes."""
    heads = x_BHTE.shape[1]
    row, head = divmod(at, heads)
    if end - at < heads:
        return x_BHTE[row, head : head + end - at]
    return x_BHTE[row : row + (end - at) // heads]


def _copied(x_BHTE: Tensor, at: int, end: int, into: Tensor) -> Tensor:
    """The same as one contiguous batch of matrices, for `bmm`, in memory that is used again."""
    part, into = _part(x_BHTE, at, end), into[: end - at]
    into.view(part.shape).copy_(part)
    return into


def _put(x_BHTE: Tensor, at: int, end: int, value: Tensor) -> None:
    part = _part(x_BHTE, at, end)
    part.copy_(value.view(part.shape))


class _Attend(torch.autograd.Function):
    """softmax(scale * q kᵀ + added) v, with dropout. `added` is mask and bias, without gradient;
    the gradient of the scores, summed over the batch, is that of `bias_1HTS`."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx,
        q_BHTE: Tensor,
        k_BHSE: Tensor,
        v_BHSE: Tensor,
        added_BHTS: Tensor | None,
        bias_1HTS: Tensor | None,
        scale: float,
        dropout: float,
    ) -> Tensor:
        batch, heads, queries, _ = q_BHTE.shape
        _, _, keys, width = v_BHSE.shape
        count = batch * heads
        size = _heads_at_a_time(batch, heads, queries * keys)
        pieces = [(at, min(at + size, count)) for at in range(0, count, size)]
        weights = q_BHTE.new_empty(count, queries, keys)
        # Heads are joined after this: in BTHE order that is a view.
        y_BHTE = q_BHTE.new_empty(batch, queries, heads, width).transpose(1, 2)
        draw = Draw(size * queries * keys, LANES[weights.element_size()], weights.device)
        scores_RTS = torch.empty_like(weights[:size])
        copies = [x.new_empty(size, *x.shape[2:]) for x in (q_BHTE, k_BHSE, v_BHSE)]
        for at, end in pieces:
            q, k, v = (
                _copied(x, at, end, into)
                for x, into in zip((q_BHTE, k_BHSE, v_BHSE), copies, strict=True)
            )
            scores, p = scores_RTS[: end - at], weights[at:end]
            if added_BHTS is None:
                torch.bmm(q, k.transpose(1, 2), out=scores)
                if scale != 1.0:
                    scores.mul_(scale)
            else:
                scores.view(_part(added_BHTS, at, end).shape).copy_(_part(added_BHTS, at, end))
                scores.baddbmm_(q, k.transpose(1, 2), alpha=scale)
            torch.softmax(scores, -1, out=p)
            if dropout:
                sign = torch.iinfo(draw.lane).min
                drop = draw.dropped(p.numel(), dropout).mul_(sign)
                p.view(draw.lane).bitwise_or_(drop.view(p.shape))
                y = torch.bmm(torch.clamp_min(p, 0, out=scores), v).mul_(kept_scale(dropout))
            else:
                y = torch.bmm(p, v)
            _put(y_BHTE, at, end, y)
        ctx.save_for_backward(q_BHTE, k_BHSE, v_BHSE, weights)
        ctx.scale, ctx.dropout, ctx.pieces = scale, dropout, pieces
        ctx.bias_type = None if bias_1HTS is None else bias_1HTS.dtype
        return y_BHTE

    @staticmethod
    @once_differentiable
    def backward(ctx, dy_BHTE: Tensor):  # type: ignore[no-untyped-def]
        q_BHTE, k_BHSE, v_BHSE, weights = ctx.saved_tensors
        dq_BHTE, dk_BHSE, dv_BHSE = (
            x.new_empty(x.transpose(1, 2).shape).transpose(1, 2) for x in (q_BHTE, k_BHSE, v_BHSE)
        )
        wants_bias = ctx.needs_input_grad[4]
        dbias_HTS = weights.new_zeros(
            q_BHTE.shape[1] if wants_bias else 0, *weights.shape[1:], dtype=torch.float32
        )
        size = ctx.pieces[0][1]
        scratch = [torch.empty_like(weights[:size]) for _ in range(3)]
        inputs = q_BHTE, k_BHSE, v_BHSE, dy_BHTE
        copies = [x.new_empty(size, *x.shape[2:]) for x in inputs]
        for at, end in ctx.pieces:
            q, k, v, dy = (
                _copied(x, at, end, into) for x, into in zip(inputs, copies, strict=True)
            )
            p = weights[at:end]
            dp, ds, seen = (part[: end - at] for part in scratch)
            if ctx.dropout:
                dy.mul_(kept_scale(ctx.dropout))
                torch.clamp_min(p, 0, out=seen)
                _put(dv_BHSE, at, end, torch.bmm(seen.transpose(1, 2), dy))
                torch.bmm(dy, v.transpose(1, 2), out=dp)
                torch.ops.aten.threshold_backward.grad_input(dp, p, 0, grad_input=dp)
                p = torch.abs(p, out=seen)
            else:
                _put(dv_BHSE, at, end, torch.bmm(p.transpose(1, 2), dy))
                torch.bmm(dy, v.transpose(1, 2), out=dp)
            torch.ops.aten._softmax_backward_data.out(dp, p, -1, p.dtype, grad_input=ds)
            if wants_bias:
                _add_to_bias_(dbias_HTS, ds, at)
            for d_BHTE, d in (
                (dq_BHTE, torch.bmm(ds, k)),
                (dk_BHSE, torch.bmm(ds.transpose(1, 2), q)),
            ):
                _put(d_BHTE, at, end, d if ctx.scale == 1.0 else d.mul_(ctx.scale))
        dbias_1HTS = dbias_HTS[None].to(ctx.bias_type) if wants_bias else None
        return dq_BHTE, dk_BHSE, dv_BHSE, None, dbias_1HTS, None, None


def _add_to_bias_(dbias_HTS: Tensor, ds: Tensor, at: int) -> None:
    heads = len(dbias_HTS)
    if len(ds) < heads:
        dbias_HTS[at % heads : at % heads + len(ds)].add_(ds)
    else:
        for row in ds.split(heads):
            dbias_HTS.add_(row)


def training_attend(
    q_BHTE: Tensor,
    k_BKSE: Tensor,
    v_BKSE: Tensor,
    mask: AttentionMask,
    bias_1HTS: Tensor | None,
    scale: float,
    dropout: float = 0.0,
    soft_cap: float | None = None,
) -> Tensor:
    """In the place of `core.attention.attend`, which it calls where nothing is to be won."""
    elsewhere = q_BHTE.device.type != "cpu"  # torch's fused kernels are best
    if soft_cap is not None or elsewhere or not torch.is_grad_enabled():
        cap = {} if soft_cap is None else {"soft_cap": soft_cap}
        return attend(q_BHTE, k_BKSE, v_BKSE, mask, bias_1HTS, scale, dropout, **cap)
    kernels = library.kernels()
    alike = q_BHTE.shape[-1] == v_BKSE.shape[-1]
    if kernels is not None and alike and knows(mask, q_BHTE.dtype):
        return attend_by_tiles(kernels, q_BHTE, k_BKSE, v_BKSE, mask, bias_1HTS, scale, dropout)
    batch, heads, queries, _ = q_BHTE.shape
    shared = heads // k_BKSE.shape[1]
    if shared > 1:
        k_BKSE, v_BKSE = (x.repeat_interleave(shared, 1) for x in (k_BKSE, v_BKSE))
    with torch.no_grad():
        added = mask.additive(bias_1HTS, q_BHTE.dtype)
    if added is not None:
        added = added.expand(batch, heads, queries, k_BKSE.shape[2])
    y_BHTE = _Attend.apply(q_BHTE, k_BKSE, v_BKSE, added, bias_1HTS, scale, dropout)
    blind = mask.blind()
    if blind is None or not bool(blind.any()):
        return y_BHTE
    return y_BHTE.masked_fill(blind, 0.0)
