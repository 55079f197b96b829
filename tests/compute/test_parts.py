"""Each part for inference against the core's own that it replaces."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mainspring import spec
from mainspring.compute import packed
from mainspring.compute.encoder import TOKENS, GroupedEncoder, LaidOutBias, groups
from mainspring.compute.norms import NarrowLayerNorm, NarrowRMSNorm
from mainspring.compute.projections import (
    BagRow,
    ByRow,
    Int8Projection,
    Int8Row,
    JoinedGatedUp,
    JoinedProjections,
    PackedProjection,
    PlainProjection,
    ProjectedUp,
    quantise_rows,
    quantise_weight,
)
from mainspring.core.attention import KeyValue, QueryKeyValue
from mainspring.core.feed_forward import GatedUp, Up
from mainspring.core.positions import RelativePositionBias

ATTENTION = spec.Attention(4, 2, 16, biases="qv")


def rows(count: int, width: int = 64) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (QueryKeyValue(ATTENTION, 64), JoinedProjections),
        (KeyValue(ATTENTION, 64), JoinedProjections),
        (Up(spec.FeedForward(96, "relu", bias=True), 64), ProjectedUp),
        (Up(spec.FeedForward(96, "silu"), 64), ProjectedUp),
        (GatedUp(spec.FeedForward(96, "gelu", True), 64), JoinedGatedUp),
    ],
)
@pytest.mark.parametrize("make", [PlainProjection, PackedProjection, Int8Projection])
@pytest.mark.parametrize("count", [1, 5, 300])
@torch.no_grad()
def test_joined_modules_equal_the_core(old: nn.Module, new: type, make: type, count: int) -> None:
    if make is PackedProjection and not packed.has_bfloat16():
        pytest.skip("no packed bfloat16 on this CPU")
    for at, parameter in enumerate(old.parameters()):
        generator = torch.Generator().manual_seed(at)
        parameter.copy_(torch.randn(parameter.shape, generator=generator) / 8)
    x = rows(count)
    found = new(old, make)(x)
    expected = old(x)
    if not isinstance(expected, tuple):
        found, expected = (found,), (expected,)
    # Of the largest output: some three roundings to 2^-9 of it each; 8 bits are 3 times as coarse.
    tolerance = {PlainProjection: 1e-5, PackedProjection: 0.012, Int8Projection: 0.04}[make]
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.float() - theirs).abs().max() < tolerance * theirs.abs().max()


@torch.no_grad()
def test_int8_product_is_exact_but_for_the_rounding_of_its_factors() -> None:
    weight = rows(96)
    layer = Int8Projection(weight, None, F.relu)
    integers, scale = quantise_weight(weight)
    rounded = integers * scale[:, None]
    assert (rounded - weight).abs().max() <= scale.max() / 2 + 1e-6
    for count in (1, 7):
        x = rows(count).bfloat16()
        x_integers, x_scale = quantise_rows(x)
        expected = (x_integers * x_scale.float() @ rounded.T).relu()
        assert torch.allclose(layer(x).float(), expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("biased", [False, True])
@torch.no_grad()
def test_a_single_row_has_a_layout_of_its_own(biased: bool) -> None:
    weight, bias = rows(96), rows(96)[:, 0] if biased else None
    integers, scale = quantise_weight(weight)
    rounded = integers * scale[:, None]
    x = rows(1) * 3 + 1
    expected = F.linear(x, rounded, bias).relu()
    bags = BagRow(weight, bias, F.relu)(x)
    assert torch.allclose(bags.float(), F.linear(x, weight, bias).relu(), rtol=0.02, atol=0.2)
    if not packed.has_int8_row():
        pytest.skip("no 8-bit product of a row on this CPU")
    both = ByRow(weight, bias, F.relu, make_row=Int8Row, make_many=PlainProjection)
    assert both(x).dtype == torch.bfloat16
    assert torch.allclose(both(x).float(), expected, rtol=0.02, atol=0.2)
    several = rows(5)
    assert torch.equal(both(several), F.linear(several, weight, bias).relu())


def test_row_quantisation_is_within_one_level_and_takes_zeros() -> None:
    x = torch.cat([rows(6) * torch.logspace(-6, 6, 6)[:, None], torch.zeros(1, 64)]).bfloat16()
    integers, scale = quantise_rows(x)
    assert integers.abs().max() <= 127
    error = (integers * scale.float() - x.float()).abs()
    assert bool((error <= 0.76 * scale.float()).all())
    assert int(integers[-1].abs().max()) == 0


@pytest.mark.parametrize("count", [1, 3, 700])
@pytest.mark.parametrize("size", [1e-4, 1.0, 1e3])
@torch.no_grad()
def test_norms_equal_torch(count: int, size: float) -> None:
    x = rows(count) * size
    rms = nn.RMSNorm(64, 1e-6)
    layer = nn.LayerNorm(64, 1e-5)
    for norm in (rms, layer):
        norm.weight.copy_(torch.rand(64) + 0.5)
    layer.bias.copy_(torch.rand(64))
    for old, new in ((rms, NarrowRMSNorm), (layer, NarrowLayerNorm)):
        assert torch.allclose(new(old, torch.float32)(x), old(x), rtol=1e-5, atol=1e-6)
        narrow = new(old, torch.bfloat16)(x)
        assert narrow.dtype == torch.bfloat16
        assert torch.equal(narrow, new(old, torch.float32)(x).bfloat16())


def test_groups_cover_all_rows_and_stay_small() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(0, 300, (50,), generator=generator)
    keep = torch.arange(300)[None] < lengths[:, None]
    found = groups(keep)
    assert sorted(row for rows, _ in found for row in rows.tolist()) == list(range(50))
    for rows, width in found:
        assert width == max(1, int(lengths[rows].max()))
        assert len(rows) == 1 or len(rows) * width <= TOKENS
    widths = [width for _, width in found]
    assert widths == sorted(widths)


@settings(deadline=None, max_examples=50, derandomize=True)
@given(
    queries=st.integers(1, 40),
    keys=st.integers(1, 40),
    start=st.integers(0, 30),
    both_ways=st.booleans(),
)
def test_a_laid_out_bias_is_the_cores(queries: int, keys: int, start: int, both_ways: bool) -> None:
    core = RelativePositionBias(spec.RelativeBias(8, 20), 3, both_ways)
    at = torch.arange(start, start + queries), torch.arange(keys)
    found = LaidOutBias(core)(*at)
    assert torch.equal(found, core(*at)) and found.is_contiguous()


@torch.no_grad()
def test_grouped_encoder_equals_the_core_at_real_tokens() -> None:
    from inference_models import encoder_decoder

    model = encoder_decoder()
    ids = torch.randint(3, 99, (20, 90), generator=torch.Generator().manual_seed(3))
    keep = torch.arange(90)[None] < torch.arange(10, 90, 4)[:, None]
    keep[4, :3] = False  # padding on the left
    assert len(groups(keep)) > 1
    grouped, table = GroupedEncoder(model.encoder), model.table(model.spec.encoder)
    for mask in (keep, None):
        expected = model.encode(ids, mask)
        found = grouped(ids, table, mask)
        if mask is not None:
            assert found[~mask].abs().max() == 0
            expected, found = expected[mask], found[mask]
        assert torch.allclose(found, expected, atol=1e-5)


def test_operators_are_tried_before_they_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*given: object) -> torch.Tensor:
        raise AttributeError("no such operator")

    def wrong(x: torch.Tensor, *given: object) -> torch.Tensor:
        return torch.full((len(x), 4), 1e3)

    checks = (packed.has_bfloat16, packed.has_int8, packed.has_int8_row)
    names = ("linear_bfloat16", "linear_int8", "row_int8")
    for replacement in (missing, wrong):
        for check, name in zip(checks, names, strict=True):
            monkeypatch.setattr(packed, name, replacement)
            assert check.__wrapped__() is False
