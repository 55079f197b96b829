"""Kinds of parts: what pools, caps, counts and resizes, each against its formula."""

import json
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring import spec
from mainspring.core.attention import SelfAttention, attend, attend_reference
from mainspring.core.heads import POOLS
from mainspring.core.init import build
from mainspring.core.masks import AttentionMask
from mainspring.core.positions import (
    GridPositions,
    RotaryAngles,
    SinusoidalPositions,
    count_kept,
)

KEEP = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]).bool()


def test_pools_read_the_real_tokens_only():
    x = torch.randn(3, 4, 5)
    torch.testing.assert_close(POOLS["mean"](x, KEEP)[1], x[1, 1:3].mean(0))
    torch.testing.assert_close(POOLS["max"](x, KEEP)[0], x[0, :2].amax(0))
    torch.testing.assert_close(POOLS["last"](x, KEEP)[:2], torch.stack([x[0, 1], x[1, 2]]))
    for name, whole in (("mean", x.mean(1)), ("max", x.amax(1)), ("last", x[:, -1])):
        torch.testing.assert_close(POOLS[name](x, None), whole)
        assert POOLS[name](x, KEEP).isfinite().all()  # the row of padding too


def test_positions_count_the_real_tokens_and_go_on_behind_a_cache():
    at_T = torch.arange(4)
    assert count_kept(at_T, KEEP).tolist() == [[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0]]
    assert count_kept(at_T[2:], KEEP).tolist() == [[1, 1], [1, 1], [0, 0]]
    assert count_kept(at_T, None) is at_T


@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@given(st.floats(0.3, 20), st.booleans(), st.integers(0, 3))
def test_capped_attention_is_its_formula(cap, causal, hidden):
    q, k, v = (torch.randn(2, 2, 5, 4) for _ in range(3))
    keep = torch.arange(5)[None] >= torch.tensor([[hidden], [0]])
    kind = spec.CausalMask() if causal else spec.FullMask()
    mask = AttentionMask(kind, 5, 5, torch.device("cpu"), keep_BS=keep)
    got = attend(q, k, v, mask, None, 0.5, soft_cap=cap)
    scores = cap * torch.tanh(0.5 * q @ k.transpose(-2, -1) / cap)
    weights = scores.masked_fill(~mask.allowed(), -math.inf).softmax(-1).nan_to_num(0.0)
    torch.testing.assert_close(got, weights @ v)
    without = attend_reference(q, k, v, mask, None, 0.5)
    torch.testing.assert_close(attend(q, k, v, mask, None, 0.5), without)


def test_a_replacement_that_knows_no_cap_fails_instead_of_leaving_it_out():
    attention = spec.Attention(2, 2, 4, soft_cap=2.0)
    module = SelfAttention(attention, 8)
    x, mask = torch.randn(1, 3, 8), AttentionMask(spec.FullMask(), 3, 3, torch.device("cpu"))
    plain = SelfAttention(replace(attention, soft_cap=None), 8)
    plain.load_state_dict(module.state_dict())
    assert not torch.allclose(module(x, mask), plain(x, mask))
    module.attend = lambda q, k, v, mask, bias, scale, dropout: v
    with pytest.raises(TypeError, match="soft_cap"):
        module(x, mask)


def test_grid_positions_keep_the_tokens_around_and_resize_the_rest():
    embedding = spec.PatchEmbedding(patch=4, channels=3, rows=2, columns=3, before=1, after=2)
    positions = GridPositions(embedding, 6)
    table = positions.table.weight
    same = positions(torch.zeros(1, 9, 6), torch.empty(1, 3, 8, 12))
    torch.testing.assert_close(same[0], table)
    wide = positions(torch.zeros(1, 3 + 4 * 6, 6), torch.empty(1, 3, 16, 25))[0]
    torch.testing.assert_close(wide[:1], table[:1])
    torch.testing.assert_close(wide[-2:], table[-2:])
    torch.nn.init.ones_(positions.table.weight)
    level = positions(torch.zeros(1, 3 + 4 * 6, 6), torch.empty(1, 3, 16, 24))
    torch.testing.assert_close(level, torch.ones_like(level))


def test_closed_sinusoids_end_at_the_longest_wave():
    x, at = torch.zeros(1, 3, 8), torch.arange(3)
    closed = SinusoidalPositions(spec.Sinusoidal(9, first=2, closed=True), 8)(x, at)
    torch.testing.assert_close(closed[0, :, 3], torch.sin(torch.tensor([2.0, 3.0, 4.0]) / 10_000))
    open_ = SinusoidalPositions(spec.Sinusoidal(9), 8)(x, at)
    torch.testing.assert_close(open_[0, :, 1], torch.sin(torch.arange(3.0) / 10))


@pytest.mark.parametrize(
    "scaling",
    [
        spec.LinearScaling(4.0),
        spec.BandedScaling(4.0, 1.0, 4.0, 64),
        spec.YarnScaling(4.0, 64, 1.0),
    ],
)
def test_rotary_scaling_slows_the_slowest_channel_by_its_factor(scaling):
    at = torch.tensor([1])
    plain = RotaryAngles(spec.Rotary(10_000.0), 32)
    scaled = RotaryAngles(spec.Rotary(10_000.0, scaling), 32)
    slowest = [angles(at)[1][0, 15] for angles in (plain, scaled)]
    torch.testing.assert_close(slowest[0] / slowest[1], torch.tensor(4.0), rtol=1e-3, atol=0)
    fastest = [angles(at)[1][0, 0] for angles in (plain, scaled)]
    if not isinstance(scaling, spec.LinearScaling):
        torch.testing.assert_close(*fastest)


def test_a_model_of_every_kind_survives_json_and_names_its_readings():
    norm = spec.RMSNorm()
    attention = spec.Attention(
        2, 1, 4, "q", 0.3, spec.Rotary(5.0, spec.LinearScaling(2.0)), 0.0, 3.0, norm
    )
    layer = spec.Layer(attention, spec.FeedForward(8, "tanh"), norm, norm_placement="sandwich")
    embedding = spec.PatchEmbedding(2, 3, 2, 2, before=2, after=1, every_layer=True)
    stack = spec.Stack(8, embedding, (layer, layer), embedding_norm=norm)
    heads = (
        ("embedding", spec.EmbeddingHead("mean", "tanh", normalised=True)),
        ("classes", spec.ClassHead(3, hidden="gelu_sigmoid")),
        ("averaged", spec.AveragedClassHead(3)),
        ("each", spec.TokenClassHead(4)),
        ("boxes", spec.SlotHead(1, 4, sigmoid=True)),
    )
    model = spec.Model(stack, heads=heads)
    assert spec.from_dict(json.loads(json.dumps(spec.to_dict(model)))) == model
    out = build(model, seed=0).eval()(pixel_values=torch.randn(2, 3, 4, 4))
    shapes = {name: tuple(reading.shape) for name, reading in out.readings.items()}
    assert shapes == {
        "embedding": (2, 8),
        "classes": (2, 3),
        "averaged": (2, 3),
        "each": (2, 7, 4),
        "boxes": (2, 1, 4),
    }
    assert out.logits is out.readings["classes"]
    torch.testing.assert_close(out.readings["embedding"].norm(dim=-1), torch.ones(2))
    assert ((out.readings["boxes"] > 0) & (out.readings["boxes"] < 1)).all()


def test_one_kind_of_input_is_given():
    stack = spec.Stack(8, spec.TokenEmbedding(9), ())
    model = build(spec.Model(stack), seed=0)
    for given_inputs in ({}, {"input_ids": torch.ones(1, 1), "pixel_values": torch.ones(1, 1)}):
        with pytest.raises(TypeError, match="one of"):
            model(**given_inputs)
