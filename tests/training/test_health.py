import math
from collections.abc import Sequence

import pytest
import torch
from torch import nn

import nano
from mainspring.errors import Diverged
from mainspring.training.health import (
    DivergenceWatch,
    first_nonfinite_module,
    first_nonfinite_parameter,
    largest_gradient,
    largest_weight,
)


def test_the_innermost_module_is_named() -> None:
    inner = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model = nn.Sequential(nn.Linear(2, 2), inner)
    with torch.no_grad():
        inner[1].weight.fill_(math.inf)
    assert first_nonfinite_module(model, lambda: model(torch.ones(1, 2))) == "1.1"
    assert not inner[1]._forward_hooks
    with torch.no_grad():
        inner[1].weight.fill_(1.0)
    assert first_nonfinite_module(model, lambda: model(torch.ones(1, 2))) is None


def test_weights_and_gradients_are_named() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert first_nonfinite_parameter(model) is None
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    with torch.no_grad():
        model[1].bias[0] = -1e9
    assert largest_weight(model) == "1.bias"
    assert model[0].bias.grad is not None
    model[0].bias.grad[1] = math.nan
    assert largest_gradient(model) == "0.bias"
    with torch.no_grad():
        model[0].weight[0, 0] = math.nan
    assert first_nonfinite_parameter(model) == "0.weight"


def watched(losses: list[float], before: Sequence[float] = ()) -> None:
    model = nano.bundle().model
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    watch = DivergenceWatch(before)
    for step, loss in enumerate(losses, len(before) + 1):
        watch.check(loss, step, model)


FALLING = [6.0 * 0.98**step for step in range(200)]


def test_an_ordinary_course_is_left_alone() -> None:
    watched(FALLING)
    watched([loss * (1.5 if step % 7 == 0 else 1.0) for step, loss in enumerate(FALLING)])
    watched([*FALLING, 8.0, *FALLING[-50:]])  # one odd batch


def test_few_or_tiny_losses_say_nothing() -> None:
    watched([0.68, 1.4, 2.1, 0.7, 0.6])
    learnt = [0.7 * 0.9**step for step in range(60)]
    watched([*learnt, *([0.002, 0.6, 0.002] * 20)])  # rows that a learnt task gets wrong


def test_a_loss_that_climbs_for_good_is_noticed() -> None:
    climbing = [6.0 * 0.9**step for step in range(30)] + [9.0] * 40
    with pytest.raises(Diverged, match=r"step \d+: the loss diverged .* `"):
        watched(climbing)


@pytest.mark.parametrize("cut", [5, 25, 150])
def test_a_resumed_run_is_judged_as_one_that_was_never_stopped(cut: int) -> None:
    watched(FALLING[cut:], before=FALLING[:cut])
    watched([0.02, *[0.3] * 30], before=[*FALLING, *[0.02] * 100][: 150 + cut])

    def ends(before: int) -> str:
        climbing = [*FALLING, *[9.0] * 40]
        with pytest.raises(Diverged) as raised:
            watched(climbing[before:], climbing[:before])
        return str(raised.value)

    assert ends(cut) == ends(0)
