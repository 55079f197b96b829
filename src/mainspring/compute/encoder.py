"""An encoder that reads a large batch a few rows at a time.

The activations of some thousand tokens stay in the processor's cache from one operation to the
next, those of a whole batch do not; and rows of like lengths are read together, without the padding
that the whole batch has.
"""

from typing import Any

import torch
from torch import Tensor, nn

from mainspring.core.positions import RelativePositionBias
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
        for group, width in groups(keep_BS):
            keep = keep_BS[group, :width]
            keep_or_none = None if bool(keep.all()) else keep
            x_GSD = self.stack(inputs[group, :width], table, keep_or_none)
            if out_BSD is None:
                out_BSD = x_GSD.new_zeros(rows, length, x_GSD.shape[-1])
            out_BSD[group, :width] = x_GSD.masked_fill_(~keep[..., None], 0)
        assert out_BSD is not None
        return out_BSD


class LaidOutBias(nn.Module):
    """Around a position bias: its rows lie number beside number, as kernels read them.

    Each distance is looked up once: a query's row holds the numbers of the query before it, one
    place further on.
    """

    def __init__(self, old: RelativePositionBias):
        super().__init__()
        self.inner = old

    def forward(self, at_T: Tensor, at_S: Tensor) -> Tensor:
        """As the core's, for positions that count on by one."""
        queries, keys = len(at_T), len(at_S)
        distances = queries + keys - 1
        at = torch.arange(distances, device=at_T.device) + (at_S[0] - at_T[-1])
        numbers_HN = self.inner.of(at).T.contiguous()
        from_last = numbers_HN.as_strided((len(numbers_HN), queries, keys), (distances, 1, 1))
        return from_last.flip(1).contiguous()[None]


def groups(keep_BS: Tensor) -> list[tuple[Tensor, int]]:
    """(numbers of rows, width): rows of like widths, of at most `TOKENS` places together or one.

    The width is that of the group's longest row: beyond it all is padding.
    """
    places = torch.arange(1, keep_BS.shape[1] + 1, device=keep_BS.device)
    in_order, order = (keep_BS * places).amax(1).clamp(min=1).sort(stable=True)
    widths, found, at = in_order.tolist(), [], 0
    while at < len(widths):
        end = at + 1
        while end < len(widths) and widths[end] * (end + 1 - at) <= TOKENS:
            end += 1
        found.append((order[at:end], widths[end - 1]))
        at = end
    return found
