"""Positions against the formulas of their papers and `transformers`."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.t5.modeling_t5 import T5Attention

from mainspring import spec
from mainspring.core.positions import (
    RelativePositionBias,
    RotaryAngles,
    SinusoidalPositions,
    relative_bucket,
    rotate,
)

lean = settings(max_examples=60, deadline=None, derandomize=True, database=None)


@lean
@given(st.integers(4, 64), st.integers(1, 200), st.booleans())
def test_buckets_are_those_of_transformers(buckets: int, more: int, both_ways: bool) -> None:
    max_distance = buckets + more
    distance = torch.arange(-2 * max_distance, 2 * max_distance + 1)
    ours = relative_bucket(distance, buckets, max_distance, both_ways)
    theirs = T5Attention._relative_position_bucket(distance, both_ways, buckets, max_distance)
    assert torch.equal(ours, theirs)
    assert 0 <= int(ours.min()) <= int(ours.max()) < buckets


def test_near_distances_have_a_bucket_each_and_far_ones_share_the_last() -> None:
    bucket = relative_bucket(torch.arange(-200, 1), 32, 128, False)
    assert bucket[-16:].tolist() == list(range(15, -1, -1))
    assert (bucket[:73] == 31).all()


def test_the_bias_depends_on_the_distance_only() -> None:
    bias = RelativePositionBias(spec.RelativeBias(8, 20), heads=3, both_ways=True)
    at = torch.arange(6)
    whole = bias(at, at)
    assert whole.shape == (1, 3, 6, 6)
    assert torch.equal(whole, bias(at + 11, at + 11))
    assert torch.equal(whole[:, :, 4:], bias(at[4:], at))


def test_sinusoids_are_the_papers() -> None:
    added = SinusoidalPositions(spec.Sinusoidal(50), 6)(torch.zeros(1, 4, 6), torch.arange(4))[0]
    for at in range(4):
        for i in range(3):
            angle = at / 10_000 ** (2 * i / 6)
            assert added[at, i].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert added[at, i + 3].item() == pytest.approx(math.cos(angle), abs=1e-6)


def test_turned_queries_and_keys_meet_by_their_distance() -> None:
    torch.manual_seed(0)
    angles = RotaryAngles(spec.Rotary(), 8)
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)

    def score(at_query: int, at_key: int) -> float:
        turned = [rotate(x, angles(torch.tensor([at]))) for x, at in ((q, at_query), (k, at_key))]
        return float((turned[0] * turned[1]).sum())

    assert score(5, 2) == pytest.approx(score(105, 102), abs=1e-4)
    assert score(0, 0) == pytest.approx(float((q * k).sum()), abs=1e-5)
    assert abs(score(5, 2) - score(2, 5)) > 1e-3
