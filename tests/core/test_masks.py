"""Masks against the sentence that defines each, place by place."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mainspring import spec
from mainspring.core.masks import AttentionMask

lean = settings(max_examples=60, deadline=None, derandomize=True, database=None)
CPU = torch.device("cpu")


@st.composite
def masks(draw: st.DrawFn) -> AttentionMask:
    start = draw(st.integers(0, 4))
    kind = draw(
        st.sampled_from((spec.FullMask(), spec.CausalMask(), spec.SlidingWindow(1)))
        | st.integers(1, 9).map(spec.SlidingWindow)
    )
    queries = draw(st.integers(1, 5))
    keys = draw(st.integers(1, 9)) if kind == spec.FullMask() else start + queries
    rows = draw(st.integers(1, 3))

    def bits(width: int, most: int) -> Tensor:
        row = st.lists(st.integers(0, most), min_size=width, max_size=width)
        return torch.tensor(draw(st.lists(row, min_size=rows, max_size=rows)))

    keep_BS = bits(keys, 1).bool() if draw(st.booleans()) else None
    segments = (bits(queries, 2), bits(keys, 2)) if draw(st.booleans()) else None
    return AttentionMask(kind, queries, keys, CPU, start, keep_BS, segments)


def naive(mask: AttentionMask, row: int, query: int, key: int) -> bool:
    at = mask.start + query
    match mask.kind:
        case spec.FullMask():
            seen = True
        case spec.CausalMask():
            seen = key <= at
        case spec.SlidingWindow(size):
            seen = at - size < key <= at
    if mask.keep_BS is not None:
        seen = seen and bool(mask.keep_BS[row, key])
    if mask.segments is not None:
        of_queries, of_keys = mask.segments
        seen = seen and bool(of_queries[row, query] == of_keys[row, key])
    return seen


def written_out(mask: AttentionMask) -> Tensor:
    rows = 1
    if mask.keep_BS is not None:
        rows = len(mask.keep_BS)
    elif mask.segments is not None:
        rows = len(mask.segments[0])
    return torch.tensor(
        [
            [[naive(mask, b, t, s) for s in range(mask.keys)] for t in range(mask.queries)]
            for b in range(rows)
        ]
    )[:, None]


@lean
@given(masks())
def test_every_place_is_as_defined(mask: AttentionMask) -> None:
    wanted = written_out(mask)
    allowed = mask.allowed()
    seen = torch.ones_like(wanted) if allowed is None else allowed.expand(wanted.shape)
    assert torch.equal(seen, wanted)
    assert mask.hides_nothing <= bool(wanted.all())
    triangle = torch.ones(mask.queries, mask.keys).tril().bool()
    assert not mask.is_plain_causal or torch.equal(wanted[0, 0], triangle)
    blind = mask.blind()
    nothing = ~wanted.any(-1, keepdim=True)
    if blind is None:
        assert not nothing.any()
    else:
        assert torch.equal(blind.expand(nothing.shape), nothing)


@lean
@given(masks())
def test_the_additive_form_hides_the_same_places_and_keeps_the_bias(mask: AttentionMask) -> None:
    wanted = written_out(mask)
    bias_1HTS = torch.randn(1, 2, mask.queries, mask.keys)
    made = mask.additive(bias_1HTS, torch.float32)
    assert made is not None
    places = wanted.expand(len(wanted), 2, -1, -1)
    made = made.expand(places.shape)
    assert torch.equal(made[places], bias_1HTS.expand(places.shape)[places])
    assert (made[~places] < -1e30).all()
    assert made.isfinite().all()
    assert mask.additive(bias_1HTS, torch.float32) is mask.additive(bias_1HTS, torch.float32)
    plain = mask.additive(None, torch.float32)
    if plain is None:
        assert wanted.all()
    else:
        assert torch.equal(plain.expand(wanted.shape) == 0, wanted)
