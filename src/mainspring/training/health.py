"""Stopping a run that has gone wrong, with the name of the part where it went wrong."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from mainspring.errors import Diverged

SPAN = 20  # steps of a running mean
FACTOR = 2.0  # how far above its lowest a lost one lies,
MARGIN, EARLY_MARGIN = 0.5, 3.0  # and by how many nats: early on single losses are compared


def first_nonfinite_module(model: nn.Module, forward: Callable[[], Any]) -> str | None:
    """Runs `forward` and names the first module whose output holds a NaN or an infinity: the
    innermost, since a part is done before the whole."""
    found: list[str] = []

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            tensors = output if isinstance(output, tuple) else (output,)
            bad = any(isinstance(t, Tensor) and not bool(t.isfinite().all()) for t in tensors)
            if bad and not found:
                found.append(name)

        return hook

    named = [(name, module) for name, module in model.named_modules() if name]
    handles = [module.register_forward_hook(watch(name)) for name, module in named]
    try:
        with torch.no_grad():
            forward()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def first_nonfinite_parameter(model: nn.Module) -> str | None:
    """The first weight that holds a NaN or an infinity."""
    for name, parameter in model.named_parameters():
        if not bool(parameter.isfinite().all()):
            return name
    return None


def largest_gradient(model: nn.Module) -> str:
    """The weight whose gradient is not finite, or else has the largest norm."""
    norms = {n: float(p.grad.norm()) for n, p in model.named_parameters() if p.grad is not None}
    return max(norms, key=lambda name: float("inf") if norms[name] != norms[name] else norms[name])


def largest_weight(model: nn.Module) -> str:
    """The weight that holds the number farthest from zero."""
    return max(model.named_parameters(), key=lambda item: float(item[1].detach().abs().max()))[0]


class DivergenceWatch:
    """Follows the loss and raises `Diverged` when it is lost for good.

    Lost means: the running mean of `SPAN` steps is above that of the first ones and far above the
    lowest so far, as a ratio and in nats: near zero, a loss that has doubled says nothing. `before`
    are the losses of the steps that a resumed run has behind it.
    """

    def __init__(self, before: Iterable[float] = ()):
        self.mean = 0.0
        self.lowest = self.first = math.inf
        self.seen = 0
        for loss in before:
            self._follow(loss)

    def _follow(self, loss: float) -> None:
        self.seen += 1
        self.mean += (loss - self.mean) / min(self.seen, SPAN)
        if self.seen in (1, SPAN):
            self.first = self.lowest = self.mean
        if self.seen > SPAN:
            self.lowest = min(self.lowest, self.mean)

    def check(self, loss: float, step: int, model: nn.Module) -> None:
        self._follow(loss)
        margin = MARGIN if self.seen > SPAN else EARLY_MARGIN
        far = self.mean > max(FACTOR * self.lowest, self.lowest + margin)
        if far and self.mean > 1.1 * self.first:
            raise Diverged(
                f"step {step}: the loss diverged (running mean {self.mean:.3f}, it was "
                f"{self.lowest:.3f}); the largest gradient is that of "
                f"`{largest_gradient(model)}`. Try a smaller --learning-rate or a longer --warmup"
            )
