"""Our kernels against torch at every edge: odd sizes, any number of rows, both kinds of weights."""

import ctypes

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mainspring import spec
from mainspring.compute.decoder import _turn_and_keep
from mainspring.compute.native import library
from mainspring.compute.native.parts import (
    ACTIVE,
    NativeAttend,
    NativeNorm,
    NativeProjection,
)
from mainspring.compute.projections import quantise_weight
from mainspring.core.attention import attend, attend_reference
from mainspring.core.feed_forward import ACTIVATIONS
from mainspring.core.masks import AttentionMask

KERNELS = library.kernels()
pytestmark = pytest.mark.skipif(KERNELS is None, reason=f"no kernels: {library.why_not()}")
EXAMPLES = settings(max_examples=40, deadline=None, derandomize=True)
# Largest error as a share of the largest result: sums in another order, rounding to bfloat16.
SUMS, NARROW = 3e-6, 2**-8


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def difference(found: Tensor, expected: Tensor) -> float:
    largest = expected.abs().max().clamp(min=1e-6)
    return float((found.double() - expected.double()).abs().max() / largest)


@EXAMPLES
@given(
    outputs=st.sampled_from([1, 7, 16, 33, 64, 130]),
    inputs=st.sampled_from([1, 3, 31, 64, 100, 257]),
    rows=st.sampled_from([1, 2, 3, 4, 5, 8, 16, 17, 31, 40, 130, 600]),
    bias=st.booleans(),
    relu=st.booleans(),
    wide=st.tuples(st.booleans(), st.booleans()),
)
def test_bfloat16_products(
    outputs: int, inputs: int, rows: int, bias: bool, relu: bool, wide: tuple[bool, bool]
) -> None:
    dtypes = [torch.float32 if one else torch.bfloat16 for one in wide]
    weight, added = numbers(outputs, inputs), numbers(outputs, seed=1) if bias else None
    part = NativeProjection(
        weight, added, F.relu if relu else None, kernels=KERNELS, result=dtypes[1]
    )
    x = numbers(rows, inputs, seed=2).to(dtypes[0])
    expected = F.linear(x.bfloat16().double(), weight.bfloat16().double())
    expected = expected if added is None else expected + added.double()
    expected = expected.relu() if relu else expected
    found = part(x)
    assert found.dtype is dtypes[1] and found.shape == (rows, outputs)
    assert difference(found, expected) < (SUMS if wide[1] else NARROW)


@EXAMPLES
@given(
    outputs=st.sampled_from([1, 7, 16, 33, 64, 130]),
    inputs=st.sampled_from([1, 3, 63, 64, 100, 257]),
    rows=st.sampled_from([1, 2, 3, 4, 5, 8, 16, 17, 31, 40, 130, 600]),
    bias=st.booleans(),
    exact=st.booleans(),
    wide=st.booleans(),
)
def test_8_bit_products(
    outputs: int, inputs: int, rows: int, bias: bool, exact: bool, wide: bool
) -> None:
    weight, added = numbers(outputs, inputs), numbers(outputs, seed=1) if bias else None
    part = NativeProjection(
        weight,
        added,
        kernels=KERNELS,
        weight_dtype=torch.int8,
        result=torch.float32,
        exact_rows=rows if exact else 0,
    )
    x = numbers(rows, inputs, seed=2)
    x = x if wide else x.bfloat16()
    narrow, scale = quantise_weight(weight)
    expected = F.linear(x.double(), narrow.double() * scale.double()[:, None])
    expected = expected if added is None else expected + added.double()
    # Each activation is half a level off at most, and a level is a share of its row's largest.
    half_level = x.double().abs().amax(1, keepdim=True) / (127 * 128 if exact else 127) / 2
    bound = half_level * (narrow.double().abs().sum(1) * scale.double()) * 1.01 + 1e-5
    assert ((part(x).double() - expected).abs() <= bound).all()
    assert part.bytes() < 64 * (outputs + 15) * -(-inputs // 64) + 4096


def test_rows_do_not_depend_on_their_neighbours() -> None:
    """A batch of two or three gives each row the bits that it has alone."""
    for dtype in (torch.bfloat16, torch.int8):
        part = NativeProjection(numbers(70, 90), None, kernels=KERNELS, weight_dtype=dtype)
        x = numbers(4, 90, seed=3)
        alone = torch.cat([part(row[None]) for row in x])
        for rows in (2, 3, 4):
            assert torch.equal(part(x[:rows]), alone[:rows])


def test_threads_do_not_change_a_bit() -> None:
    part = NativeProjection(numbers(300, 200), None, kernels=KERNELS, weight_dtype=torch.int8)
    found = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append([part(numbers(rows, 200, seed=4)) for rows in (1, 9, 700)])
    finally:
        torch.set_num_threads(before)
    for others in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], others, strict=True))


def test_zeros_and_shapes() -> None:
    part = NativeProjection(numbers(8, 12), None, kernels=KERNELS, weight_dtype=torch.int8)
    assert torch.equal(part(torch.zeros(2, 3, 12)), torch.zeros(2, 3, 8, dtype=torch.bfloat16))
    assert part(torch.zeros(0, 12)).shape == (0, 8)
    turned = numbers(12, 5, seed=6).t()
    assert torch.equal(part(turned), part(turned.contiguous()))


@EXAMPLES
@given(
    rows=st.sampled_from([1, 5, 200]),
    width=st.sampled_from([1, 15, 64, 100, 513]),
    summed=st.booleans(),
    narrow=st.booleans(),
    kind=st.sampled_from(["rms", "rms plain", "layer", "layer no bias", "layer plain"]),
)
def test_norms(rows: int, width: int, summed: bool, narrow: bool, kind: str) -> None:
    learned = not kind.endswith("plain")
    if kind.startswith("rms"):
        old = torch.nn.RMSNorm(width, eps=1e-6, elementwise_affine=learned)
    else:
        bias = kind == "layer"
        old = torch.nn.LayerNorm(width, eps=1e-5, elementwise_affine=learned, bias=bias)
    draw = torch.Generator().manual_seed(9)
    for weight in old.parameters():
        torch.nn.init.normal_(weight, generator=draw)
    part = NativeNorm(old, torch.bfloat16 if narrow else torch.float32, KERNELS)
    x, added = 3 * numbers(rows, width), numbers(rows, width, seed=1).bfloat16()
    total = x + added if summed else x
    with torch.no_grad():
        expected = old(total)
    if summed:
        found_total, found = part.after_sum(x, added)
        assert torch.equal(found_total, total)
    else:
        found = part(x)
    assert difference(found, expected) < (NARROW if narrow else SUMS)


@EXAMPLES
@given(
    rows=st.integers(1, 3),
    heads=st.sampled_from([1, 3]),
    queries=st.integers(1, 8),
    keys=st.sampled_from([1, 3, 16, 37, 130]),
    width=st.sampled_from([8, 32, 64, 80, 128]),
    hidden=st.booleans(),
    bias=st.booleans(),
    cap=st.sampled_from([None, 5.0]),
    seed=st.integers(0, 9),
)
def test_attention(
    rows: int,
    heads: int,
    queries: int,
    keys: int,
    width: int,
    hidden: bool,
    bias: bool,
    cap: float | None,
    seed: int,
) -> None:
    # Queries, keys and values are views of larger tensors, as in a step with its cache.
    q = numbers(rows, queries, heads + 2, width, seed=seed).bfloat16()[:, :, :heads].transpose(1, 2)
    kv = numbers(2, rows, heads, keys + 5, width, seed=seed + 1).bfloat16()[:, :, :, :keys]
    keep = torch.rand(rows, keys, generator=torch.Generator().manual_seed(seed)) < 0.6
    keep[0] = False  # a row that sees nothing
    mask = AttentionMask(spec.FullMask(), queries, keys, q.device, keep_BS=keep if hidden else None)
    added = numbers(1, heads, 1, keys + 3, seed=seed + 2).bfloat16()[..., 3:] if bias else None
    scale = width**-0.5
    expected = attend_reference(
        q.double(),
        *kv.double(),
        mask,
        None if added is None else added.double(),
        scale,
        soft_cap=cap,
    )
    native = NativeAttend(KERNELS, _unused)
    found = native(q, *kv, mask, added, scale, soft_cap=cap)
    assert found.shape == expected.shape
    assert (found.double() - expected).abs().max() < 0.03
    assert difference(found, expected) < 3 * NARROW


@EXAMPLES
@given(
    rows=st.integers(1, 2),
    groups=st.sampled_from([(1, 1), (2, 2), (6, 2)]),
    queries=st.sampled_from([9, 16, 17, 40]),
    more=st.sampled_from([0, 1, 15, 50]),
    width=st.sampled_from([8, 16, 40, 64, 80, 128]),
    hidden=st.booleans(),
    bias=st.sampled_from([None, torch.float32, torch.bfloat16]),
    causal=st.booleans(),
    seed=st.integers(0, 9),
)
def test_attention_of_many_queries(
    rows: int,
    groups: tuple[int, int],
    queries: int,
    more: int,
    width: int,
    hidden: bool,
    bias: torch.dtype | None,
    causal: bool,
    seed: int,
) -> None:
    (heads, key_heads), keys = groups, queries + more
    q = numbers(rows, queries, heads + 2, width, seed=seed).bfloat16()[:, :, :heads].transpose(1, 2)
    kv = numbers(2, rows, key_heads, keys + 5, width, seed=seed + 1).bfloat16()[:, :, :, :keys]
    keep = torch.rand(rows, keys, generator=torch.Generator().manual_seed(seed)) < 0.6
    keep[0] = False
    kind = spec.CausalMask() if causal else spec.FullMask()
    mask = AttentionMask(
        kind, queries, keys, q.device, start=more, keep_BS=keep if hidden else None
    )
    added = None
    if bias is not None:
        added = numbers(1, heads, queries, keys + 3, seed=seed + 2).to(bias)[..., 3:]
    wide = None if added is None else added.double()
    expected = attend_reference(q.double(), *kv.double(), mask, wide, width**-0.5)
    found = NativeAttend(KERNELS, _unused)(q, *kv, mask, added, width**-0.5)
    assert found.shape == expected.shape
    assert difference(found, expected) < 3 * NARROW


def _unused(*args: object) -> Tensor:
    raise AssertionError("the kernel should have served")


def test_what_the_attention_kernel_does_not_know_goes_the_other_way() -> None:
    native = NativeAttend(KERNELS, attend)
    q = numbers(1, 2, 3, 8)
    for dtype, kind in ((torch.float32, spec.FullMask()), (torch.bfloat16, spec.SlidingWindow(2))):
        x = q.to(dtype)
        mask = AttentionMask(kind, 3, 3, q.device)
        assert torch.equal(native(x, x, x, mask, None, 1.0), attend(x, x, x, mask, None, 1.0))


@EXAMPLES
@given(
    rows=st.sampled_from([1, 3]),
    width=st.sampled_from([1, 16, 40, 200]),
    activation=st.sampled_from(["silu", "gelu_tanh", "gelu"]),
    size=st.sampled_from([1.0, 30.0]),
)
def test_gates(rows: int, width: int, activation: str, size: float) -> None:
    old = ACTIVATIONS[activation]
    x = (size * numbers(rows, 2 * width)).bfloat16()
    y = torch.empty(rows, width, dtype=torch.bfloat16)
    KERNELS.gate(x, ACTIVE[old], y)
    left, right = x.double().chunk(2, -1)
    assert difference(y, old(left) * right) < NARROW
    expected = old(x.double())
    assert difference(KERNELS.activate(x, ACTIVE[old]), expected) < NARROW


@pytest.mark.parametrize("activation", ["silu", "gelu_tanh", "gelu"])
def test_activations_of_all_numbers(activation: str) -> None:
    """All bfloat16 numbers but the hugest: at most a unit in the last place from the exact."""
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    x = every[every.abs() < 1e30]
    expected = ACTIVATIONS[activation](x.double())
    found = KERNELS.activate(x.clone(), ACTIVE[ACTIVATIONS[activation]]).double()
    far = (found - expected).abs() > expected.abs() / 128 + 1e-6
    assert not far.any(), x[far]


@EXAMPLES
@given(
    rows=st.sampled_from([1, 3]),
    heads=st.sampled_from([1, 4]),
    key_heads=st.sampled_from([1, 2]),
    width=st.sampled_from([2, 16, 64, 80]),
    turns=st.sampled_from([None, 1, 3]),
)
def test_turning_and_keeping(
    rows: int, heads: int, key_heads: int, width: int, turns: int | None
) -> None:
    """The same as the steps in torch's operators, which round in between."""
    qkv = numbers(rows, heads + 2 * key_heads, width).bfloat16()
    turn = None
    if turns is not None:
        angle = numbers(rows if turns > 1 else 1, 1, width // 2, seed=1)
        cosines = torch.cat([angle.cos(), angle.cos()], -1).bfloat16()
        turn = cosines, torch.cat([-angle.sin(), angle.sin()], -1).bfloat16()
    found = []
    for function in (KERNELS.turn_and_keep, _turn_and_keep):
        cache = torch.zeros(rows, 2, key_heads, 5, width, dtype=torch.bfloat16)
        mine = qkv.clone()
        function(mine, heads, turn, cache[:, :, :, 2:3])
        kept = mine[:, heads:].view(rows, 2, key_heads, width)
        assert torch.equal(cache[:, :, :, 2], kept)
        assert not cache[:, :, :, :2].any() and not cache[:, :, :, 3:].any()
        found.append(mine)
    assert difference(*found) < 2 * NARROW
    assert torch.equal(found[0][:, heads + key_heads :], qkv[:, heads + key_heads :])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sums(dtype: torch.dtype) -> None:
    x, y = numbers(3, 45), numbers(45, 3, seed=1).t().to(dtype)
    expected = x + y
    found = KERNELS.add(x, y)
    assert found is x and torch.equal(found, expected)


def test_packing_keeps_every_number() -> None:
    weight = numbers(33, 45).bfloat16()
    panels = KERNELS.pack(weight)
    described = library.Linear(panels.data_ptr(), None, None, None, 33, 45, library.BFLOAT16, 0, 0)
    y = torch.empty(45, 33)
    KERNELS.linear(ctypes.addressof(described), torch.eye(45), y)
    assert torch.equal(y.t(), weight.float())
