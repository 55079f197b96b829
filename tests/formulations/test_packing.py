"""Packed rows: nothing lost, and the losses and gradients of the same examples unpacked."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring import registry
from mainspring.compute.training import prepare_for_training
from mainspring.core.init import build
from mainspring.core.model import Transformer
from mainspring.formulations import (
    IGNORED,
    EncodedRow,
    Formulation,
    SpecialIds,
    causal,
    sequence_to_sequence,
)
from mainspring.formulations.packing import joined, pack, pack_all, row_lengths

IDS = SpecialIds(pad=0, eos=1, start=2)
PAIRS = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 12)), max_size=40)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(PAIRS)
def test_every_example_is_in_one_row_and_rows_are_not_overfull(lengths):
    rows = pack(lengths, 32, 10)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    for row in rows:
        if len(row) > 1:
            assert sum(lengths[i][0] for i in row) <= 32
            assert sum(lengths[i][1] for i in row) <= 10


@settings(max_examples=30, deadline=None, derandomize=True)
@given(PAIRS.filter(len), st.integers(1, 400), st.integers(0, 3))
def test_packs_follow_from_lengths_and_seed(lengths, tokens, seed):
    packs = pack_all(lengths * 20, tokens, seed)
    assert packs == pack_all(lengths * 20, tokens, seed)
    assert sorted(i for row in packs for i in row) == list(range(20 * len(lengths)))
    source, target = row_lengths(lengths, tokens)
    for row in packs:
        held = [sum((lengths * 20)[i][side] for i in row) for side in (0, 1)]
        assert held[0] <= source and held[1] <= target


def test_short_pairs_leave_little_padding():
    generator = torch.Generator().manual_seed(0)
    lengths = [tuple(torch.randint(5, 60, (2,), generator=generator).tolist()) for _ in range(999)]
    packs = pack_all(lengths, 4096, 0)
    held = len(packs) * sum(row_lengths(lengths, 4096))
    assert sum(map(sum, lengths)) > 0.93 * held


FAMILIES: dict[str, tuple[Formulation, dict[str, Any]]] = {
    "t5": (sequence_to_sequence.FORMULATION, {"dropout_rate": 0.0}),
    "bart": (sequence_to_sequence.FORMULATION, {"dropout": 0.0, "max_position_embeddings": 32}),
    "llama": (causal.FORMULATION, {"num_attention_heads": 4, "num_key_value_heads": 2}),
    "gpt2": (
        causal.FORMULATION,
        {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "n_positions": 32},
    ),
    "gemma": (causal.FORMULATION, {"sliding_window": 4}),
}


def model(name: str) -> Transformer:
    """A small model without dropout; rows are longer than its position tables."""
    family = registry.find("families", name)
    example = next(e for e in family.examples if e["model_type"] != "gemma")
    config = {**example, **FAMILIES[name][1], "vocab_size": 90}
    off = {key: 0.0 for key in config if "dropout" in key}
    return build(family.spec({**config, **off}, ()), seed=1).train()


def examples(formulation: Formulation) -> list[EncodedRow]:
    generator = torch.Generator().manual_seed(5)

    def ids(length: int) -> list[int]:
        return [*torch.randint(3, 90, (length - 1,), generator=generator).tolist(), 1]

    lengths = [(9, 4), (20, 7), (5, 2), (11, 3), (3, 6)]
    if formulation is sequence_to_sequence.FORMULATION:
        return [EncodedRow(ids(source), ids(target)) for source, target in lengths]
    rows = []
    for prompt, answer in [*lengths, (0, 4)]:
        source = [*ids(prompt + 1)[:prompt], *ids(answer)]
        rows.append(EncodedRow(source, [IGNORED] * prompt + source[prompt:]))
    return rows


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", FAMILIES)
def test_packed_equals_unpacked(name: str, precision: Any) -> None:
    formulation, _ = FAMILIES[name]
    made, rows = model(name), examples(formulation)
    prepare_for_training(made, precision)
    packs = pack([formulation.lengths(row) for row in rows], 48, 16)
    assert len(packs) < len(rows)
    packed = formulation.collate([joined([rows[i] for i in row]) for row in packs], IDS, 0, 16)
    plain = formulation.collate(rows, IDS, 0, 16)
    assert packed.source_tokens == plain.source_tokens
    assert packed.target_tokens == plain.target_tokens
    weight = torch.arange(1.0, len(packs) + 1)
    weights = torch.empty(len(rows))
    for row, its_weight in zip(packs, weight, strict=True):
        weights[row] = its_weight
    results = []
    for batch, of_rows in ((packed, weight), (plain, weights)):
        found = (formulation.losses(made, batch) * of_rows).sum()
        # A bias of the keys shifts all scores of a query alike: its gradient is rounding.
        learnt = [p for name, p in made.named_parameters() if not name.endswith(".k.bias")]
        gradients = torch.autograd.grad(found, learnt, allow_unused=True, materialize_grads=True)
        results.append([found.detach(), *(g.to_dense() for g in gradients)])
    near = 1e-5 if precision == "float32" else 0.04
    for ours, theirs in zip(*results, strict=True):
        assert ours.isfinite().all()
        assert (ours - theirs).norm() <= near * theirs.norm() + 1e-6
