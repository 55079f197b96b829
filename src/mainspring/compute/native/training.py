"""Attention for training by our own kernels: nothing of the size of the scores is kept."""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mainspring import spec
from mainspring.compute.native.library import Dropped, Kernels
from mainspring.core.masks import AttentionMask


def knows(mask: AttentionMask, dtype: torch.dtype) -> bool:
    """Whether the kernels can leave out what the mask hides."""
    if dtype is not torch.bfloat16 or mask.segments is not None:
        return False
    match mask.kind:
        case spec.FullMask():
            return True
        case spec.SlidingWindow(size) if size < mask.keys:
            return False
    return mask.start + mask.queries == mask.keys


class _Attend(torch.autograd.Function):
    """softmax(scale * q kᵀ + bias, hidden places left out) v, with dropout."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx,
        kernels: Kernels,
        q_BHTE: Tensor,
        k_BKSE: Tensor,
        v_BKSE: Tensor,
        keep_BS: Tensor | None,
        bias_1HTS: Tensor | None,
        scale: float,
        causal: bool,
        dropout: float,
    ) -> Tensor:
        dropped = Dropped.drawn(dropout)
        logs_BHT = q_BHTE.new_empty(q_BHTE.shape[:3], dtype=torch.float32)
        wide = None if bias_1HTS is None else bias_1HTS.detach().float().contiguous()
        y_BHTE = kernels.attend(
            q_BHTE,
            k_BKSE,
            v_BKSE,
            keep_BS,
            wide,
            scale,
            causal=causal,
            by_tiles=True,
            dropout=dropped,
            logs_BHT=logs_BHT,
        )
        ctx.save_for_backward(q_BHTE, k_BKSE, v_BKSE, y_BHTE, logs_BHT, keep_BS, wide)
        ctx.how = kernels, scale, causal, dropped
        ctx.bias_type = None if bias_1HTS is None else bias_1HTS.dtype
        return y_BHTE

    @staticmethod
    @once_differentiable
    def backward(ctx, dy_BHTE: Tensor):  # type: ignore[no-untyped-def]
        q_BHTE, k_BKSE, v_BKSE, y_BHTE, logs_BHT, keep_BS, bias_1HTS = ctx.saved_tensors
        kernels, scale, causal, dropped = ctx.how
        if dy_BHTE.stride(-1) != 1:
            dy_BHTE = dy_BHTE.contiguous()
        gradients = tuple(
            x.new_empty(x.transpose(1, 2).shape).transpose(1, 2) for x in (q_BHTE, k_BKSE, v_BKSE)
        )
        bias_HST = None if bias_1HTS is None else bias_1HTS[0].transpose(1, 2).contiguous()
        wants_bias = ctx.needs_input_grad[5]
        dbias_HST = torch.zeros_like(bias_HST) if wants_bias and bias_HST is not None else None
        kernels.attend_back(
            (q_BHTE, k_BKSE, v_BKSE, y_BHTE),
            (*gradients, dy_BHTE),
            logs_BHT,
            keep_BS,
            bias_HST,
            dbias_HST,
            scale,
            causal=causal,
            dropout=dropped,
        )
        dbias = None
        if dbias_HST is not None:
            dbias = dbias_HST.transpose(1, 2)[None].to(ctx.bias_type)
        return None, *gradients, None, dbias, None, None, None


def attend_by_tiles(
    kernels: Kernels,
    q_BHTE: Tensor,
    k_BKSE: Tensor,
    v_BKSE: Tensor,
    mask: AttentionMask,
    bias_1HTS: Tensor | None,
    scale: float,
    dropout: float,
) -> Tensor:
    """As `core.attention.attend` under a mask that the kernels know: all in bfloat16 and the
    numbers of a head side by side. Key heads may be fewer."""
    keep_BS = None if mask.keep_BS is None else mask.keep_BS.bool().contiguous()
    causal = not isinstance(mask.kind, spec.FullMask)
    return _Attend.apply(
        kernels, q_BHTE, k_BKSE, v_BKSE, keep_BS, bias_1HTS, scale, causal, dropout
    )
