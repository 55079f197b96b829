"""Attention for training on a CPU: with dropout, and with a bias that learns.

torch leaves its fused CPU kernel when the mask needs a gradient or there is dropout, and its path
then makes a dozen passes over all scores. Here the scores of a few heads at a time, as many as stay
in a core's cache, go through all steps before the next heads begin. One tensor of weights is kept
for the backward pass; the sign bit of a weight says that dropout took it.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mainspring.compute.dropout import LANES, dropped, kept_scale
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


def _flat(x_BHTE: Tensor, at: int, end: int) -> Tensor:
    """The same as one contiguous batch of matrices, for `bmm`."""
    return _part(x_BHTE, at, end).reshape(end - at, *x_BHTE.shape[2:])


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
        for at, end in pieces:
            q, k, v = (_flat(x, at, end) for x in (q_BHTE, k_BHSE, v_BHSE))
            if added_BHTS is None:
                scores = torch.bmm(q, k.transpose(1, 2))
                scores = scores if scale == 1.0 else scores.mul_(scale)
            else:
                added = _flat(added_BHTS, at, end)
                scores = torch.baddbmm(added, q, k.transpose(1, 2), alpha=scale)
            p = torch.softmax(scores, -1, out=weights[at:end])
            if dropout:
                _note_dropped_(p, dropout)
                p = p.relu()
            y = torch.bmm(p, v)
            part = _part(y_BHTE, at, end)
            part.copy_((y.mul_(kept_scale(dropout)) if dropout else y).view_as(part))
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
        for at, end in ctx.pieces:
            q, k, v, dy = (_flat(x, at, end) for x in (q_BHTE, k_BHSE, v_BHSE, dy_BHTE))
            p = weights[at:end]
            if ctx.dropout:
                dy = dy * kept_scale(ctx.dropout)
                seen = p.relu()
                dp = torch.bmm(dy, v.transpose(1, 2))
                dp = torch.ops.aten.threshold_backward(dp, p, 0)
                p = p.abs()
            else:
                seen, dp = p, torch.bmm(dy, v.transpose(1, 2))
            ds = torch.ops.aten._softmax_backward_data(dp, p, -1, p.dtype)
            dq, dk, dv = (
                torch.bmm(ds, k),
                torch.bmm(ds.transpose(1, 2), q),
                torch.bmm(seen.transpose(1, 2), dy),
            )
            if ctx.scale != 1.0:
                dq.mul_(ctx.scale)
                dk.mul_(ctx.scale)
            for d_BHTE, d in ((dq_BHTE, dq), (dk_BHSE, dk), (dv_BHSE, dv)):
                part = _part(d_BHTE, at, end)
                part.copy_(d.view_as(part))
            if wants_bias:
                _add_to_bias_(dbias_HTS, ds, at)
        dbias_1HTS = dbias_HTS[None].to(ctx.bias_type) if wants_bias else None
        return dq_BHTE, dk_BHSE, dv_BHSE, None, dbias_1HTS, None, None


def _note_dropped_(p: Tensor, share: float) -> None:
    """Sets the sign bit of the weights that dropout takes, in place."""
    lane = LANES[p.element_size()]
    drop = dropped(p.numel(), share, lane, p.device).mul_(torch.iinfo(lane).min)
    p.view(lane).bitwise_or_(drop.view_as(p))


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
    if soft_cap is not None or not torch.is_grad_enabled():
        cap = {} if soft_cap is None else {"soft_cap": soft_cap}
        return attend(q_BHTE, k_BKSE, v_BKSE, mask, bias_1HTS, scale, dropout, **cap)
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
