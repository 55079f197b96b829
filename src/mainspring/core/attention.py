"""Multi-head attention (Vaswani et al., 2017, section 3.2), with its one seam: `attend`.

    x ── q,k,v ── split into heads ── attend(q, k, v, mask, bias, scale) ── join heads ── o ──

`attend` is an attribute of each attention module, so that an instrument (or a faster kernel) can
take its place from outside. `attend_reference` is the formula, written out.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mainspring import spec
from mainspring.core.cache import LayerCache
from mainspring.core.masks import AttentionMask
from mainspring.core.norms import build_optional_norm
from mainspring.core.positions import rotate

Attend = Callable[..., Tensor]


def attend(
    q_BHTE: Tensor,
    k_BKSE: Tensor,
    v_BKSE: Tensor,
    mask: AttentionMask,
    bias_1HTS: Tensor | None,
    scale: float,
    dropout: float = 0.0,
    soft_cap: float | None = None,
) -> Tensor:
    """softmax(scale * q kᵀ + bias, hidden places left out) v as BHTE, by the fused kernel.

    A query that sees no key gives zeros. Key/value heads are repeated where there are fewer.
    The kernel knows no `soft_cap`: with one (of the spec, on the scores) the formula is computed.
    """
    if soft_cap is not None:
        return attend_reference(
            q_BHTE, k_BKSE, v_BKSE, mask, bias_1HTS, scale, dropout, soft_cap=soft_cap
        )
    shared = q_BHTE.shape[1] != k_BKSE.shape[1]
    if bias_1HTS is None and mask.is_plain_causal:
        return F.scaled_dot_product_attention(
            q_BHTE, k_BKSE, v_BKSE, None, dropout, is_causal=True, scale=scale, enable_gqa=shared
        )
    y_BHTE = F.scaled_dot_product_attention(
        q_BHTE,
        k_BKSE,
        v_BKSE,
        mask.additive(bias_1HTS, q_BHTE.dtype),
        dropout,
        scale=scale,
        enable_gqa=shared,
    )
    blind = mask.blind()
    return y_BHTE if blind is None else y_BHTE.masked_fill(blind, 0.0)


def attention_weights(
    q_BHTE: Tensor,
    k_BKSE: Tensor,
    mask: AttentionMask,
    bias_1HTS: Tensor | None,
    scale: float,
    soft_cap: float | None = None,
) -> Tensor:
    """The weights BHTS that `attend_reference` averages by; rows sum to 1, or to 0 if blind."""
    k_BHSE = k_BKSE.repeat_interleave(q_BHTE.shape[1] // k_BKSE.shape[1], 1)
    scores_BHTS = (q_BHTE @ k_BHSE.transpose(-2, -1)).float() * scale
    if soft_cap is not None:
        scores_BHTS = soft_cap * torch.tanh(scores_BHTS / soft_cap)
    if bias_1HTS is not None:
        scores_BHTS = scores_BHTS + bias_1HTS
    allowed = mask.allowed()
    if allowed is not None:
        scores_BHTS = scores_BHTS.masked_fill(~allowed, torch.finfo(torch.float32).min)
    weights_BHTS = scores_BHTS.softmax(-1)
    blind = mask.blind()
    return weights_BHTS if blind is None else weights_BHTS.masked_fill(blind, 0.0)


def attend_reference(
    q_BHTE: Tensor,
    k_BKSE: Tensor,
    v_BKSE: Tensor,
    mask: AttentionMask,
    bias_1HTS: Tensor | None,
    scale: float,
    dropout: float = 0.0,
    soft_cap: float | None = None,
) -> Tensor:
    """`attend` step by step: the tested meaning of the fused one, and where weights are seen."""
    weights_BHTS = attention_weights(q_BHTE, k_BKSE, mask, bias_1HTS, scale, soft_cap)
    weights_BHTS = weights_BHTS.to(q_BHTE.dtype)
    v_BHSE = v_BKSE.repeat_interleave(q_BHTE.shape[1] // v_BKSE.shape[1], 1)
    return F.dropout(weights_BHTS, dropout, dropout > 0) @ v_BHSE


class QueryKeyValue(nn.Module):
    """The three projections of self-attention: a module of its own, so that a fused one can
    take its place."""

    def __init__(self, a: spec.Attention, width: int):
        super().__init__()
        self.q = nn.Linear(width, a.heads * a.head_width, bias="q" in a.biases)
        self.k = nn.Linear(width, a.key_value_heads * a.head_width, bias="k" in a.biases)
        self.v = nn.Linear(width, a.key_value_heads * a.head_width, bias="v" in a.biases)

    def forward(self, x_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.q(x_BTD), self.k(x_BTD), self.v(x_BTD)


class KeyValue(nn.Module):
    """The two projections of the memory in cross-attention."""

    def __init__(self, a: spec.Attention, width: int):
        super().__init__()
        self.k = nn.Linear(width, a.key_value_heads * a.head_width, bias="k" in a.biases)
        self.v = nn.Linear(width, a.key_value_heads * a.head_width, bias="v" in a.biases)

    def forward(self, memory_BSD: Tensor) -> tuple[Tensor, Tensor]:
        return self.k(memory_BSD), self.v(memory_BSD)


class _Attention(nn.Module):
    """What self- and cross-attention share: heads, scale, the seam, the output projection."""

    def __init__(self, a: spec.Attention, width: int):
        super().__init__()
        self.head_width, self.dropout = a.head_width, a.dropout
        self.scale = a.head_width**-0.5 if a.scale is None else a.scale
        self.o = nn.Linear(a.heads * a.head_width, width, bias="o" in a.biases)
        self.attend: Attend = attend
        # Handed to `attend` only where the spec has a cap: a replacement that knows none must
        # fail there, not leave it out.
        self.cap = {} if a.soft_cap is None else {"soft_cap": a.soft_cap}

    def split(self, x: Tensor) -> Tensor:
        """BT(HE) to BHTE."""
        return x.unflatten(-1, (-1, self.head_width)).transpose(1, 2)

    def read(
        self, q: Tensor, k: Tensor, v: Tensor, mask: AttentionMask, bias: Tensor | None
    ) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        y_BHTE = self.attend(q, k, v, mask, bias, self.scale, dropout, **self.cap)
        return y_BHTE.transpose(1, 2).flatten(2)


class SelfAttention(_Attention):
    def __init__(self, a: spec.Attention, width: int):
        super().__init__(a, width)
        self.qkv = QueryKeyValue(a, width)
        self.query_norm = build_optional_norm(a.query_key_norm, a.head_width)
        self.key_norm = build_optional_norm(a.query_key_norm, a.head_width)

    def forward(
        self,
        x_BTD: Tensor,
        mask: AttentionMask,
        bias_1HTS: Tensor | None = None,
        turn: tuple[Tensor, Tensor] | None = None,
        cache: LayerCache | None = None,
    ) -> Tensor:
        """`turn` are the rotary cosines and sines at the positions of `x_BTD`."""
        q_BHTE, k_BKSE, v_BKSE = map(self.split, self.qkv(x_BTD))
        q_BHTE, k_BKSE = self.query_norm(q_BHTE), self.key_norm(k_BKSE)
        if turn is not None:
            q_BHTE, k_BKSE = rotate(q_BHTE, turn), rotate(k_BKSE, turn)
        if cache is not None:
            k_BKSE, v_BKSE = cache.append(k_BKSE, v_BKSE)
        return self.o(self.read(q_BHTE, k_BKSE, v_BKSE, mask, bias_1HTS))


class CrossAttention(_Attention):
    def __init__(self, a: spec.Attention, width: int):
        super().__init__(a, width)
        self.q = nn.Linear(width, a.heads * a.head_width, bias="q" in a.biases)
        self.kv = KeyValue(a, width)

    def forward(
        self,
        x_BTD: Tensor,
        memory_BSD: Tensor | None,
        mask: AttentionMask,
        cache: LayerCache | None = None,
    ) -> Tensor:
        """The memory is projected once per cache. It may have B/n rows: n sequences a source."""
        if cache is not None and cache.cross is not None:
            k_BKSE, v_BKSE = cache.cross
        else:
            assert memory_BSD is not None
            k_BKSE, v_BKSE = map(self.split, self.kv(memory_BSD))
            if cache is not None:
                # Every later step reads all of them: a head's keys must lie side by side.
                k_BKSE, v_BKSE = k_BKSE.contiguous(), v_BKSE.contiguous()
                cache.cross = k_BKSE, v_BKSE
        q_BTD = self.q(x_BTD)
        batch, queries = q_BTD.shape[:2]
        # The n sequences of one source stand side by side as n times as many queries, so that
        # its keys and values are kept, and read from memory, once.
        q_BHTE = self.split(q_BTD.reshape(len(k_BKSE), -1, q_BTD.shape[-1]))
        y_BTD = self.read(q_BHTE, k_BKSE, v_BKSE, mask, None)
        return self.o(y_BTD.reshape(batch, queries, -1))
