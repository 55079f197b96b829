import math
from collections.abc import Callable
from itertools import islice

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import nano
from mainspring.checkpoints.bundle import Bundle
from mainspring.compute.training import prepare_for_training
from mainspring.errors import Diverged
from mainspring.training.loop import BatchSource, Step, evaluate_loss, micro_batch_seed, train
from mainspring.training.optimizer import LearningRate, build_optimizer

SourceOf = Callable[..., BatchSource]

STEADY = LearningRate(1e-3, 1000, 0.0, "constant").at


class Recorder(torch.optim.SGD):
    """Keeps the gradients it was given and changes no weight."""

    def __init__(self, model: nn.Module):
        super().__init__(model.parameters(), lr=0.0)
        self.model = model
        self.seen: list[dict[str, Tensor]] = []

    def step(self, closure: None = None) -> None:
        named = self.model.named_parameters()
        self.seen.append({n: p.grad.clone() for n, p in named if p.grad is not None})


def gradients(bundle: Bundle, source: BatchSource) -> tuple[dict[str, Tensor], Step]:
    """The gradients of one step, and the step."""
    recorder = Recorder(bundle.model)
    step = next(train(bundle.model, recorder, source, STEADY, clip=0))
    return recorder.seen[0], step


def trained(source_of: SourceOf, steps: int, **options: int) -> dict[str, Tensor]:
    bundle = nano.bundle(seed=1)
    optimizer = build_optimizer(bundle.model, "adamw", weight_decay=0.01)
    for _ in islice(train(bundle.model, optimizer, source_of(bundle, **options), STEADY), steps):
        pass
    return bundle.model.state_dict()


# -- gradient accumulation ------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [2, 3, 8])
def test_a_batch_of_eight_is_eight_batches_of_one(source_of: SourceOf, parts: int) -> None:
    bundle = nano.bundle(dropout=0.0)
    whole, one = gradients(bundle, source_of(bundle))
    split, many = gradients(bundle, source_of(bundle, accumulate=parts))
    assert many.loss == pytest.approx(one.loss, rel=1e-6)
    assert (many.tokens, many.target_tokens) == (one.tokens, one.target_tokens)
    assert whole.keys() == split.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(split[name], gradient, rtol=1e-4, atol=1e-7, msg=name)


def test_the_divisor_is_the_number_of_target_tokens(source_of: SourceOf) -> None:
    bundle = nano.bundle(dropout=0.0)
    source = source_of(bundle)
    made, step = gradients(bundle, source)
    batches = [source.micro_batch([row], 0, 0) for row in source.plan(0).batches[0]]
    counts = [batch.target_tokens for batch in batches]
    assert len(set(counts)) > 1  # else a mean of means would be right too
    nats = [source.formulation.losses(bundle.model, batch).sum() for batch in batches]
    loss = torch.stack(nats).sum() / sum(counts)
    bundle.model.zero_grad()
    loss.backward()
    assert step.loss == pytest.approx(loss.item(), rel=1e-6)
    assert step.target_tokens == sum(counts)
    for name, parameter in bundle.model.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(made[name], parameter.grad, rtol=1e-4, atol=1e-7, msg=name)


def test_more_parts_than_rows_are_as_many_as_rows(source_of: SourceOf) -> None:
    source = source_of(nano.bundle(), accumulate=100, per_batch=5)
    parts = next(source.batches(0))
    assert [len(part) for part in parts] == [1] * 5


# -- the same bits --------------------------------------------------------------------------------


def test_batches_go_on_where_they_were_left_also_in_a_later_epoch(source_of: SourceOf) -> None:
    source = source_of(nano.bundle(), accumulate=2)
    straight = list(islice(source.batches(0), 11))  # an epoch has three
    for first in range(11):
        assert list(islice(source.batches(first), 11 - first)) == straight[first:]
    assert straight[:3] != straight[3:6]


def test_every_micro_batch_has_its_own_seed() -> None:
    seeds = {micro_batch_seed(s, t, m) for s in range(3) for t in range(20) for m in range(4)}
    assert len(seeds) == 3 * 20 * 4
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_the_same_seed_gives_the_same_bits_whatever_was_drawn_before(source_of: SourceOf) -> None:
    first = trained(source_of, 4)
    torch.manual_seed(99)
    np.random.seed(99)
    again, other = trained(source_of, 4), trained(source_of, 4, seed=8)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_dropout_differs_from_step_to_step(source_of: SourceOf) -> None:
    bundle = nano.bundle(dropout=0.3)
    source = source_of(bundle, per_batch=24)  # the same rows in each step
    still = Recorder(bundle.model)
    losses = [step.loss for step in islice(train(bundle.model, still, source, STEADY), 3)]
    assert len(set(losses)) == 3


# -- what a step says -----------------------------------------------------------------------------


def test_steps_count_from_one_and_tokens_are_real_ones(source_of: SourceOf) -> None:
    bundle = nano.bundle()
    source = source_of(bundle)
    optimizer = build_optimizer(bundle.model, "adamw", weight_decay=0.0)
    steps = list(islice(train(bundle.model, optimizer, source, STEADY, first=2), 2))
    assert [step.number for step in steps] == [3, 4]
    for step, parts in zip(steps, source.batches(2), strict=False):
        examples = [source.rows[row] for part in parts for row in part]
        assert step.tokens == sum(len(e.source) + len(e.target) for e in examples)
        assert step.target_tokens == sum(len(e.target) for e in examples)
        assert math.isfinite(step.loss) and step.gradient_norm > 0 and step.seconds > 0


def test_refresh_is_called_after_each_change_of_the_weights(source_of: SourceOf) -> None:
    bundle = nano.bundle()
    optimizer = build_optimizer(bundle.model, "adamw", weight_decay=0.0)
    seen = [bundle.model.tables["tokens"].weight.detach().clone()]
    steps = train(
        bundle.model,
        optimizer,
        source_of(bundle),
        STEADY,
        refresh=lambda: seen.append(bundle.model.tables["tokens"].weight.detach().clone()),
    )
    list(islice(steps, 2))
    assert len(seen) == 3
    assert not torch.equal(seen[0], seen[1]) and not torch.equal(seen[1], seen[2])


def test_evaluation_is_the_mean_over_tokens_and_leaves_training_alone(source_of: SourceOf) -> None:
    bundle = nano.bundle(dropout=0.5)
    source = source_of(bundle)
    bundle.model.train()
    whole = evaluate_loss(bundle.model, source)
    assert bundle.model.training
    assert evaluate_loss(bundle.model, source_of(bundle, per_batch=5)) == pytest.approx(whole)
    bundle.model.eval()
    batch = source.micro_batch(range(len(source.rows)), 0, 0)
    with torch.no_grad():
        nats = float(source.formulation.losses(bundle.model, batch).sum())
    assert whole == pytest.approx(nats / batch.target_tokens, rel=1e-6)


# -- when it goes wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_broken_weight_is_named(source_of: SourceOf, precision: str) -> None:
    bundle = nano.bundle()
    name = "decoder.layers.1.feed_forward.down.weight"
    with torch.no_grad():
        bundle.model.get_parameter(name)[3, 5] = math.nan
    prepare_for_training(bundle.model, precision)  # type: ignore[arg-type]
    optimizer = build_optimizer(bundle.model, "adamw", weight_decay=0.0)
    with pytest.raises(Diverged, match=f"step 1: .*`{name}` is not finite.*--learning-rate"):
        next(train(bundle.model, optimizer, source_of(bundle), STEADY))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_layer_where_numbers_overflow_is_named(source_of: SourceOf, precision: str) -> None:
    bundle = nano.bundle()
    with torch.no_grad():
        bundle.model.get_parameter("encoder.layers.0.feed_forward.down.weight").fill_(3e38)
    prepare_for_training(bundle.model, precision)  # type: ignore[arg-type]
    optimizer = build_optimizer(bundle.model, "adamw", weight_decay=0.0)
    with pytest.raises(Diverged, match=r"begins in `encoder\.layers\.0\.feed_"):
        next(train(bundle.model, optimizer, source_of(bundle), STEADY))


def test_a_gradient_that_is_not_finite_is_named(source_of: SourceOf) -> None:
    bundle = nano.bundle()
    name = "encoder.layers.0.self_attention.qkv.k.weight"
    bundle.model.get_parameter(name).register_hook(lambda gradient: gradient * math.inf)
    before = bundle.model.get_parameter(name).detach().clone()
    optimizer = build_optimizer(bundle.model, "adamw", weight_decay=0.0)
    with pytest.raises(Diverged, match=f"gradient of `{name}` is not finite"):
        next(train(bundle.model, optimizer, source_of(bundle), STEADY))
    assert torch.equal(bundle.model.get_parameter(name), before)


@pytest.mark.parametrize(("rate", "problem"), [(1e6, "no gradient"), (3.0, "the loss diverged")])
def test_a_learning_rate_far_too_high_ends_within_a_few_steps(
    source_of: SourceOf, rate: float, problem: str
) -> None:
    bundle = nano.bundle()
    optimizer = build_optimizer(bundle.model, "adamw", weight_decay=0.0)
    steps = train(
        bundle.model, optimizer, source_of(bundle), LearningRate(rate, 100, 0.0, "constant").at
    )
    with pytest.raises(Diverged, match=rf"step \d: {problem}.*`\w+.*--learning-rate"):
        list(islice(steps, 9))
