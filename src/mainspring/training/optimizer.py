"""Optimizers and the learning rate.

The learning rate is a function of the step alone, so that there is no scheduler state to save.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mainspring.compute.native import library
from mainspring.errors import BadOption

Optimizers = Literal["adamw", "adafactor"]
Schedules = Literal["linear", "cosine", "constant"]

SCHEDULES: dict[str, Callable[[float], float]] = {
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
    "constant": lambda done: 1.0,
}


@dataclass(frozen=True)
class LearningRate:
    """Linear warm-up over a share of the steps, then a schedule down to zero (or not).

    `warmup` is a share of all steps in 0..1.
    """

    peak: float
    total: int
    warmup: float = 0.03
    schedule: Schedules = "linear"

    def at(self, step: int) -> float:
        """The rate of step `step`, counted from 0."""
        warm = max(1, round(self.warmup * self.total))
        if step < warm:
            return self.peak * (step + 1) / warm
        done = min(1.0, (step - warm) / max(1, self.total - warm))
        return self.peak * SCHEDULES[self.schedule](done)


def build_optimizer(
    model: nn.Module, kind: Optimizers, *, weight_decay: float
) -> torch.optim.Optimizer:
    """An optimizer over the model's trainable weights; decay on matrices only, never on tables.

    The learning rate is set anew at every step by the loop.
    """
    decayed: list[Tensor] = []
    plain: list[Tensor] = []
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.requires_grad:
                matrix = isinstance(module, nn.Linear) and parameter.dim() > 1
                (decayed if matrix else plain).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    match kind:
        case "adamw":
            return torch.optim.AdamW(groups, lr=0.0, fused=True)
        case "adafactor":
            # Shazeer and Stern, 2018: a factored second moment, in a fraction of Adam's memory.
            return torch.optim.Adafactor(groups, lr=0.0)
    raise BadOption.unknown("optimizer", kind, ("adamw", "adafactor"))


def clip_gradients(parameters: list[Tensor], most: float) -> float:
    """Scales all gradients so that their joint norm is at most `most`; returns the norm before.

    With `most` 0 nothing is scaled.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    kernels = library.kernels() if all(map(_plain, gradients)) else None
    if kernels is not None:
        found = kernels.norm(gradients)
        if found > most > 0:
            kernels.multiply(gradients, most / found)
        return found
    norm = torch.nn.utils.get_total_norm(gradients)
    found = float(norm)
    if found > most > 0:
        torch.nn.utils.clip_grads_with_norm_(parameters, most, norm)
    return found


def _plain(x: Tensor) -> bool:
    """Whether the kernels take it as an array of numbers."""
    in_memory = x.device.type == "cpu" and x.layout is torch.strided
    return in_memory and x.dtype is torch.float32 and x.is_contiguous()
