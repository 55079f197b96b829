"""Tensor names and shapes of real checkpoints, without their weights: all are accounted for."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from family_oracle import family_of

from mainspring import registry
from mainspring.core.init import build
from mainspring.weights.maps import is_ignored, to_ours, to_theirs

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "families"
RECORDS = {
    record["checkpoint"]: record
    for file in sorted(GOLDEN.glob("*.json"))
    for record in json.loads(file.read_text())
}

INDEXES = {r["checkpoint"]: r for r in json.loads((GOLDEN.parent / "indexes.json").read_text())}


def full_names(short: str) -> list[str]:
    """ "{0-11}" in a name stands for twelve."""
    several = re.search(r"\{0-(\d+)\}", short)
    numbers = range(int(several[1]) + 1) if several else (0,)
    return [re.sub(r"\{.*\}", str(i), short) for i in numbers]


def tensors(record: dict) -> dict[str, torch.Tensor]:
    """The checkpoint's tensors on the meta device."""
    return {
        name: torch.empty(shape, device="meta")
        for short, shape in record["tensors"].items()
        for name in full_names(short)
    }


def test_every_family_has_a_checkpoint():
    types = {record["config"]["model_type"] for record in RECORDS.values()}
    for name in registry.names("families"):
        assert types & set(registry.find("families", name).model_types)


@pytest.mark.parametrize("checkpoint", RECORDS)
def test_all_tensors_of_a_real_checkpoint_are_accounted_for(checkpoint):
    record = RECORDS[checkpoint]
    config, stored = record["config"], tensors(record)
    family = family_of(config["model_type"])
    named = {family.canonical(name): tensor for name, tensor in stored.items()}
    for name in record.get("repeats", ()):  # left out in loading, where it equals the other
        assert family.aliases[name] in named
        del named[name]
    model = build(family.spec(config, named.keys()))
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    unread = [replace(entry, holds=None) for entry in family.ignored]  # tensors without numbers
    ours = to_ours(family.pairs(model.spec), named, expected, unread)
    saved = to_theirs(family.pairs(model.spec), ours)
    assert {name: saved[name].shape for name in saved} == {
        name: tensor.shape
        for name, tensor in named.items()
        if name in saved or not is_ignored(name, family.ignored)
    }


@pytest.mark.parametrize("checkpoint", INDEXES)
def test_what_is_saved_has_the_names_and_the_size_of_a_published_checkpoint(checkpoint):
    """By the index that lies beside the shards of checkpoints of billions of weights."""
    record = INDEXES[checkpoint]
    config, names = record["config"], {n for short in record["names"] for n in full_names(short)}
    family = family_of(config["model_type"])
    model = build(family.spec(config, names))
    saved = to_theirs(family.pairs(model.spec), model.state_dict())
    assert set(saved) == names
    width = getattr(torch, record["dtype"]).itemsize
    assert sum(tensor.numel() for tensor in saved.values()) * width == record["bytes"]
