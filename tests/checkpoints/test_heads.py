"""A body keeps its weights and gets a fresh head, the same from the same seed."""

from typing import Any

import pytest
import torch

import nano
from mainspring.checkpoints.bundle import Bundle, new_bundle
from mainspring.checkpoints.heads import with_head
from mainspring.core import init
from mainspring.core.init import build

LABELS = ("bad", "good", "mixed")


@pytest.fixture(scope="module", params=["bert-tiny", "llama-tiny"])
def body(request: pytest.FixtureRequest) -> Bundle:
    return new_bundle(request.param, nano.tokenizer(), 3)


def test_a_fresh_head_has_the_bits_of_a_model_drawn_whole(body: Bundle) -> None:
    made = with_head(body, "classes", LABELS, 5)
    weights, had = made.model.state_dict(), body.model.state_dict()
    wanted = build(made.spec, 5).state_dict()
    assert weights.keys() == wanted.keys()
    wanted |= {name: weight for name, weight in had.items() if not name.startswith("heads.")}
    for name, weight in had.items():  # a hidden layer of a head that was there is taken along
        if ".hidden." in name and name.startswith("heads."):
            wanted["heads.classes.hidden." + name.partition(".hidden.")[2]] = weight
    assert all(torch.equal(weight, wanted[name]) for name, weight in weights.items())
    assert weights["heads.classes.out.weight"].shape[0] == len(LABELS)
    assert all(parameter.requires_grad for parameter in made.model.parameters())


def test_no_more_is_drawn_than_the_head(body: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = 0
    real = torch.randn

    def randn(shape: Any, **options: Any) -> torch.Tensor:
        nonlocal drawn
        values = real(shape, **options)
        drawn += values.numel()
        return values

    monkeypatch.setattr(init.torch, "randn", randn)
    made = with_head(body, "classes", LABELS, 5)
    assert 0 < drawn <= sum(p.numel() for p in made.model.heads.parameters())
