"""Which token comes next: the likeliest, or one drawn by chance.

Every row of a batch, and every position in it, has its own random numbers from the start, so that
who leaves the batch changes nothing for the others.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from mainspring.generation.options import GenerationOptions
from mainspring.generation.top import argmax

Choose = Callable[[Tensor, Tensor, int], Tensor]


def chooser(options: GenerationOptions, rows: int, steps: int, device: torch.device) -> Choose:
    """choose(logits BV, numbers of the rows B, step) -> ids B."""
    if not options.do_sample:
        return lambda logits, numbers, step: argmax(logits)
    chance = random_numbers(options, (rows, steps), device)
    return lambda logits, numbers, step: draw(logits, chance[numbers, step])


def random_numbers(
    options: GenerationOptions, shape: tuple[int, ...], device: torch.device
) -> Tensor:
    """float64 in 0..1, the same for the same seed on every device."""
    generator = None
    if options.seed is not None:
        generator = torch.Generator().manual_seed(options.seed)
    return torch.rand(shape, dtype=torch.float64, generator=generator).to(device)


def draw(logits: Tensor, chance: Tensor) -> Tensor:
    """One token of each row with the probabilities softmax(logits): the one at whose place the
    running sum of probabilities passes `chance` (B, in 0..1, float64)."""
    return draw_by(logits.float().softmax(-1), chance)


def draw_by(shares_BV: Tensor, chance: Tensor) -> Tensor:
    """`draw` by shares, which need not sum to 1."""
    sums_BV = shares_BV.cumsum(-1, dtype=torch.float64)
    return torch.searchsorted(sums_BV, (chance * sums_BV[:, -1])[:, None], right=True).squeeze(1)
