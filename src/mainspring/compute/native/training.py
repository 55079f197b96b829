"""Attention for training by our own kernels: nothing of the size of the scores is kept."""

from dataclasses import dataclass

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


@dataclass(frozen=True)
class _How:
    """What an attention is, beside its tensors."""

    kernels: Kernels
    scale: float
    causal: bool
    dropped: Dropped | None


def _attended(
    how: _How,
    heads: tuple[Tensor, Tensor, Tensor],
    keep_BS: Tensor | None,
    bias_1HTS: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """softmax(scale * q kᵀ + bias, hidden places left out) v, with dropout; and what the way back
    needs of it: the logarithm of each query's sum, and the bias in float32."""
    logs_BHT = heads[0].new_empty(heads[0].shape[:3], dtype=torch.float32)
    wide = None if bias_1HTS is None else bias_1HTS.detach().float().contiguous()
    y_BHTE = how.kernels.attend(
        *heads,
        keep_BS,
        wide,
        how.scale,
        causal=how.causal,
        by_tiles=True,
        dropout=how.dropped,
        logs_BHT=logs_BHT,
    )
    return y_BHTE, logs_BHT, wide


def _back(
    how: _How,
    heads: tuple[Tensor, Tensor, Tensor, Tensor],
    gradients: tuple[Tensor, Tensor, Tensor, Tensor],
    logs_BHT: Tensor,
    keep_BS: Tensor | None,
    bias_1HTS: Tensor | None,
    wants_bias: bool,
) -> Tensor | None:
    """Fills the gradients of q, k and v from that of y, which comes last; the bias's, where it is
    wanted."""
    bias_HST = None if bias_1HTS is None else bias_1HTS[0].transpose(1, 2).contiguous()
    dbias_HST = torch.zeros_like(bias_HST) if wants_bias and bias_HST is not None else None
    how.kernels.attend_back(
        heads,
        gradients,
        logs_BHT,
        keep_BS,
        bias_HST,
        dbias_HST,
        how.scale,
        causal=how.causal,
        dropout=how.dropped,
    )
    return None if dbias_HST is None else dbias_HST.transpose(1, 2)[None]


class _Attend(torch.autograd.Function):
    """Of queries, keys and values apart."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx,
        how: _How,
        q_BHTE: Tensor,
        k_BKSE: Tensor,
        v_BKSE: Tensor,
        keep_BS: Tensor | None,
        bias_1HTS: Tensor | None,
    ) -> Tensor:
        y_BHTE, logs_BHT, wide = _attended(how, (q_BHTE, k_BKSE, v_BKSE), keep_BS, bias_1HTS)
        ctx.save_for_backward(q_BHTE, k_BKSE, v_BKSE, y_BHTE, logs_BHT, keep_BS, wide)
        ctx.how, ctx.bias_type = how, None if bias_1HTS is None else bias_1HTS.dtype
        return y_BHTE

    @staticmethod
    @once_differentiable
    def backward(ctx, dy_BHTE: Tensor):  # type: ignore[no-untyped-def]
        *heads, logs_BHT, keep_BS, bias_1HTS = ctx.saved_tensors
        if dy_BHTE.stride(-1) != 1:
            dy_BHTE = dy_BHTE.contiguous()
        gradients = tuple(x.new_empty(x.transpose(1, 2).shape).transpose(1, 2) for x in heads[:3])
        dbias = _back(
            ctx.how,
            tuple(heads),
            (*gradients, dy_BHTE),
            logs_BHT,
            keep_BS,
            bias_1HTS,
            ctx.needs_input_grad[5],
        )
        return None, *gradients, None, None if dbias is None else dbias.to(ctx.bias_type)


class _AttendJoined(torch.autograd.Function):
    """Of queries, keys and values side by side (B, T, all heads), whose gradients are written side
    by side too; queries and keys are turned first where there is a turn."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx,
        how: _How,
        qkv_BTX: Tensor,
        counts: tuple[int, int],
        turn: tuple[Tensor, Tensor] | None,
        keep_BS: Tensor | None,
        bias_1HTS: Tensor | None,
    ) -> Tensor:
        turned = sum(counts)
        qkv_BTNE = qkv_BTX.contiguous().unflatten(-1, (turned + counts[1], -1))
        qk_BTNE = qkv_BTNE[:, :, :turned]
        if turn is not None:
            qk_BTNE = torch.empty(qk_BTNE.shape, dtype=torch.bfloat16)
            how.kernels.turn_heads(qkv_BTNE[:, :, :turned], turn, qk_BTNE, back=False)
        q_BTHE, k_BTKE = qk_BTNE.split(counts, 2)
        heads = tuple(x.transpose(1, 2) for x in (q_BTHE, k_BTKE, qkv_BTNE[:, :, turned:]))
        y_BHTE, logs_BHT, wide = _attended(how, heads, keep_BS, bias_1HTS)
        ctx.save_for_backward(*heads, y_BHTE, logs_BHT, keep_BS, wide)
        ctx.how, ctx.counts, ctx.turn = how, counts, turn
        ctx.bias_type = None if bias_1HTS is None else bias_1HTS.dtype
        return y_BHTE.transpose(1, 2).flatten(2)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy_BTD: Tensor):  # type: ignore[no-untyped-def]
        *heads, logs_BHT, keep_BS, bias_1HTS = ctx.saved_tensors
        batch, queries, length, width = heads[0].shape
        turned = sum(ctx.counts)
        dqkv_BTNE = dy_BTD.new_empty(batch, length, turned + ctx.counts[1], width)
        into = dqkv_BTNE[:, :, :turned]
        dqk_BTNE = into if ctx.turn is None else torch.empty(into.shape, dtype=torch.bfloat16)
        dq_BTHE, dk_BTKE = dqk_BTNE.split(ctx.counts, 2)
        dy_BTHE = dy_BTD.contiguous().unflatten(-1, (queries, width))
        dv_BTKE = dqkv_BTNE[:, :, turned:]
        dbias = _back(
            ctx.how,
            tuple(heads),
            (
                dq_BTHE.transpose(1, 2),
                dk_BTKE.transpose(1, 2),
                dv_BTKE.transpose(1, 2),
                dy_BTHE.transpose(1, 2),
            ),
            logs_BHT,
            keep_BS,
            bias_1HTS,
            ctx.needs_input_grad[5],
        )
        if ctx.turn is not None:
            ctx.how.kernels.turn_heads(dqk_BTNE, ctx.turn, into, back=True)
        dbias = None if dbias is None else dbias.to(ctx.bias_type)
        return None, dqkv_BTNE.flatten(2), None, None, None, dbias


def _kept(mask: AttentionMask) -> Tensor | None:
    return None if mask.keep_BS is None else mask.keep_BS.bool().contiguous()


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
    causal = not isinstance(mask.kind, spec.FullMask)
    how = _How(kernels, scale, causal, Dropped.drawn(dropout))
    return _Attend.apply(how, q_BHTE, k_BKSE, v_BKSE, _kept(mask), bias_1HTS)


def attend_joined(
    kernels: Kernels,
    qkv_BTX: Tensor,
    counts: tuple[int, int],
    turn: tuple[Tensor, Tensor] | None,
    mask: AttentionMask | None,
    bias_1HTS: Tensor | None,
    scale: float,
    dropout: float,
) -> Tensor:
    """The same for queries, keys and values side by side, in bfloat16; heads joined: BT(HE).

    `counts` are those of query and key heads, `turn` half cosines and sines (TE or B1TE) in
    bfloat16. Without a mask each place sees itself and what is before it.
    """
    if turn is not None:
        cos, sin = ((x[:, 0] if x.dim() == 4 else x).contiguous() for x in turn)
        turn = cos, sin
    causal = mask is None or not isinstance(mask.kind, spec.FullMask)
    how = _How(kernels, scale, causal, Dropped.drawn(dropout))
    keep_BS = None if mask is None else _kept(mask)
    return _AttendJoined.apply(how, qkv_BTX, counts, turn, keep_BS, bias_1HTS)
