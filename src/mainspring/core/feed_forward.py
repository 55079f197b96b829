"""The position-wise feed-forward network (Vaswani et al., 2017, 3.3), plain or gated."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mainspring import spec

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_sigmoid": lambda x: x * (1.702 * x).sigmoid(),
    "silu": F.silu,
    "tanh": torch.tanh,
}


class Up(nn.Module):
    """activation(up x)."""

    def __init__(self, f: spec.FeedForward, width: int):
        super().__init__()
        self.activation = ACTIVATIONS[f.activation]
        self.up = nn.Linear(width, f.width, bias=f.bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.activation(self.up(x_BTD))


class GatedUp(nn.Module):
    """activation(gate x) * up x (Shazeer, 2020)."""

    def __init__(self, f: spec.FeedForward, width: int):
        super().__init__()
        self.activation = ACTIVATIONS[f.activation]
        self.gate = nn.Linear(width, f.width, bias=f.bias)
        self.up = nn.Linear(width, f.width, bias=f.bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.activation(self.gate(x_BTD)) * self.up(x_BTD)


class FeedForward(nn.Module):
    def __init__(self, f: spec.FeedForward, width: int):
        super().__init__()
        self.expand = GatedUp(f, width) if f.gated else Up(f, width)
        self.dropout = nn.Dropout(f.dropout)
        self.down = nn.Linear(f.width, width, bias=f.bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down(self.dropout(self.expand(x_BTD)))
