import math
from itertools import islice, pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import nano
from mainspring.errors import BadOption
from mainspring.training.loop import train
from mainspring.training.optimizer import (
    SCHEDULES,
    LearningRate,
    build_optimizer,
    clip_gradients,
)

lean = settings(max_examples=40, deadline=None, derandomize=True, database=None)


@lean
@given(
    st.integers(1, 2000),
    st.floats(0, 1),
    st.sampled_from(["linear", "cosine", "constant"]),
)
def test_the_rate_rises_to_its_peak_and_then_never_rises(
    total: int, warmup: float, schedule: str
) -> None:
    rates = [LearningRate(0.5, total, warmup, schedule).at(step) for step in range(total)]  # type: ignore[arg-type]
    top = rates.index(max(rates))
    assert max(rates) == pytest.approx(0.5)
    assert top == min(total, max(1, round(warmup * total))) - 1
    assert all(a < b for a, b in pairwise(rates[: top + 1]))
    assert all(a >= b for a, b in pairwise(rates[top:]))
    assert all(0 < rate <= 0.5 + 1e-9 for rate in rates)


def test_the_schedules_are_what_their_names_say() -> None:
    halfway = {name: SCHEDULES[name](0.25) for name in SCHEDULES}
    assert halfway["linear"] == 0.75
    assert halfway["cosine"] == pytest.approx(0.5 + math.sqrt(0.125))
    assert halfway["constant"] == 1.0


def test_only_matrices_decay_and_every_weight_is_in_one_group() -> None:
    model = nano.bundle().model
    optimizer = build_optimizer(model, "adamw", weight_decay=0.1)
    decays = {
        id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]
    }
    assert len(decays) == len(list(model.parameters()))
    linear = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}
    for name, parameter in model.named_parameters():
        assert decays[id(parameter)] == (0.1 if id(parameter) in linear else 0.0), name


def test_frozen_weights_are_left_out() -> None:
    model = nano.bundle().model
    model.tables.requires_grad_(False)
    optimizer = build_optimizer(model, "adamw", weight_decay=0.1)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert id(model.tables["tokens"].weight) not in held


@pytest.mark.parametrize("kind", ["adamw", "adafactor"])
def test_each_optimizer_learns(source_of, kind: str) -> None:
    bundle = nano.bundle(dropout=0.0)
    optimizer = build_optimizer(bundle.model, kind, weight_decay=0.0)  # type: ignore[arg-type]
    rate = LearningRate(1e-2, 40, 0.1, "linear")
    losses = [
        s.loss for s in islice(train(bundle.model, optimizer, source_of(bundle), rate.at), 24)
    ]
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])


def test_an_unknown_optimizer_is_named() -> None:
    with pytest.raises(BadOption, match="did you mean `adamw`"):
        build_optimizer(nn.Linear(2, 2), "adam", weight_decay=0.0)  # type: ignore[arg-type]


@lean
@given(st.lists(st.floats(-10, 10), min_size=1, max_size=5), st.floats(0, 5))
def test_clipping_bounds_the_joint_norm(values: list[float], most: float) -> None:
    parameters = [torch.zeros(2, requires_grad=True) for _ in values]
    for parameter, value in zip(parameters, values, strict=True):
        parameter.grad = torch.full((2,), value)
    before = math.sqrt(sum(2 * value**2 for value in values))
    assert clip_gradients(parameters, most) == pytest.approx(before, rel=1e-4, abs=1e-6)
    after = math.sqrt(sum(float((p.grad**2).sum()) for p in parameters if p.grad is not None))
    expected = before if most == 0 else min(before, most)
    assert after == pytest.approx(expected, rel=1e-4, abs=1e-5)
