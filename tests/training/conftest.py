"""Rows and batch sources for the nano model."""

import pytest

import nano
from mainspring.checkpoints.bundle import Bundle
from mainspring.data.batches import plan_batches
from mainspring.formulations import Limits, Setup, sequence_to_sequence, special_ids
from mainspring.training.loop import BatchSource
from mainspring.training.rows import EncodedRows


@pytest.fixture(scope="session")
def rows() -> EncodedRows:
    pairs = [{"text": row["article"], "target": row["summary"]} for row in nano.pairs(24)]
    setup = Setup(Limits(64, 16))
    return EncodedRows(sequence_to_sequence.encode(pairs, nano.tokenizer(), setup))


@pytest.fixture
def source_of(rows: EncodedRows):
    """source_of(bundle, accumulate=1, per_batch=8): where steps get their micro-batches from."""

    def make(bundle: Bundle, accumulate: int = 1, per_batch: int = 8, seed: int = 7) -> BatchSource:
        form = sequence_to_sequence.FORMULATION
        lengths = [form.lengths(rows[row]) for row in range(len(rows))]
        ids = special_ids(nano.tokenizer(), bundle.config)
        return BatchSource(
            rows,
            form,
            ids,
            lambda epoch: plan_batches(lengths, rows=per_batch, seed=seed, epoch=epoch),
            seed,
            accumulate,
        )

    return make
