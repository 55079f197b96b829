"""Dropout (Srivastava et al., 2014) with cheap random numbers.

On a CPU torch draws one random float for each element, one after the other: a third of the cost of
a training step's matrix products. Here each 64-bit number of torch's default generator starts a
block of 1,024 words, and a few vectorised multiplications and shifts (in the manner of SplitMix64,
Steele et al., 2014) turn it into as many random words; each decides over its four or two elements.
The seed of the default generator therefore fixes every mask, whatever the number of threads.
Our own kernels, where the machine has them, take one draw for all and a hash of each place.

Shares are rounded to 1/65,536 (by the kernels to 1/2^32), and what is kept is scaled by exactly
1 / (1 - the rounded share).
"""

from functools import cache

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mainspring.compute.native import library
from mainspring.compute.native.library import Dropped, Kernels

LEVELS = 2**16
BLOCK = 1_024  # words that one drawn number starts
PIECE = 2**19  # elements decided at a time: their words stay in a core's cache

LANES = {2: torch.int16, 4: torch.int32}
"""The integer type of as many bytes as a floating type, whose bits a mask is applied to."""


def _signed(word: int) -> int:
    return word - 2**64 if word >= 2**63 else word


GOLDEN, MIX = _signed(0x9E3779B97F4A7C15), _signed(0xBF58476D1CE4E5B9)


@cache
def _counter(device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.arange(1, BLOCK + 1, device=device) * GOLDEN


def level(share: float) -> int:
    """A share in 0..1 in 1/65,536, at most all but one."""
    return min(round(share * LEVELS), LEVELS - 1)


def kept_scale(share: float) -> float:
    """What kept values are multiplied by, so that their expectation stays."""
    return 1.0 / (1.0 - level(share) / LEVELS)


class Draw:
    """Decides over up to `elements` elements at a time, in memory that is used again each time."""

    def __init__(self, elements: int, lane: torch.dtype, device: torch.device):
        blocks = -(-elements * lane.itemsize // (8 * BLOCK))
        self.words = torch.empty(blocks, BLOCK, dtype=torch.int64, device=device)
        self.spare = torch.empty_like(self.words)
        self.lane = lane

    def random_words(self, blocks: int) -> Tensor:
        """`blocks` rows of 1,024 random words, from as many draws of the default generator."""
        words, spare = self.words[:blocks], self.spare[:blocks]
        start = torch.empty(blocks, 1, dtype=torch.int64, device=words.device)
        torch.add(start.random_(-(2**63), None), _counter(words.device), out=words)
        words.mul_(MIX)
        words.bitwise_xor_(torch.bitwise_right_shift(words, 32, out=spare))
        return words.mul_(GOLDEN)

    def dropped(self, elements: int, share: float) -> Tensor:
        """1 for an element that is to be dropped (with probability `share`), else 0.

        Of the integer type `lane`, and good until the next call.
        """
        blocks = -(-elements * self.lane.itemsize // (8 * BLOCK))
        bits = self.random_words(blocks).view(self.lane).view(-1)[:elements]
        lowest, levels = torch.iinfo(self.lane).min, 2 ** (8 * self.lane.itemsize)
        return bits.lt_(lowest + level(share) * (levels // LEVELS))


def keep_mask(elements: int, share: float, lane: torch.dtype, device: torch.device) -> Tensor:
    """All bits set for an element that is kept, none for one that is dropped; of type `lane`."""
    mask = torch.empty(elements, dtype=lane, device=device)
    draw = Draw(min(elements, PIECE), lane, device)
    for piece in mask.split(PIECE):
        torch.sub(draw.dropped(piece.numel(), share), 1, out=piece)
    return mask


def apply_mask_(x: Tensor, mask: Tensor) -> Tensor:
    """Zeroes what `mask` drops, in place; `x` is contiguous."""
    x.view(mask.dtype).view(-1).bitwise_and_(mask)
    return x


class _DropByKernel(torch.autograd.Function):
    """Which numbers are dropped follows from a seed and their places, and is not kept."""

    @staticmethod
    def forward(ctx, kernels: Kernels, x: Tensor, share: float) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.kernels, ctx.dropped = kernels, Dropped.drawn(share)
        return kernels.dropped(x, ctx.dropped, x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor) -> tuple[None, Tensor, None]:  # type: ignore[no-untyped-def]
        return None, ctx.kernels.dropped(dy.contiguous(), ctx.dropped, dy.dtype), None


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, share: float) -> Tensor:  # type: ignore[no-untyped-def]
        mask = keep_mask(x.numel(), share, LANES[x.element_size()], x.device)
        ctx.save_for_backward(mask)
        ctx.scale = kept_scale(share)
        return apply_mask_(x * ctx.scale, mask)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
        (mask,) = ctx.saved_tensors
        return apply_mask_(dy.contiguous() * ctx.scale, mask), None


def drop(x: Tensor, share: float) -> Tensor:
    """Dropout of a share in 0..1 of the elements of a 16-bit or 32-bit floating tensor."""
    if share == 0.0:
        return x
    kernels = library.kernels() if x.device.type == "cpu" else None
    if kernels is not None and x.dtype in (torch.float32, torch.bfloat16):
        return _DropByKernel.apply(kernels, x.contiguous(), share)
    return _Drop.apply(x.contiguous(), share)


class Dropout(nn.Dropout):
    """In the place of `nn.Dropout`."""

    def forward(self, x: Tensor) -> Tensor:
        return drop(x, self.p) if self.training else x
