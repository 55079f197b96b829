"""The batch plan."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.data.batches import plan_batches, rounded
from mainspring.errors import BadOption

LENGTHS = st.lists(st.tuples(st.integers(1, 400), st.integers(0, 60)), max_size=120)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    lengths=LENGTHS,
    tokens=st.integers(1, 3000),
    multiple=st.sampled_from([1, 8, 16, 64]),
    max_rows=st.none() | st.integers(1, 20),
    epoch=st.integers(0, 3),
)
def test_every_row_once_within_the_budget(
    lengths: list[tuple[int, int]],
    tokens: int,
    multiple: int,
    max_rows: int | None,
    epoch: int,
) -> None:
    def plan():
        return plan_batches(
            lengths, tokens=tokens, seed=3, epoch=epoch, multiple=multiple, max_rows=max_rows
        )

    found = plan()
    assert sorted(row for batch in found.batches for row in batch) == list(range(len(lengths)))
    for batch, (source, target) in zip(found.batches, found.shapes, strict=True):
        assert len(batch) == 1 or len(batch) * (source + target) <= tokens
        assert max_rows is None or len(batch) <= max_rows
        assert source >= max(lengths[row][0] for row in batch)
        assert target >= max(lengths[row][1] for row in batch)
    assert found.hash == plan().hash
    assert 0 <= found.padding < 1


@settings(deadline=None, max_examples=30, derandomize=True)
@given(LENGTHS.filter(len), st.integers(1, 9))
def test_fixed_rows(lengths: list[tuple[int, int]], rows: int) -> None:
    found = plan_batches(lengths, rows=rows, seed=0, epoch=0)
    sizes = sorted(map(len, found.batches), reverse=True)
    assert sizes[:-1] == [rows] * (len(sizes) - 1)
    assert sorted(row for batch in found.batches for row in batch) == list(range(len(lengths)))


def test_padding_is_what_it_says() -> None:
    found = plan_batches([(10, 2), (8, 4)], rows=2, seed=0, epoch=0, multiple=1)
    assert found.shapes == ((10, 4),)
    assert found.padded_tokens == 28
    assert found.padding == pytest.approx(4 / 28)


def test_epochs_and_seeds_differ() -> None:
    lengths = [(n % 50 + 1, n % 7 + 1) for n in range(2000)]
    plans = [
        plan_batches(lengths, tokens=1000, seed=seed, epoch=epoch)
        for seed, epoch in ((1, 0), (1, 1), (2, 0))
    ]
    assert len({plan.hash for plan in plans}) == 3
    # Not the order of the batches alone: rows change company too.
    assert len({frozenset(map(frozenset, plan.batches)) for plan in plans}) == 3


def test_the_plan_is_the_same_on_every_machine_and_for_ever() -> None:
    lengths = [(n * 37 % 211 + 1, n * 11 % 23 + 1) for n in range(300)]
    found = plan_batches(lengths, tokens=2048, seed=42, epoch=1)
    assert found.hash == ("ec5e6000ab396891ffae15092dc914142fc16d4a040c96dd2eb6a140a526f229")


def test_rounding() -> None:
    assert rounded(np.array([0, 1, 11, 31, 33, 70, 130, 300, 512]), 16).tolist() == (
        [0, 1, 11, 31, 34, 72, 136, 304, 512]
    )
    lengths = np.arange(1, 5000)
    for multiple in (1, 8, 16, 32):
        up = rounded(lengths, multiple)
        assert (up >= lengths).all()
        assert ((up - lengths) * 16 < lengths + 16).all()
        assert (up[lengths >= 16 * multiple] % multiple == 0).all()


def test_options_out_of_range() -> None:
    for options in ({}, {"tokens": 8, "rows": 8}, {"tokens": 0}, {"rows": 2, "max_rows": 0}):
        with pytest.raises(BadOption):
            plan_batches([(1, 1)], seed=0, epoch=0, **options)
    with pytest.raises(BadOption, match="power of two"):
        plan_batches([(1, 1)], tokens=8, seed=0, epoch=0, multiple=12)


def test_no_rows() -> None:
    found = plan_batches([], tokens=10, seed=0, epoch=0)
    assert (found.batches, found.padding) == ((), 0.0)


def test_real_lengths_have_little_padding(shared_data: Path) -> None:
    """Words and punctuation stand for tokens: their spread is what matters."""
    import re

    file = shared_data / "summarization" / "debian_synopsis_en" / "train.jsonl"
    lengths = []
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        sizes = [len(re.findall(r"\w{1,6}|[^\w\s]", row[side])) for side in ("document", "summary")]
        lengths.append((min(sizes[0] + 1, 512), min(sizes[1] + 1, 128)))
    for epoch in (0, 1):
        assert plan_batches(lengths, tokens=4096, seed=1, epoch=epoch).padding < 0.05


@pytest.mark.slow
def test_a_million_rows() -> None:
    random = np.random.default_rng(0)
    lengths = np.stack(
        [random.lognormal(4.5, 0.6, 10**6).astype(int) + 1, random.poisson(12, 10**6) + 1], 1
    )
    start = time.process_time()
    found = plan_batches(lengths, tokens=8192, seed=0, epoch=0)
    assert time.process_time() - start < 20
    assert found.padding < 0.03
    assert sum(map(len, found.batches)) == 10**6
