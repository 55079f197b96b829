"""The training loop: a generator of steps that knows nothing of printing, saving or scoring.

One step:

    for each micro-batch m:   seed the generator from (seed, step, m); loss; backward
    clip, set the learning rate, step the optimizer, refresh the compute copies of the weights

The loss of a step is the sum over its target tokens divided by their number, which is known
before the first micro-batch runs; so splitting a batch into micro-batches changes nothing but
rounding. All randomness (dropout, corruption) follows from the seed and the place in the run, so
that a run which stops and goes on ends with the same bits as one that does not.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mainspring.core.model import Transformer
from mainspring.data.batches import BatchPlan
from mainspring.errors import Diverged
from mainspring.formulations import Batch, Formulation, SpecialIds
from mainspring.training.health import (
    DivergenceWatch,
    first_nonfinite_module,
    first_nonfinite_parameter,
    largest_gradient,
    largest_weight,
)
from mainspring.training.optimizer import clip_gradients
from mainspring.training.rows import EncodedRows, PackedRows


@dataclass(frozen=True)
class Step:
    """What one optimizer step did. `loss` is in nats per target token, `number` counts from 1.

    `tokens` are the real source and target tokens of the step, without padding.
    """

    number: int
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens: int
    target_tokens: int
    seconds: float


@dataclass(frozen=True)
class BatchSource:
    """Where steps get their micro-batches from.

    `plan(epoch)` is the batch plan of an epoch, a function of the data and the seed alone;
    `accumulate` splits each of its batches into that many micro-batches.
    """

    rows: EncodedRows | PackedRows
    formulation: Formulation
    ids: SpecialIds
    plan: Callable[[int], BatchPlan]
    seed: int
    accumulate: int = 1
    multiple: int = 16
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def batches(self, first: int) -> Iterator[list[tuple[int, ...]]]:
        """The row numbers of each micro-batch of each step, from step `first` on, for ever."""
        epoch, skip = 0, first
        while True:
            plan = self.plan(epoch)
            for rows in plan.batches[skip:]:
                yield self.split(rows)
            skip = max(0, skip - len(plan.batches))
            epoch += 1

    def split(self, rows: Sequence[int]) -> list[tuple[int, ...]]:
        parts = np.array_split(np.asarray(rows), min(self.accumulate, len(rows)))
        return [tuple(part.tolist()) for part in parts]

    def micro_batch(self, rows: Sequence[int], step: int, micro: int) -> Batch:
        """The tensors of one micro-batch."""
        examples = [self.rows[row] for row in rows]
        seed = micro_batch_seed(self.seed, step, micro)
        batch = self.formulation.collate(examples, self.ids, seed, self.multiple)
        return batch.to(self.device)


def micro_batch_seed(seed: int, step: int, micro: int) -> int:
    """A 63-bit seed that differs for every micro-batch of every run."""
    words = np.random.SeedSequence((seed, step, micro)).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))


def train(
    model: Transformer,
    optimizer: torch.optim.Optimizer,
    source: BatchSource,
    learning_rate: Callable[[int], float],
    *,
    first: int = 0,
    clip: float = 1.0,
    refresh: Callable[[], None] = lambda: None,
    losses_before: Iterable[float] = (),
) -> Iterator[Step]:
    """Trains for ever, from step `first` on: whoever consumes the steps decides when to stop.

    `losses_before` are those of the steps before `first`, by which a lost run is told.
    `learning_rate(step)`, asked right before each update, is that of a step counted from 0.
    `refresh` is called after every change of the weights (a model prepared for bf16 keeps copies).
    Raises `Diverged`, with the name of the layer, on a NaN, an infinity or an exploding loss.
    """
    parameters: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
    watch = DivergenceWatch(losses_before)
    for step, micro_batches in enumerate(source.batches(first), start=first):
        started = time.perf_counter()
        model.train()
        batches = [source.micro_batch(rows, step, m) for m, rows in enumerate(micro_batches)]
        target_tokens = sum(batch.target_tokens for batch in batches)
        shares = []
        for micro, batch in enumerate(batches):
            torch.manual_seed(micro_batch_seed(source.seed, step, micro))
            share = source.formulation.losses(model, batch).sum() / target_tokens
            share.backward()
            shares.append(share.detach())
        loss = float(torch.stack(shares).sum())  # the one wait for the device in a step
        if not math.isfinite(loss):
            raise Diverged(_where_it_broke(model, source, batches, shares, step))
        norm = clip_gradients(parameters, clip)
        if not math.isfinite(norm):
            raise Diverged(
                f"step {step + 1}: the gradient of `{largest_gradient(model)}` is not finite while "
                "the loss is; try a smaller --learning-rate or --precision float32"
            )
        if norm == 0 and loss > 0:
            raise Diverged(
                f"step {step + 1}: no gradient reaches any weight; the largest number is in "
                f"`{largest_weight(model)}`. Try a smaller --learning-rate"
            )
        watch.check(loss, step + 1, model)
        rate = learning_rate(step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        refresh()
        yield Step(
            step + 1,
            loss,
            rate,
            norm,
            target_tokens + sum(batch.source_tokens for batch in batches),
            target_tokens,
            time.perf_counter() - started,
        )


def _where_it_broke(
    model: Transformer, source: BatchSource, batches: list[Batch], shares: list[Tensor], step: int
) -> str:
    """The message for a loss that is not a number: the same micro-batch again, watched."""
    micro = next(m for m, share in enumerate(shares) if not bool(share.isfinite()))

    def again() -> None:
        torch.manual_seed(micro_batch_seed(source.seed, step, micro))
        source.formulation.losses(model, batches[micro])

    weight = first_nonfinite_parameter(model)
    module = None if weight else first_nonfinite_module(model, again)
    where = (
        f"the weight `{weight}` is not finite" if weight else f"it begins in `{module or 'loss'}`"
    )
    return (
        f"step {step + 1}: the loss is not a number; {where}. "
        "Try a smaller --learning-rate, a longer --warmup or --precision float32"
    )


def evaluate_loss(model: Transformer, source: BatchSource) -> float:
    """The loss on all rows of `source`, in nats per target token."""
    nats, tokens = 0.0, 0
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for number, rows in enumerate(source.plan(0).batches):
            batch = source.micro_batch(rows, number, 0)
            nats += float(source.formulation.losses(model, batch).sum())
            tokens += batch.target_tokens
    model.train(was_training)
    return nats / max(1, tokens)
