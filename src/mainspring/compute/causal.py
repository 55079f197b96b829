"""Causal self-attention for training on a CPU: rotation, scores and softmax in one function.

torch's fused kernel takes many times as long backwards as forwards on a CPU. Here the heads that
share keys stand side by side as more queries of one product, and the queries go in blocks that see
no key behind their last one: a block's weights are kept, half of all at most lengths. Where the
machine has our own kernels, they do it by tiles. Padding on the right needs no mask: no real query
sees it.
"""

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mainspring import spec
from mainspring.compute.linear import FusedProjections, linear
from mainspring.compute.native import library
from mainspring.compute.native.library import Kernels
from mainspring.core.attention import SelfAttention
from mainspring.core.cache import LayerCache
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


class _AttendByTiles(torch.autograd.Function):
    """As `_Attend`, by our own kernels."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx,
        kernels: Kernels,
        qkv_BTX: Tensor,
        heads: tuple[int, int],
        turn: tuple[Tensor, Tensor] | None,
        scale: float,
    ) -> Tensor:
        queries, keys = heads[0], heads[0] + heads[1]
        qkv_BTNE = qkv_BTX.contiguous().unflatten(-1, (keys + heads[1], -1))
        qk_BTNE = qkv_BTNE[:, :, :keys]
        if turn is not None:
            qk_BTNE = torch.empty(qk_BTNE.shape, dtype=torch.bfloat16)
            kernels.turn_heads(qkv_BTNE[:, :, :keys], turn, qk_BTNE, back=False)
        q_BHTE, k_BKTE = (
            qk_BTNE[:, :, :queries].transpose(1, 2),
            qk_BTNE[:, :, queries:].transpose(1, 2),
        )
        v_BKTE = qkv_BTNE[:, :, keys:].transpose(1, 2)
        batch, length = qkv_BTX.shape[:2]
        logs_BHT = qkv_BTX.new_empty(batch, queries, length, dtype=torch.float32)
        y_BHTE = kernels.attend(
            q_BHTE,
            k_BKTE,
            v_BKTE,
            None,
            None,
            scale,
            causal=True,
            by_tiles=True,
            logs_BHT=logs_BHT,
        )
        ctx.save_for_backward(q_BHTE, k_BKTE, v_BKTE, y_BHTE, logs_BHT)
        ctx.kernels, ctx.turn, ctx.scale = kernels, turn, scale
        return y_BHTE.transpose(1, 2).flatten(2)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy_BTD: Tensor):  # type: ignore[no-untyped-def]
        q_BHTE, k_BKTE, v_BKTE, y_BHTE, logs_BHT = ctx.saved_tensors
        batch, queries, length, width = q_BHTE.shape
        keys = queries + k_BKTE.shape[1]
        dqkv_BTNE = dy_BTD.new_empty(batch, length, keys + k_BKTE.shape[1], width)
        into = dqkv_BTNE[:, :, :keys]
        dqk_BTNE = into if ctx.turn is None else torch.empty(into.shape, dtype=torch.bfloat16)
        ctx.kernels.attend_back(
            (q_BHTE, k_BKTE, v_BKTE, y_BHTE),
            (
                dqk_BTNE[:, :, :queries].transpose(1, 2),
                dqk_BTNE[:, :, queries:].transpose(1, 2),
                dqkv_BTNE[:, :, keys:].transpose(1, 2),
                dy_BTD.contiguous().unflatten(-1, (-1, width)).transpose(1, 2),
            ),
            logs_BHT,
            None,
            None,
            None,
            ctx.scale,
            causal=True,
            dropout=None,
        )
        if ctx.turn is not None:
            ctx.kernels.turn_heads(dqk_BTNE, ctx.turn, into, back=True)
        return None, dqkv_BTNE.flatten(2), None, None, None


def _split(qkv_BTX: Tensor, heads: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Views of the queries (B, K, heads that share a key, T, E), the keys and the values BKTE."""
    queries, kinds = heads
    width = qkv_BTX.shape[-1] // (queries + 2 * kinds)
    x_BTNE = qkv_BTX.unflatten(-1, (-1, width))
    q_BTHE, k_BTKE, v_BTKE = x_BTNE.split([queries, kinds, kinds], 2)
    q_BKGTE = q_BTHE.unflatten(2, (kinds, -1)).permute(0, 2, 3, 1, 4)
    return q_BKGTE, k_BTKE.transpose(1, 2), v_BTKE.transpose(1, 2)


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
    if turn is not None:
        half = turn[0].shape[-1] // 2
        cos, sin = (part[..., :half].to(qkv_BTX.dtype) for part in turn)
        turn = cos, sin
    kernels = library.kernels()
    if kernels is not None and qkv_BTX.dtype is torch.bfloat16:
        if turn is not None:
            cos, sin = ((x[:, 0] if x.dim() == 4 else x).contiguous() for x in turn)
            turn = cos, sin
        return _AttendByTiles.apply(kernels, qkv_BTX, heads, turn, scale)
    if turn is not None and turn[0].dim() == 4:
        turn = turn[0][:, :, None], turn[1][:, :, None]
    return _Attend.apply(qkv_BTX, heads, turn, scale)


class CausalSelfAttention(SelfAttention):
    """In the place of a `SelfAttention` whose projections are fused. Where there is more to do than
    `causal_attend` does (a cache, a bias, dropout, a window, no gradient), the core's own runs."""

    def __init__(self, old: SelfAttention, heads: tuple[int, int]):
        nn.Module.__init__(self)
        self.__dict__.update(old.__dict__)
        self.heads = heads

    def forward(
        self,
        x_BTD: Tensor,
        mask: AttentionMask,
        bias_1HTS: Tensor | None = None,
        turn: tuple[Tensor, Tensor] | None = None,
        cache: LayerCache | None = None,
    ) -> Tensor:
        drops = self.training and self.dropout > 0.0
        plain = bias_1HTS is None and cache is None and not self.cap and not drops
        plain = plain and x_BTD.device.type == "cpu"  # torch's fused kernels serve others
        if not plain or not torch.is_grad_enabled() or not is_causal(mask):
            return super().forward(x_BTD, mask, bias_1HTS, turn, cache)
        assert isinstance(self.qkv, FusedProjections)
        qkv_BTX = linear(x_BTD, self.qkv.copy)
        if not isinstance(self.query_norm, nn.Identity):
            q, k, v = map(self.split, qkv_BTX.split(self.qkv.copy.rows, -1))
            parts = self.query_norm(q), self.key_norm(k), v
            qkv_BTX = torch.cat([part.transpose(1, 2).flatten(2) for part in parts], -1)
        return self.o(causal_attend(qkv_BTX, self.heads, turn, self.scale))


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
