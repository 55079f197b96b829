"""Packed rows: nothing lost, and the losses and gradients of the same examples unpacked."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.compute.training import prepare_for_training
from mainspring.core.init import build
from mainspring.families.t5 import FAMILY
from mainspring.formulations import EncodedRow, SpecialIds
from mainspring.formulations.packing import collate_packed, pack, packed_losses
from mainspring.formulations.sequence_to_sequence import collate, losses

IDS = SpecialIds(pad=0, eos=1, start=0)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 12)), max_size=40))
def test_every_example_is_in_one_row_and_rows_are_not_overfull(lengths):
    rows = pack(lengths, 32, 10)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    for row in rows:
        if len(row) > 1:
            assert sum(lengths[i][0] for i in row) <= 32
            assert sum(lengths[i][1] for i in row) <= 10


def examples() -> list[EncodedRow]:
    generator = torch.Generator().manual_seed(5)

    def ids(length: int) -> list[int]:
        return [*torch.randint(3, 90, (length - 1,), generator=generator).tolist(), 1]

    return [EncodedRow(ids(s), ids(t)) for s, t in [(9, 4), (20, 7), (5, 2), (11, 3), (3, 6)]]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_packed_equals_unpacked(precision):
    config = {
        **FAMILY.sizes["t5-tiny"],
        "d_model": 64,
        "d_kv": 16,
        "d_ff": 96,
        "num_layers": 2,
        "num_decoder_layers": 2,
        "vocab_size": 90,
        "dropout_rate": 0.0,
    }
    model = build(FAMILY.spec(config, ()), seed=1).train()
    prepare_for_training(model, precision)
    rows = pack([(len(e.source), len(e.target)) for e in examples()], 32, 16)
    assert len(rows) < len(examples())
    packed = collate_packed(examples(), rows, IDS)
    plain = collate(examples(), IDS, 0, 16)
    assert (packed.source_tokens, packed.target_tokens) == (
        plain.source_tokens,
        plain.target_tokens,
    )
    results = []
    for found in (packed_losses(model, packed), losses(model, plain)):
        weight = torch.arange(1.0, 6.0)
        gradients = torch.autograd.grad((found * weight).sum(), list(model.parameters()))
        results.append([found.detach(), *(g.to_dense() for g in gradients)])
    near = 1e-5 if precision == "float32" else 0.03
    for ours, theirs in zip(*results, strict=True):
        assert ours.isfinite().all()
        assert (ours - theirs).norm() <= near * theirs.norm()
