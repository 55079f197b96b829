"""Norms for inference: computed in float32, given in the type of the projections behind them.

torch takes its RMS norm apart into many small operations on a CPU (130 us a call at one row, where
the four here take 20). The residual stream stays float32 between the layers.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROWS = 256  # rows handled at a time: they stay in a core's cache


class NarrowRMSNorm(nn.Module):
    """In the place of an `nn.RMSNorm`."""

    def __init__(self, old: nn.RMSNorm, dtype: torch.dtype):
        super().__init__()
        epsilon = torch.finfo(torch.float32).eps if old.eps is None else old.eps
        (width,) = old.normalized_shape
        # x / sqrt(mean(x²) + e) = sqrt(D) x / hypot(|x|, sqrt(D e))
        weight = torch.ones(width) if old.weight is None else old.weight.detach().float()
        self.weight: Tensor
        self.floor: Tensor
        self.register_buffer("weight", weight * math.sqrt(width))
        self.register_buffer("floor", weight.new_tensor(math.sqrt(width * epsilon)))
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()
        if x.numel() <= ROWS * x.shape[-1]:
            return _rms(x, self.floor, self.weight).to(self.dtype)
        x_ND = x.reshape(-1, x.shape[-1])
        y_ND = torch.empty_like(x_ND, dtype=self.dtype)
        for x_RD, y_RD in zip(x_ND.split(ROWS), y_ND.split(ROWS), strict=True):
            y_RD.copy_(_rms(x_RD, self.floor, self.weight))
        return y_ND.view(x.shape)


class FusedRMSNorm(nn.Module):
    """In the place of an `nn.RMSNorm` where torch has a kernel for it: on GPUs."""

    def __init__(self, old: nn.RMSNorm, dtype: torch.dtype):
        super().__init__()
        self.shape, self.epsilon, self.dtype = list(old.normalized_shape), old.eps, dtype
        self.weight: Tensor | None
        weight = old._parameters.get("weight")
        self.register_buffer("weight", None if weight is None else weight.detach().float())

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.shape, self.weight, self.epsilon).to(self.dtype)


def _rms(x: Tensor, floor: Tensor, weight: Tensor) -> Tensor:
    size = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return (x / torch.hypot(size, floor, out=size)).mul_(weight)


def join_head_norms(
    query: nn.Module, key: nn.Module, heads: int, key_heads: int
) -> Callable[[Tensor], Tensor]:
    """The norms of queries and keys as one of their heads side by side (B, heads + key_heads, E):
    both have been replaced, and are of one kind."""
    if isinstance(query, NarrowRMSNorm) and isinstance(key, NarrowRMSNorm):
        weight = torch.cat([query.weight.expand(heads, -1), key.weight.expand(key_heads, -1)])
        return lambda x: _rms(x.float(), query.floor, weight)

    def apart(x: Tensor) -> Tensor:
        q, k = x.split([heads, key_heads], 1)
        return torch.cat([query(q), key(k)], 1)

    return apart


class NarrowLayerNorm(nn.Module):
    """In the place of an `nn.LayerNorm`."""

    def __init__(self, old: nn.LayerNorm, dtype: torch.dtype):
        super().__init__()
        self.shape, self.epsilon, self.dtype = list(old.normalized_shape), old.eps, dtype
        self.weight: Tensor | None
        self.bias: Tensor | None
        for name in ("weight", "bias"):
            value = old._parameters.get(name)
            self.register_buffer(name, None if value is None else value.detach().float())

    def forward(self, x: Tensor) -> Tensor:
        y = F.layer_norm(x.float(), self.shape, self.weight, self.bias, self.epsilon)
        return y.to(self.dtype)


class WideEmbedding(nn.Module):
    """Around a stack's embedding: what comes out of a narrow table enters the stream as float32."""

    def __init__(self, old: nn.Module):
        super().__init__()
        self.inner = old

    def forward(self, *inputs: Tensor | nn.Module | None) -> Tensor:
        return self.inner(*inputs).float()
