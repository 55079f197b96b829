"""An encoder that reads a large batch a few rows at a time.

The activations of some thousand tokens stay in the processor's cache from one operation to the
next, those of a whole batch do not; and each group of rows is no wider than its own longest row.
"""

from typing import Any

import torch
from torch import Tensor, nn

from mainspring.core.stack import Stack

TOKENS = 1024  # of a group of rows


class GroupedEncoder(nn.Module):
    """In the place of an encoder `Stack` that reads token ids; called alike.

    The vectors at padding are zeros.
    """

    def __init__(self, stack: Stack):
        super().__init__()
        self.stack = stack

    def forward(
        self, inputs: Tensor, table: nn.Embedding | None, keep_BS: Tensor | None = None, **more: Any
    ) -> Tensor:
        rows, length = inputs.shape
        plain = all(value is None for value in more.values())
        if not plain or (rows * length <= TOKENS and keep_BS is None):
            return self.stack(inputs, table, keep_BS, **more)
        if keep_BS is None:
            step = max(TOKENS // length, 1)
            return torch.cat([self.stack(group, table) for group in inputs.split(step)])
        out_BSD = None
        for at, end, width in groups(keep_BS):
            keep = keep_BS[at:end, :width]
            keep_or_none = None if bool(keep.all()) else keep
            x_GSD = self.stack(inputs[at:end, :width], table, keep_or_none)
            if out_BSD is None:
                out_BSD = x_GSD.new_zeros(rows, length, x_GSD.shape[-1])
            out_BSD[at:end, :width] = x_GSD.masked_fill_(~keep[..., None], 0)
        assert out_BSD is not None
        return out_BSD


class LaidOutBias(nn.Module):
    """Around a position bias: its rows lie number beside number, as kernels read them."""

    def __init__(self, old: nn.Module):
        super().__init__()
        self.inner = old

    def forward(self, *at: Tensor) -> Tensor:
        return self.inner(*at).contiguous()


def groups(keep_BS: Tensor) -> list[tuple[int, int, int]]:
    """(first row, end, width): runs of rows of at most `TOKENS` places together, or one row.

    The width is that of the run's longest row: beyond it all is padding.
    """
    places = torch.arange(1, keep_BS.shape[1] + 1, device=keep_BS.device)
    widths = (keep_BS * places).amax(1).clamp(min=1).tolist()
    found, at = [], 0
    while at < len(widths):
        end, width = at + 1, widths[at]
        while end < len(widths):
            wider = max(width, widths[end])
            if wider * (end + 1 - at) > TOKENS:
                break
            end, width = end + 1, wider
        found.append((at, end, width))
        at = end
    return found
