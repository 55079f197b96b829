"""The fused attention is the formula, written out a second time here."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mainspring import spec
from mainspring.core.attention import CrossAttention, attend, attend_reference, attention_weights
from mainspring.core.masks import AttentionMask

lean = settings(max_examples=40, deadline=None, derandomize=True, database=None)
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@st.composite
def calls(draw: st.DrawFn) -> tuple:
    """Arguments of `attend`: q, k, v, mask, bias, scale."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    rows, shared, groups = (draw(st.integers(1, 3)) for _ in range(3))
    heads, width, queries = shared * groups, draw(st.integers(1, 7)), draw(st.integers(1, 6))
    kind = draw(st.sampled_from((spec.FullMask(), spec.CausalMask(), spec.SlidingWindow(2))))
    start = draw(st.integers(0, 3))
    keys = draw(st.integers(1, 6)) if kind == spec.FullMask() else start + queries

    def numbers(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    keep_BS = numbers(rows, keys) > 0 if draw(st.booleans()) else None
    mask = AttentionMask(kind, queries, keys, torch.device("cpu"), start, keep_BS)
    bias = numbers(1, heads, queries, keys) if draw(st.booleans()) else None
    q, k, v = (
        numbers(rows, n, length, width)
        for n, length in ((heads, queries), (shared, keys), (shared, keys))
    )
    return q, k, v, mask, bias, draw(st.sampled_from((1.0, width**-0.5)))


def by_hand(q: Tensor, k: Tensor, v: Tensor, mask: AttentionMask, bias, scale: float) -> Tensor:
    """One query at a time, over the keys it may see."""
    out = torch.zeros_like(q)
    allowed = mask.allowed()
    for b, h, t in torch.cartesian_prod(*(torch.arange(n) for n in q.shape[:3])).tolist():
        shared = h * k.shape[1] // q.shape[1]
        places = range(mask.keys)
        if allowed is not None:
            full = allowed.expand(len(q), 1, mask.queries, mask.keys)
            places = [s for s in places if full[b, 0, t, s]]
        scores = [
            scale * float(q[b, h, t] @ k[b, shared, s])
            + (0.0 if bias is None else float(bias[0, h, t, s]))
            for s in places
        ]
        total = sum(math.exp(score) for score in scores)
        for score, s in zip(scores, places, strict=True):
            out[b, h, t] += math.exp(score) / total * v[b, shared, s]
    return out


@lean
@given(calls())
def test_fused_and_reference_are_the_formula(call: tuple) -> None:
    wanted = by_hand(*call)
    torch.testing.assert_close(attend_reference(*call), wanted, **CLOSE)
    torch.testing.assert_close(attend(*call), wanted, **CLOSE)


@lean
@given(calls())
def test_gradients_of_both_agree_and_are_finite(call: tuple) -> None:
    q, k, v, mask, bias, scale = call
    inputs = [t.requires_grad_() for t in (q, k, v, bias) if t is not None]
    grads = [
        torch.autograd.grad(form(q, k, v, mask, bias, scale).square().sum(), inputs)
        for form in (attend, attend_reference)
    ]
    for fused, reference in zip(*grads, strict=True):
        assert fused.isfinite().all()
        torch.testing.assert_close(fused, reference, atol=1e-4, rtol=1e-4)


@lean
@given(calls())
def test_weights_sum_to_one_or_to_zero_where_nothing_is_seen(call: tuple) -> None:
    q, k, _, mask, bias, scale = call
    sums = attention_weights(q, k, mask, bias, scale).sum(-1)
    blind = mask.blind()
    wanted = torch.ones_like(sums)
    if blind is not None:
        wanted = wanted.masked_fill(blind[..., 0], 0.0)
    torch.testing.assert_close(sums, wanted, **CLOSE)


def test_several_sequences_may_read_one_source() -> None:
    """Cross-attention with fewer source rows than sequences equals repeating the source."""
    torch.manual_seed(0)
    cross = CrossAttention(spec.Attention(2, 2, 4), 8)
    x_BTD, memory_BSD = torch.randn(6, 3, 8), torch.randn(2, 5, 8)
    keep_BS = torch.tensor([[1, 1, 1, 0, 0], [0, 1, 1, 1, 1]]).bool()

    def mask(keep: Tensor, queries: int) -> AttentionMask:
        return AttentionMask(spec.FullMask(), queries, 5, torch.device("cpu"), keep_BS=keep)

    few = cross(x_BTD, memory_BSD, mask(keep_BS, 3))
    each = cross(
        x_BTD, memory_BSD.repeat_interleave(3, 0), mask(keep_BS.repeat_interleave(3, 0), 3)
    )
    torch.testing.assert_close(few, each, **CLOSE)
