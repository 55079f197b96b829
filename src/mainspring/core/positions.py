"""Positions, in one of three places:

added to the vectors      LearnedPositions, SinusoidalPositions     (a stack's)
turning queries and keys  RotaryAngles and `rotate`                 (an attention's)
biasing the scores        RelativePositionBias                      (a stack's, for all layers)
"""

import math

import torch
from torch import Tensor, nn

from mainspring import spec


class LearnedPositions(nn.Module):
    """Adds one learned vector per position. `at` is T or BT, 0-based."""

    def __init__(self, length: int, width: int):
        super().__init__()
        self.table = nn.Embedding(length, width)

    def forward(self, x_BTD: Tensor, at: Tensor) -> Tensor:
        return x_BTD + self.table(at)


class SinusoidalPositions(nn.Module):
    """Adds sin and cos of geometric frequencies, sines first (Vaswani et al., 2017, 3.5)."""

    def forward(self, x_BTD: Tensor, at: Tensor) -> Tensor:
        half = x_BTD.shape[-1] // 2
        step = torch.arange(half, device=at.device, dtype=torch.float32)
        angle = at[..., None] * torch.exp(step * (-math.log(10_000.0) / half))
        return x_BTD + torch.cat([angle.sin(), angle.cos()], -1).to(x_BTD.dtype)


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
        distance_TS = at_S[None, :] - at_T[:, None]
        bucket_TS = relative_bucket(distance_TS, self.buckets, self.max_distance, self.both_ways)
        return self.table(bucket_TS).permute(2, 0, 1)[None]


class RotaryAngles(nn.Module):
    """Cosines and sines of the rotary angles, shared by the layers that turn alike."""

    def __init__(self, rotary: spec.Rotary, head_width: int):
        super().__init__()
        self.rotary, self.head_width = rotary, head_width

    def forward(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """(cos, sin), float32: TE for positions T, B1TE for positions BT."""
        step = torch.arange(0, self.head_width, 2, device=at.device, dtype=torch.float32)
        rate = self.rotary.theta ** (-step / self.head_width)
        angle = at[..., None].float() * rate
        angle = torch.cat([angle, angle], -1)
        if angle.dim() == 3:
            angle = angle[:, None]
        return angle.cos(), angle.sin()


def rotate(x_BHTE: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Rotates channel i with channel i + E/2 (the half-split layout of Llama checkpoints)."""
    cos, sin = (part.to(x_BHTE.dtype) for part in turn)
    left, right = x_BHTE.chunk(2, -1)
    return x_BHTE * cos + torch.cat([-right, left], -1) * sin
