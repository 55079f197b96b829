"""Cheap dropout: fair, independent, fixed by the seed."""

import pytest
import torch

from mainspring.compute.dropout import (
    PIECE,
    Draw,
    Dropout,
    drop,
    keep_mask,
    kept_scale,
)
from mainspring.compute.native import library

CPU = torch.device("cpu")


@pytest.fixture(params=["torch", "kernels"])
def way(request, monkeypatch):
    """How `drop` draws: by torch's operators, or by our own kernels."""
    if request.param == "torch":
        monkeypatch.setattr(library, "kernels", lambda: None)
    elif library.kernels() is None:
        pytest.skip(f"no kernels: {library.why_not()}")
    return request.param


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_forward_and_backward_use_one_mask(dtype, share, way):
    torch.manual_seed(0)
    x = torch.randn(64, 1000, dtype=dtype, requires_grad=True)
    y = drop(x, share)
    y.sum().backward()
    kept = y != 0
    assert abs(kept.float().mean().item() - (1 - share)) < 0.01
    scale = kept_scale(share) if way == "torch" else 1 / (1 - share)
    torch.testing.assert_close(y, torch.where(kept, x * scale, 0.0))
    torch.testing.assert_close(x.grad, torch.where(kept, scale, 0.0).to(dtype))


def test_the_expectation_is_exact(way):
    torch.manual_seed(0)
    mean = drop(torch.ones(4_000_000), 0.1).mean().item()
    # Five standard errors.
    assert abs(mean - 1.0) < 5 * (0.1 / 0.9 / 4e6) ** 0.5


def test_every_lane_and_place_is_equally_likely():
    torch.manual_seed(0)
    drops = Draw(4096 * 2000, torch.int16, CPU).dropped(4096 * 2000, 0.1).view(2000, 4096).float()
    by_place = drops.mean(0)
    error = (0.1 * 0.9 / 2000) ** 0.5
    assert abs(by_place.mean().item() - 0.1) < 5 * error / 4096**0.5
    assert abs(by_place.std().item() / error - 1.0) < 0.1
    by_lane = by_place.view(-1, 4).mean(0)
    assert (by_lane - 0.1).abs().max() < 5 * error / 1024**0.5


@pytest.mark.parametrize("apart", [1, 2, 3, 4, 8, 16, 1024, 4096])
def test_places_are_uncorrelated(apart, way):
    torch.manual_seed(0)
    drops = (drop(torch.ones(4_000_000), 0.1) == 0).double() - 0.1
    correlation = (drops[:-apart] * drops[apart:]).mean().item() / 0.09
    assert abs(correlation) < 5 / 4e6**0.5


def test_words_have_fair_and_independent_bits():
    torch.manual_seed(0)
    words = Draw(500 * 4096, torch.int16, CPU).random_words(500).view(-1)
    bits = torch.stack([(words >> i) & 1 for i in range(64)]).double() * 2 - 1
    correlations = bits @ bits.t() / bits.shape[1]
    correlations.fill_diagonal_(0)
    assert bits.mean(1).abs().max() < 5 / bits.shape[1] ** 0.5
    assert correlations.abs().max() < 5.5 / bits.shape[1] ** 0.5
    assert len(words.unique()) == len(words)


def test_the_seed_fixes_the_mask_whatever_the_threads():
    before = torch.get_num_threads()
    masks = []
    for threads, seed in ((1, 5), (2, 5), (1, 6)):
        torch.set_num_threads(threads)
        torch.manual_seed(seed)
        masks.append(keep_mask(PIECE + 77, 0.3, torch.int16, CPU))
    torch.set_num_threads(before)
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_nothing_is_dropped_outside_training_or_with_share_zero():
    x = torch.randn(5, 7)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x
