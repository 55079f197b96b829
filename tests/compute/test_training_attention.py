"""Training attention against the formula, forward and backward."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring import spec
from mainspring.compute import attention
from mainspring.compute.attention import training_attend
from mainspring.compute.dropout import kept_scale
from mainspring.core.attention import attend_reference
from mainspring.core.masks import AttentionMask


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    batch=st.integers(1, 4),
    heads=st.sampled_from([(1, 1), (4, 4), (4, 2), (3, 1)]),
    queries=st.integers(1, 9),
    keys=st.integers(1, 9),
    mask=st.sampled_from(["full", "causal", "padded", "segments", "blind"]),
    with_bias=st.booleans(),
    scale=st.sampled_from([1.0, 0.5]),
    piece=st.sampled_from([1, 60, 200, 2**19]),
)
def test_equals_the_formula(batch, heads, queries, keys, mask, with_bias, scale, piece):
    torch.manual_seed(0)
    kind = spec.FullMask()
    keep_BS, segments = None, None
    if mask == "causal":
        kind, keys = spec.CausalMask(), queries
    elif mask == "padded":
        keep_BS = torch.rand(batch, keys) < 0.7
    elif mask == "blind":
        keep_BS = torch.zeros(batch, keys, dtype=torch.bool)
        keep_BS[1:] = True
    elif mask == "segments":
        segments = torch.randint(0, 2, (batch, queries)), torch.randint(0, 2, (batch, keys))

    def leaf(*shape):
        return torch.randn(*shape, requires_grad=True)

    tensors = [leaf(batch, heads[0], queries, 5)]
    tensors += [leaf(batch, heads[1], keys, 5) for _ in range(2)]
    bias = leaf(1, heads[0], queries, keys) if with_bias else None
    wanted = [*tensors, bias] if with_bias else tensors
    results = []
    for function in (training_attend, attend_reference):
        record = AttentionMask(
            kind, queries, keys, torch.device("cpu"), keep_BS=keep_BS, segments=segments
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(attention, "PIECE", piece)
            y = function(*tensors, record, bias, scale)
            torch.manual_seed(1)
            results.append([y, *torch.autograd.grad(y, wanted, torch.randn(y.shape))])
    for ours, theirs in zip(*results, strict=True):
        assert ours.isfinite().all()
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def reference_with(keep_BHTS, q, k, v, bias, share):
    weights = (q @ k.transpose(-1, -2) + bias).softmax(-1)
    return (weights * keep_BHTS * kept_scale(share)) @ v


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_equals_the_formula_with_the_same_mask(dtype, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(attention, "PIECE", 2 * 12 * 12)
    share, shape = 0.25, (3, 4, 12, 8)
    q, k = (torch.randn(shape, requires_grad=True) for _ in range(2))
    # With the unit vectors as values, the output is the dropped-out weights themselves.
    v = torch.eye(12)[None, None].expand(3, 4, 12, 12).clone().requires_grad_()
    bias = torch.randn(1, 4, 12, 12, requires_grad=True)
    mask = AttentionMask(spec.FullMask(), 12, 12, torch.device("cpu"))
    narrow = [x.to(dtype) for x in (q, k, v)]
    y = training_attend(*narrow, mask, bias, 1.0, share).float()
    keep = y.detach() != 0
    assert 0.65 < keep.float().mean() < 0.85
    expected = reference_with(keep, q, k, v, bias, share)
    close = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.05, "rtol": 0.1}
    torch.testing.assert_close(y, expected, **close)
    dy = torch.randn_like(y)
    for ours, theirs in zip(
        torch.autograd.grad(y, [q, k, v, bias], dy),
        torch.autograd.grad(expected, [q, k, v, bias], dy),
        strict=True,
    ):
        if dtype == torch.float32:
            torch.testing.assert_close(ours, theirs, **close)
        else:
            assert (ours - theirs).norm() / theirs.norm() < 0.02


def test_bias_gradient_is_exact_where_the_batch_is_large_and_narrow():
    torch.manual_seed(0)
    q, k, v = (torch.randn(16, 2, 6, 4).bfloat16() for _ in range(3))
    bias = torch.randn(1, 2, 6, 6, requires_grad=True)
    mask = AttentionMask(spec.FullMask(), 6, 6, torch.device("cpu"))
    training_attend(q, k, v, mask, bias, 1.0).float().square().sum().backward()
    wide = bias.detach().clone().requires_grad_()
    attend_reference(q.float(), k.float(), v.float(), mask, wide, 1.0).square().sum().backward()
    assert bias.grad.dtype == torch.float32
    assert (bias.grad - wide.grad).norm() / wide.grad.norm() < 0.02


def test_a_soft_cap_and_no_gradient_go_to_the_core():
    q, k, v = (torch.randn(1, 2, 3, 4, requires_grad=True) for _ in range(3))
    mask = AttentionMask(spec.FullMask(), 3, 3, torch.device("cpu"))
    capped = training_attend(q, k, v, mask, None, 1.0, soft_cap=2.0)
    torch.testing.assert_close(
        capped, attend_reference(q, k, v, mask, None, 1.0, soft_cap=2.0), atol=1e-5, rtol=1e-5
    )
    with torch.no_grad():
        plain = training_attend(q, k, v, mask, None, 1.0)
    torch.testing.assert_close(
        plain, attend_reference(q, k, v, mask, None, 1.0), atol=1e-5, rtol=1e-5
    )
