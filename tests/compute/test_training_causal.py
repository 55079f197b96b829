"""Causal training attention against the formula, forward and backward."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring import spec
from mainspring.compute import causal
from mainspring.compute.causal import blocks, causal_attend, is_causal
from mainspring.core.attention import attend_reference
from mainspring.core.masks import AttentionMask
from mainspring.core.positions import RotaryAngles, rotate

pytestmark = pytest.mark.usefixtures("way")  # with our kernels and without

CPU = torch.device("cpu")


def formula(qkv, heads, turn, scale):
    queries, keys = heads
    width = qkv.shape[-1] // (queries + 2 * keys)
    q, k, v = (
        part.unflatten(-1, (-1, width)).transpose(1, 2)
        for part in qkv.split([queries * width, keys * width, keys * width], -1)
    )
    if turn is not None:
        q, k = rotate(q, turn), rotate(k, turn)
    length = qkv.shape[1]
    mask = AttentionMask(spec.CausalMask(), length, length, CPU)
    return attend_reference(q, k, v, mask, None, scale).transpose(1, 2).flatten(2)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    batch=st.integers(1, 3),
    heads=st.sampled_from([(1, 1), (4, 4), (6, 2), (3, 1)]),
    length=st.integers(1, 23),
    turn=st.sampled_from([None, "row", "each row"]),
    scale=st.sampled_from([1.0, 0.4]),
    block=st.sampled_from([1, 4, 7, 128]),
)
def test_equals_the_formula(batch, heads, length, turn, scale, block):
    torch.manual_seed(0)
    width = 6
    qkv = torch.randn(batch, length, (heads[0] + 2 * heads[1]) * width, requires_grad=True)
    angles = RotaryAngles(spec.Rotary(100.0), width)
    at_T = torch.arange(length)
    places = at_T if turn == "row" else at_T + torch.arange(batch)[:, None]
    turns = None if turn is None else angles(places)
    results = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(causal, "BLOCK", block)
        for function in (causal_attend, formula):
            y = function(qkv, heads, turns, scale)
            torch.manual_seed(1)
            results.append([y, *torch.autograd.grad(y, [qkv], torch.randn_like(y))])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)


def test_bfloat16_is_near():
    torch.manual_seed(0)
    qkv = torch.randn(2, 200, 10 * 16, requires_grad=True)
    turn = RotaryAngles(spec.Rotary(), 16)(torch.arange(200))
    expected = formula(qkv, (6, 2), turn, 0.25)
    dy = torch.randn_like(expected)
    (dqkv,) = torch.autograd.grad(expected, qkv, dy)
    narrow = qkv.detach().bfloat16().requires_grad_()
    y = causal_attend(narrow, (6, 2), turn, 0.25)
    (narrow_d,) = torch.autograd.grad(y, narrow, dy.bfloat16())
    assert (y.float() - expected).norm() < 0.02 * expected.norm()
    assert (narrow_d.float() - dqkv).norm() < 0.02 * dqkv.norm()


def test_blocks_cover_all_places_once():
    for length in (1, 127, 128, 129, 300, 1000):
        parts = blocks(length)
        assert parts[0][0] == 0 and parts[-1][1] == length
        assert all(a[1] == b[0] for a, b in pairwise(parts))
        assert max(end - at for at, end in parts) <= causal.BLOCK


def record(kind, keep=None, **more):
    return AttentionMask(kind, 6, more.pop("keys", 6), CPU, keep_BS=keep, **more)


def test_which_masks_it_serves():
    keep = torch.arange(6) < torch.tensor([[6], [2], [0]])
    assert is_causal(record(spec.CausalMask()))
    assert is_causal(record(spec.CausalMask(), keep))
    assert is_causal(record(spec.SlidingWindow(6), keep))
    assert not is_causal(record(spec.CausalMask(), keep.flip(1)))
    assert not is_causal(record(spec.SlidingWindow(5)))
    assert not is_causal(record(spec.FullMask()))
    assert not is_causal(record(spec.CausalMask(), keys=9, start=3))
    rows = torch.zeros(3, 6, dtype=torch.long)
    assert not is_causal(record(spec.CausalMask(), segments=(rows, rows)))
