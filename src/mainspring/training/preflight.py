"""What is known before the first step: lengths, what the limits cut off, memory, time."""

import resource
import sys
import time
from dataclasses import dataclass

import numpy as np
import torch

from mainspring.core.model import Transformer
from mainspring.formulations import Limits
from mainspring.training.loop import BatchSource, micro_batch_seed
from mainspring.training.rows import EncodedRows

PERCENTILES = (50, 95, 99, 100)
TIMED_STEPS = 3


@dataclass(frozen=True)
class Lengths:
    """Token counts of one side of the data before cutting, and what a limit takes from it.

    `rows_cut` and `tokens_lost` are shares in 0..1.
    """

    percentiles: tuple[int, ...]
    limit: int
    rows_cut: float
    tokens_lost: float

    def __str__(self) -> str:
        p50, p95, p99, most = self.percentiles
        return (
            f"p50 {p50}  p95 {p95}  p99 {p99}  max {most} | limit {self.limit}: "
            f"{self.rows_cut:.1%} of rows lose text, {self.tokens_lost:.1%} of all tokens"
        )


def side_lengths(kept: np.ndarray, lost: np.ndarray, limit: int) -> Lengths:
    """Statistics over rows: tokens that are read, tokens that were cut."""
    whole = kept + lost
    marks = tuple(int(mark) for mark in np.percentile(whole, PERCENTILES, method="higher"))
    return Lengths(marks, limit, float((lost > 0).mean()), float(lost.sum() / whole.sum()))


def data_lengths(rows: EncodedRows, limits: Limits) -> tuple[Lengths, Lengths]:
    """The lengths of sources and of targets."""
    source, target = rows.token_counts.T
    return (
        side_lengths(source, rows.lost[:, 0], limits.source),
        side_lengths(target, rows.lost[:, 1], limits.target),
    )


@dataclass(frozen=True)
class Timing:
    """What some steps without an update took, the longest batch among them."""

    tokens_per_second: float
    peak_bytes: int


def time_steps(model: Transformer, source: BatchSource) -> Timing:
    """Runs forward and backward on the largest batch and two others; changes no weight.

    The first run warms up and is not counted.
    """
    batches = source.plan(0).batches
    sizes = [sum(sum(source.formulation.lengths(source.rows[row])) for row in b) for b in batches]
    order = np.argsort(sizes)
    chosen = [int(order[-1]), int(order[-1]), int(order[len(order) // 2]), int(order[0])]
    tokens, seconds = 0, 0.0
    model.train()
    for number, index in enumerate(chosen[: TIMED_STEPS + 1]):
        started = time.perf_counter()
        for micro, rows in enumerate(source.split(batches[index])):
            batch = source.micro_batch(rows, 0, micro)
            torch.manual_seed(micro_batch_seed(source.seed, 0, micro))
            (source.formulation.losses(model, batch).sum() / batch.target_tokens).backward()
            if number:
                tokens += batch.source_tokens + batch.target_tokens
        if number:
            seconds += time.perf_counter() - started
    model.zero_grad(set_to_none=True)
    return Timing(tokens / seconds, peak_bytes())


def peak_bytes() -> int:
    """The most memory this process has held so far (resident set), in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
