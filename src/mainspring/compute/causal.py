"""Causal self-attention for training on a CPU: rotation, scores and softmax in one function.

torch's fused kernel takes many times as long backwards as forwards on a CPU. Here the heads that
share keys stand side by side as more queries of one product, and the queries go in blocks that see
no key behind their last one: a block's weights are kept, half of all at most lengths. Where the
machine has our own kernels, they do it by tiles. Padding on the right needs no mask: no real query
sees it.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mainspring import spec
from mainspring.compute.native import library
from mainspring.compute.native.training import attend_joined
from mainspring.core.masks import AttentionMask

BLOCK = 128  # queries of a block, at most


def blocks(length: int) -> list[tuple[int, int]]:
    """(first query, end): blocks of about equal size."""
    count = -(-length // BLOCK)
    size = -(-length // count)
    return [(at, min(at + size, length)) for at in range(0, length, size)]


def turned(x: Tensor, turn: tuple[Tensor, Tensor] | None, scale: float, out: Tensor) -> Tensor:
    """`out` filled with scale * x, rotated by half cosines and sines where there is a turn."""
    if turn is None:
        return torch.mul(x, scale, out=out)
    cos, sin = (part * scale for part in turn)
    left, right = x.chunk(2, -1)
    out_left, out_right = out.chunk(2, -1)
    torch.mul(left, cos, out=out_left).addcmul_(right, sin, value=-1)
    torch.mul(right, cos, out=out_right).addcmul_(left, sin)
    return out


def _hidden(at: int, end: int, like: Tensor) -> Tensor:
    """What is added to the scores of the queries `at`..`end` at keys 0..`end`: later ones are
    hidden."""
    lowest = torch.finfo(like.dtype).min
    return like.new_full((end - at, end), lowest).triu_(at + 1)


class _Attend(torch.autograd.Function):
    """softmax(scale * q kᵀ) v over earlier places, of q, k and v side by side (B, T, all heads)."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx,
        qkv_BTX: Tensor,
        heads: tuple[int, int],
        turn: tuple[Tensor, Tensor] | None,
        scale: float,
    ) -> Tensor:
        q_BKGTE, k_BKTE, v_BKTE = _split(qkv_BTX, heads)
        batch, kinds, group, length, width = q_BKGTE.shape
        pairs = batch * kinds
        q_BKGTE = turned(q_BKGTE, turn, scale, q_BKGTE.new_empty(q_BKGTE.shape))
        k_PTE = turned(
            k_BKTE[:, :, None], turn, 1.0, k_BKTE.new_empty(batch, kinds, 1, length, width)
        ).view(pairs, length, width)
        v_PTE = v_BKTE.reshape(pairs, length, width)
        y_BTKGE = q_BKGTE.new_empty(batch, length, kinds, group, width)
        kept = []
        for at, end in blocks(length):
            q_PRE = q_BKGTE[:, :, :, at:end].reshape(pairs, -1, width)
            hidden = _hidden(at, end, q_PRE).repeat(group, 1).expand(pairs, -1, -1)
            scores = torch.baddbmm(hidden, q_PRE, k_PTE[:, :end].transpose(1, 2))
            weights = torch.softmax(scores, -1)
            y_PRE = torch.bmm(weights, v_PTE[:, :end])
            y_BTKGE[:, at:end] = y_PRE.view(batch, kinds, group, end - at, width).permute(
                0, 3, 1, 2, 4
            )
            kept.append(weights)
        ctx.save_for_backward(q_BKGTE, k_PTE, v_PTE, *kept)
        ctx.heads, ctx.turn, ctx.scale = heads, turn, scale
        return y_BTKGE.flatten(2)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy_BTD: Tensor):  # type: ignore[no-untyped-def]
        q_BKGTE, k_PTE, v_PTE, *kept = ctx.saved_tensors
        batch, kinds, group, length, width = q_BKGTE.shape
        pairs = batch * kinds
        dy_BKGTE = dy_BTD.view(batch, length, kinds, group, width).permute(0, 2, 3, 1, 4)
        dq_BKGTE = torch.empty_like(q_BKGTE)
        dk_PTE = dv_PTE = None
        # The last block sees all keys: it begins the sums over the others.
        for (at, end), weights in reversed(list(zip(blocks(length), kept, strict=True))):
            q_PRE = q_BKGTE[:, :, :, at:end].reshape(pairs, -1, width)
            dy_PRE = dy_BKGTE[:, :, :, at:end].reshape(pairs, -1, width)
            dweights = torch.bmm(dy_PRE, v_PTE[:, :end].transpose(1, 2))
            dscores = torch.ops.aten._softmax_backward_data(dweights, weights, -1, weights.dtype)
            dq_PRE = torch.bmm(dscores, k_PTE[:, :end])
            dq_BKGTE[:, :, :, at:end] = dq_PRE.view(batch, kinds, group, end - at, width)
            if dk_PTE is None or dv_PTE is None:
                dv_PTE = torch.bmm(weights.transpose(1, 2), dy_PRE)
                dk_PTE = torch.bmm(dscores.transpose(1, 2), q_PRE)
            else:
                dv_PTE[:, :end] += torch.bmm(weights.transpose(1, 2), dy_PRE)
                dk_PTE[:, :end] += torch.bmm(dscores.transpose(1, 2), q_PRE)
        assert dk_PTE is not None and dv_PTE is not None
        dqkv_BTX = dy_BTD.new_empty(batch, length, sum(ctx.heads) * width + ctx.heads[1] * width)
        into_q, into_k, into_v = _split(dqkv_BTX, ctx.heads)
        back = None if ctx.turn is None else (ctx.turn[0], -ctx.turn[1])
        turned(dq_BKGTE, back, ctx.scale, into_q)
        turned(dk_PTE.view(batch, kinds, 1, length, width), back, 1.0, into_k[:, :, None])
        into_v.copy_(dv_PTE.view(batch, kinds, length, width))
        return dqkv_BTX, None, None, None


def _split(qkv_BTX: Tensor, heads: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Views of the queries (B, K, heads that share a key, T, E), the keys and the values BKTE."""
    queries, kinds = heads
    width = qkv_BTX.shape[-1] // (queries + 2 * kinds)
    x_BTNE = qkv_BTX.unflatten(-1, (-1, width))
    q_BTHE, k_BTKE, v_BTKE = x_BTNE.split([queries, kinds, kinds], 2)
    q_BKGTE = q_BTHE.unflatten(2, (kinds, -1)).permute(0, 2, 3, 1, 4)
    return q_BKGTE, k_BTKE.transpose(1, 2), v_BTKE.transpose(1, 2)


def half_turn(
    turn: tuple[Tensor, Tensor] | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor] | None:
    """The cosines and sines of the left halves of heads: those of the right ones are the same."""
    if turn is None:
        return None
    half = turn[0].shape[-1] // 2
    cos, sin = (part[..., :half].to(dtype) for part in turn)
    return cos, sin


def causal_attend(
    qkv_BTX: Tensor,
    heads: tuple[int, int],
    turn: tuple[Tensor, Tensor] | None,
    scale: float,
) -> Tensor:
    """What each query finds at its own place and before, heads joined: BT(HE).

    `qkv_BTX` are queries, keys and values side by side, `heads` how many query and key heads,
    `turn` the rotary cosines and sines (TE or B1TE).
    """
    turn = half_turn(turn, qkv_BTX.dtype)
    kernels = library.kernels()
    if kernels is not None and qkv_BTX.dtype is torch.bfloat16:
        return attend_joined(kernels, qkv_BTX, heads, turn, None, None, scale, 0.0)
    if turn is not None and turn[0].dim() == 4:
        turn = turn[0][:, :, None], turn[1][:, :, None]
    return _Attend.apply(qkv_BTX, heads, turn, scale)


def is_causal(mask: AttentionMask) -> bool:
    """Whether real queries see themselves and all that is before them, and nothing else."""
    if mask.start or mask.queries != mask.keys or mask.segments is not None:
        return False
    match mask.kind:
        case spec.SlidingWindow(size) if size < mask.queries:
            return False
        case spec.FullMask():
            return False
    if mask.keep_BS is None:
        return True
    if "padded on the right" not in mask._made:
        keep = mask.keep_BS
        mask._made["padded on the right"] = not bool((~keep[:, :-1] & keep[:, 1:]).any())
    return mask._made["padded on the right"]
