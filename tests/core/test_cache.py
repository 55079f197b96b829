"""The cache: what was appended comes back, also after growing, reordering and forgetting."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.core.cache import Cache, moved_places, take_rows

lean = settings(max_examples=60, deadline=None, derandomize=True, database=None)
HEADS, WIDTH = 2, 3


@st.composite
def histories(draw: st.DrawFn) -> tuple[int, int, list[tuple[str, list[int]]]]:
    """Rows at first, capacity, and what happens: append n, reorder to rows, truncate to n."""
    rows = first = draw(st.integers(1, 3))
    steps: list[tuple[str, list[int]]] = [("append", [draw(st.integers(1, 3))])]
    for _ in range(draw(st.integers(0, 6))):
        what = draw(st.sampled_from(("append", "append", "reorder", "truncate")))
        if what == "reorder":
            taken = draw(st.lists(st.integers(0, rows - 1), min_size=1, max_size=5))
            steps.append((what, taken))
            rows = len(taken)
        else:
            steps.append((what, [draw(st.integers(1, 3))]))
    return first, draw(st.integers(1, 12)), steps


@lean
@given(histories())
def test_holds_what_concatenation_would(history: tuple) -> None:
    rows, capacity, steps = history
    generator = torch.Generator().manual_seed(0)
    cache, wanted = Cache(2, capacity), torch.empty(rows, HEADS, 0, WIDTH)
    for what, numbers in steps:
        if what == "append":
            new = torch.randn(len(wanted), HEADS, numbers[0], WIDTH, generator=generator)
            wanted = torch.cat([wanted, new], 2)
            for i, layer in enumerate(cache.layers):
                keys, values = layer.append(new + i, new - i)
                assert torch.equal(keys, wanted + i)
                assert torch.equal(values, wanted - i)
        elif what == "reorder":
            cache.reorder(torch.tensor(numbers))
            wanted = wanted[numbers]
        else:
            kept = max(0, wanted.shape[2] - numbers[0])
            cache.truncate(kept)
            wanted = wanted[:, :, :kept]
        assert (cache.length, cache.rows) == (wanted.shape[2], len(wanted))
    assert cache.bytes() >= 4 * wanted.numel() * 2 * len(cache.layers)


def test_the_source_part_is_reordered_by_its_own_rows() -> None:
    cache = Cache(1, 4)
    layer = cache.layers[0]
    layer.append(torch.zeros(4, HEADS, 1, WIDTH), torch.zeros(4, HEADS, 1, WIDTH))
    keys = torch.arange(2.0)[:, None, None, None].expand(2, HEADS, 5, WIDTH).clone()
    layer.cross = keys.clone(), keys + 10
    cache.reorder(torch.tensor([2, 3]), torch.tensor([1]))
    assert torch.equal(layer.cross[0], keys[1:])
    assert torch.equal(layer.cross[1], keys[1:] + 10)
    assert cache.rows == 2


def test_an_empty_cache_holds_nothing() -> None:
    cache = Cache(2, 8)
    cache.reorder(torch.tensor([0, 0]))
    assert (cache.length, cache.rows, cache.bytes()) == (0, 0, 0)


def test_positions_before_since_are_not_touched() -> None:
    cache, wanted = Cache(1, 6), torch.randn(3, HEADS, 5, WIDTH)
    cache.layers[0].append(wanted.clone(), wanted + 1)
    cache.reorder(torch.tensor([0, 0, 1]), since=3)
    nothing = wanted[:, :, :0]
    for got, was in zip(
        cache.layers[0].append(nothing, nothing), (wanted, wanted + 1), strict=True
    ):
        assert torch.equal(got[:, :, :3], was[:, :, :3])
        assert torch.equal(got[:, :, 3:], was[[0, 0, 1], :, 3:])


def test_rows_that_stay_are_not_copied() -> None:
    x = torch.arange(12.0).view(4, 3)
    kept = take_rows(x, torch.tensor([0, 3, 2]))
    assert kept.data_ptr() == x.data_ptr()
    assert kept[:, 0].tolist() == [0, 9, 6]
    assert moved_places(torch.tensor([0, 3, 2])).tolist() == [1]
