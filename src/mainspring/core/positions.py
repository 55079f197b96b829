"""Positions, in one of three places:

added to the vectors      LearnedPositions, SinusoidalPositions     (a stack's)
                          GridPositions                             (a patch embedding's)
turning queries and keys  RotaryAngles and `rotate`                 (an attention's)
biasing the scores        RelativePositionBias                      (a stack's, for all layers)
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mainspring import spec
from mainspring.errors import Mismatch


def count_all(at_T: Tensor, keep_BS: Tensor | None) -> Tensor:
    """Positions as they stand in the row."""
    return at_T


def count_kept(at_T: Tensor, keep_BS: Tensor | None) -> Tensor:
    """Positions BT among the real tokens of the row; padding repeats the position before it."""
    if keep_BS is None:
        return at_T
    return (keep_BS.long().cumsum(1) - 1).clamp(min=0)[:, -len(at_T) :]


def check_length(
    positions: spec.StackPositions | None,
    start: int,
    new: int,
    keep_BS: Tensor | None,
    at_BT: Tensor | None,
) -> None:
    """Mismatch where `new` tokens after `start` others reach beyond the positions of the model.

    Positions are looked at only where so many tokens could: as a rule nothing is computed.
    """
    match positions:
        case spec.Learned(length=length, skips_padding=skips):
            pass
        case spec.Sinusoidal(length=length, skips_padding=skips, extends=False):
            pass
        case _:
            return
    end = start + new
    if end <= length:
        return
    if at_BT is not None:
        end = int(at_BT.max()) + 1
    elif skips and keep_BS is not None:
        end = int(keep_BS.sum(1).max())
    if end > length:
        raise Mismatch(
            f"a text of {end} tokens, and the model has {length} positions; cut it, or write less "
            "(`max_new_tokens`)"
        )


class LearnedPositions(nn.Module):
    """Adds one learned vector per position. `at` is T or BT, 0-based."""

    def __init__(self, length: int, width: int):
        super().__init__()
        self.table = nn.Embedding(length, width)

    def forward(self, x_BTD: Tensor, at: Tensor) -> Tensor:
        return x_BTD + self.table(at)


class SinusoidalPositions(nn.Module):
    """Adds sin and cos of geometric frequencies, sines first (Vaswani et al., 2017, 3.5)."""

    def __init__(self, sinusoidal: spec.Sinusoidal, width: int):
        super().__init__()
        self.first, self.rates = sinusoidal.first, width // 2
        self.steps = self.rates - 1 if sinusoidal.closed else self.rates

    def forward(self, x_BTD: Tensor, at: Tensor) -> Tensor:
        step = torch.arange(self.rates, device=at.device, dtype=torch.float32)
        rate = torch.exp(step * (-math.log(10_000.0) / self.steps))
        angle = (at[..., None] + self.first) * rate
        return x_BTD + torch.cat([angle.sin(), angle.cos()], -1).to(x_BTD.dtype)


class GridPositions(nn.Module):
    """Adds one learned vector per patch of an image and per token around the patches.

    For an image of another size the patches' vectors are resized (bicubic) to its grid.
    """

    def __init__(self, embedding: spec.PatchEmbedding, width: int):
        super().__init__()
        self.patch, self.grid = embedding.patch, (embedding.rows, embedding.columns)
        self.parts = embedding.before, embedding.rows * embedding.columns, embedding.after
        self.table = nn.Embedding(sum(self.parts), width)

    def forward(self, x_BTD: Tensor, pixels: Tensor) -> Tensor:
        """`pixels` (batch, channels, height, width) are the image that `x_BTD` was made of."""
        grid = pixels.shape[-2] // self.patch, pixels.shape[-1] // self.patch
        if grid == self.grid:
            return x_BTD + self.table.weight
        before_TD, patches_TD, after_TD = self.table.weight.split(self.parts)
        patches = patches_TD.T.unflatten(1, self.grid)[None]
        patches = F.interpolate(patches, grid, mode="bicubic", align_corners=False)
        return x_BTD + torch.cat([before_TD, patches[0].flatten(1).T, after_TD])


def relative_bucket(distance: Tensor, buckets: int, max_distance: int, both_ways: bool) -> Tensor:
    """The bucket of each `key position - query position` (T5, Raffel et al., 2020, section 2.1)."""
    offset = torch.zeros_like(distance)
    if both_ways:
        buckets //= 2
        offset = (distance > 0) * buckets
        distance = distance.abs()
    else:
        distance = (-distance).clamp(min=0)
    exact = buckets // 2
    ratio = torch.log(distance.clamp(min=1).float() / exact) / math.log(max_distance / exact)
    far = exact + (ratio * (buckets - exact)).long()
    return offset + torch.where(distance < exact, distance, far.clamp(max=buckets - 1))


class RelativePositionBias(nn.Module):
    """One learned number per head and bucket of distance, to be added to the scores."""

    def __init__(self, bias: spec.RelativeBias, heads: int, both_ways: bool):
        super().__init__()
        self.buckets, self.max_distance, self.both_ways = bias.buckets, bias.max_distance, both_ways
        self.table = nn.Embedding(bias.buckets, heads)

    def forward(self, at_T: Tensor, at_S: Tensor) -> Tensor:
        """The bias as 1HTS for queries at positions `at_T` and keys at `at_S`."""
        return self.of(at_S[None, :] - at_T[:, None]).permute(2, 0, 1)[None]

    def of(self, distance: Tensor) -> Tensor:
        """The numbers of all heads, behind the dimensions of `distance`."""
        buckets = relative_bucket(distance, self.buckets, self.max_distance, self.both_ways)
        return self.table(buckets)


def banded_rates(scaling: spec.BandedScaling, rate: Tensor) -> Tensor:
    """Slow rates divided, fast ones kept, those between mixed by their turns in the length."""
    turns = scaling.length * rate / (2 * math.pi)
    kept = ((turns - scaling.low) / (scaling.high - scaling.low)).clamp(0, 1)
    return (1 - kept) * rate / scaling.factor + kept * rate


def yarn_rates(scaling: spec.YarnScaling, theta: float, rate: Tensor) -> Tensor:
    """Slow rates divided, fast ones kept, those between mixed along the channels."""
    channels = len(rate)

    def channel(turns: float) -> float:
        """The channel that makes so many turns within the length."""
        longest = math.log(scaling.length / (turns * 2 * math.pi))
        return channels * longest / math.log(theta)

    first, last = channel(scaling.fast), channel(scaling.slow)
    if scaling.whole:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, 2 * channels - 1)
    ramp = torch.arange(channels, device=rate.device, dtype=torch.float32) - first
    divided = (ramp / (last - first or 0.001)).clamp(0, 1)
    return rate / scaling.factor * divided + rate * (1 - divided)


def build_rates(rotary: spec.Rotary) -> Callable[[Tensor], Tensor]:
    """What turns the plain rates of the channels (radians per position) into scaled ones."""
    match rotary.scaling:
        case None:
            return lambda rate: rate
        case spec.LinearScaling(factor):
            return lambda rate: rate / factor
        case spec.BandedScaling() as banded:
            return lambda rate: banded_rates(banded, rate)
        case spec.YarnScaling() as yarn:
            return lambda rate: yarn_rates(yarn, rotary.theta, rate)


class RotaryAngles(nn.Module):
    """Cosines and sines of the rotary angles, shared by the layers that turn alike."""

    def __init__(self, rotary: spec.Rotary, head_width: int):
        super().__init__()
        self.rotary, self.head_width = rotary, head_width
        self.scaled = build_rates(rotary)
        scaling = rotary.scaling
        self.magnitude = scaling.magnitude if isinstance(scaling, spec.YarnScaling) else 1.0

    def forward(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """(cos, sin), float32: TE for positions T, B1TE for positions BT."""
        step = torch.arange(0, self.head_width, 2, device=at.device, dtype=torch.float32)
        rate = self.scaled(1.0 / self.rotary.theta ** (step / self.head_width))
        angle = at[..., None].float() * rate
        angle = torch.cat([angle, angle], -1)
        if angle.dim() == 3:
            angle = angle[:, None]
        return angle.cos() * self.magnitude, angle.sin() * self.magnitude


def rotate(x_BHTE: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Rotates channel i with channel i + E/2 (the half-split layout of Llama checkpoints)."""
    cos, sin = (part.to(x_BHTE.dtype) for part in turn)
    left, right = x_BHTE.chunk(2, -1)
    return x_BHTE * cos + torch.cat([-right, left], -1) * sin
