import numpy as np
import pytest
import torch

import nano
from mainspring.formulations import EncodedRow, Limits, Setup, source_and_target
from mainspring.training.preflight import (
    data_lengths,
    peak_bytes,
    side_lengths,
    time_steps,
)
from mainspring.training.rows import EncodedRows


def test_lengths_count_what_a_limit_takes_away() -> None:
    kept, lost = np.array([10, 10, 4, 6]), np.array([30, 0, 0, 0])
    lengths = side_lengths(kept, lost, 10)
    assert lengths.percentiles == (10, 40, 40, 40)
    assert (lengths.rows_cut, lengths.tokens_lost) == (0.25, 0.5)
    assert str(lengths) == (
        "p50 10  p95 40  p99 40  max 40 | limit 10: 25.0% of rows lose text, 50.0% of all tokens"
    )


def test_both_sides_of_the_rows_are_counted() -> None:
    rows = EncodedRows([EncodedRow([5] * 8, [6] * 3, 2, 0), EncodedRow([5] * 4, [6] * 3, 0, 1)])
    source, target = data_lengths(rows, Limits(8, 3))
    assert (source.percentiles[-1], source.rows_cut) == (10, 0.5)
    assert (target.percentiles[-1], target.tokens_lost) == (4, pytest.approx(1 / 7))


def test_the_picture_marks_the_tokens_that_carry_loss() -> None:
    tokenizer, setup = nano.tokenizer(), Setup(Limits(99, 99))
    source, target = (tokenizer.encode(text) for text in ("river garden", "quiet."))
    words = [" ".join(tokenizer.tokens(side)) for side in (source, target)]
    picture = source_and_target(EncodedRow(source, target), tokenizer, setup)
    assert picture == f"░ {words[0]} ░ → ■ {words[1]} ■"
    long = source_and_target(EncodedRow(source * 20, target), tokenizer, setup)
    assert f"… {len(source) * 20 - 12} more …" in long


def test_timing_changes_no_weight_and_leaves_no_gradient(source_of) -> None:
    bundle = nano.bundle()
    before = {name: t.clone() for name, t in bundle.model.state_dict().items()}
    timing = time_steps(bundle.model, source_of(bundle, accumulate=2))
    assert timing.tokens_per_second > 0
    assert 0 < timing.peak_bytes <= peak_bytes()
    for name, tensor in bundle.model.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert all(p.grad is None for p in bundle.model.parameters())
